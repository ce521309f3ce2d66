"""The layers that the 3D U-Net is made of."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from .regions import Range


class Convolution(nn.Module):
    """Apply a convolution, batch normalisation and ReLU.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    normalization : {"batch", "none"}
        What follows the convolution.
    kernel : {3, 1}
        Edge of the convolution's cube.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        normalization: str = "batch",
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel)
        self.norm: nn.Module = (
            nn.BatchNorm3d(out_channels) if normalization == "batch" else nn.Identity()
        )

    def forward(self, x: Tensor, padding: Sequence[Range] = ((0, 0),) * 3) -> Tensor:
        """Convolve `x` (N, C, Z, Y, X), zero-padded by `padding` (low, high) per axis.

        The paddings of the two ends differ where only one of them is the border of
        the volume.
        """
        weight, bias = self.affine()
        return self.activate(convolve(x, weight, bias, padding))

    def affine(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias, with the normalisation where that is frozen."""
        if self._is_frozen():
            assert isinstance(self.norm, nn.BatchNorm3d)
            # One affine map after another: the voxels need not be gone through again.
            return folded(self.conv, self.norm)
        return self.conv.weight, self.conv.bias

    def activate(self, x: Tensor) -> Tensor:
        """Apply to what was convolved with `affine` all that follows."""
        x = x if self._is_frozen() else self.norm(x)
        return functional.relu(x, inplace=True)

    def _is_frozen(self) -> bool:
        return isinstance(self.norm, nn.BatchNorm3d) and not self.norm.training


def folded(conv: nn.Conv3d, norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with a normalisation that is frozen."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert conv.bias is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale.view(-1, 1, 1, 1, 1)
    return weight, (conv.bias - norm.running_mean) * scale + norm.bias


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[Range]
) -> Tensor:
    """Convolve `x` (N, C, Z, Y, X), zero-padded by `padding` (low, high) per axis."""
    if weight.shape[2:] == (1, 1, 1):
        return pointwise(x, weight, bias)
    # Of one or two slices torch's bfloat16 convolution, or the gradient of its weights,
    # reads memory that nobody has written, where it pads by itself (torch 2.13 on
    # processors with AVX512_BF16 alone; of one slice on others too).
    if x.shape[2] <= 2 or any(low != high for low, high in padding):
        z, y, x_ = padding
        x = functional.pad(x, (*x_, *y, *z))
        padding = ((0, 0),) * 3
    return functional.conv3d(x, weight, bias, padding=[low for low, _ in padding])


MOST_SLOW = 20480
"""Channels times Z times Y up to which torch does not ask oneDNN for a single image.

What it does instead takes up to ten times as long, and far more memory.
"""


def is_slow(x: Tensor) -> bool:
    """Tell whether torch convolves `x` (N, C, Z, Y, X) the slow way on a CPU."""
    return x.shape[0] == 1 and prod(x.shape[1:4]) <= MOST_SLOW


MOST_CONVOLVED = 128
"""Outputs of a 1×1×1 convolution that is left to torch."""


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a 1×1×1 convolution.

    To single voxels in a row it is a matrix product: in float32 two to four times as
    fast on a CPU. Of patches torch's convolution is the quicker one, but in bfloat16
    its gradients are NaN for 193 to 240 outputs (torch 2.13, one thread, some sizes).
    """
    if x.shape[2:4] != (1, 1) and weight.shape[0] <= MOST_CONVOLVED:
        return functional.conv3d(x, weight, bias)
    product = functional.linear(x.movedim(1, -1), weight.flatten(1), bias)
    return product.movedim(-1, 1)


class UpConvolution(nn.Module):
    """Apply a transposed convolution whose kernel equals its stride, without bias.

    Every input voxel makes its own block of output voxels, so the layer is one
    matrix product followed by a rearrangement: faster on every device than the
    general transposed convolution, and exact.
    """

    def __init__(self, channels: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)
        # The layout of nn.ConvTranspose3d: (in, out, Z, Y, X).
        self.weight = nn.Parameter(torch.empty(channels, channels, *stride))

    def forward(self, x: Tensor) -> Tensor:
        """Upsample `x` (N, C, Z, Y, X) by the stride."""
        batch, channels, *shape = x.shape
        matrix = self.weight.permute(2, 3, 4, 1, 0).reshape(-1, channels)
        blocks = functional.linear(x.permute(0, 2, 3, 4, 1), matrix)
        blocks = blocks.view(batch, *shape, *self.stride, channels)
        upsampled = blocks.permute(0, 1, 4, 2, 5, 3, 6, 7)
        size = [n * s for n, s in zip(shape, self.stride, strict=True)]
        # One copy, to the layout that the convolutions like.
        return upsampled.reshape(batch, *size, channels).movedim(-1, 1)


class Level(nn.Module):
    """Two convolutions, as on every resolution level of either path."""

    def __init__(
        self, in_channels: int, middle: int, out_channels: int, normalization: str
    ) -> None:
        super().__init__()
        self.first = Convolution(in_channels, middle, normalization)
        self.second = Convolution(middle, out_channels, normalization)

    def forward(self, x: Tensor, paddings: Sequence[Sequence[Range]]) -> Tensor:
        """Apply both convolutions to `x`, each with its padding."""
        first, second = paddings
        x = self.second(self.first(x, first), second)
        return x
