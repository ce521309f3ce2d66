"""A volume as the network sees it: normalised grey values and filter responses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .allocation import release_freed_memory
from .memory import available_memory
from .normalize import refuse_infinite

if TYPE_CHECKING:
    from .normalize import IntensityStatistics
    from .stem import FilterStem

BLOCK = 64
"""Edge, in voxels, of the blocks that responses are computed and kept in."""

LARGEST_HALF = 65504.0
"""Largest number in half precision; a speck may be brighter than that."""

CACHE_BYTES = 2 * 2**30
"""Memory for blocks of responses, of all channels and volumes together, at most."""

TIDIED = 16
"""Blocks after which the memory around them is tidied up, once they are too many."""

CACHE_SHARE = 4
"""Part of the memory that was free at first which they may take."""


class FeatureVolume:
    """Give the stem's output for any box of an image, on demand.

    Beyond its borders the image is continued with its outermost voxels.

    Parameters
    ----------
    image : (C, Z, Y, X) array-like
        Read in boxes; need not fit in memory.
    statistics : IntensityStatistics
        Of this image.
    stem : FilterStem
        The model's; its device is used.
    sharing : int
        Volumes, this one included, that share the memory for kept blocks.
    """

    def __init__(
        self,
        image: Any,
        statistics: IntensityStatistics,
        stem: FilterStem,
        sharing: int = 1,
    ) -> None:
        self.image = image
        self.statistics = statistics
        self.stem = stem
        self.shape: tuple[int, int, int] = tuple(int(n) for n in image.shape[1:])  # type: ignore[assignment]
        # Blocks of even size: none reaches far beyond the volume.
        self._edge = [-(-n // -(-n // BLOCK)) for n in self.shape]
        self._blocks: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        free = available_memory(self.device)
        self._room = min(CACHE_BYTES, free // CACHE_SHARE) // sharing
        self._dropped = 0

    @property
    def device(self) -> torch.device:
        """Where the responses are computed and kept."""
        return self.stem.mean.device

    def compute(self, low: Sequence[int], size: Sequence[int]) -> Tensor:
        """Compute the features (C, Z, Y, X) of a box, which may reach outside."""
        margin = self.stem.margin
        with torch.no_grad():
            features: Tensor = self.stem(
                self.read(
                    [a - m for a, m in zip(low, margin, strict=True)],
                    [s + 2 * m for s, m in zip(size, margin, strict=True)],
                )
            )
        return features

    def read(self, low: Sequence[int], size: Sequence[int]) -> Tensor:
        """Read normalised grey values (C, Z, Y, X) of a box; it may reach outside."""
        inside = self.inside(low, size, self.shape)
        values = self.statistics.apply(np.asarray(self.image[(slice(None), *inside)]))
        # The statistics are those of a sample; a single infinite value would
        # spread far.
        refuse_infinite(values, inside[0].start)
        values = np.ascontiguousarray(self.continued(values, low, size))
        return torch.from_numpy(values).to(self.device)

    @staticmethod
    def inside(
        low: Sequence[int], size: Sequence[int], shape: Sequence[int]
    ) -> list[slice]:
        """Return the part of a box within a shape; one voxel at least of its border."""
        found = []
        for a, s, n in zip(low, size, shape, strict=True):
            first, last = min(max(a, 0), n - 1), max(min(a + s, n), 1)
            found.append(slice(first, max(last, first + 1)))
        return found

    def continued(
        self, values: NDArray[np.float32], low: Sequence[int], size: Sequence[int]
    ) -> NDArray[np.float32]:
        """Continue the part of a box `inside` the volume beyond the border.

        Parameters
        ----------
        values : (C, ..., Y, X) array
            The part, along the last axes of the volume, as many as `low` has.
        low, size : sequence of int
            Of the box.
        """
        shape = self.shape[-len(low) :]
        paddings = [
            (max(0, part.start - a), max(0, a + s - part.stop))
            for part, a, s in zip(self.inside(low, size, shape), low, size, strict=True)
        ]
        if any(before or after for before, after in paddings):
            values = np.pad(values, [(0, 0), *paddings], mode="edge")
        # A box wholly outside is only the border; padding made it too long.
        return values[(slice(None), *(slice(n) for n in size))]

    def crop(self, low: Sequence[int], size: Sequence[int]) -> Tensor:
        """Return the features of a box from blocks that are kept once computed.

        Returns
        -------
        Tensor of shape (C, Z, Y, X), float32
            With the channels last in memory, as the network takes them.
        """
        if not self.stem.scales:
            plain = self.compute(low, size).movedim(0, -1)
            return plain.contiguous().movedim(-1, 0)
        out = torch.empty(
            (*size, self.stem.out_channels), dtype=torch.float32, device=self.device
        )
        ranges = [
            range(a // edge, -(-(a + s) // edge))
            for a, s, edge in zip(low, size, self._edge, strict=True)
        ]
        for i in ranges[0]:
            for j in ranges[1]:
                for k in ranges[2]:
                    key = (i, j, k)
                    target, source = [], []
                    for block, a, s, edge in zip(
                        key, low, size, self._edge, strict=True
                    ):
                        first = max(a, block * edge)
                        last = min(a + s, (block + 1) * edge)
                        target.append(slice(first - a, last - a))
                        source.append(slice(first - block * edge, last - block * edge))
                    out[tuple(target)] = self._block(key)[tuple(source)]
        return out.movedim(-1, 0)

    def _block(self, key: tuple[int, ...]) -> Tensor:
        """Return the responses (Z, Y, X, C) of a block in half precision."""
        found = self._blocks.get(key)
        if found is None:
            # Half precision halves the memory; training does not notice.
            found = self.compute(
                [k * edge for k, edge in zip(key, self._edge, strict=True)], self._edge
            )
            found = found.clamp_(-LARGEST_HALF, LARGEST_HALF).half()
            found = found.movedim(0, -1).contiguous()
            self._blocks[key] = found
            size = found.element_size() * found.nelement()
            while len(self._blocks) * size > self._room and len(self._blocks) > 8:
                self._blocks.popitem(last=False)
                self._dropped += 1
                if self._dropped % TIDIED == 0:
                    # What is kept lies between what is computed: gaps add up.
                    release_freed_memory()
        else:
            self._blocks.move_to_end(key)
        return found
