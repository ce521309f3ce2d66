"""TIFF, BigTIFF, ImageJ hyperstacks and OME-TIFF."""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tifffile

from napari_unet3d.engine.errors import EngineError

from .mapped import MappedWriter, reserve
from .sentences import unreadable
from .tiff_metadata import (
    CLASSIC_SIZE,
    imagej_fits,
    imagej_metadata,
    ome_metadata,
    physical_size,
)
from .volume import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .layout import Layout
    from .location import Location
    from .volume import ArrayLike, Spacing

# tifffile documents TiffFileError (a ValueError). Damaged tags make it compute with
# wrong numbers, and each of the others was seen when bytes of good files were changed.
_ERRORS = (
    *(OSError, ValueError, RuntimeError, MemoryError, struct.error),
    *(zlib.error, lzma.LZMAError, EOFError),
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError),
    ImportError,  # a compression that tifffile leaves to another library
)
_TYPES = (
    *("uint8", "uint16", "uint32", "int8", "int16", "int32"),
    *("float32", "float64"),
)


def read(location: Location) -> Stored:
    """Open the first series of a TIFF file.

    An uncompressed file in one piece is memory-mapped, any other is read.

    Raises
    ------
    EngineError
        If the file is damaged, no TIFF, or compressed in a way that needs a library.
    """
    with (
        unreadable(location.source, _ERRORS, "TIFF"),
        tifffile.TiffFile(location.path) as tif,
    ):
        series = tif.series[0]
        array = _array(tif, series, location.path)
        spacing, unit = physical_size(tif)
        axes = series.get_axes(squeeze=False)
    return Stored(array, axes, spacing, unit, errors=_ERRORS)


def voxel_size(path: str, shape: Sequence[int]) -> tuple[Spacing, str | None] | None:
    """Tell how large the voxels of a volume are, and the unit, from the header alone.

    Parameters
    ----------
    path : str
        The file.
    shape : (int, int, int)
        Of the volume, ZYX, that it is expected to hold.

    Returns
    -------
    (spacing, unit), or None where the file does not say, or holds something else.

    Raises
    ------
    EngineError
        If the file is damaged or no TIFF.
    """
    with unreadable(path, _ERRORS, "TIFF"), tifffile.TiffFile(path) as tif:
        spacing, unit = physical_size(tif)
        if spacing is None:
            # Before all of its pages are looked at, which may be many.
            return None
        series = tif.series[0]
        lengths = dict(zip(series.axes, series.shape, strict=True))
    # Where the file does not name it, tifffile calls the depth Q or I.
    depth = next((lengths[axis] for axis in "ZQIT" if axis in lengths), None)
    fits = [depth, lengths.get("Y"), lengths.get("X")] == list(shape)
    return (spacing, unit) if fits else None


def _array(
    tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path
) -> ArrayLike:
    shape = series.get_shape(squeeze=False)
    mappable = series.dataoffset is not None and series.keyframe.is_memmappable
    if not mappable or series.ndim < 3 or series.kind in ("generic", "uniform"):
        # Looking at every page takes time where the first one tells all.
        _require_all_pages(tif)
    if mappable:
        dtype = series.dtype.newbyteorder(tif.byteorder)
        return np.memmap(
            path, dtype=dtype, mode="r", offset=series.dataoffset or 0, shape=shape
        )
    page = series.keyframe
    if page.compression != 1 and len(page.dataoffsets) < math.prod(page.chunked):
        # tifffile would fill in zeros, for hours where a damaged size is large.
        raise tifffile.TiffFileError("pieces of a page are missing")
    array = tif.asarray(series=series, squeeze=False)
    if array.shape != shape:
        raise tifffile.TiffFileError(f"{array.shape} found in place of {shape}")
    return array


def _require_all_pages(tif: tifffile.TiffFile) -> None:
    # tifffile only logs that the chain of pages leads behind the end of the file, and
    # goes on with a shorter stack.
    file, tiff = tif.filehandle, tif.tiff
    offset = tif.pages[-1].offset
    file.seek(offset)
    (count,) = struct.unpack(tiff.tagnoformat, file.read(tiff.tagnosize))
    file.seek(offset + tiff.tagnosize + count * tiff.tagsize)
    (following,) = struct.unpack(tiff.offsetformat, file.read(tiff.offsetsize))
    if following >= file.size:
        raise tifffile.TiffFileError("the file ends before its last page")


def create(path: Path, layout: Layout) -> MappedWriter:
    """Create an uncompressed TIFF file, its room on the disk taken, to be filled.

    ImageJ's variant is written where it can hold the numbers, OME-TIFF otherwise, as
    BigTIFF from 4 GB on. Uncompressed, because blocks come in any order.

    Raises
    ------
    EngineError
        If TIFF readers know no such type of number.
    """
    name = layout.dtype.name
    if name not in _TYPES:
        raise EngineError(
            f"TIFF cannot hold numbers of type {name} that other programs read; "
            f"convert to one of {', '.join(_TYPES)}, or write .zarr or .h5."
        )
    order = tuple(range(len(layout.shape)))
    if imagej_fits(layout):
        variant: dict[str, Any] = {"imagej": True}
        options = imagej_metadata(layout)
        if layout.axes == "CZYX":
            order = (1, 0, 2, 3)  # ImageJ keeps channels within slices.
    else:
        variant = {"ome": True, "bigtiff": layout.nbytes >= CLASSIC_SIZE}
        options = ome_metadata(layout)
    with tifffile.TiffWriter(path, **variant) as writer:
        place = writer.write(
            shape=tuple(layout.shape[axis] for axis in order),
            dtype=layout.dtype,
            # Otherwise three slices may be taken for red, green and blue.
            photometric="minisblack",
            returnoffset=True,
            **options,
        )
    offset, _ = cast("tuple[int, int]", place)
    with path.open("r+b") as file:
        reserve(file, offset, layout.nbytes)
    return MappedWriter(path, layout, offset, order)
