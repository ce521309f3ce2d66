"""Labels in a zarr on this machine: only the chunks that have changed are read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .annotation_scan import BLOCK, Collected, Labelled, scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_CHUNK = re.compile(r"(?:c[/.])?(\d+)[/.](\d+)[/.](\d+)")


class ZarrScan:
    """Look at the labels of a zarr array again and again.

    A chunk without a file has no labels, and one whose file is as before has those of
    before.

    Parameters
    ----------
    array : zarr.Array
        For which `folder_of` knows a folder.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._folder = folder_of(array)
        self._grid = array.shards or array.chunks
        self._seen: dict[tuple[int, ...], tuple[int, int]] = {}
        self._found: dict[
            tuple[int, ...], tuple[NDArray[np.int64], NDArray[np.integer]]
        ] = {}

    def __call__(self) -> Iterator[Labelled | None]:
        """Collect the labelled voxels as `annotation_scan.scan` does."""
        files = dict(self._files())
        for place in self._found.keys() - files.keys():
            del self._found[place], self._seen[place]
        waiting = 0
        for place, state in files.items():
            if self._seen.get(place) != state:
                self._found[place] = self._read(place)
                self._seen[place] = state
                waiting += int(np.prod(self._grid))
            if waiting >= BLOCK:
                waiting = 0
                yield None
        collected = Collected(tuple(self._array.shape))
        for index, values in self._found.values():
            collected.add(index, values)
        yield collected.labelled()

    def _files(self) -> Iterator[tuple[tuple[int, ...], tuple[int, int]]]:
        """Yield the places of the chunks that have a file, and what tells its state."""
        assert self._folder is not None
        # A folder that is gone is not one without labels.
        for parent, _, names in os.walk(self._folder, onerror=_raise):
            for name in names:
                path = os.path.join(parent, name)
                inside = os.path.relpath(path, self._folder).replace(os.sep, "/")
                if match := _CHUNK.fullmatch(inside):
                    about = os.stat(path)
                    place = tuple(map(int, match.groups()))
                    yield place, (about.st_mtime_ns, about.st_size)

    def _read(
        self, place: tuple[int, ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
        low = [k * n for k, n in zip(place, self._grid, strict=True)]
        box = tuple(slice(a, a + n) for a, n in zip(low, self._grid, strict=True))
        block = np.asarray(self._array[box])
        inside = np.nonzero(block)
        z, y, x = (k + a for k, a in zip(inside, low, strict=True))
        shape = self._array.shape
        return (z * shape[1] + y) * shape[2] + x, block[inside]


def _raise(error: OSError) -> None:
    raise error


def folder_of(data: Any) -> str | None:
    """Return the folder of a zarr array (Z, Y, X) that can be painted on, if it is one.

    Where nothing is written it must be 0.
    """
    if type(data).__module__.partition(".")[0] != "zarr":
        return None
    import zarr
    from zarr.storage import LocalStore

    if (
        not isinstance(data, zarr.Array)
        or not isinstance(data.store, LocalStore)
        or data.read_only
        or data.ndim != 3
        or data.dtype.kind not in "iu"
        or data.fill_value
    ):
        return None
    return os.path.join(os.path.abspath(data.store.root), data.path)


def scanner_of(data: Any) -> Callable[[], Iterator[Labelled | None]]:
    """Return what collects the labelled voxels of a layer's data, each time anew."""
    if folder_of(data) is not None:
        return ZarrScan(data)
    return lambda: scan(data)
