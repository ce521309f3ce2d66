"""Volumes too large for memory that no file holds as they are: onto the disk first."""

from __future__ import annotations

import math
import os
import shutil
from itertools import product
from typing import TYPE_CHECKING, Any

import psutil
import zarr

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.memory import free_memory
from napari_unet3d.io import create_volume
from napari_unet3d.io.affine_view import AffineView
from napari_unet3d.io.lazy_image import StoredImage
from napari_unet3d.io.stored_array import locate
from napari_unet3d.worker.room import amount

from .projects import VARIABLE, projects_folder
from .volumes import full_resolution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .volumes import VolumeChoice

AT_ONCE = 2**28
"""Bytes that are computed and written in one go."""

CHUNK = 64
"""Edge of the chunks in which it is written; parts are multiples of it."""

SPARE = 2**30
"""Bytes that are left free on the disk."""


def cache_folder() -> Path:
    """Return the folder for volumes of this session."""
    return projects_folder() / "cache"


def spool(choice: VolumeChoice, progress: Callable[[float], None]) -> StoredImage:
    """Compute a volume part by part, and write it to the cache folder.

    Parameters
    ----------
    choice : VolumeChoice
        The volume.
    progress : callable
        Called with the share that is written; an exception ends it.

    Raises
    ------
    EngineError
        Where there is no room for it.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise EngineError(
            f"the folder {folder} cannot be made ({error.strerror}); name another one "
            f"with the environment variable {VARIABLE}"
        ) from error
    if choice.nbytes + SPARE > free:
        raise EngineError(
            f"it is computed on demand and takes {amount(choice.nbytes)}, but "
            f"{amount(free_memory())} of memory and {amount(free)} in {folder} are "
            "free; save it as OME-Zarr and open that, choose a part of it, or name a "
            f"folder with more room with the environment variable {VARIABLE}"
        )
    remove_leftovers()
    path = folder / f"{os.getpid()}-{id(choice):x}.ome.zarr"
    shape = (choice.n_channels, *choice.shape)
    done, total = 0, math.prod(choice.shape)
    with create_volume(path, shape, choice.dtype, labels=False) as array:
        for box in _parts(choice):
            block = choice.read(box)
            array[(slice(None), *box)] = block
            done += math.prod(block.shape[1:])
            progress(done / total)
    written = zarr.open_array(path / "0", mode="r")
    stored = locate(written)
    assert stored is not None
    return StoredImage(((stored, AffineView.whole(shape)),), choice.dtype.str)


def remove_spooled(image: StoredImage) -> None:
    """Remove a volume that `spool` has written."""
    for stored, _ in image.parts:
        shutil.rmtree(os.path.dirname(stored.path), ignore_errors=True)


def remove_leftovers() -> None:
    """Remove what programs have left that ended without doing so."""
    for path in cache_folder().glob("*-*.ome.zarr*"):
        owner = path.name.partition("-")[0].lstrip(".")
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _parts(choice: VolumeChoice) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a volume into boxes that are made of whole chunks, of source and target."""
    data = full_resolution(choice.layer)
    source = [max(1, int(c)) for c in _chunks_zyx(data, choice)]
    voxel = choice.n_channels * choice.dtype.itemsize
    size = [-(-c // CHUNK) * CHUNK for c in source]
    # Rows first: neighbours along X usually lie together.
    for axis in (2, 1, 0):
        while size[axis] < choice.shape[axis] and 2 * voxel * math.prod(size) < AT_ONCE:
            size[axis] *= 2
    ranges = [range(0, n, s) for n, s in zip(choice.shape, size, strict=True)]
    for low in product(*ranges):
        z, y, x = (
            slice(a, min(a + s, n))
            for a, s, n in zip(low, size, choice.shape, strict=True)
        )
        yield z, y, x


def _chunks_zyx(data: Any, choice: VolumeChoice) -> list[int]:
    """Return the largest chunks of an array along Z, Y and X."""
    chunks = getattr(data, "chunks", None)
    if not isinstance(chunks, tuple) or len(chunks) != data.ndim:
        return [1, 1, 1]
    largest = [max(c) if isinstance(c, tuple) else c for c in chunks]
    axes = choice.axes + "C" * choice.layer.rgb
    return [largest[axes.index(axis)] for axis in "ZYX"]
