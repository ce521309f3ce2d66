"""What a path names: which file, which format, which part of it."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["TIFF", "OME-Zarr", "HDF5", "NIfTI", "NumPy", "annotation"]

SUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        ".tif, .tiff": "TIFF, BigTIFF, ImageJ hyperstack, OME-TIFF",
        ".zarr": "OME-Zarr 0.4 and 0.5, plain zarr array; also name.zarr/sub/group",
        ".h5, .hdf5": "HDF5, as name.h5:dataset",
        ".nii, .nii.gz": "NIfTI",
        ".npy": "NumPy array, which keeps no spacing",
    }
)
"""File types that are read and written: name endings and what they are."""

_KINDS: dict[str, Kind] = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".zarr": "OME-Zarr",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".npy": "NumPy",
    ".npz": "annotation",
}
_DATASET = re.compile(r"^(?P<file>.+?\.(?:h5|hdf5))(?::(?P<inner>.*))?$", re.I)
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True)
class Location:
    """A file or folder, its format and the part of it that is meant.

    Attributes
    ----------
    source : str
        The path as the person wrote it.
    path : Path
        The file; for zarr the folder of the group or array.
    kind : str
        The format.
    inner : str
        The dataset in an HDF5 file; empty if none was named.
    """

    source: str
    path: Path
    kind: Kind
    inner: str = ""


def located(source: str | os.PathLike[str]) -> Location:
    """Say what a path names, whether it exists or not.

    Raises
    ------
    EngineError
        If the ending of the name is not one of `SUPPORTED`.

    Examples
    --------
    >>> located("brain.h5:raw").inner
    'raw'
    """
    written = os.fspath(source)
    text = os.path.expanduser(written)
    if match := _DATASET.match(text):
        inner = (match["inner"] or "").strip("/")
        return Location(written, Path(match["file"]), "HDF5", inner)
    path = Path(text)
    name = path.name.lower()
    for ending, kind in _KINDS.items():
        if name.endswith(ending):
            return Location(written, path, kind)
    if is_zarr(path) or any(part.lower().endswith(".zarr") for part in path.parts):
        return Location(written, path, "OME-Zarr")
    if path.is_dir():
        raise EngineError(f"{written} is a folder; name a file in it ({endings()}).")
    what = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
    raise EngineError(
        f"{written} {what}, which is no supported file type; use {endings()}."
    )


def existing(source: str | os.PathLike[str]) -> Location:
    """Say what a path names, and make sure that it is there.

    Raises
    ------
    EngineError
        If nothing is there, or a folder where a file should be, or the reverse.
    """
    location = located(source)
    path = location.path
    if not path.exists():
        raise EngineError(missing(location.source, path))
    if location.kind == "OME-Zarr" and not path.is_dir():
        raise EngineError(
            f"{location.source} is a file, but OME-Zarr is a folder; check the name."
        )
    if location.kind != "OME-Zarr" and path.is_dir():
        raise EngineError(
            f"{location.source} is a folder, but {location.kind} is a file; name a "
            "file in it."
        )
    return location


def overlap(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to the same, or to a part of it."""
    first, second = (Path(os.path.realpath(path)) for path in (one, other))
    if first == second or first in second.parents or second in first.parents:
        return True
    return first.exists() and second.exists() and first.samefile(second)


def missing(source: str, path: Path) -> str:
    """Say that a file does not exist, and which one may have been meant."""
    folder = path.parent
    if not folder.is_dir():
        return f"{source} does not exist: there is no folder {folder}; check the path."
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    return f"{source} does not exist{nearest(path.name, names)}"


def nearest(name: str, names: Iterable[str]) -> str:
    """End a sentence on a name that is not there with the one most like it."""
    by_lower = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[found[0]]}?" if found else "; check the path."


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a zarr group or array of version 2 or 3."""
    return any((path / mark).is_file() for mark in _ZARR_MARKS)


def endings() -> str:
    """List the endings of the names of supported files."""
    return ", ".join(SUPPORTED)


def listed(names: Sequence[str], most: int = 20) -> str:
    """Join names for a sentence, leaving out what would make it too long.

    >>> listed(["raw", "labels", "mask"], most=2)
    'raw, labels and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
