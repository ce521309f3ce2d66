"""How a batch is split, without any other process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import EngineError, ModelConfig, TrainingConfig
from napari_unet3d.engine.device import OutOfMemoryError
from napari_unet3d.engine.patch_plan import PatchPlan, share_patches
from napari_unet3d.engine.ranks import ALONE, Ranks
from tests.distributed import jobs

PLAN = PatchPlan(((8, 16, 16),) * 3, 4)


class One(Ranks):
    """One of several that are not there."""

    def __init__(self, rank, count):
        self.rank, self.count = rank, count


@given(patches=st.integers(0, 70), count=st.integers(1, 20))
def test_every_patch_is_somebodys(patches, count):
    shares = [One(rank, count).share(patches) for rank in range(count)]
    assert [patch for share in shares for patch in share] == list(range(patches))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("count", [2, 3, 5])
def test_any_number_draws_the_same_patches(count):
    """The whole patch is evaluated, so that nobody asks the others."""
    trainer = jobs.trainer(
        ALONE, {"patch_size": (20, 20, 20)}, {"padding": "valid", "stem": "none"}
    )
    trainer.data.refresh(trainer.plan)
    plan = PatchPlan(trainer.plan.sizes, 5)
    for seed in range(3):
        whole = trainer.data.batches.draw(plan, np.random.default_rng(seed))
        parts = [
            trainer.data.batches.draw(plan, np.random.default_rng(seed), One(k, count))
            for k in range(count)
        ]
        assert torch.equal(torch.cat([part.features for part in parts]), whole.features)
        assert torch.equal(torch.cat([part.target for part in parts]), whole.target)


def test_the_region_is_chosen_from_all_labels():
    class Others(One):
        """The others have many labels, all of them outside the slab."""

        def add(self, values):
            return values + np.array([0, 10**6])

    trainer = jobs.trainer(ALONE, {"batch_size": 2})
    trainer.data.refresh(trainer.plan)
    rng = np.random.default_rng
    own = trainer.data.batches.draw(trainer.plan, rng(0), One(0, 2))
    assert own.region != tuple((0, n) for n in own.features.shape[2:])
    shared = trainer.data.batches.draw(trainer.plan, rng(0), Others(0, 2))
    assert shared.region == tuple((0, n) for n in own.features.shape[2:])


def test_alone_nothing_is_shared():
    values = torch.ones(2)
    assert ALONE.total(values) is values
    assert ALONE.first("plan") == "plan"
    assert ALONE.agree(3.5, True) == (3.5, True)
    assert ALONE.agree(3.5, False) == (3.5, False)


def test_everyone_has_a_patch_at_least():
    settings = TrainingConfig()
    assert share_patches(PLAN, settings, One(0, 4)) == PLAN
    assert share_patches(PLAN, settings, One(0, 6)).batch_size == 6
    with pytest.raises(EngineError, match=r"batch_size of 4 .* by 6 devices"):
        share_patches(PLAN, TrainingConfig(batch_size=4), One(0, 6))


def test_only_the_first_saves(tmp_path):
    for rank in range(2):
        trainer = jobs.Trainer(
            [jobs.volume()],
            ModelConfig(base_channels=1, depth=1, stem="none"),
            jobs.TRAINING,
            save_to=tmp_path / f"{rank}.pt",
            ranks=One(rank, 2),
        )
        list(trainer.run(stop_after=0))
    assert [path.name for path in tmp_path.iterdir()] == ["0.pt"]


def test_with_several_nobody_goes_on_with_smaller_patches(monkeypatch):
    trainer = jobs.trainer(One(0, 2), {"batch_size": 4})

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer.optimization, "step", fail)
    with pytest.raises(OutOfMemoryError, match="memory ran out: use fewer"):
        list(trainer.run())
