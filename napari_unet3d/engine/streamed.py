"""What of a network remembers slices while a volume passes through, see `sweep`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import reduce
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from .allocation import lasting

CHANNELS_LAST = torch.channels_last_3d
"""Order in memory that convolutions are quickest in."""


class Workspace:
    """Memory for the input of one convolution after the other, used by all.

    It is the largest of what passes: taken anew each time, between tensors of other
    sizes, the allocator would need up to twice as much. It grows with the first slabs.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def take(self, size: Sequence[int], like: Tensor) -> Tensor:
        """Return an uninitialised tensor (1, C, Z, Y, X), in place of the last one."""
        channels, *space = size[1:]
        count = channels * prod(space) * like.element_size()
        if self._memory is None or self._memory.numel() < count:
            self._memory = None
            self._memory = lasting((1, count, 1, 1, 1), like, torch.uint8)
        flat = self._memory.view(-1)[:count].view(like.dtype)
        return flat.view(1, *space, channels).movedim(-1, 1)


class StreamedConvolution:
    """A convolution of two or three voxels an axis that remembers its last slices.

    Before the first slice, after the last and around the plane is a border of zeros,
    one voxel wide.

    Parameters
    ----------
    weight : Tensor of shape (O, C, 2 or 3, ...)
        Channels last.
    bias : Tensor of shape (O,), optional
        Its bias.
    workspace : Workspace
        Where its input is put together.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, workspace: Workspace
    ) -> None:
        self._weight, self._bias = weight, bias
        self._taps = weight.shape[2]
        self._workspace = workspace
        self._tail: Tensor | None = None
        self._held = 1
        """Slices of the tail that are filled; at first the border of zeros."""
        self._stack: Tensor | None = None

    def fill(self, x: Tensor | None, last: bool) -> None:
        """Take slices (1, C, n, Y, X) that are to be convolved; they may go then.

        After the last ones comes a border of zeros.
        """
        if x is not None:
            self.room(x.shape[2], x, last).copy_(x)
        elif last:
            self.room(0, None, last)

    def room(self, count: int, like: Tensor | None, last: bool) -> Tensor:
        """Make room for slices, to be filled and then convolved.

        Parameters
        ----------
        count : int
            Of the slices.
        like : Tensor of shape (1, any, any, Y, X), optional
            Of their plane and device; needed for the first ones.
        last : bool
            Whether they are the last.

        Returns
        -------
        Tensor of shape (1, C, count, Y, X)
            Uninitialised.
        """
        channels = self._weight.shape[1]
        if self._tail is None:
            assert like is not None
            kept = self._taps - 1
            self._tail = lasting((1, channels, kept, *like.shape[3:]), like)
            self._tail[:, :, :1].zero_()
        held = self._held
        size = (1, channels, held + count + last, *self._tail.shape[3:])
        stack = self._workspace.take(size, self._tail)
        stack[:, :, :held].copy_(self._tail[:, :, :held])
        if last:
            stack[:, :, -1:].zero_()
        self._stack = stack
        return stack[:, :, held : held + count]

    def convolve(self) -> Tensor | None:
        """Convolve what is complete with the slices that were taken."""
        stack, self._stack = self._stack, None
        if stack is None:
            return None
        assert self._tail is not None
        self._held = min(self._taps - 1, stack.shape[2])
        # A copy: a view would keep all slices in memory.
        self._tail[:, :, : self._held].copy_(stack[:, :, -self._held :])
        if stack.shape[2] < self._taps:
            return None
        return convolve_slices(stack, self._weight, self._bias)


class SliceQueue:
    """Slices that wait until others of the same voxels are ready.

    Their memory is taken all at once and used again and again: taken slice by slice,
    between that of passing tensors, it would leave gaps that none of those fits in.

    Parameters
    ----------
    capacity : int
        Slices that wait at the same time, about.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._unused: list[Tensor] = []
        self._slices: deque[Tensor] = deque()

    def push(self, slab: Tensor) -> None:
        """Append slices (1, C, n, Y, X)."""
        if not self._slices and not self._unused:
            count = max(self._capacity, slab.shape[2])
            places = lasting((count, slab.shape[1], 1, *slab.shape[3:]), slab)
            self._unused = list(places.split(1))
        for part in slab.split(1, dim=2):
            place = self._unused.pop() if self._unused else _empty_like(slab, 1)
            self._slices.append(place.copy_(part))

    def move_to(self, out: Tensor) -> None:
        """Move the first slices to where they are needed, (1, C, n, Y, X)."""
        for part in out.split(1, dim=2):
            part.copy_(self._pop())

    def add_to(self, out: Tensor) -> Tensor:
        """Add the first slices to others, (1, C, n, Y, X), and remove them."""
        for part in out.split(1, dim=2):
            part.add_(self._pop())
        return out

    def take(self, count: int) -> Tensor:
        """Remove and return the first slices, (1, C, count, Y, X)."""
        return torch.cat([self._pop() for _ in range(count)], dim=2)

    def _pop(self) -> Tensor:
        """Remove the first slice; it stays as it is until the next one is pushed."""
        first = self._slices.popleft()
        self._unused.append(first)
        return first


def _empty_like(x: Tensor, count: int) -> Tensor:
    """Return `count` uninitialised slices (1, C, count, Y, X), of the plane of `x`."""
    size = (1, x.shape[1], count, *x.shape[3:])
    return torch.empty(
        size, dtype=x.dtype, device=x.device, memory_format=CHANNELS_LAST
    )


def convolve_slices(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve slices (1, C, Z, Y, X), with a border of zeros along Y and X only.

    Parameters
    ----------
    x : Tensor of shape (1, C, Z, Y, X)
        Channels last.
    weight : Tensor of shape (O, C, ...)
        Channels last; of one voxel, which needs no border, or two or three an axis.
    bias : Tensor of shape (O,), optional
        Its bias.
    """
    border = int(weight.shape[-1] > 1)
    if x.device.type == "cpu" and _is_quick(x.dtype):
        if border and x.shape[2] <= 2:
            # See `layers.convolve`.
            x, border = functional.pad(x, (1, 1, 1, 1)), 0
        # By name: see `layers.is_slow`.
        return torch.mkldnn_convolution(
            x, weight, bias, (0, border, border), (1, 1, 1), (1, 1, 1), 1
        )
    return functional.conv3d(x, weight, bias, padding=(0, border, border))


def _is_quick(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN convolves this number format on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def largest_of_windows(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Pool `x` (1, C, Z, Y, X), whose sizes are multiples of the stride.

    As max_pool3d does, which needs more memory: it also finds out, in 64 bits, where
    the largest are. Here there is a single row of windows in between.
    """
    depth, height, width = (n // s for n, s in zip(x.shape[2:], stride, strict=True))
    out = torch.empty(
        (1, x.shape[1], depth, height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=CHANNELS_LAST,
    )
    for k, window in enumerate(x.split(stride[0], dim=2)):
        for dim, count in zip((2, 3, 4), stride, strict=True):
            before = (slice(None),) * dim
            parts = [window[(*before, slice(i, None, count))] for i in range(count)]
            window = reduce(torch.maximum, parts)
        out[:, :, k : k + 1] = window
    return out
