"""Segmentations after given seconds of training: ours, random forest, peers.

Every method is a generator of one `Point` for each of the times wanted. The clock runs
from the raw volume on and stands still while a point is computed, so one training gives
the whole curve.

The points of our curve before the last are the moving average of the weights during the
longest training. Its learning rate falls only in its second half, so a training that is
as short as such a point, whose rate falls in time, does a little better: `--minutes`
of `accuracy.py` measures those. The last point is the end of the training with the
weights that a person gets. The peers' learning rate is constant.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peer_networks import PeerTraining, train_peer
from random_forest import forest_segmentation

from napari_unet3d.engine import (
    Annotation,
    ModelConfig,
    SegmentationConfig,
    Trainer,
    TrainingConfig,
    TrainingVolume,
    segment,
)
from napari_unet3d.engine.events import StepDone

if TYPE_CHECKING:
    import datasets
    import numpy as np

TITLES = {
    "ours": "3D U-Net",
    "forest": "random forest",
    "monai": "MONAI UNet",
    "pytorch-3dunet": "pytorch-3dunet",
}


@dataclass
class Point:
    """One segmentation of a learning curve."""

    at: float | None
    """Seconds wanted; none where the method has no choice."""
    labels: np.ndarray
    """Classes 1..K of every voxel."""
    seconds: float
    """Until the segmentation was there, training included."""
    facts: dict[str, Any] = field(default_factory=dict)


def forest_curve(case: datasets.Case, labels: np.ndarray, seed: int) -> Iterator[Point]:
    """Segment with the random forest: a single point."""
    found, seconds = forest_segmentation(case.image, labels, seed=seed)
    yield Point(None, found, seconds)


def own_curve(
    case: datasets.Case,
    labels: np.ndarray,
    times: Sequence[float],
    seed: int,
    model: ModelConfig,
    precision: str = "auto",
    device: str = "cpu",
) -> Iterator[Point]:
    """Train once for the longest of `times`, segmenting at each as the program does."""
    times = sorted(times)
    began, paused = time.perf_counter(), 0.0
    volume = TrainingVolume(case.image, Annotation.from_labels(labels), case.spacing)
    training = TrainingConfig(
        minutes=times[-1] / 60, seed=seed, precision=precision, device=device
    )
    trainer = Trainer([volume], model, training)
    waiting = times[:-1]
    for event in trainer.run():
        stopped = time.perf_counter()
        trained = stopped - began - paused
        while isinstance(event, StepDone) and waiting and trained >= waiting[0]:
            yield _own_point(trainer, case, waiting.pop(0), trained, "average")
        paused += time.perf_counter() - stopped
    trained = time.perf_counter() - began - paused
    for at in [*waiting, times[-1]]:
        yield _own_point(trainer, case, at, trained, SegmentationConfig().weights)


def _own_point(
    trainer: Trainer, case: datasets.Case, at: float, trained: float, weights: str
) -> Point:
    began = time.perf_counter()
    device = trainer.training.device
    config = SegmentationConfig(weights=weights, device=device)
    found = segment(trainer.checkpoint(), case.image, config)
    facts = {
        "steps": trainer.step,
        "train_seconds": trained,
        "base_channels": trainer.model.base_channels,
        "precision": str(trainer.dtype),
    }
    return Point(at, found.labels, trained + time.perf_counter() - began, facts)


def peer_curve(
    method: str,
    case: datasets.Case,
    labels: np.ndarray,
    times: Sequence[float],
    seed: int,
    device: str = "cpu",
) -> Iterator[Point]:
    """Train a peer's network once, segmenting at each of `times`."""
    times = sorted(times)
    began = time.perf_counter()
    training = PeerTraining(method, case.image, labels, seed, device=device)
    points = train_peer(training, began, times)
    for at, (trained, steps) in zip(times, points, strict=True):
        before = time.perf_counter()
        found = training.segment()
        seconds = trained + time.perf_counter() - before
        facts = {"steps": steps, "train_seconds": trained}
        facts["base_channels"] = training.settings.base
        yield Point(at, found, seconds, facts)
