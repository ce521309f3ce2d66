"""How a volume may be cut so that no voxel's logits depend on the cut.

A part is computed with a halo as wide as the network's receptive field, at an origin
that agrees with the pooling; see Majurski & Bajcsy, J. Res. NIST 126:009.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .regions import Range
    from .unet import UNet3D


def round_up(n: int, multiple: int) -> int:
    """Return the smallest multiple that is not below `n`."""
    return -(-n // multiple) * multiple


def receptive_margin(pooling: Sequence[Sequence[int]], axis: int) -> int:
    """Voxels around an aligned block that its logits depend on, along an axis.

    A block is aligned when it begins and ends at multiples of the total stride.

    Examples
    --------
    >>> receptive_margin([(2, 2, 2)] * 3, axis=0)
    46
    """
    margin = 0
    strides = [stride[axis] for stride in pooling]
    for stride in strides:
        margin = -(-(margin + 2) // stride)
    margin += 2
    for stride in reversed(strides):
        margin = margin * stride + 2
    return margin


def with_halo(
    network: UNet3D, core: Range, axis: int, size: int, most: int | None = None
) -> Range:
    """Widen a range by all that its logits depend on.

    Parameters
    ----------
    network : UNet3D
        Its pooling decides the halo and where ranges may begin.
    core : (int, int)
        The range, along `axis`.
    axis, size : int
        The axis, and the voxels that the volume has along it.
    most : int, optional
        A smaller halo than the exact one, in voxels.

    Returns
    -------
    (int, int)
        Within the volume, rounded up to a multiple of the stride. For unpadded
        convolutions it reaches beyond the border: those see the continued image there
        instead of zeros.
    """
    stride = network.total_stride[axis]
    margin = receptive_margin(network.pooling, axis)
    halo = round_up(margin if most is None else min(margin, most), stride)
    beyond = halo if network.padding == "valid" else 0
    low = core[0] // stride * stride - halo
    high = round_up(core[1], stride) + halo
    return max(-beyond, low), min(round_up(size, stride) + beyond, high)


def decoded_range(wanted: Range, stride: int, size: int) -> Range:
    """Return where a level's decoder works for its output to be right in a range.

    That is two voxels more for its two convolutions, to multiples of the stride, as
    what comes from below is.

    Parameters
    ----------
    wanted : (int, int)
        The range, in voxels of the level.
    stride : int
        Of the pooling below it.
    size : int
        Voxels that the level has; beyond is the border of zeros.

    Examples
    --------
    >>> decoded_range((8, 24), stride=2, size=25)
    (6, 25)
    """
    low, high = wanted
    return max(0, (low - 2) // stride * stride), min(size, round_up(high + 2, stride))


def even_cores(wanted: Range, edge: int, stride: int) -> list[Range]:
    """Cut a range into even pieces no longer than `edge`, at multiples of the stride.

    Examples
    --------
    >>> even_cores((0, 100), edge=64, stride=8)
    [(0, 56), (56, 100)]
    """
    low, high = wanted
    pieces = -(-(high - low) // max(stride, edge))
    step = round_up(-(-(high - low) // pieces), stride)
    first = low // stride * stride
    return [
        (max(low, start), min(high, start + step)) for start in range(first, high, step)
    ]
