"""A stored array whose chunks are kept once they were read, within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from .affine_view import AffineView
from .array_size import ArraySize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .stored_array import StoredArray

AT_ONCE = 2**28
"""Bytes that are read in one go; zarr decodes the chunks in it side by side."""


class ChunkCache(ArraySize):
    """Read a chunked array by boxes; what was read last is not read again.

    Boxes are selected by integers, slices and an ellipsis. It may be read from several
    threads.

    Parameters
    ----------
    array : array-like
        With `shape`, `dtype` and `chunks`.
    capacity : int
        Bytes that are kept at most; the last chunk is kept however large it is.
    stored : StoredArray, optional
        Where the array lies.
    """

    def __init__(
        self, array: Any, capacity: int, stored: StoredArray | None = None
    ) -> None:
        self.stored = stored
        self.capacity = capacity
        self._array = array
        self.shape: tuple[int, ...] = tuple(map(int, array.shape))
        # tensorstore has types of its own.
        dtype = getattr(array.dtype, "numpy_dtype", array.dtype)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.chunks: tuple[int, ...] = chunks_of_array(array)
        self._kept: OrderedDict[tuple[int, ...], NDArray[Any]] = OrderedDict()
        self._size = 0
        self._generation = 0
        self._lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Size of what is kept at present."""
        return self._size

    def __len__(self) -> int:
        """Give the length of the first axis."""
        return self.shape[0]

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Read the whole array, past the cache."""
        return np.array(self._array[...], dtype=dtype, copy=copy)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a box."""
        return AffineView.whole(self.shape)[key].take(_Boxes(self))

    def replace(self, array: Any) -> None:
        """Read from another array of the same shape and chunks; forget what was."""
        with self._lock:
            self._array = array
        self.forget([(0, n) for n in self.shape])

    def forget(self, region: Sequence[tuple[int, int]]) -> None:
        """Read a box (all axes) anew, as it was written meanwhile."""
        low, high = self._chunks_in(region)
        with self._lock:
            self._generation += 1
            for place in [p for p in self._kept if _within(p, low, high)]:
                self._size -= self._kept.pop(place).nbytes

    def _chunks_in(
        self, region: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[int]]:
        low = [a // c for (a, _), c in zip(region, self.chunks, strict=True)]
        high = [-(-b // c) for (_, b), c in zip(region, self.chunks, strict=True)]
        return low, high

    def read(self, region: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """Read a box that is not empty."""
        block = np.empty([b - a for a, b in region], self.dtype)
        low, high = self._chunks_in(region)
        # Rows of chunks along the last axes are read together.
        for part in self._portions(low, high):
            found = self._found(part)
            for place, chunk in found.items():
                inside, within = [], []
                for k, c, (a, b) in zip(place, self.chunks, region, strict=True):
                    first, last = max(a, k * c), min(b, (k + 1) * c)
                    inside.append(slice(first - a, last - a))
                    within.append(slice(first - k * c, last - k * c))
                block[tuple(inside)] = chunk[tuple(within)]
        return block

    def _portions(
        self, low: Sequence[int], high: Sequence[int]
    ) -> list[list[tuple[int, int]]]:
        """Cut a box of chunks into boxes of at most `AT_ONCE` bytes."""
        most = max(1, AT_ONCE // max(1, self._chunk_bytes))
        steps = [b - a for a, b in zip(low, high, strict=True)]
        for axis in range(len(steps)):
            while steps[axis] > 1 and int(np.prod(steps, dtype=np.int64)) > most:
                steps[axis] = -(-steps[axis] // 2)
        ranges = [
            [(k, min(k + step, b)) for k in range(a, b, step)]
            for a, b, step in zip(low, high, steps, strict=True)
        ]
        return [list(box) for box in product(*ranges)]

    @property
    def _chunk_bytes(self) -> int:
        return int(np.prod(self.chunks, dtype=np.int64)) * self.dtype.itemsize

    def _found(
        self, box: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, ...], NDArray[Any]]:
        """Return the chunks of a box of chunks."""
        places = list(product(*(range(a, b) for a, b in box)))
        found = {}
        with self._lock:
            generation = self._generation
            for place in places:
                if place in self._kept:
                    self._kept.move_to_end(place)
                    found[place] = self._kept[place]
        missing = [place for place in places if place not in found]
        if not missing:
            return found
        low = [min(place[axis] for place in missing) for axis in range(self.ndim)]
        high = [max(place[axis] for place in missing) + 1 for axis in range(self.ndim)]
        together = [b - a for a, b in zip(low, high, strict=True)]
        if int(np.prod(together)) <= 2 * len(missing):
            new = self._read_together(low, high, set(missing))
        else:
            new = {}
            for place in missing:
                new |= self._read_together(place, [k + 1 for k in place], {place})
        self._keep(new, generation)
        return found | new

    def _read_together(
        self, low: Sequence[int], high: Sequence[int], wanted: set[tuple[int, ...]]
    ) -> dict[tuple[int, ...], NDArray[Any]]:
        begin = [a * c for a, c in zip(low, self.chunks, strict=True)]
        end = [
            min(b * c, n) for b, c, n in zip(high, self.chunks, self.shape, strict=True)
        ]
        box = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        block = np.asarray(self._array[box])
        if len(wanted) == 1:
            return {next(iter(wanted)): block}
        return {
            place: block[
                tuple(
                    slice(k * c - a, (k + 1) * c - a)
                    for k, c, a in zip(place, self.chunks, begin, strict=True)
                )
            ].copy()
            for place in wanted
        }

    def _keep(self, new: dict[tuple[int, ...], NDArray[Any]], generation: int) -> None:
        with self._lock:
            # What was read before it was written must not be kept.
            if generation != self._generation:
                return
            for place, chunk in new.items():
                if place not in self._kept:
                    self._kept[place] = chunk
                    self._size += chunk.nbytes
            while self._size > self.capacity and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._size -= dropped.nbytes


class _Boxes:
    """What `AffineView.take` reads a box from."""

    def __init__(self, cache: ChunkCache) -> None:
        self._cache = cache

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        region = [(each.start, each.stop) for each in key]
        if any(a == b for a, b in region):
            lengths = [len(range(s.start, s.stop, s.step)) for s in key]
            return np.empty(lengths, self._cache.dtype)
        block = self._cache.read(region)
        return block[tuple(slice(None, None, each.step) for each in key)]


def chunks_of_array(array: Any) -> tuple[int, ...]:
    """Return the shape of the chunks of an array; all of it where it has none."""
    chunks = getattr(array, "chunks", None)
    shape = tuple(map(int, array.shape))
    if not isinstance(chunks, tuple) or len(chunks) != len(shape):
        layout = getattr(array, "chunk_layout", None)  # of tensorstore
        read = getattr(getattr(layout, "read_chunk", None), "shape", None)
        chunks = read if isinstance(read, tuple) else shape
    return tuple(min(int(c), n) for c, n in zip(chunks, shape, strict=True))


def has_chunks(array: Any) -> bool:
    """Tell whether an array is read in chunks, so that keeping them pays."""
    return chunks_of_array(array) != tuple(array.shape)


def _within(place: Sequence[int], low: Sequence[int], high: Sequence[int]) -> bool:
    return all(a <= k < b for k, a, b in zip(place, low, high, strict=True))
