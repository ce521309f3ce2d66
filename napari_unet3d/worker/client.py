"""The viewer's side of training and segmentation: one method for each request.

Neither torch nor Qt is imported here. All methods return at once, but for those that
copy an image or end the process.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .connection import WorkerConnection
from .images import share_image
from .requests import (
    CancelSegment,
    CloseVolume,
    Courtesy,
    ImageFile,
    LoadModel,
    NewModel,
    OpenVolume,
    Pause,
    RequestPreview,
    Resume,
    SaveModel,
    Segment,
    Stop,
    StopPreview,
    Train,
    UpdateAnnotation,
)
from .shared import SharedArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike

    from napari_unet3d.io.lazy_image import StoredImage

    from .answers import Event
    from .requests import Spacing
    from .shared import ArrayReference


class WorkerClient(WorkerConnection):
    """A worker process and all that it works on.

    Parameters
    ----------
    on_event : callable
        Called with each `Event` in a thread of the client's; must not raise, must not
        call `close` or `restart`, and should only hand the event on to the thread that
        deals with it.

    Examples
    --------
    >>> client = WorkerClient(on_event=print)  # doctest: +SKIP
    >>> volume = client.open_volume(image)  # doctest: +SKIP
    >>> client.replace_annotation(volume, index, labels)  # doctest: +SKIP
    >>> client.train([volume])  # doctest: +SKIP
    """

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._numbers = itertools.count(1)
        self._generations = itertools.count(1)
        super().__init__(on_event)

    def open_volume(
        self,
        image: Any = None,
        *,
        path: str | os.PathLike[str] | None = None,
        stored: StoredImage | None = None,
        axes: str | None = None,
        channels: Sequence[int] | None = None,
        spacing: Spacing | None = None,
        unit: str = "",
        name: str = "image",
        progress: Callable[[float], None] | None = None,
    ) -> int:
        """Make an image known to the worker.

        Parameters
        ----------
        image : (Z, Y, X) or (C, Z, Y, X) array-like, optional
            Copied once, in slabs. A memory-mapped file is shared without a copy.
        path : path, optional
            A file to read from instead, part by part, with `axes` and `channels` as in
            `napari_unet3d.io.open_image`.
        stored : StoredImage, optional
            Where the image lies; read from there, part by part.
        spacing : (float, float, float), optional
            Size of a voxel ZYX.
        unit : str
            Unit of the spacing.
        name : str
            What to call it in messages.
        progress : callable, optional
            Called with the share that is copied.

        Returns
        -------
        int
            The number of the volume in all other methods.

        Raises
        ------
        EngineError
            Where the image has another number of axes or there is no room for it.
        """
        number = next(self._numbers)
        if path is not None:
            picked = None if channels is None else tuple(channels)
            source: Any = ImageFile(os.fspath(path), axes, picked)
        elif stored is not None:
            source = stored
        elif image is not None:
            self._images[number] = share_image(image, progress)
            source = self._images[number].reference
        else:
            raise EngineError("no image was given; give an array or a path")
        self.send(OpenVolume(number, source, spacing, unit, name))
        return number

    def close_volume(self, volume: int) -> None:
        """Forget a volume; a training that uses it goes on."""
        self.send(CloseVolume(volume))
        if array := self._images.pop(volume, None):
            array.close()

    def update_annotation(
        self, volume: int, index: ArrayLike, labels: ArrayLike
    ) -> None:
        """Tell which voxels were painted (1 to K) or erased (0), by flat index."""
        self.send(_update(volume, index, labels, replace=False))

    def replace_annotation(
        self, volume: int, index: ArrayLike, labels: ArrayLike
    ) -> None:
        """Tell all voxels that are painted, by flat index."""
        self.send(_update(volume, index, labels, replace=True))

    def train(
        self,
        volumes: Sequence[int],
        model: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        *,
        class_names: Sequence[str] = (),
        class_colors: Sequence[str] = (),
        save_to: str | os.PathLike[str] | None = None,
        proceed: bool = False,
        devices: int = 1,
    ) -> None:
        """Train a new model, or with `proceed` the present one on.

        Several `devices` share every batch, each in a process of its own.
        `ModelChanged` and `Started` follow, and in the end `Trained`, or `Failed` with
        `what` "training".
        """
        path = None if save_to is None else os.fspath(save_to)
        self.send(
            Train(
                tuple(volumes),
                dict(model or {}),
                dict(training or {}),
                tuple(class_names),
                tuple(class_colors),
                path,
                proceed,
                devices,
            )
        )

    def pause(self) -> None:
        """Hold the training after the present step; `Paused` follows."""
        self.send(Pause())

    def resume(self) -> None:
        """Let it go on; `Resumed` follows."""
        self.send(Resume())

    def stop(self) -> None:
        """End the training after the present step; `Trained` follows."""
        self.send(Stop())

    def request_preview(
        self,
        volume: int,
        axis: int,
        position: int,
        *,
        probability_of: int | None = None,
        entropy: bool = False,
    ) -> int:
        """Ask for the prediction of a slice, in place of the last one asked for.

        `PreviewReady` follows now and whenever the model has become better.

        Returns
        -------
        int
            The generation: answers with a lower one are out of date.
        """
        generation = next(self._generations)
        self.send(
            RequestPreview(generation, volume, axis, position, probability_of, entropy)
        )
        return generation

    def stop_preview(self) -> None:
        """Ask for no prediction any more."""
        self.send(StopPreview())

    def segment(
        self,
        volume: int,
        labels: SharedArray | str | os.PathLike[str],
        probabilities: SharedArray | str | os.PathLike[str] | None = None,
        config: Mapping[str, Any] | None = None,
        begin_at: int = 0,
        resumable: bool = False,
    ) -> int:
        """Segment a volume into shared arrays of uint8, or into files.

        `SegmentProgress` follows, and in the end `SegmentDone`, `SegmentCancelled` or
        `Failed` with `what` "segmentation".

        Parameters
        ----------
        volume : int
            The volume.
        labels : (Z, Y, X) SharedArray or path
            Receives classes 1 to K.
        probabilities : (K, Z, Y, X) SharedArray or path, optional
            Receives the probability of each class, 255 for certain.
        config : mapping, optional
            Fields of `SegmentationConfig`.
        begin_at : int
            Slice across Z around which to begin.
        resumable : bool
            Whether to write OME-Zarrs block by block, going on where an earlier run
            ended; `SegmentOpened` tells where they are until then.

        Returns
        -------
        int
            The generation of what follows.
        """
        generation = next(self._generations)
        outputs = [o for o in (labels, probabilities) if isinstance(o, SharedArray)]
        # Their names are needed until the worker has opened them.
        self._outputs[generation] = outputs
        self.send(
            Segment(
                generation,
                volume,
                _target(labels),
                None if probabilities is None else _target(probabilities),
                dict(config or {}),
                begin_at,
                resumable,
            )
        )
        return generation

    def cancel_segmentation(self, generation: int) -> None:
        """End a segmentation early; `SegmentCancelled` follows."""
        self.send(CancelSegment(generation))

    def load_model(self, path: str | os.PathLike[str]) -> None:
        """Take the model in a file; `ModelChanged` follows."""
        self.send(LoadModel(os.fspath(path)))

    def save_model(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file; `Saved` follows."""
        self.send(SaveModel(os.fspath(path)))

    def new_model(self) -> None:
        """Forget the model; `ModelChanged` follows."""
        self.send(NewModel())

    def be_courteous(self, seconds: float = 0.3) -> None:
        """Say that the person is painting or scrolling, and will be for a while."""
        self.send(Courtesy(seconds))


def _update(
    volume: int, index: ArrayLike, labels: ArrayLike, replace: bool
) -> UpdateAnnotation:
    # Copies: what is painted next must not change what is still on its way.
    return UpdateAnnotation(
        volume,
        np.array(index, np.int64).reshape(-1),
        np.array(labels, np.uint8).reshape(-1),
        replace,
    )


def _target(output: SharedArray | str | os.PathLike[str]) -> ArrayReference | str:
    return output.reference if isinstance(output, SharedArray) else os.fspath(output)
