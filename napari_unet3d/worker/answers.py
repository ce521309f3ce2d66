"""What the worker tells the viewer's process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_unet3d.engine.events import (
    Saved,
    Started,
    StepDone,
    Trained,
    Validated,
    Warned,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Plane = NDArray[np.uint8]
    Region = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    Spacing = tuple[float, float, float]


What = Literal[
    "training", "segmentation", "preview", "volume", "annotation", "model", "request"
]
"""What can fail."""


@dataclass(frozen=True)
class Ready:
    """The worker has started."""

    device: str
    """As a person would call it."""
    threads: int
    warning: str = ""
    """Why it is slower than this machine could be, if it is."""


@dataclass(frozen=True)
class Paused:
    """Training is held."""

    step: int


@dataclass(frozen=True)
class Resumed:
    """Training goes on."""

    step: int


@dataclass(frozen=True, eq=False)
class PreviewReady:
    """A slice was predicted; its two axes are in the order of the volume."""

    generation: int
    volume: int
    axis: int
    position: int
    labels: Plane
    """Classes 1 to K."""
    probability: Plane | None
    """Of the class that was asked for, 255 for certain."""
    entropy: Plane | None
    """255 where all classes are equally likely."""
    step: int
    """Of the model."""


@dataclass(frozen=True)
class SegmentOpened:
    """The unfinished outputs of a resumable segmentation are there to be looked at."""

    generation: int
    folders: tuple[str, ...]
    """Of labels and, perhaps, of probabilities."""
    progress: float
    """What an earlier run has done."""


@dataclass(frozen=True)
class SegmentProgress:
    """Another part of a segmentation is complete."""

    generation: int
    region: Region
    """A box ZYX around what is new."""
    progress: float


@dataclass(frozen=True)
class SegmentDone:
    """A segmentation is complete."""

    generation: int
    model: ModelSummary
    """What it was made with."""
    seconds: float


@dataclass(frozen=True)
class SegmentCancelled:
    """A segmentation ended early; arrays and resumable files keep what was done."""

    generation: int


@dataclass(frozen=True)
class ModelSummary:
    """What there is to say about a model."""

    class_names: tuple[str, ...]
    class_colors: tuple[str, ...]
    """As "#rrggbb", or empty."""
    in_channels: int
    base_channels: int
    pooling: tuple[tuple[int, int, int], ...]
    stem: str
    spacing: Spacing
    unit: str
    step: int
    seconds: float
    held_out_iou: float | None
    """Of the best weights; `None` where nothing was held out."""
    version: str
    """Of the program that trained it."""

    @property
    def n_classes(self) -> int:
        """How many classes it tells apart."""
        return len(self.class_names)


@dataclass(frozen=True)
class ModelChanged:
    """There is another model, or none: one was made, trained on, loaded, dropped."""

    summary: ModelSummary | None
    history: tuple[dict[str, Any], ...] = ()
    """Of a model that was loaded: what its curve shows (see `Checkpoint.history`)."""
    path: str = ""
    """The file it was loaded from."""


@dataclass(frozen=True)
class Failed:
    """Something could not be done; the worker lives on."""

    sentence: str
    """What went wrong and what to do, for the person."""
    what: What
    """"training" and "segmentation" have ended with this, "preview" until there is
    another request; after the others all is as before."""
    generation: int = 0
    """Of the segmentation or preview; of "volume" the number."""
    details: str = ""
    """The traceback, for a log."""


@dataclass(frozen=True)
class WorkerDied:
    """The process ended without being asked to; told once."""

    exitcode: int
    sentence: str
    details: str = ""
    """The last lines it wrote."""


Event = (
    Ready
    | Started
    | StepDone
    | Validated
    | Saved
    | Warned
    | Trained
    | Paused
    | Resumed
    | PreviewReady
    | SegmentOpened
    | SegmentProgress
    | SegmentDone
    | SegmentCancelled
    | ModelChanged
    | Failed
    | WorkerDied
)
