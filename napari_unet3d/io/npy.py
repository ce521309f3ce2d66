"""NumPy's own files, memory-mapped. They keep no spacing and no names of axes."""

from __future__ import annotations

from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np

from .mapped import MappedWriter, reserve
from .sentences import unreadable
from .volume import Stored

if TYPE_CHECKING:
    from pathlib import Path

    from .layout import Layout
    from .location import Location

# The header is a Python literal: damage brings the errors of Python's parser.
_ERRORS = (
    *(OSError, ValueError, EOFError, SyntaxError, TokenError),
    *(TypeError, OverflowError, MemoryError, RecursionError),
)


def read(location: Location) -> Stored:
    """Open a .npy file without reading its numbers."""
    with unreadable(location.source, _ERRORS, "NumPy"):
        array = np.lib.format.open_memmap(location.path, mode="r")
    return Stored(array, errors=_ERRORS)


def create(path: Path, layout: Layout) -> MappedWriter:
    """Create a .npy file, its room on the disk taken, to be filled."""
    header = {
        "descr": np.lib.format.dtype_to_descr(layout.dtype),
        "fortran_order": False,
        "shape": layout.shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        reserve(file, offset, layout.nbytes)
    return MappedWriter(path, layout, offset)
