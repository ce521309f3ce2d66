"""What a training tells about itself: its events, and the history in the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .device import describe_device
from .errors import EngineError
from .events import Started, StepDone, Validated

if TYPE_CHECKING:
    from torch import Tensor

    from .metrics import Scores
    from .trainer import Trainer


class Reports:
    """Make events of what happens, and keep the figures.

    Parameters
    ----------
    trainer : Trainer
        The training.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.history: list[dict[str, Any]] = []
        """Figures with the step and the seconds they belong to."""

    def started(self, devices: int) -> Started:
        """Tell what was chosen for data and device."""
        trainer = self._trainer
        model, plan = trainer.model, trainer.plan
        assert model.base_channels
        assert model.pooling is not None
        several = f"{devices} × " if devices > 1 else ""
        parameters = trainer.optimization.network.parameters()
        return Started(
            step=trainer.step,
            device=several + describe_device(trainer.device),
            precision=str(trainer.dtype).removeprefix("torch."),
            n_parameters=sum(p.numel() for p in parameters),
            base_channels=model.base_channels,
            patch_size=plan.sizes[0],
            batch_size=plan.batch_size,
            pooling=model.pooling,
            labelled_voxels=trainer.data.labelled_voxels,
            held_out_voxels=(
                trainer.data.held_out.voxels if trainer.data.is_held_out else 0
            ),
            devices=devices,
        )

    def step_done(self, loss: Tensor) -> StepDone:
        """Tell of a step.

        Raises
        ------
        EngineError
            Where its loss is not finite.
        """
        trainer, value = self._trainer, float(loss)
        rate = trainer.schedule.learning_rate
        if not math.isfinite(value):
            raise EngineError(
                f"the loss is {value} after {trainer.step} steps; lower the learning "
                f"rate (now {trainer.training.learning_rate:g}) or use precision "
                "float32"
            )
        self._record(loss=value, learning_rate=rate)
        progress = min(1.0, trainer.schedule.progress)
        return StepDone(trainer.step, value, rate, trainer.seconds, progress)

    def validated(self, scores: Scores, is_best: bool) -> Validated:
        """Tell what was measured on the held-out labels."""
        iou, mean = scores.iou.tolist(), scores.mean_iou
        self._record(iou=iou, mean_iou=mean)
        trainer = self._trainer
        return Validated(trainer.step, trainer.seconds, tuple(iou), mean, is_best)

    def _record(self, **figures: Any) -> None:
        when = {"step": self._trainer.step, "seconds": self._trainer.seconds}
        self.history.append({**when, **figures})
