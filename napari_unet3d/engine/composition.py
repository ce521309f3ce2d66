"""An up-convolution and the convolution after it, as one convolution.

The decoder upsamples what comes from below and convolves it, joined with the skip
connection. Both maps are linear and nothing lies in between: of what comes from below
a voxel sees but two voxels along an axis that is upsampled by two, by weights that
depend on its place in the block of 2³. So one convolution of 2³ voxels of the coarse
level computes all places of a block at once, with 8 instead of 27 products for every
pair of channels, and nothing is upsampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .layers import Convolution, UpConvolution, convolve, is_slow
from .regions import Range, cut, uncropped


def count_taps(stride: int) -> int:
    """Return how many coarse voxels along an axis a finer one sees at most.

    Examples
    --------
    >>> [count_taps(stride) for stride in (1, 2, 3)]
    [3, 2, 2]
    """
    return -(-(stride + 2) // stride)


def composed_kernel(weight: Tensor, up: Tensor) -> Tensor:
    """Return the kernel of an up-convolution and a 3³ convolution after it.

    Parameters
    ----------
    weight : Tensor of shape (O, M, 3, 3, 3)
        Of the convolution.
    up : Tensor of shape (C, M, *stride)
        Of the up-convolution.

    Returns
    -------
    Tensor of shape (prod(stride) * O, C, *taps)
        For a convolution of the coarse level without padding. Its output number `w`
        along an axis, whose last voxel is number `w` of the level, holds `stride`
        finer voxels from ``stride * w - 1`` on: see `interleaved`.
    """
    # What a single coarse voxel becomes: the response to an impulse
    response = functional.conv_transpose3d(weight.flip((2, 3, 4)), up.transpose(0, 1))
    outputs, inputs = response.shape[:2]
    strides = up.shape[2:]
    taps = [count_taps(stride) for stride in strides]
    missing = [
        (0, n * s - length)
        for n, s, length in zip(taps, strides, response.shape[2:], strict=True)
    ]
    if any(after for _, after in missing):
        padding = [value for pair in reversed(missing) for value in pair]
        response = functional.pad(response, padding)
    blocks = response.view(
        outputs, inputs, *(n for pair in zip(taps, strides, strict=True) for n in pair)
    )
    # The latest of the coarse voxels is where the response begins.
    kernel = blocks.flip((2, 4, 6)).permute(3, 5, 7, 0, 1, 2, 4, 6)
    return kernel.reshape(prod(strides) * outputs, inputs, *taps)


def interleaved(
    blocks: Tensor, stride: Sequence[int], low: Sequence[int], size: Sequence[int]
) -> Tensor:
    """Lay the finer voxels of blocks side by side and cut a box out of them.

    Parameters
    ----------
    blocks : Tensor of shape (N, prod(stride) * O, z, y, x)
        What a convolution with a `composed_kernel` returns, channels last.
    stride : (int, int, int)
        Of the up-convolution.
    low, size : sequence of int
        Of the box; number 0 is the first of the first block.

    Returns
    -------
    Tensor of shape (N, O, *size)
    """
    whole: Tensor = _Interleaved.apply(blocks, stride, low, size)  # type: ignore[no-untyped-call]
    return whole


class _Interleaved(torch.autograd.Function):
    """The gradients of plain views are laid out channel by channel, which is slow."""

    @staticmethod
    def forward(
        ctx: Any,
        blocks: Tensor,
        stride: Sequence[int],
        low: Sequence[int],
        size: Sequence[int],
    ) -> Tensor:
        count, channels, *shape = blocks.shape
        outputs = channels // prod(stride)
        box = [(a, a + n) for a, n in zip(low, size, strict=True)]
        spread = blocks.movedim(1, -1).view(count, *shape, *stride, outputs)
        finer = [n * s for n, s in zip(shape, stride, strict=True)]
        spread = spread.permute(0, 1, 4, 2, 5, 3, 6, 7)
        spread = spread.reshape(count, *finer, outputs).movedim(-1, 1)
        ctx.stride, ctx.box, ctx.shape = stride, box, shape
        z, y, x = (slice(*side) for side in box)
        return spread[:, :, z, y, x]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        count, outputs = gradient.shape[:2]
        pairs = list(zip(ctx.shape, ctx.stride, strict=True))
        whole = uncropped(
            gradient, ctx.box, (count, outputs, *(n * s for n, s in pairs))
        )
        split = whole.movedim(1, -1).reshape(
            count, *(n for pair in pairs for n in pair), outputs
        )
        blocks = split.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(count, *ctx.shape, -1)
        return blocks.movedim(-1, 1), None, None, None


FEWEST_VOXELS = 64
"""Voxels for each channel from below from which on composing pays in a training step.

The kernel is composed anew in every step, and its gradient taken apart: of 64 channels
that takes 8 ms, and saves 35 ms of 70 for 18,000 voxels (two cores without AVX512).
"""


def composes(up: UpConvolution, below: Tensor, skip: Tensor) -> bool:
    """Tell whether a training step is quicker with what `convolve_joined` does.

    So it is in full precision on a CPU; in bfloat16 and on GPUs it was not measured.
    Of a single small image, as for the preview of a slice, two convolutions may be
    slow where one of all channels is not.
    """
    voxels = below.shape[0] * prod(below.shape[2:]) * prod(up.stride)
    return (
        below.device.type == "cpu"
        and below.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and voxels >= FEWEST_VOXELS * below.shape[1]
        and not is_slow(below)
        and not is_slow(skip)
    )


def convolve_joined(
    convolution: Convolution,
    skip: Tensor,
    padding: Sequence[Range],
    up: UpConvolution,
    below: Tensor,
    inside: Sequence[Range],
) -> Tensor:
    """Apply a convolution to a skip connection joined with what is upsampled.

    Parameters
    ----------
    convolution : Convolution
        Of the channels of both, those of the skip connection first.
    skip : Tensor of shape (N, C, Z, Y, X)
        What is needed of the skip connection.
    padding : sequence of (int, int)
        Zeros around it, per axis.
    up : UpConvolution
        Of what comes from below.
    below : Tensor of shape (N, M, z, y, x)
        Before it is upsampled; beyond it are zeros.
    inside : sequence of (int, int)
        Where the output lies in the upsampled `below`.
    """
    weight, bias = convolution.affine()
    known = skip.shape[1]
    out = convolve(skip, weight[:, :known], bias, padding)
    kernel = composed_kernel(weight[:, known:], up.weight)
    low, coarse, zeros = [], [], []
    for (first, end), stride, size in zip(
        inside, up.stride, below.shape[2:], strict=True
    ):
        taps = count_taps(stride)
        # The windows that hold the first and the last voxel, by their last voxel
        begin, last = (first + 1) // stride, end // stride
        low.append(first + 1 - begin * stride)
        a, b = begin - taps + 1, last + 1
        coarse.append((max(0, a), min(size, b)))
        zeros.append((max(0, -a), max(0, b - size)))
    windows = convolve(cut(below, coarse), kernel, None, zeros)
    out.add_(interleaved(windows, up.stride, low, out.shape[2:]))
    return convolution.activate(out)
