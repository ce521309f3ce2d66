"""Volumes and settings from files and to files.

`open_image` and `read_labels` open TIFF, OME-Zarr, HDF5, NIfTI and NumPy files;
`create_volume` writes each of them, so that a file is either complete or not there.
What goes wrong is an `EngineError`: one sentence that names the file and the remedy.
"""

from __future__ import annotations

from .configuration import read_configuration, write_configuration
from .location import SUPPORTED
from .output import WritableArray, create_volume
from .reading import open_image, read_labels
from .volume import ArrayLike, Volume, WritableArrayLike

__all__ = [
    "SUPPORTED",
    "ArrayLike",
    "Volume",
    "WritableArray",
    "WritableArrayLike",
    "create_volume",
    "open_image",
    "read_configuration",
    "read_labels",
    "write_configuration",
]
