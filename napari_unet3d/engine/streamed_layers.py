"""The convolutions of a level while a volume passes through, see `sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from .composition import composed_kernel, interleaved
from .streamed import CHANNELS_LAST, SliceQueue, StreamedConvolution, Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from .layers import Convolution, UpConvolution


class StreamedLayer:
    """A 3³ convolution and ReLU.

    Parameters
    ----------
    convolution : Convolution
        With its normalisation folded.
    workspace : Workspace
        Where its input is put together.
    """

    def __init__(self, convolution: Convolution, workspace: Workspace) -> None:
        conv = convolution.conv
        self._convolution = StreamedConvolution(conv.weight, conv.bias, workspace)

    def fill(self, x: Tensor | None, last: bool) -> None:
        """Take slices (1, C, n, Y, X) that are to be convolved; they may go then."""
        self._convolution.fill(x, last)

    def convolve(self) -> Tensor | None:
        """Return what becomes of the slices that are complete now."""
        x = self._convolution.convolve()
        return None if x is None else functional.relu_(x)


class StreamedJoin:
    """A decoder's first convolution and ReLU, of a skip connection and from below.

    What comes from below is not upsampled, see `composition`.

    Parameters
    ----------
    convolution : Convolution
        With its normalisation folded.
    up : UpConvolution
        Of what comes from below.
    workspace : Workspace
        Where its inputs are put together.
    """

    def __init__(
        self, convolution: Convolution, up: UpConvolution, workspace: Workspace
    ) -> None:
        conv = convolution.conv
        self._stride = up.stride
        known = conv.in_channels - up.weight.shape[1]
        weight = conv.weight.detach()
        finer, weight = weight[:, known:], weight[:, :known]
        weight = weight.contiguous(memory_format=CHANNELS_LAST)
        self._skipped = StreamedConvolution(weight, conv.bias, workspace)
        # Once for all slices, and exactly: a GPU may round factors to ten bits
        dtype = torch.promote_types(weight.dtype, torch.float32)
        where = weight.device if weight.is_meta else "cpu"
        kernel = composed_kernel(
            finer.to(where, dtype), up.weight.detach().to(where, dtype)
        ).to(weight, memory_format=CHANNELS_LAST)
        self._below = StreamedConvolution(kernel, None, workspace)
        # The first block along an axis that is upsampled begins before the volume.
        self._before = [int(stride > 1) for stride in self._stride]

    def convolve(
        self, skips: SliceQueue, below: Tensor | None, last: bool
    ) -> Tensor | None:
        """Return what becomes of the slices that are complete now.

        Parameters
        ----------
        skips : SliceQueue
            The skip connection's first slices are those of `below`.
        below : Tensor of shape (1, M, z, y, x), optional
            Before it is upsampled.
        last : bool
            Whether these are the last.
        """
        plane = None
        if below is not None:
            depth, height, width = (
                n * s for n, s in zip(below.shape[2:], self._stride, strict=True)
            )
            plane = below.new_empty(()).expand(1, 1, 1, height, width)
            skips.move_to(self._skipped.room(depth, plane, last))
        else:
            self._skipped.fill(None, last)
        out = self._skipped.convolve()
        self._below.fill(below, last)
        blocks = self._below.convolve()
        if out is None or blocks is None:
            return None
        self._add(blocks, out)
        return functional.relu_(out)

    def _add(self, blocks: Tensor, out: Tensor) -> None:
        """Add the finer slices of blocks, one block after the other."""
        stride, (begin, *low) = self._stride[0], self._before
        self._before[0] = 0
        end = 0
        for block in blocks.split(1, dim=2):
            first, end = end, min(out.shape[2], end + stride - begin)
            size = (end - first, *out.shape[3:])
            out[:, :, first:end].add_(
                interleaved(block, self._stride, (begin, *low), size)
            )
            begin = 0
