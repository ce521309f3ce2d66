"""Cut a volume into blocks that are segmented one by one, in any order.

Blocks begin and end at the borders of the output's chunks, so that every chunk belongs
to one block alone: it is written once, and never by two writers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .columns import BESIDE, column_bytes, column_pixels
from .tiling import with_halo

if TYPE_CHECKING:
    from .regions import Range, Region
    from .unet import UNet3D

HALO_SHARE = 0.05
"""Of the slices, at most, that are computed twice because blocks end along Z."""


@dataclass(frozen=True)
class _Cut:
    """One way to cut an axis."""

    cores: tuple[Range, ...]
    widest: int
    """Voxels of the widest piece, its halo included."""
    total: int
    """Voxels of all pieces, their halos included."""


def plan_blocks(
    network: UNet3D,
    shape: Sequence[int],
    chunks: Sequence[int],
    memory: float,
    region: Region | None = None,
    beside: float = BESIDE,
) -> list[Region]:
    """Return the blocks of a volume, in the order in which to segment them.

    The same arguments always give the same plan. Of all plans whose blocks fit in
    memory it is the one that computes the fewest voxels twice.

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
    """
    z, y, x = _all_cuts(network, shape, chunks, region)
    room = column_pixels(network, memory, beside)
    fitting = [(a, b) for a in y for b in x if a.widest * b.widest <= room]
    across_y, across_x = min(
        fitting or [(y[-1], x[-1])],
        key=lambda cut: (cut[0].total * cut[1].total, len(cut[0].cores)),
    )
    depth = z[0].cores[-1][1] - z[0].cores[0][0]
    along_z = [cut for cut in z if cut.total - z[0].total <= HALO_SHARE * depth][-1]
    return [
        (a, b, c) for a in along_z.cores for b in across_y.cores for c in across_x.cores
    ]


def least_memory(
    network: UNet3D,
    shape: Sequence[int],
    chunks: Sequence[int],
    region: Region | None = None,
    beside: float = BESIDE,
) -> float:
    """Return the bytes below which `plan_blocks` cannot go; arguments as there."""
    _, y, x = _all_cuts(network, shape, chunks, region)
    return column_bytes(network, y[-1].widest * x[-1].widest, beside)


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
        halos = [with_halo(network, core, axis, size) for core in cores]
        widths = [high - low for low, high in halos]
        cuts.append(_Cut(cores, max(widths), sum(widths)))
    return cuts[::-1]


def single_chunks(extent: Range, chunk: int) -> list[Range]:
    """Cut a range that begins at a border of chunks into single chunks.

    Examples
    --------
    >>> single_chunks((64, 150), 64)
    [(64, 128), (128, 150)]
    """
    low, high = extent
    return [(a, min(a + chunk, high)) for a in range(low, high, chunk)]
