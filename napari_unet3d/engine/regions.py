"""Boxes of voxels, and tensors cropped to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Range = tuple[int, int]
"""First and one past the last voxel along an axis."""


Region = tuple[Range, Range, Range]
"""A box of voxels, ZYX."""


def grow(box: Region, margin: int, size: Sequence[int]) -> Region:
    """Widen `box` by `margin` voxels on every side, within a volume of shape `size`."""
    z, y, x = (
        (max(0, low - margin), min(n, high + margin))
        for (low, high), n in zip(box, size, strict=True)
    )
    return z, y, x


def crop(x: Tensor, box: Sequence[Range]) -> Tensor:
    """Cut a box out of `x` (N, C, Z, Y, X), as a view."""
    z, y, x_ = (slice(low, high) for low, high in box)
    return x[:, :, z, y, x_]


def crop_centre(x: Tensor, like: Tensor) -> Tensor:
    """Cut the middle out of `x` (N, C, Z, Y, X), of the size of `like`, as a view."""
    sizes = list(zip(x.shape[2:], like.shape[2:], strict=True))
    return crop(x, [((n - m) // 2, (n - m) // 2 + m) for n, m in sizes])


def paddings_between(given: Region, wanted: Region) -> list[Range]:
    """Return the zeros to add to `given` for a 3³ convolution to yield `wanted`."""
    return [
        (1 - (out_low - low), 1 - (high - out_high))
        for (low, high), (out_low, out_high) in zip(given, wanted, strict=True)
    ]
