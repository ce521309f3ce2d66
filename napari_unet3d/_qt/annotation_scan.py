"""Which voxels are labelled, and what has changed since the last look."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .classes import MAX_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 2**22
"""Voxels looked at in one go, some milliseconds."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labelled voxels of a volume.

    Parameters
    ----------
    shape : (int, int, int)
        Of the volume.
    index : (n,) ndarray of int64
        Flat (C order) indices, ascending.
    labels : (n,) ndarray of uint8
        Their labels, 1 to K.
    unusable : int
        A label beyond those of classes, that is left out; 0 if there is none.
    """

    shape: tuple[int, ...]
    index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    labels: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    unusable: int = 0

    def between(self, first: int, last: int) -> Labelled:
        """Return those with flat indices in a range."""
        low, high = np.searchsorted(self.index, (first, last))
        return Labelled(self.shape, self.index[low:high], self.labels[low:high])

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """Voxels of each label; at every step of the slider they are asked for."""
        return np.bincount(self.labels, minlength=MAX_CLASSES + 1)

    def voxels_of(self, label: int) -> int:
        """Count the voxels of a class."""
        return int(self.counts[label])

    def dense(self) -> NDArray[np.uint8]:
        """Return the volume, 0 where nothing is labelled."""
        volume = np.zeros(self.shape, np.uint8)
        volume.reshape(-1)[self.index] = self.labels
        return volume


@dataclass(frozen=True, eq=False)
class Changes:
    """What is different: flat indices and their new labels, 0 where erased."""

    index: NDArray[np.int64]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.index)


def scan(volume: NDArray[np.integer]) -> Iterator[Labelled | None]:
    """Collect the labelled voxels block by block; only the last item is the result.

    The volume may be painted on between two items; what is painted behind the scan is
    found by the next one.

    Yields
    ------
    None after each block but the last, then the labelled voxels.

    Examples
    --------
    >>> volume = np.zeros((2, 2, 2), np.uint8)
    >>> volume[1, 0, 1] = 2
    >>> *_, found = scan(volume)
    >>> found.index.tolist(), found.labels.tolist()
    ([5], [2])
    """
    rows = max(1, BLOCK * volume.shape[0] // max(1, volume.size))
    indices, labels, unusable = [], [], 0
    for first in range(0, volume.shape[0], rows):
        block = np.ascontiguousarray(volume[first : first + rows]).reshape(-1)
        largest, smallest = int(block.max(initial=0)), int(block.min(initial=0))
        if largest > MAX_CLASSES or smallest < 0:
            unusable = largest if largest > MAX_CLASSES else smallest
        found = np.flatnonzero((block > 0) & (block <= MAX_CLASSES))
        labels.append(block[found].astype(np.uint8))
        indices.append(found + first * (volume.size // volume.shape[0]))
        if first + rows < volume.shape[0]:
            yield None
    yield Labelled(
        tuple(volume.shape),
        np.concatenate([np.empty(0, np.int64), *indices]),
        np.concatenate([np.empty(0, np.uint8), *labels]),
        unusable,
    )


def changes_between(before: Labelled, after: Labelled) -> Changes:
    """Compare two looks at the same volume.

    Examples
    --------
    >>> before = Labelled((1, 1, 9), np.array([1, 4]), np.array([1, 2], np.uint8))
    >>> after = Labelled((1, 1, 9), np.array([4, 7]), np.array([3, 1], np.uint8))
    >>> changes = changes_between(before, after)
    >>> changes.index.tolist(), changes.labels.tolist()
    ([1, 4, 7], [0, 3, 1])
    """
    if before.shape != after.shape:
        raise ValueError(f"shapes {before.shape} and {after.shape} differ")
    erased = ~np.isin(before.index, after.index, assume_unique=True)
    where = np.searchsorted(before.index, after.index)
    where[where == len(before.index)] = 0
    if len(before.index):
        same = (before.index[where] == after.index) & (
            before.labels[where] == after.labels
        )
    else:
        same = np.zeros(len(after.index), bool)
    index = np.concatenate([before.index[erased], after.index[~same]])
    labels = np.concatenate(
        [np.zeros(int(erased.sum()), np.uint8), after.labels[~same]]
    )
    order = np.argsort(index, kind="stable")
    return Changes(index[order], labels[order])
