"""Where the voxels of a volume lie, so that the worker can read them for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.affine_view import AffineView
from napari_unet3d.io.dask_origin import origin_of_dask
from napari_unet3d.io.lazy_array import LazyArray
from napari_unet3d.io.lazy_image import LazyImage, StoredImage
from napari_unet3d.io.stored_array import StoredArray, locate

if TYPE_CHECKING:
    from .volumes import VolumeChoice

COMPARED = 2
"""Edge, in voxels, of the boxes in which both are compared."""


def stored_image_of(choice: VolumeChoice) -> StoredImage | None:
    """Find the files in which a volume lies; `None` where that is not certain.

    What is found is opened and compared with the layer at fixed places. Nothing is
    read as a whole; may be called in a thread.
    """
    parts = []
    for data, axes in choice.parts():
        found = origin_of(data)
        if found is None:
            return None
        stored, view = found
        parts.append((stored, _channels_first(view, axes, choice.time)))
    image = StoredImage(tuple(parts), choice.dtype.str)
    return image if _is_same(choice, image) else None


def origin_of(data: Any) -> tuple[StoredArray, AffineView] | None:
    """Find the stored array that a layer's data show a part of."""
    if type(data).__module__.startswith("dask."):
        return origin_of_dask(data)
    if isinstance(data, LazyArray):
        return data.origin
    stored = locate(data)
    if stored is None:
        return None
    return stored, AffineView.whole(stored.shape)


def _channels_first(view: AffineView, axes: str, time: int) -> AffineView:
    if "T" in axes:
        view = view[(slice(None),) * axes.index("T") + (time,)]
        axes = axes.replace("T", "")
    if "C" not in axes:
        return view[None]
    if axes.endswith("C"):
        # Of colours; how opaque they are is not part of the picture.
        view = view[(*(slice(None),) * 3, slice(3))]
    return view.transposed([axes.index(axis) for axis in "CZYX"])


def _is_same(choice: VolumeChoice, image: StoredImage) -> bool:
    """Whether shape and some voxels are those of the layer."""
    if image.shape != (choice.n_channels, *choice.shape):
        return False
    try:
        lazy = LazyImage(image, capacity=0)
        for box in _places(choice.shape):
            there, here = lazy[(slice(None), *box)], choice.read(box)
            if not np.array_equal(there, here, equal_nan=here.dtype.kind == "f"):
                return False
    except EngineError:
        return False
    return True


def _places(shape: tuple[int, ...]) -> list[tuple[slice, slice, slice]]:
    """Two opposite corners, the middle and two places in between."""
    boxes = []
    for share in ((0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.2, 0.7, 0.4), (0.8, 0, 1)):
        first = [
            round(s * max(0, n - COMPARED)) for s, n in zip(share, shape, strict=True)
        ]
        z, y, x = (slice(a, a + COMPARED) for a in first)
        boxes.append((z, y, x))
    return boxes
