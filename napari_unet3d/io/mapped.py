"""Files whose numbers lie uncompressed in one piece, written through memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from .layout import Layout

_BLOCK = 1 << 24


def reserve(file: BinaryIO, offset: int, size: int) -> None:
    """Take room on the disk, filled with zeros.

    A memory-mapped file with holes would end the process by a signal, not by an
    exception, when the disk is full.

    Raises
    ------
    OSError
        If there is not enough room.
    """
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), offset, size)
        return
    file.seek(offset)
    zeros = bytes(_BLOCK)
    for written in range(0, size, _BLOCK):
        file.write(zeros[: min(_BLOCK, size - written)])


class MappedWriter:
    """A file whose array can be assigned block by block.

    Parameters
    ----------
    path : Path
        The file, already as long as it will be.
    layout : Layout
        Shape and type of the array.
    offset : int
        Where the numbers begin, in bytes.
    order : tuple of int, optional
        Axes of `layout` in the order of the file, slowest first.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        offset: int,
        order: tuple[int, ...] | None = None,
    ) -> None:
        self._path = path
        order = order or tuple(range(len(layout.shape)))
        stored = tuple(layout.shape[axis] for axis in order)
        self._mapped: np.memmap[Any, Any] | None = np.memmap(
            path, dtype=layout.dtype, mode="r+", offset=offset, shape=stored
        )
        back = [order.index(axis) for axis in range(len(order))]
        self.array: NDArray[Any] | None = self._mapped.transpose(back)

    def finish(self) -> None:
        """Bring everything to the disk and release the file."""
        if self._mapped is not None:
            self._mapped.flush()
        self.close()

    def close(self) -> None:
        """Release the file, whatever its state."""
        # The map ends with the last reference to it; Windows renames no mapped file.
        self.array = None
        self._mapped = None
