"""The volumes that the server knows, and what is painted in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.annotation import Annotation
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.memory import free_memory

from .requests import CloseVolume, ImageFile, OpenVolume, UpdateAnnotation
from .room import SHARE, fits_in_memory
from .shared import ArrayReference, SharedArray
from .sparse import SparseLabels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .requests import Request


class Interrupted(Exception):
    """Something else is wanted now; raised by who watches an image being read."""


def still_wanted(requests: list[Request]) -> list[Request]:
    """Leave out what is about volumes that are closed again in the same breath.

    Their images are gone already: there is nothing to open.
    """
    closed = {each.volume for each in requests if isinstance(each, CloseVolume)}
    return [
        each
        for each in requests
        if not isinstance(each, (OpenVolume, UpdateAnnotation))
        or each.volume not in closed
    ]


class WatchedImage:
    """An image (C, Z, Y, X) that calls back whenever a part of it is read.

    The engine reads an image box by box whatever it does, so this is where a long
    computation can be looked after, or ended by an exception.
    """

    def __init__(self, image: Any, watch: Callable[[], None]) -> None:
        self._image = image
        self.watch = watch
        self.shape: tuple[int, ...] = tuple(int(n) for n in image.shape)
        self.dtype: np.dtype[Any] = np.dtype(image.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        self.watch()
        part: NDArray[Any] = np.asarray(self._image[key])
        return part


class OpenedVolume:
    """An image and its labels.

    Parameters
    ----------
    request : OpenVolume
        Where the image is.

    Raises
    ------
    EngineError
        Where it cannot be opened.
    """

    def __init__(self, request: OpenVolume) -> None:
        self.request = request
        self.name = request.name
        self.unit = request.unit
        self.spacing = request.spacing
        self._paths: list[str] = []
        if isinstance(request.source, ImageFile):
            from napari_unet3d.io import open_image

            file = request.source
            self._paths = [file.path] if os.path.exists(file.path) else []
            found = open_image(file.path, axes=file.axes, channels=file.channels)
            self._image: Any = found.data
            self.spacing = self.spacing or found.spacing
            self.unit = self.unit or found.unit or ""
        elif isinstance(request.source, ArrayReference):
            self._image = SharedArray.attach(request.source).array
        else:
            from napari_unet3d.io.lazy_image import KEPT_WHERE_LARGE, LazyImage

            found_at = {stored.path for stored, _ in request.source.parts}
            self._paths = [path for path in found_at if os.path.exists(path)]
            # What fits stays in memory once it was read.
            size = request.source.nbytes
            if not fits_in_memory(size):
                size = min(KEPT_WHERE_LARGE, free_memory() // SHARE)
            self._image = LazyImage(request.source, size)
        if len(self._image.shape) != 4:
            raise EngineError(
                f"{self.name} has shape {tuple(self._image.shape)}; an image is needed "
                "with axes CZYX"
            )
        z, y, x = (int(n) for n in self._image.shape[1:])
        self.shape = (z, y, x)
        self.labels = SparseLabels()

    def image(self, watch: Callable[[], None]) -> WatchedImage:
        """Return the image; `watch` is called whenever a part of it is read."""
        return WatchedImage(self._image, watch)

    def check(self) -> None:
        """Refuse to go on where the files of the image are gone.

        Raises
        ------
        EngineError
            Naming the first that is.
        """
        gone = next((path for path in self._paths if not os.path.exists(path)), None)
        if gone is not None:
            raise EngineError(
                f"{gone} is gone; see whether its disk is still there, and open the "
                "image again"
            )

    def update(self, request: UpdateAnnotation) -> None:
        """Take changes of the labels.

        Raises
        ------
        EngineError
            Where a voxel is outside.
        """
        voxels = self.shape[0] * self.shape[1] * self.shape[2]
        index = request.index
        if len(index) and not 0 <= index.min() <= index.max() < voxels:
            raise EngineError(
                f"{self.name} has {voxels} voxels of shape {self.shape}, but labels "
                f"came for voxels {index.min()} to {index.max()}; annotation and image "
                "must have the same grid"
            )
        before = SparseLabels() if request.replace else self.labels
        self.labels = before.changed(index, request.labels)

    def as_update(self) -> UpdateAnnotation:
        """Return what another process needs to have the same labels."""
        labels = self.labels
        return UpdateAnnotation(
            self.request.volume, labels.index, labels.labels, replace=True
        )

    def annotation(self, n_classes: int | None = None) -> Annotation:
        """Return what is painted, of the first `n_classes` classes only."""
        annotation = Annotation(self.shape, self.labels.index, self.labels.labels)
        if n_classes is None or annotation.n_classes <= n_classes:
            return annotation
        return annotation.select(annotation.labels <= n_classes)
