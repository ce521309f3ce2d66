"""Train the network on sparse annotations: a generator of what happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .trainer import Trainer

if TYPE_CHECKING:
    import threading

    from .config import ModelConfig, TrainingConfig
    from .events import TrainingEvent
    from .training_data import TrainingVolume


def train(
    volumes: Sequence[TrainingVolume],
    model: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    *,
    save_to: str | Path | None = None,
    stop: threading.Event | None = None,
) -> Iterator[TrainingEvent]:
    """Train a new model, yielding what happens.

    The last event is always `Trained`. For more control (resuming, reading the
    weights in between) use `Trainer`.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
        Sparsely annotated volumes.
    model, training : ModelConfig, TrainingConfig, optional
        What and how to train.
    save_to : path, optional
        Model file, written now and then and at the end.
    stop : threading.Event, optional
        Set it to end after the current step.
    """
    return Trainer(volumes, model, training, save_to=save_to).run(stop)
