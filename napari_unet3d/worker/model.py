"""The model that the server has: being trained, finished, loaded, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet3d import __version__
from napari_unet3d.engine.checkpoint import Checkpoint
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.model_file import load

from .answers import ModelChanged, ModelSummary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet3d.engine.trainer import Trainer

    from .answers import Event

MOST_POINTS = 2000
"""Points of a curve that are sent; nobody sees more."""


class CurrentModel:
    """The present model.

    Parameters
    ----------
    send : callable
        Told when there is another one.
    """

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send
        self._finished: Checkpoint | None = None
        self._trainer: Trainer | None = None
        self.version = 0
        """Another number for another model."""

    @property
    def trainer(self) -> Trainer | None:
        """The training that is going on, if one is."""
        return self._trainer

    def latest(self) -> Checkpoint | None:
        """Return the model as it is now, if there is one."""
        return self._trainer.checkpoint() if self._trainer else self._finished

    def require(self) -> Checkpoint:
        """Return the model as it is now.

        Raises
        ------
        EngineError
            Where there is none.
        """
        checkpoint = self.latest()
        if checkpoint is None:
            raise EngineError("there is no model yet; train one or load one")
        return checkpoint

    def replace(self, checkpoint: Checkpoint | None, path: str = "") -> None:
        """Take another finished model, or none."""
        self._finished = checkpoint
        self._trainer = None
        self.version += 1
        if checkpoint is None:
            self._send(ModelChanged(None))
            return
        history = thinned(checkpoint.history) if path else ()
        self._send(ModelChanged(summarize(checkpoint), history, path))

    def train(self, trainer: Trainer) -> None:
        """Take a model that is being trained."""
        self._trainer = trainer
        self.version += 1
        self._send(ModelChanged(summarize(trainer)))

    def finish(self, saved_to: str | None) -> None:
        """End a training: keep its weights unless they are spoilt.

        Parameters
        ----------
        saved_to : str or None
            Where the training has saved, if it has: better than nothing then.
        """
        trainer, self._trainer = self._trainer, None
        if trainer is None:
            return
        checkpoint: Checkpoint | None = trainer.checkpoint()
        if not is_usable(trainer):
            checkpoint = load(saved_to) if saved_to else self._finished
        self.replace(checkpoint)


def is_usable(trainer: Trainer) -> bool:
    """Tell whether all weights are numbers."""
    return all(
        bool(parameter.isfinite().all())
        for parameter in trainer.optimization.average.parameters()
    )


def summarize(source: Checkpoint | Trainer) -> ModelSummary:
    """Say what there is to say about a model."""
    model = source.model
    assert model.in_channels
    assert model.base_channels
    assert model.pooling is not None
    assert model.spacing
    return ModelSummary(
        class_names=source.class_names,
        class_colors=source.class_colors,
        in_channels=model.in_channels,
        base_channels=model.base_channels,
        pooling=model.pooling,
        stem=model.stem,
        spacing=model.spacing,
        unit=source.unit,
        step=source.step,
        seconds=source.seconds,
        held_out_iou=source.best.get("iou"),
        version=source.version if isinstance(source, Checkpoint) else __version__,
    )


def thinned(
    history: Sequence[dict[str, Any]], most: int = MOST_POINTS
) -> tuple[dict[str, Any], ...]:
    """Leave out losses evenly where there are more than anybody sees.

    Examples
    --------
    >>> len(thinned([{"step": step, "loss": 1.0} for step in range(10)], most=5))
    5
    """
    every = max(1, -(-len(history) // most))
    return tuple(
        entry
        for k, entry in enumerate(history)
        if k % every == 0 or "mean_iou" in entry
    )
