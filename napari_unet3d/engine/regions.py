"""Boxes of voxels, and tensors cropped to them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Range = tuple[int, int]
"""First and one past the last voxel along an axis."""


Region = tuple[Range, Range, Range]
"""A box of voxels, ZYX."""


VOXELS_AT_ONCE = 1024
"""Single voxels are computed in multiples of so many."""


def count_voxels(box: Region) -> int:
    """Return how many voxels a box has.

    Examples
    --------
    >>> count_voxels(((0, 2), (5, 8), (1, 5)))
    24
    """
    return prod(high - low for low, high in box)


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


def cut(x: Tensor, box: Sequence[Range]) -> Tensor:
    """Cut a box out of `x` (N, C, Z, Y, X), whose channels are last in memory."""
    whole = all(side == (0, n) for side, n in zip(box, x.shape[2:], strict=True))
    if whole:
        return x
    part: Tensor = _Cut.apply(x, box)  # type: ignore[no-untyped-call]
    return part


class _Cut(torch.autograd.Function):
    """The gradient of a plain crop is laid out channel by channel, which is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, box: Sequence[Range]) -> Tensor:
        ctx.box, ctx.shape = box, x.shape
        return crop(x, box)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return uncropped(gradient, ctx.box, ctx.shape), None


def uncropped(x: Tensor, box: Sequence[Range], shape: Sequence[int]) -> Tensor:
    """Put a box back into zeros of a shape (N, C, Z, Y, X), channels last."""
    if x.shape == torch.Size(shape):
        return x
    whole = torch.empty(
        tuple(shape),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last_3d,
    ).zero_()
    crop(whole, box).copy_(x)
    return whole


def paddings_between(given: Region, wanted: Region) -> list[Range]:
    """Return the zeros to add to `given` for a 3³ convolution to yield `wanted`."""
    return [
        (1 - (out_low - low), 1 - (high - out_high))
        for (low, high), (out_low, out_high) in zip(given, wanted, strict=True)
    ]


def in_multiples(index: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Name the first voxel some times more, so that their number is seldom a new one.

    oneDNN takes milliseconds to prepare for each shape that it has not met yet.
    """
    missing = -len(index[0]) % VOXELS_AT_ONCE
    return tuple(functional.pad(axis, (0, missing)) for axis in index)


def take_voxels(x: Tensor, index: tuple[Tensor, ...]) -> Tensor:
    """Take M voxels of `x` (N, C, Z, Y, X) as (1, C, 1, 1, M), channels last.

    Parameters
    ----------
    x : Tensor of shape (N, C, Z, Y, X)
    index : tuple of four Tensors of shape (M,)
        N, Z, Y and X of each.
    """
    return x.movedim(1, -1)[index].view(1, 1, 1, -1, x.shape[1]).movedim(-1, 1)
