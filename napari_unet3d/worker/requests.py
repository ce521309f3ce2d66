"""What the viewer's process asks of the worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_unet3d.io.lazy_image import StoredImage

    from .shared import ArrayReference

    Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class ImageFile:
    """An image that the worker reads from a file, part by part."""

    path: str
    axes: str | None = None
    channels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class OpenVolume:
    """Make an image (C, Z, Y, X) known, with nothing labelled."""

    volume: int
    source: ArrayReference | ImageFile | StoredImage
    spacing: Spacing | None = None
    unit: str = ""
    name: str = "image"


@dataclass(frozen=True)
class CloseVolume:
    """Forget a volume; a training that uses it goes on."""

    volume: int


@dataclass(frozen=True, eq=False)
class UpdateAnnotation:
    """Voxels were painted or erased; training uses it from the next step on."""

    volume: int
    index: NDArray[np.int64]
    """Flat (C order) indices."""
    labels: NDArray[np.uint8]
    """0 where erased."""
    replace: bool = False
    """Whether these are all labels there are."""


@dataclass(frozen=True)
class Train:
    """Train a new model, or the present one on."""

    volumes: tuple[int, ...]
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig`; not used where the present model goes on."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrainingConfig`."""
    class_names: tuple[str, ...] = ()
    class_colors: tuple[str, ...] = ()
    save_to: str | None = None
    """Model file that is written every `save_every` seconds and at the end."""
    proceed: bool = False
    """Whether the present model goes on, if there is one."""
    devices: int = 1
    """GPUs, or processes on a CPU, that share every batch."""


@dataclass(frozen=True)
class Pause:
    """Hold the training after the present step."""


@dataclass(frozen=True)
class Resume:
    """Let a held training go on."""


@dataclass(frozen=True)
class Stop:
    """End the training after the present step, keeping the best weights."""


@dataclass(frozen=True)
class RequestPreview:
    """Predict a slice, now and whenever the model has become better."""

    generation: int
    volume: int
    axis: int
    """0, 1, 2 for a slice across Z, Y, X."""
    position: int
    probability_of: int | None = None
    """Label of the class whose probability is wanted too."""
    entropy: bool = False


@dataclass(frozen=True)
class StopPreview:
    """No preview is looked at any more."""


@dataclass(frozen=True)
class Segment:
    """Segment a volume; a training that runs is held meanwhile.

    The result goes to arrays that the client has made, or to files (their ending says
    the format) that appear when they are complete.
    """

    generation: int
    volume: int
    labels: ArrayReference | str
    """(Z, Y, X) of uint8."""
    probabilities: ArrayReference | str | None = None
    """(K, Z, Y, X) of uint8, 255 for certain."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of `SegmentationConfig`."""
    begin_at: int = 0
    """Slice across Z around which to begin."""
    resumable: bool = False
    """Whether to write OME-Zarrs block by block, going on where an earlier run ended;
    until they are complete they have ".unfinished" after their names."""


@dataclass(frozen=True)
class CancelSegment:
    """End a segmentation after the present block."""

    generation: int


@dataclass(frozen=True)
class LoadModel:
    """Take the model in a file."""

    path: str


@dataclass(frozen=True)
class SaveModel:
    """Write the present model to a file; `Saved` tells that it is there."""

    path: str


@dataclass(frozen=True)
class NewModel:
    """Forget the present model."""


@dataclass(frozen=True)
class Courtesy:
    """The person is painting or scrolling: leave the processor to the viewer."""

    seconds: float = 0.3


@dataclass(frozen=True)
class Shutdown:
    """End the process; a training is stopped and saved."""


Request = (
    OpenVolume
    | CloseVolume
    | UpdateAnnotation
    | Train
    | Pause
    | Resume
    | Stop
    | RequestPreview
    | StopPreview
    | Segment
    | CancelSegment
    | LoadModel
    | SaveModel
    | NewModel
    | Courtesy
    | Shutdown
)
