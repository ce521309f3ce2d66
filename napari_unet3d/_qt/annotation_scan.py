"""Which voxels are labelled, and what has changed since the last look."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.io.annotation_file import MAX_CLASSES

from .sparse_volume import SparseVolume, empty_volume

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

    def dense(self) -> Any:
        """Return the volume, 0 where nothing is labelled; sparse where it is huge."""
        volume = empty_volume(self.shape)
        if isinstance(volume, np.ndarray):
            volume.reshape(-1)[self.index] = self.labels
            return volume
        for first in range(0, len(self.index), BLOCK):
            part = slice(first, first + BLOCK)
            volume[np.unravel_index(self.index[part], self.shape)] = self.labels[part]
        return volume


@dataclass(frozen=True, eq=False)
class Changes:
    """What is different: flat indices and their new labels, 0 where erased."""

    index: NDArray[np.int64]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.index)


def scan(volume: Any) -> Iterator[Labelled | None]:
    """Collect the labelled voxels part by part; only the last item is the result.

    The volume may be painted on between two items; what is painted behind the scan is
    found by the next one.

    Parameters
    ----------
    volume : (Z, Y, X) ndarray or SparseVolume of int

    Yields
    ------
    None after each part but the last, then the labelled voxels.

    Examples
    --------
    >>> volume = np.zeros((2, 2, 2), np.uint8)
    >>> volume[1, 0, 1] = 2
    >>> *_, found = scan(volume)
    >>> found.index.tolist(), found.labels.tolist()
    ([5], [2])
    """
    parts = (
        volume.portions(BLOCK)
        if isinstance(volume, SparseVolume)
        else _portions(np.asarray(volume))
    )
    collected = Collected(tuple(volume.shape))
    for number, (index, values) in enumerate(parts):
        if number:
            yield None
        collected.add(index, values)
    yield collected.labelled()


def _portions(
    volume: NDArray[np.integer],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.integer]]]:
    """Yield flat indices and values of what is not zero, some slices at a time."""
    rows = max(1, BLOCK * volume.shape[0] // max(1, volume.size))
    for first in range(0, volume.shape[0], rows):
        block = np.ascontiguousarray(volume[first : first + rows]).reshape(-1)
        found = np.flatnonzero(block)
        yield found + first * (volume.size // volume.shape[0]), block[found]


class Collected:
    """Labelled voxels, put together from parts.

    Parameters
    ----------
    shape : (int, int, int)
        Of the volume.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._index = [np.empty(0, np.int64)]
        self._labels = [np.empty(0, np.uint8)]
        self._unusable = 0

    def add(self, index: NDArray[np.int64], values: NDArray[np.integer]) -> None:
        """Add voxels that are not zero; those that no class can have are left out."""
        usable = (values > 0) & (values <= MAX_CLASSES)
        if not usable.all():
            largest, smallest = int(values.max()), int(values.min())
            self._unusable = largest if largest > MAX_CLASSES else smallest
            index, values = index[usable], values[usable]
        self._index.append(index)
        self._labels.append(values.astype(np.uint8))

    def labelled(self) -> Labelled:
        """Return all of them."""
        index, labels = np.concatenate(self._index), np.concatenate(self._labels)
        if (np.diff(index) < 0).any():
            order = np.argsort(index)
            index, labels = index[order], labels[order]
        return Labelled(self._shape, index, labels, self._unusable)


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
