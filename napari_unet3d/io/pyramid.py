"""Coarser levels of an OME-Zarr, made chunk by chunk from the finest one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .layout import CHUNK, chunks_of

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PyramidLevel:
    """One level, along Z, Y and X."""

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    """Voxels of the finest level in one of its voxels, along each axis."""


def levels_of(
    shape: Sequence[int], spacing: Sequence[float] | None = None
) -> list[PyramidLevel]:
    """Return all levels of a volume (..., Z, Y, X), the finest first.

    Each has half as many voxels along an axis as the one before it, along those axes
    where voxels are not yet twice as long as along others, until one chunk holds all.

    Examples
    --------
    >>> [level.shape for level in levels_of((100, 300, 200))]
    [(100, 300, 200), (50, 150, 100), (25, 75, 50), (13, 38, 25)]
    >>> [level.shape for level in levels_of((20, 128, 128), (4, 1, 1))]
    [(20, 128, 128), (20, 64, 64)]
    """
    sizes, lengths = tuple(shape[-3:]), tuple(spacing or (1.0, 1.0, 1.0))
    levels = [PyramidLevel(sizes, (1, 1, 1))]
    while max(sizes) > CHUNK:
        finest = min(a for a, n in zip(lengths, sizes, strict=True) if n > 1)
        halved = [
            n > 1 and a < 1.99 * finest for a, n in zip(lengths, sizes, strict=True)
        ]
        sizes = tuple(
            -(-n // 2) if half else n for n, half in zip(sizes, halved, strict=True)
        )
        lengths = tuple(a * (1 + h) for a, h in zip(lengths, halved, strict=True))
        factors = tuple(
            f * (1 + h) for f, h in zip(levels[-1].factors, halved, strict=True)
        )
        levels.append(PyramidLevel(sizes, factors))
    return levels


def build(
    group: zarr.Group,
    folder: Path,
    *,
    labels: bool,
    written: Callable[[Path], None] = lambda _: None,
) -> None:
    """Fill the levels "1", "2", ... of a group from its level "0".

    Chunks that have a file already are left as they are: another run made them.

    Parameters
    ----------
    group : zarr.Group
        With the arrays of all levels.
    folder : Path
        Where it lies.
    labels : bool
        Whether the numbers are classes: a voxel then has the most frequent one of
        those it covers, else their mean.
    written : callable, optional
        Called with the file of each chunk.
    """
    reduce = most_frequent if labels else mean
    number = 1
    while str(number) in group:
        fine: Any = group[str(number - 1)]
        coarse: Any = group[str(number)]
        steps = [
            1 if n == m else 2 for n, m in zip(fine.shape, coarse.shape, strict=True)
        ]
        for place, box in _chunks(coarse.shape):
            file = folder.joinpath(str(number), "c", *map(str, place))
            if file.is_file():
                continue
            source = tuple(
                slice(part.start * step, min(part.stop * step, n))
                for part, step, n in zip(box, steps, fine.shape, strict=True)
            )
            coarse[box] = reduce(np.asarray(fine[source]), steps)
            # A chunk of zeros has no file.
            if file.is_file():
                written(file)
        number += 1


def most_frequent(values: NDArray[Any], steps: Sequence[int]) -> NDArray[Any]:
    """Return the most frequent number of each cell of voxels.

    Of several the largest: what is thin stays visible longer.

    Examples
    --------
    >>> most_frequent(np.array([[1, 1, 2, 2, 3], [1, 3, 1, 1, 3]]), (2, 2))
    array([[1, 2, 3]])
    """
    cells = _cells(values, steps)
    found = np.zeros(cells.shape[:-1], values.dtype)
    most = np.zeros(found.shape, np.uint8)
    for value in np.unique(values):
        count = (cells == value).sum(axis=-1, dtype=np.uint8)
        is_more = count >= np.maximum(most, 1)
        found[is_more] = value
        most[is_more] = count[is_more]
    return found


def mean(values: NDArray[Any], steps: Sequence[int]) -> NDArray[Any]:
    """Return the mean of each cell of voxels, rounded where the type needs it."""
    found: NDArray[Any] = _cells(values, steps).mean(axis=-1, dtype=np.float64)
    if values.dtype.kind != "f":
        np.rint(found, out=found)
    return found.astype(values.dtype)


def _cells(values: NDArray[Any], steps: Sequence[int]) -> NDArray[Any]:
    """Gather the voxels of each cell along a last axis; the outermost are repeated."""
    rest = [(0, -n % step) for n, step in zip(values.shape, steps, strict=True)]
    if any(after for _, after in rest):
        values = np.pad(values, rest, mode="edge")
    parts = [
        values[tuple(slice(o, None, s) for o, s in zip(offset, steps, strict=True))]
        for offset in product(*map(range, steps))
    ]
    return np.stack(parts, axis=-1)


def _chunks(
    shape: Sequence[int],
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """List the places of all chunks of an array, and their voxels."""
    edges = chunks_of(shape)
    counts = [-(-n // edge) for n, edge in zip(shape, edges, strict=True)]
    for place in product(*map(range, counts)):
        yield (
            place,
            tuple(
                slice(k * edge, min((k + 1) * edge, n))
                for k, edge, n in zip(place, edges, shape, strict=True)
            ),
        )
