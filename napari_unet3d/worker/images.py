"""Images on their way to the worker: copied once, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .shared import SharedArray

if TYPE_CHECKING:
    from collections.abc import Callable

SLAB = 2**26
"""Bytes that are copied at once, about."""


def share_image(
    image: Any, progress: Callable[[float], None] | None = None
) -> SharedArray:
    """Share an image with axes (C, Z, Y, X).

    Parameters
    ----------
    image : (Z, Y, X) or (C, Z, Y, X) array-like
        Read in slabs; a memory-mapped file is shared as it is.
    progress : callable, optional
        Called with the share that is copied.

    Raises
    ------
    EngineError
        Where it is no volume of real numbers, or there is no room for it.
    """
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in (3, 4) or 0 in shape:
        raise EngineError(
            f"an image is needed with axes ZYX or CZYX, got shape {shape}; choose one "
            "volume"
        )
    if np.dtype(image.dtype).kind not in "biuf":
        raise EngineError(
            f"image must hold real numbers, got {image.dtype}; convert it first"
        )
    found = SharedArray.of_file(image) if isinstance(image, np.memmap) else None
    if found:
        reference = replace(found.reference, shape=(1, *shape)[-4:])
        return SharedArray(found.array.reshape(reference.shape), reference)
    array = SharedArray.create((1, *shape)[-4:], image.dtype)
    depth = shape[-3]
    slab = max(1, SLAB * depth // max(1, array.array.nbytes))
    for first in range(0, depth, slab):
        box = slice(first, min(depth, first + slab))
        array.array[:, box] = np.asarray(image[..., box, :, :])
        if progress:
            progress(box.stop / depth)
    return array
