from __future__ import annotations

import pytest
import torch

from napari_unet3d.engine import EngineError, load
from napari_unet3d.engine.events import Saved, Trained, Warned
from napari_unet3d.engine.optimization import Optimization


@pytest.fixture
def spoiled(monkeypatch):
    """Let the third step end with weights that are no numbers."""
    step = Optimization.step

    def spoil(self, *arguments):
        loss = step(self, *arguments)
        if self.steps == 3:
            with torch.no_grad():
                for network in (self.network, self.average):
                    network.head.bias.fill_(float("nan"))
        return loss

    monkeypatch.setattr(Optimization, "step", spoil)


@pytest.mark.parametrize("steps", [3, 9])
@pytest.mark.parametrize("every", [1e-9, 60.0])
def test_useless_weights_end_the_training_with_a_sentence(
    steps, every, spoiled, make_trainer, tmp_path
):
    path = tmp_path / "model"
    list(make_trainer(save_to=path).run(stop_after=2))
    trainer = make_trainer(save_to=path, save_every=every, steps=steps)
    events = []

    def run():
        for event in trainer.run():
            events.append(event)

    message = f"3 steps, and {path} stays as it was|loss is nan after 4"
    with pytest.raises(EngineError, match=message):
        run()
    assert not [event for event in events if isinstance(event, Trained | Warned)]
    assert load(path).step == 2
    assert bool([event for event in events if isinstance(event, Saved)]) == (every < 1)
