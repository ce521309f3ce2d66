"""The features of a box as a stream of slabs, each slice of the image read once."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .ahead import ahead
from .allocation import lasting
from .normalize import refuse_infinite

if TYPE_CHECKING:
    from .volume import FeatureVolume

READ = 64
"""Slices that are read at once, at most; they begin at multiples of it.

So no chunk of up to so many slices is decompressed twice.
"""


def feature_slabs(
    volume: FeatureVolume,
    low: Sequence[int],
    size: Sequence[int],
    depth: int,
    *,
    read_ahead: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Yield the features of a box that may reach outside of the volume.

    Parameters
    ----------
    volume : FeatureVolume
        Image and filters.
    low, size : sequence of int
        Of the box, ZYX.
    depth : int
        Slices of a slab; the last may have fewer.
    read_ahead : bool
        Whether to read the next slices in a thread meanwhile.
    dtype : torch.dtype
        Of the slabs; they are computed in single precision.

    Yields
    ------
    Tensor of shape (1, C, n, Y, X)
        With the channels last in memory, and overwritten by the next.
    """
    margin = volume.stem.margin
    reader = _SliceReader(
        volume,
        [a - m for a, m in zip(low, margin, strict=True)],
        [n + 2 * m for n, m in zip(size, margin, strict=True)],
        read_ahead,
    )
    channels, count = volume.image.shape[0], volume.stem.out_channels
    before = 2 * margin[0]
    # Memory for all slabs is taken once: see the queues of the sweep.
    window: Tensor | None = None
    try:
        for z in range(0, size[0], depth):
            new = min(depth, size[0] - z)
            slices = reader.take(new + (before if z == 0 else 0))
            if window is None:
                room = (channels, 1, before + depth, *slices.shape[2:])
                window = lasting(room, slices)[:, 0]
                slab = lasting((1, count, depth, *size[1:]), slices, dtype)
                window[:, : before + new].copy_(slices)
            else:
                window[:, :before] = window[:, depth:].clone()
                window[:, before : before + new].copy_(slices)
            del slices
            with torch.no_grad():
                volume.stem(window[:, : before + new], slab[0, :, :new])
            yield slab[:, :, :new]
    finally:
        reader.close()


def slices_at_once(image: Any) -> int:
    """Return how many slices of an image (C, Z, Y, X) are read at once."""
    voxel = image.shape[0] * np.dtype(image.dtype).itemsize
    return READ if voxel <= 2 else READ // 2


class _SliceReader:
    """Normalised slices of a box, one after the other."""

    def __init__(
        self,
        volume: FeatureVolume,
        low: Sequence[int],
        size: Sequence[int],
        read_ahead: bool,
    ) -> None:
        self._volume = volume
        self._plane = list(low[1:]), list(size[1:])
        self._at = low[0]
        self._depth = volume.shape[0]
        first, last = (
            min(max(z, 0), self._depth - 1) for z in (low[0], low[0] + size[0] - 1)
        )
        pieces = self._pieces(first, last + 1)
        self._pieces_to_come = ahead(pieces) if read_ahead else pieces
        self._piece: NDArray[Any] | None = None
        self._begin = self._end = first

    def take(self, count: int) -> Tensor:
        """Return the next slices, (C, count, Y, X), on the device of the filters."""
        size = (self._volume.image.shape[0], count, *self._plane[1])
        slices = np.empty(size, np.float32)
        for k in range(count):
            slices[:, k] = self._slice(min(max(self._at + k, 0), self._depth - 1))
        self._at += count
        return torch.from_numpy(slices).to(self._volume.device)

    def close(self) -> None:
        """Stop reading."""
        self._pieces_to_come.close()

    def _slice(self, z: int) -> NDArray[np.float32]:
        while z >= self._end:
            self._begin = self._end
            self._piece = None
            self._piece = next(self._pieces_to_come)
            self._end += self._piece.shape[1]
        assert self._piece is not None
        values = self._volume.statistics.apply(self._piece[:, z - self._begin])
        # The statistics are those of a sample; a single infinite value would
        # spread far.
        refuse_infinite(values[:, None], z)
        return self._volume.continued(values, *self._plane)

    def _pieces(self, first: int, last: int) -> Generator[NDArray[Any], None, None]:
        """Read the slices of a range, as they are in the file."""
        plane = self._volume.inside(*self._plane, self._volume.shape[1:])
        step = slices_at_once(self._volume.image)
        while first < last:
            end = min(last, (first // step + 1) * step)
            box = (slice(None), slice(first, end), *plane)
            yield np.asarray(self._volume.image[box])
            first = end
