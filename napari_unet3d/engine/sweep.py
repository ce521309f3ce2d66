"""The network as a stream along Z: every voxel of every layer is computed once.

Slices enter in order; each convolution remembers its last two, each skip connection
the slices its decoder is still waiting for. What comes out equals the network applied
to all slices at once, while only a few slices of every layer are in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Convolution, Level

if TYPE_CHECKING:
    from .unet import UNet3D


def fold_normalization(network: UNet3D) -> UNet3D:
    """Return a copy in which every batch normalisation is part of its convolution.

    With frozen statistics both are one affine map; the logits stay the same within
    rounding. The copy has its channels last in memory, as convolutions like them.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, Convolution) and isinstance(module.norm, nn.BatchNorm3d):
            norm, conv = module.norm, module.conv
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert conv.bias is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            with torch.no_grad():
                conv.weight.mul_(scale.view(-1, 1, 1, 1, 1))
                conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
            module.norm = nn.Identity()
    folded.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return folded


def sweep(network: UNet3D, slabs: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the logits of a volume that arrives in slabs along Z.

    Parameters
    ----------
    network : UNet3D
        In evaluation mode, with its normalisation folded.
    slabs : iterable of Tensor of shape (1, C, n, Y, X)
        Consecutive slabs of the input. n, Y and X are multiples of the network's
        total stride.

    Yields
    ------
    Tensor of shape (1, K, m, Y, X)
        Consecutive slabs of the logits; together as many slices as came in, zero
        padding beyond the first and the last.
    """
    top, waiting = _StreamedLevel(network, 0), _Queue()
    slabs = iter(slabs)
    current = next(slabs)
    while current is not None:
        following = next(slabs, None)
        logits = None
        # Not around the whole: where a generator waits, its contexts are the caller's.
        with torch.no_grad():
            waiting.push(current)
            features = top.push(current, last=following is None)
            if features is not None:
                logits = network.classify(features, waiting.take(features.shape[2]))
        if logits is not None:
            yield logits
        current = following  # type: ignore[assignment]


class _StreamedConvolution:
    """A 3³ convolution and ReLU that remembers its last two input slices."""

    def __init__(self, convolution: Convolution) -> None:
        self._conv = convolution.conv
        self._tail: Tensor | None = None

    def push(self, x: Tensor | None, last: bool) -> Tensor | None:
        parts = [part for part in (self._tail, x) if part is not None]
        if not parts:
            return None
        border = torch.zeros_like(parts[0][:, :, :1])
        if self._tail is None:
            parts.insert(0, border)
        if last:
            parts.append(border)
        stack = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        # Copies, here and below: a view would keep the whole slab in memory.
        self._tail = stack[:, :, -2:].clone()
        if stack.shape[2] < 3:
            return None
        y = functional.conv3d(
            stack, self._conv.weight, self._conv.bias, padding=(0, 1, 1)
        )
        return functional.relu(y, inplace=True)


class _StreamedLevel:
    """A level of the network, with all levels below it."""

    def __init__(self, network: UNet3D, level: int) -> None:
        self._encoder = _streamed(network.encoder[level])
        self._is_bottom = level == len(network.pooling)
        if self._is_bottom:
            return
        self._stride: Sequence[int] = network.pooling[level]
        self._below = _StreamedLevel(network, level + 1)
        self._up = network.up[level]
        self._decoder = _streamed(network.decoder[level])
        self._unpooled: Tensor | None = None
        self._skips = _Queue()

    def push(self, x: Tensor | None, last: bool) -> Tensor | None:
        for convolution in self._encoder:
            x = convolution.push(x, last)
        if self._is_bottom:
            return x
        if x is not None:
            self._skips.push(x)
        below = self._below.push(self._pool(x), last)
        if below is not None:
            below = self._up(below)
            below = torch.cat([self._skips.take(below.shape[2]), below], dim=1)
        for convolution in self._decoder:
            below = convolution.push(below, last)
        return below

    def _pool(self, x: Tensor | None) -> Tensor | None:
        """Pool all complete windows, keeping the slices of the next one."""
        parts = [part for part in (self._unpooled, x) if part is not None]
        if not parts:
            return None
        stack = torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]
        whole = stack.shape[2] - stack.shape[2] % self._stride[0]
        self._unpooled = stack[:, :, whole:].clone() if whole < stack.shape[2] else None
        if not whole:
            return None
        return functional.max_pool3d(
            stack[:, :, :whole], tuple(self._stride), tuple(self._stride)
        )


class _Queue:
    """Slices that wait until others of the same voxels are ready."""

    def __init__(self) -> None:
        self._slabs: list[Tensor] = []

    def push(self, slab: Tensor) -> None:
        self._slabs.append(slab)

    def take(self, count: int) -> Tensor:
        """Remove and return the first `count` slices, (N, C, count, Y, X)."""
        (stack, *more) = self._slabs
        if more:
            stack = torch.cat(self._slabs, dim=2)
        self._slabs = [stack[:, :, count:].clone()] if count < stack.shape[2] else []
        return stack[:, :, :count]


def _streamed(level: nn.Module) -> list[_StreamedConvolution]:
    assert isinstance(level, Level)
    return [_StreamedConvolution(level.first), _StreamedConvolution(level.second)]
