"""NIfTI, whose axes run x first in the file: the array is seen from behind."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .mapped import MappedWriter, reserve
from .sentences import extra, unreadable
from .units import converted, known_unit, positive_spacing
from .volume import Stored

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .layout import Layout
    from .location import Location
    from .volume import Spacing

_UNITS = {"meter": "meter", "mm": "millimeter", "micron": "micrometer"}
_CODES = {name: code for code, name in _UNITS.items()}
_COMMENT = 6  # NIfTI's code of an extension that holds text
_KEY = "napari-unet3d"
_MOST_LENGTH = 2**15 - 1
_BLOCK = 2**22

# What damage brings besides nibabel's own errors
_ERRORS = (
    *(OSError, EOFError, ValueError, zlib.error, MemoryError),
    *(ArithmeticError, AttributeError, LookupError, TypeError),
)


def read(location: Location) -> Stored:
    """Open a NIfTI file; its axes are X, Y, Z and then perhaps one without a name.

    An uncompressed file is memory-mapped, a compressed one is read. The numbers stay
    where they are: nothing is turned to the orientation that the affine tells.

    Raises
    ------
    EngineError
        If nibabel is missing, or the file is damaged or no NIfTI.
    """
    nibabel = extra("nibabel", "nifti", "NIfTI")
    errors = (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.spatialimages.HeaderTypeError,
        *_ERRORS,
    )
    with unreadable(location.source, errors, "NIfTI"):
        image = nibabel.load(location.path, mmap="r")
        header = image.header
        # nibabel takes them out of the header when it opens a file.
        scale = float(image.dataobj.slope), float(image.dataobj.inter)
        array = _numbers(image, location.path)
        spacing, unit, axes = _described(header, array.shape)
        placed = header["sform_code"] > 0 or header["qform_code"] > 0
        affine = tuple(map(tuple, image.affine.tolist())) if placed else None
    return Stored(
        array,
        axes,
        spacing,
        unit,
        affine,
        scale=None if scale == (1, 0) else scale,
        errors=errors,
    )


def _numbers(image: Any, path: Path) -> NDArray[Any]:
    numbers: NDArray[Any]
    if path.suffix.lower() != ".gz":
        numbers = image.dataobj.get_unscaled()
        return numbers
    with gzip.open(path) as stream:
        numbers = type(image).from_stream(stream).dataobj.get_unscaled()
        # The checksum is compared at the end of the file, behind the numbers.
        while stream.read(_BLOCK):
            pass
    return numbers


def _described(
    header: Any, shape: tuple[int, ...]
) -> tuple[Spacing | None, str | None, str]:
    """Tell the spacing, its unit and the names of the axes."""
    # The fourth axis is time by name, but it often holds channels.
    fourth = "T" if len(shape) > 4 and shape[3] == 1 else "Q"
    axes = f"XYZ{fourth}QQQ"[: len(shape)]
    unit = _UNITS.get(header.get_xyzt_units()[0])
    # 0.3 as a number of 32 bits shall be 0.3 again
    zooms = [float(str(np.float32(zoom))) for zoom in header.get_zooms()[:3]]
    spacing = positive_spacing(zooms[::-1])
    # A file that says nothing has ones here.
    if unit is None and spacing == (1.0, 1.0, 1.0):
        spacing = None
    for note in _notes(header):
        if note.get("axes") in ("XYZ", "XYZC") and len(note["axes"]) == len(shape):
            axes = note["axes"]
        exact, name = (
            positive_spacing(note.get("spacing")),
            known_unit(note.get("unit")),
        )
        if exact is not None and _agree((spacing, unit), (exact, name)):
            return exact, name, axes
    return spacing, unit, axes


def _notes(header: Any) -> Iterator[dict[str, Any]]:
    """Give what `create` noted in the comments of a header."""
    for extension in header.extensions:
        if extension.get_code() == _COMMENT:
            text = bytes(extension.get_content()).rstrip(b"\0")
            with suppress(ValueError, LookupError, TypeError):
                yield dict(json.loads(text)[_KEY])


def _agree(
    header: tuple[Spacing | None, str | None], noted: tuple[Spacing, str | None]
) -> bool:
    """Tell whether nobody changed the header since the exact size was noted."""
    sizes, unit = _for_header(*noted)
    if unit != header[1]:
        return False
    found = header[0] or (1.0, 1.0, 1.0)
    return all(
        math.isclose(a, b, rel_tol=1e-6) for a, b in zip(sizes, found, strict=True)
    )


def _for_header(spacing: Spacing, unit: str | None) -> tuple[Spacing, str | None]:
    """Express a spacing in one of the three units that NIfTI knows."""
    if unit is None or unit in _CODES:
        return spacing, unit
    wanted = "micrometer" if unit in ("nanometer", "angstrom") else "millimeter"
    return converted(spacing, unit, wanted), wanted


def create(path: Path, layout: Layout) -> MappedWriter:
    """Create a NIfTI-1 file, its room on the disk taken, to be filled.

    The header keeps the spacing with 32 bits and in its own units; an extension of type
    comment notes it exactly.

    Raises
    ------
    EngineError
        If nibabel is missing, or the format cannot hold the shape or the type.
    """
    kind = GzipWriter if layout.compressed else MappedWriter
    return kind(path, layout, _begun(path, layout))


def _begun(path: Path, layout: Layout) -> int:
    """Write the header, make room for the numbers, and tell where they begin."""
    nibabel = extra("nibabel", "nifti", "NIfTI")
    if max(layout.shape) > _MOST_LENGTH:
        raise EngineError(
            f"NIfTI holds at most {_MOST_LENGTH} voxels along an axis, got shape "
            f"{layout.shape}; write .zarr, .h5 or .tif."
        )
    if layout.dtype == np.float16:
        raise EngineError("NIfTI cannot hold float16; convert to float32.")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(layout.dtype)
    header.set_data_shape(layout.shape[::-1])
    if layout.spacing is not None:
        sizes, unit = _for_header(layout.spacing, layout.unit)
        header.set_zooms((*sizes[::-1], 1.0)[: len(layout.shape)])
        header.set_xyzt_units(_CODES.get(unit or ""))
    if layout.affine is not None:
        header.set_sform(layout.affine, code="scanner")
        header.set_qform(layout.affine, code="scanner")
    note = {
        "axes": layout.axes[::-1],
        "spacing": layout.spacing,
        "unit": layout.unit,
    }
    text = json.dumps({_KEY: note}).encode()
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text))
    with path.open("wb") as file:
        header.write_to(file)
        offset = int(header["vox_offset"])
        reserve(file, offset, layout.nbytes)
    # Seen from behind, x first in columns is z first in rows: no transposition.
    return offset


class GzipWriter(MappedWriter):
    """A .nii.gz file: written uncompressed, then compressed in one go."""

    def finish(self) -> None:
        """Compress what was written, in place, and release the file."""
        super().finish()
        packed = self._path.with_name(self._path.name + ".gz")
        try:
            with self._path.open("rb") as plain, gzip.open(packed, "wb", 1) as file:
                shutil.copyfileobj(plain, file, _BLOCK)
            packed.replace(self._path)
        finally:
            packed.unlink(missing_ok=True)
