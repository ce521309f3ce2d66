"""What happens while training and segmenting: frozen, picklable records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """Training begins, with what was chosen for data and device."""

    step: int
    device: str
    precision: str
    n_parameters: int
    base_channels: int
    patch_size: tuple[int, int, int]
    batch_size: int
    pooling: tuple[tuple[int, int, int], ...]
    labelled_voxels: int
    held_out_voxels: int
    devices: int = 1
    """How many of them train together."""


@dataclass(frozen=True)
class StepDone:
    """One step of the optimizer is done."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    """Time trained so far, earlier sessions of the model included."""
    progress: float
    """Share of the training that is done, 0 to 1."""


@dataclass(frozen=True)
class Validated:
    """The moving average of the weights was measured on the held-out labels."""

    step: int
    seconds: float
    iou: tuple[float, ...]
    """Per class; NaN for a class that is neither held out nor predicted there."""
    mean_iou: float
    is_best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    step: int
    path: str


@dataclass(frozen=True)
class Warned:
    """Something the person should know; the work goes on."""

    message: str


@dataclass(frozen=True)
class Trained:
    """Training ended; always the last event."""

    step: int
    seconds: float
    reason: str
    """"finished", "stopped" or "paused" (the schedule is not at its end)."""


@dataclass(frozen=True)
class Segmented:
    """A block of the segmentation is complete."""

    region: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    progress: float


@dataclass(frozen=True)
class BlockProgress:
    """A part of one block of a plan is segmented."""

    number: int
    share: float
    """Of the block, 1 once it is complete."""


TrainingEvent = Started | StepDone | Validated | Saved | Warned | Trained
