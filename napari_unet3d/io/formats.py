"""The module of each format, imported when a file of that format is met."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from pathlib import Path

    from .layout import Layout, Writer
    from .location import Kind, Location
    from .volume import Stored


class Format(Protocol):
    """What each of these modules offers."""

    def read(self, location: Location) -> Stored:
        """Open what a path names."""

    def create(self, path: Path, layout: Layout) -> Writer:
        """Create a file to be filled."""


_MODULES: dict[Kind, str] = {
    "TIFF": "tiff",
    "OME-Zarr": "ome_zarr",
    "HDF5": "hdf5",
    "NIfTI": "nifti",
    "NumPy": "npy",
    "annotation": "annotation_file",
}


def format_of(kind: Kind) -> Format:
    """Import the module of a format; zarr alone takes half a second."""
    return cast("Format", import_module(f"{__package__}.{_MODULES[kind]}"))
