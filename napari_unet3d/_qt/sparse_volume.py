"""A volume of zeros that takes memory only where something was written."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.worker.room import fits_in_memory

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

EDGE = 16
"""Edge of the cubes that are kept. A painted slice takes as many times its own size;
smaller cubes would take longer to put together."""


class SparseVolume:
    """Hold small cubes of a huge volume; the data of a layer that is painted on.

    It is read and written like an ndarray, by integers and slices or by an array of
    integers for each axis; what is read is a copy.

    Parameters
    ----------
    shape : (int, int, int)
        Of the volume.
    dtype : dtype-like
        Number format.

    Examples
    --------
    >>> volume = SparseVolume((10**4, 10**4, 10**4))
    >>> volume[5000, 100:200, 100:200] = 2
    >>> int(volume[5000].sum()), volume.kept_bytes < 2**20
    (20000, True)
    """

    ndim = 3

    def __init__(self, shape: Sequence[int], dtype: DTypeLike = np.uint8) -> None:
        z, y, x = map(int, shape)
        self.shape = (z, y, x)
        self.dtype = np.dtype(dtype)
        # Number of the cube at each place; the first one is that of zeros. The system
        # gives room to the parts of this table that are written.
        self._table = np.zeros([-(-n // EDGE) for n in self.shape], np.int32)
        self._cubes = np.zeros((8, EDGE, EDGE, EDGE), self.dtype)
        self._places = np.zeros((8, 3), np.int64)
        self._count = 1

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that an ndarray of this shape would take."""
        return self.size * self.dtype.itemsize

    @property
    def kept_bytes(self) -> int:
        """Bytes of the cubes."""
        return self._count * EDGE**3 * self.dtype.itemsize

    def __len__(self) -> int:
        """Give the length of the first axis."""
        return self.shape[0]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Return all of it as an ndarray."""
        whole: NDArray[Any] = self[:, :, :].astype(dtype or self.dtype, copy=False)
        return whole

    def __getitem__(self, key: Any) -> Any:
        """Read a box, or single voxels."""
        keys = self._expanded(key)
        if any(isinstance(k, np.ndarray) for k in keys):
            cube, inside = self._located(keys)
            return self._cubes[(self._table[cube], *inside)]
        ranges, steps = self._ranges(keys)
        if any(low >= high for low, high in ranges):
            return np.empty([high - low for low, high in ranges], self.dtype)[steps]
        cubes = _Cubes(ranges)
        numbers: Any = self._table[cubes.places]
        block = cubes.joined(self._cubes[(numbers, *cubes.inside)])
        found = block[cubes.part][steps]
        return found if found.ndim else found[()]

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write into a box, or into single voxels."""
        keys = self._expanded(key)
        if any(isinstance(k, np.ndarray) for k in keys):
            cube, inside = self._located(keys)
            self._make_at(cube, (0, 0, 0))
            self._cubes[(self._table[cube], *inside)] = value
            return
        ranges, steps = self._ranges(keys)
        if any(low >= high for low, high in ranges):
            return
        cubes = _Cubes(ranges)
        numbers: Any = self._table[cubes.places]
        block = cubes.joined(self._cubes[(numbers, *cubes.inside)])
        block[cubes.part][steps] = value
        cut = cubes.cut(block)
        # Where nothing was and nothing comes no cube is made.
        wanted = (numbers == 0) & cut.any(axis=(3, 4, 5))
        self._make_at(np.nonzero(wanted), cubes.first)
        numbers = self._table[cubes.places]
        there: Any = numbers > 0
        self._cubes[(numbers[there], *cubes.inside)] = cut[there]

    def clear(self) -> None:
        """Set all to zero, and give the memory back."""
        self._table[tuple(self._places[1 : self._count].T)] = 0
        self._cubes = np.zeros((8, EDGE, EDGE, EDGE), self.dtype)
        self._count = 1

    def portions(self, voxels: int) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield what is not zero in portions of about as many voxels looked at.

        Yields
        ------
        index : (n,) ndarray of int64
            Flat (C order) indices, in no order.
        values : (n,) ndarray
        """
        step = max(1, voxels // EDGE**3)
        for first in range(1, self._count, step):
            cubes = self._cubes[first : min(first + step, self._count)]
            values = cubes.reshape(-1)
            found = np.flatnonzero(values != 0)
            number, inside = np.divmod(found, EDGE**3)
            # Of each cube's first voxel, and of a voxel in it
            z, y, x = (EDGE * self._places[first : first + len(cubes)]).T
            origins = (z * self.shape[1] + y) * self.shape[2] + x
            k = np.arange(EDGE)
            steps = (k[:, None, None] * self.shape[1] + k[:, None]) * self.shape[2] + k
            index = origins[number] + steps.reshape(-1)[inside]
            yield index, values[found]

    def _expanded(self, key: Any) -> list[Any]:
        keys = list(key) if isinstance(key, tuple) else [key]
        dots = [k for k, each in enumerate(keys) if each is Ellipsis]
        if dots:
            fill = [slice(None)] * (self.ndim - len(keys) + 1)
            keys[dots[0] : dots[0] + 1] = fill
        keys += [slice(None)] * (self.ndim - len(keys))
        if len(keys) != self.ndim:
            raise IndexError(f"{len(keys)} indices are too many for 3 axes")
        keys = [np.asarray(k) if isinstance(k, list) else k for k in keys]
        if any(isinstance(k, np.ndarray) and k.ndim for k in keys):
            if any(isinstance(k, slice) for k in keys):
                raise IndexError("arrays of integers are needed for all axes, or none")
            return list(np.broadcast_arrays(*keys))
        return [k if isinstance(k, slice) else operator.index(k) for k in keys]

    def _located(
        self, keys: list[NDArray[Any]]
    ) -> tuple[tuple[NDArray[Any], ...], tuple[NDArray[Any], ...]]:
        for k, n in zip(keys, self.shape, strict=True):
            if k.size and not -n <= k.min() <= k.max() < n:
                raise IndexError(f"an index is out of bounds for length {n}")
        positive = [
            np.where(k < 0, k + n, k) for k, n in zip(keys, self.shape, strict=True)
        ]
        return tuple(k // EDGE for k in positive), tuple(k % EDGE for k in positive)

    def _make_at(self, places: Sequence[NDArray[Any]], first: Sequence[int]) -> None:
        """Make the cubes that are missing at some places, counted from the first."""
        shifted = [k + a for k, a in zip(places, first, strict=True)]
        missing = self._table[tuple(shifted)] == 0
        if not missing.any():
            return
        new = np.unique(np.stack([k[missing] for k in shifted], axis=1), axis=0)
        needed = self._count + len(new)
        if needed > len(self._cubes):
            room = max(needed, len(self._cubes) * 3 // 2)
            # In place: the system moves pages instead of copying them.
            self._cubes.resize((room, EDGE, EDGE, EDGE), refcheck=False)
            self._places.resize((room, 3), refcheck=False)
        self._places[self._count : needed] = new
        self._table[tuple(new.T)] = np.arange(self._count, needed)
        self._count = needed

    def _ranges(
        self, keys: list[Any]
    ) -> tuple[list[tuple[int, int]], tuple[slice | int, ...]]:
        """Return the box around what is meant, and how to pick that from it."""
        ranges: list[tuple[int, int]] = []
        steps: list[slice | int] = []
        for key, n in zip(keys, self.shape, strict=True):
            if isinstance(key, slice):
                chosen = range(n)[key]
                low = min(chosen[0], chosen[-1]) if chosen else 0
                high = max(chosen[0], chosen[-1]) + 1 if chosen else 0
                first = chosen[0] - low if chosen else 0
                plain = chosen.step == 1
                steps.append(slice(None) if plain else slice(first, None, chosen.step))
                ranges.append((low, high))
            else:
                if not -n <= key < n:
                    raise IndexError(f"index {key} is out of bounds for length {n}")
                ranges.append((key % n, key % n + 1))
                steps.append(0)
        return ranges, tuple(steps)


def empty_volume(shape: Sequence[int]) -> Any:
    """Return a volume of zeros to paint on, sparse where it is huge."""
    if fits_in_memory(math.prod(shape)):
        return np.zeros(shape, np.uint8)
    return SparseVolume(shape)


class _Cubes:
    """The cubes that a box meets, put together and cut apart without a loop.

    Across an axis along which the box is one voxel thick only that layer is taken.

    Parameters
    ----------
    ranges : sequence of (int, int)
        The box.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        places, inside, part, self.first = [], [], [], []
        self._counts, self._edges = [], []
        for low, high in ranges:
            a, b = low // EDGE, -(-high // EDGE)
            thin = high - low == 1
            places.append(slice(a, b))
            inside.append(slice(low % EDGE, low % EDGE + 1) if thin else slice(None))
            part.append(slice(0, 1) if thin else slice(low - a * EDGE, high - a * EDGE))
            self.first.append(a)
            self._counts.append(b - a)
            self._edges.append(1 if thin else EDGE)
        self.places, self.inside = tuple(places), tuple(inside)
        self.part = tuple(part)

    def joined(self, cubes: NDArray[Any]) -> NDArray[Any]:
        """Put cubes (nz, ny, nx, dz, dy, dx) side by side."""
        lengths = [n * e for n, e in zip(self._counts, self._edges, strict=True)]
        return cubes.transpose(0, 3, 1, 4, 2, 5).reshape(lengths)

    def cut(self, block: NDArray[Any]) -> NDArray[Any]:
        """Undo `joined`."""
        (a, b, c), (d, e, f) = self._counts, self._edges
        return block.reshape(a, d, b, e, c, f).transpose(0, 2, 4, 1, 3, 5)
