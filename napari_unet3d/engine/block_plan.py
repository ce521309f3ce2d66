"""Cut a volume into blocks that are segmented one by one, in any order.

Blocks begin and end at the borders of the output's chunks, so that every chunk belongs
to one block alone: it is written once, and never by two writers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from .columns import BESIDE, Extent, column_bytes, extent, sweep_work

if TYPE_CHECKING:
    from .regions import Range, Region
    from .unet import UNet3D

HALO_SHARE = 0.05
"""Of the slices, at most, that are computed twice because blocks end along Z."""

ROUNDS = 4
"""Blocks for each of several devices of which one more or less makes no difference."""

MOST_WORK = 2.0
"""How many times the work of the fewest blocks may be done to share it."""


@dataclass(frozen=True)
class _Cut:
    """One way to cut an axis."""

    cores: tuple[Range, ...]
    most: Extent
    """The largest of all pieces."""
    total: Extent
    """The sum of all pieces."""


_Cuts = tuple[_Cut, _Cut, _Cut]
"""Those of Z, Y and X."""


def plan_blocks(
    network: UNet3D,
    shape: Sequence[int],
    chunks: Sequence[int],
    memory: float,
    region: Region | None = None,
    beside: float = BESIDE,
    at_once: int = 1,
) -> list[Region]:
    """Return the blocks of a volume, in the order in which to segment them.

    The same arguments always give the same plan. Of all plans whose blocks fit in
    memory it is the one that computes the least twice; where these are few blocks for
    several devices, the one with which all of them are done soonest.

    Parameters
    ----------
    network : UNet3D
        Its pooling decides the halo.
    shape, chunks : sequence of int
        Of the output, ZYX.
    memory : float
        Bytes for all that the segmentation of a block takes.
    region : ((int, int), (int, int), (int, int)), optional
        Only the chunks that this box meets.
    beside : float
        Bytes for each voxel of a slice beside the sweep's.
    at_once : int
        Blocks that are segmented at the same time.
    """
    z, y, x = _all_cuts(network, shape, chunks, region)
    across_y, across_x = cheapest(network, y, x, memory, beside)
    depth = z[0].cores[-1][1] - z[0].cores[0][0]
    along_z = [
        cut for cut in z if cut.total.whole - z[0].total.whole <= HALO_SHARE * depth
    ][-1]
    chosen = along_z, across_y, across_x
    if at_once > 1 and _count(chosen) < ROUNDS * at_once:
        # Where even the smallest blocks are too large, they are what there is.
        most = max(memory, _bytes(network, chosen, beside))
        cuts = [
            cut
            for cut in product(z, y, x)
            if _bytes(network, cut, beside) <= most
            and _work(network, cut) <= MOST_WORK * _work(network, chosen)
        ]
        along_z, across_y, across_x = _soonest(network, cuts, at_once)
    return [
        (a, b, c) for a in along_z.cores for b in across_y.cores for c in across_x.cores
    ]


def plan_columns(
    network: UNet3D,
    shape: Sequence[int],
    memory: float,
    across: tuple[Range, Range],
    beside: float = BESIDE,
) -> list[tuple[Range, Range]]:
    """Return columns, as `plan_blocks` cuts them but regardless of chunks.

    Parameters
    ----------
    network, shape, memory, beside
        As there.
    across : ((int, int), (int, int))
        Ranges along Y and X that they cover.
    """
    y, x = (
        _cuts(network, axis, across[axis - 1], shape[axis], network.total_stride[axis])
        for axis in (1, 2)
    )
    across_y, across_x = cheapest(network, y, x, memory, beside)
    return [
        (_clipped(b, across[0]), _clipped(c, across[1]))
        for b in across_y.cores
        for c in across_x.cores
    ]


def _clipped(part: Range, whole: Range) -> Range:
    return max(part[0], whole[0]), min(part[1], whole[1])


def cheapest(
    network: UNet3D,
    y: Sequence[_Cut],
    x: Sequence[_Cut],
    memory: float,
    beside: float,
) -> tuple[_Cut, _Cut]:
    """Choose the cuts of Y and X that cost the least work and fit in memory.

    The cuts come with fewer and larger pieces first: of those of X that fit with one of
    Y the first costs the least.
    """

    def is_too_large(pair: tuple[_Cut, _Cut]) -> bool:
        extent_of_both = pair[0].most.times(pair[1].most)
        return column_bytes(network, extent_of_both, beside) > memory

    fitting = []
    for a in y:
        pairs = [(a, b) for b in x]
        first = bisect_left(pairs, True, key=lambda pair: not is_too_large(pair))
        fitting += pairs[first : first + 1]
    return min(
        fitting or [(y[-1], x[-1])],
        key=lambda cut: (
            sweep_work(network, cut[0].total.times(cut[1].total)),
            len(cut[0].cores),
        ),
    )


def _soonest(network: UNet3D, cuts: Sequence[_Cuts], at_once: int) -> _Cuts:
    """Choose the cuts with which several devices are done first."""

    def time(cut: _Cuts) -> tuple[float, int]:
        z, y, x = cut
        rounds = -(-_count(cut) // at_once)
        largest = z.most.whole * sweep_work(network, y.most.times(x.most))
        return rounds * largest, _count(cut)

    return min(cuts, key=time)


def _bytes(network: UNet3D, cut: _Cuts, beside: float) -> float:
    """Return the memory that the largest block takes."""
    return column_bytes(network, cut[1].most.times(cut[2].most), beside)


def _work(network: UNet3D, cut: _Cuts) -> float:
    """Return what all blocks together cost."""
    return cut[0].total.whole * sweep_work(network, cut[1].total.times(cut[2].total))


def _count(cut: _Cuts) -> int:
    """Return the number of blocks."""
    z, y, x = cut
    return len(z.cores) * len(y.cores) * len(x.cores)


def least_memory(
    network: UNet3D,
    shape: Sequence[int],
    chunks: Sequence[int],
    region: Region | None = None,
    beside: float = BESIDE,
) -> float:
    """Return the bytes below which `plan_blocks` cannot go; arguments as there."""
    _, y, x = _all_cuts(network, shape, chunks, region)
    return column_bytes(network, y[-1].most.times(x[-1].most), beside)


def _all_cuts(
    network: UNet3D,
    shape: Sequence[int],
    chunks: Sequence[int],
    region: Region | None,
) -> list[list[_Cut]]:
    whole = [(0, n) for n in shape]
    return [
        _cuts(network, axis, wanted, shape[axis], chunks[axis])
        for axis, wanted in enumerate(region or whole)
    ]


def _cuts(
    network: UNet3D, axis: int, wanted: Range, size: int, chunk: int
) -> list[_Cut]:
    """List the ways to cut a range at borders of chunks into even pieces."""
    first, last = wanted[0] // chunk, -(-wanted[1] // chunk)
    cuts: list[_Cut] = []
    for step in sorted({-(-(last - first) // n) for n in range(1, last - first + 1)}):
        cores = tuple(
            (k * chunk, min(size, min(last, k + step) * chunk))
            for k in range(first, last, step)
        )
        pieces = [extent(network, axis, core, size) for core in cores]
        cuts.append(_Cut(cores, _combined(pieces, max), _combined(pieces, sum)))
    return cuts[::-1]


def _combined(pieces: Sequence[Extent], combine: Callable[..., float]) -> Extent:
    return Extent(
        combine(piece.whole for piece in pieces),
        combine(piece.core for piece in pieces),
        tuple(map(combine, zip(*(piece.decoded for piece in pieces), strict=True))),
    )


def single_chunks(wanted: Range, chunk: int) -> list[Range]:
    """Cut a range that begins at a border of chunks into single chunks.

    Examples
    --------
    >>> single_chunks((64, 150), 64)
    [(64, 128), (128, 150)]
    """
    low, high = wanted
    return [(a, min(a + chunk, high)) for a in range(low, high, chunk)]
