"""The network as a stream along Z: every voxel of every layer is computed once.

Slices enter in order; each convolution remembers its last one or two, each skip
connection the slices its decoder is still waiting for. What comes out equals the
network applied to all slices at once, while only a few slices of every layer are in
memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from .layers import Convolution, Level, UpConvolution
from .streamed import (
    CHANNELS_LAST,
    SliceQueue,
    Workspace,
    convolve_slices,
    largest_of_windows,
)
from .streamed_layers import StreamedJoin, StreamedLayer
from .tiling import decoded_range, receptive_margin

if TYPE_CHECKING:
    from .regions import Range
    from .unet import UNet3D

    Plane = tuple[Range, Range]


def sweep(
    network: UNet3D,
    slabs: Iterable[Tensor],
    core: Plane | None = None,
) -> Iterator[Tensor]:
    """Yield the logits of a volume that arrives in slabs along Z.

    Parameters
    ----------
    network : UNet3D
        In evaluation mode, with its normalisation folded.
    slabs : iterable of Tensor of shape (1, C, n, Y, X)
        Consecutive slabs of the input. Y, X and the sum of all n are multiples of the
        network's total stride. The first n is the most slices of a layer that are
        computed at once.
    core : ((int, int), (int, int)), optional
        Ranges along Y and X of the voxels whose logits are wanted, all by default. The
        decoder works only where these need it, which is most of the work: the rest of
        the plane, a halo, matters to the lower levels.

    Yields
    ------
    Tensor of shape (1, K, m, y, x)
        Consecutive slabs of the core's logits; together as many slices as came in,
        zero padding beyond the first and the last.
    """
    slabs = iter(slabs)
    slab: Tensor | None = next(slabs)
    assert slab is not None
    height, width = slab.shape[3:]
    core = core or ((0, height), (0, width))
    workspace = Workspace()
    top = _StreamedLevel(network, 0, slab.shape[2], (height, width), core, workspace)
    head = _StreamedHead(network, slab.shape[2])
    while True:
        is_last = slab is None
        with torch.no_grad():
            if slab is not None:
                head.push(_crop(slab, core))
            # Nothing here may keep the slab, nor what becomes of it.
            decoded = top.push(slab, is_last)
            slab = None
        while True:
            logits = None
            # Not around all: where a generator waits, its contexts are the caller's.
            with torch.no_grad():
                portion = next(decoded, None)
                if portion is None:
                    break
                if portion[0] is not None:
                    logits = head.classify(portion[0])
                del portion
            if logits is not None:
                yield logits
        if is_last:
            return
        slab = next(slabs, None)


SHORTCUT_SLICES = 2
"""Slices that pass the shortcut at once."""


class _StreamedLevel:
    """A level of the network, with all levels below it.

    Parameters
    ----------
    network : UNet3D
        The whole.
    level : int
        Which, from 0.
    most : int
        Slices of this level that are decoded at once, at most.
    size : (int, int)
        Voxels of this level along Y and X.
    wanted : ((int, int), (int, int))
        Which of them the output is to have.
    workspace : Workspace
        For all levels.
    """

    def __init__(
        self,
        network: UNet3D,
        level: int,
        most: int,
        size: tuple[int, int],
        wanted: Plane,
        workspace: Workspace,
    ) -> None:
        encoder = network.encoder[level]
        assert isinstance(encoder, Level)
        self._encoder = [
            StreamedLayer(part, workspace) for part in (encoder.first, encoder.second)
        ]
        self._is_bottom = level == len(network.pooling)
        self._wanted = wanted
        if self._is_bottom:
            return
        self._stride = network.pooling[level]
        self._portion = max(1, most // self._stride[0])
        y, x = (
            decoded_range(part, stride, n)
            for part, stride, n in zip(wanted, self._stride[1:], size, strict=True)
        )
        self._decoded = y, x
        self._wanted = _within(wanted, self._decoded)
        self._below = _StreamedLevel(
            network,
            level + 1,
            self._portion,
            (size[0] // self._stride[1], size[1] // self._stride[2]),
            (
                (y[0] // self._stride[1], y[1] // self._stride[1]),
                (x[0] // self._stride[2], x[1] // self._stride[2]),
            ),
            workspace,
        )
        up = network.up[level]
        assert isinstance(up, UpConvolution)
        decoder = network.decoder[level]
        assert isinstance(decoder, Level)
        self._first = StreamedJoin(decoder.first, up, workspace)
        self._second = StreamedLayer(decoder.second, workspace)
        self._unpooled: Tensor | None = None
        waiting = receptive_margin(network.pooling[level:], 0) + most
        self._skips = SliceQueue(waiting)

    def push(
        self, x: Tensor | None, last: bool
    ) -> Iterator[tuple[Tensor | None, bool]]:
        """Yield what becomes complete with slices (1, C, n, Y, X), portion by portion.

        Only while it is asked for: what waits below is there, but not yet decoded.

        Yields
        ------
        slices : Tensor of shape (1, C', m, Y, X) or None
        last : bool
            Whether they are the last of all.
        """
        for convolution in self._encoder:
            convolution.fill(x, last)
            x = None  # gone before there is room for what becomes of it
            x = convolution.convolve()
        if self._is_bottom:
            yield None if x is None else _crop(x, self._wanted), last
            return
        if x is not None:
            self._skips.push(_crop(x, self._decoded))
        pushed = self._below.push(self._pool(x), last)
        x = None
        for below, end in pushed:
            if below is None:
                if end:
                    yield self._decode(None, end), end
                continue
            portions = below.split(self._portion, dim=2)
            del below
            for k, portion in enumerate(portions):
                is_end = end and k == len(portions) - 1
                yield self._decode(portion, is_end), is_end

    def _decode(self, below: Tensor | None, last: bool) -> Tensor | None:
        self._second.fill(self._first.convolve(self._skips, below, last), last)
        x = self._second.convolve()
        return None if x is None else _crop(x, self._wanted)

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
        return largest_of_windows(stack[:, :, :whole], self._stride)


class _StreamedHead:
    """The head, and the shortcut to it from the input.

    The head is linear: the shortcut's share of the logits can be known long before the
    decoder's and takes less memory than the input, but where there are many classes.
    """

    def __init__(self, network: UNet3D, most: int) -> None:
        self._network = network
        self._waiting = SliceQueue(receptive_margin(network.pooling, 0) + most)
        head, levels = network.head, [network.encoder[0], *network.decoder[:1]]
        first, last = levels[0], levels[-1]
        assert isinstance(first, Level)
        assert isinstance(last, Level)
        self._has_shortcut = len(network.shortcut) > 0
        self._is_split = head.out_channels <= first.first.conv.in_channels
        channels = last.second.conv.out_channels
        self._weights = [
            part.detach().contiguous(memory_format=CHANNELS_LAST)
            for part in (head.weight[:, :channels], head.weight[:, channels:])
        ]

    def push(self, image: Tensor) -> None:
        """Take slices of the input."""
        if not self._has_shortcut:
            return
        if not self._is_split:
            self._waiting.push(image)
            return
        # Its hidden channels are many: for all slices at once they would be the most
        # that a sweep needs.
        for part in image.split(SHORTCUT_SLICES, dim=2):
            for convolution in self._network.shortcut:
                assert isinstance(convolution, Convolution)
                part = convolve_slices(part, *convolution.affine())
                functional.relu_(part)
            self._waiting.push(convolve_slices(part, self._weights[1]))

    def classify(self, decoded: Tensor) -> Tensor:
        """Return the logits of the next slices."""
        if not self._has_shortcut:
            return self._network.classify(decoded, decoded)
        if self._is_split:
            bias = self._network.head.bias
            return self._waiting.add_to(
                convolve_slices(decoded, self._weights[0], bias)
            )
        image = self._waiting.take(decoded.shape[2])
        return self._network.classify(decoded, image)


def _crop(x: Tensor, plane: Plane) -> Tensor:
    (y0, y1), (x0, x1) = plane
    return x[:, :, :, y0:y1, x0:x1]


def _within(inner: Plane, outer: Plane) -> Plane:
    """Return where a part of a plane lies in another part."""
    y, x = (
        (low - origin, high - origin)
        for (low, high), (origin, _) in zip(inner, outer, strict=True)
    )
    return y, x
