"""Sparse annotation: the labelled voxels of a volume and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .label_checks import check_labels, check_range, read_slabs

UNLABELLED = -1
"""Class index, inside the engine, of a voxel that takes no part in the loss."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Annotation:
    """The labelled voxels of one volume, whatever its size.

    Parameters
    ----------
    shape : (int, int, int)
        Shape ZYX of the volume.
    index : (n,) ndarray of int64
        Flat (C order) indices of the labelled voxels, ascending.
    labels : (n,) ndarray of uint8
        Their labels, 1 to K.

    Examples
    --------
    >>> labels = np.zeros((3, 4, 5), np.uint8)
    >>> labels[1, :, :2] = 1
    >>> labels[1, 2, 3] = 2
    >>> annotation = Annotation.from_labels(labels)
    >>> annotation.counts.tolist()
    [8, 1]
    """

    shape: tuple[int, int, int]
    index: Indices
    labels: NDArray[np.uint8]

    @classmethod
    def from_labels(cls, labels: Any) -> Annotation:
        """Collect the labelled voxels of a (Z, Y, X) integer array, 0 = unlabelled.

        Array-likes that are not arrays (zarr, dask) are read some slices at a time.

        Raises
        ------
        EngineError
            Where the labels are not integers, not 3D, negative or above 254.
        """
        if not hasattr(labels, "shape"):
            labels = np.asarray(labels)
        check_labels(labels)
        z, y, x = (int(n) for n in labels.shape)
        indices, values = [], []
        for first, (slab,) in read_slabs(labels):
            for k, plane in enumerate(slab, start=first):
                flat = plane.reshape(-1)
                painted = np.flatnonzero(flat)
                if painted.size:
                    indices.append(painted.astype(np.int64) + k * y * x)
                    values.append(flat[painted])
        if not indices:
            return cls((z, y, x), np.empty(0, np.int64), np.empty(0, np.uint8))
        found = np.concatenate(values)
        check_range(int(found.min()), int(found.max()))
        return cls((z, y, x), np.concatenate(indices), found.astype(np.uint8))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_classes(self) -> int:
        """The largest label; 0 where nothing is labelled."""
        return int(self.labels.max(initial=0))

    @property
    def counts(self) -> Indices:
        """Labelled voxels of each class, from label 1 on."""
        return np.bincount(self.labels, minlength=self.n_classes + 1)[1:]

    @cached_property
    def coordinates(self) -> Indices:
        """The labelled voxels' positions, (n, 3) ZYX."""
        return np.stack(np.unravel_index(self.index, self.shape), axis=1)

    @cached_property
    def normals(self) -> NDArray[np.uint8]:
        """Axis across the annotated slice that each labelled voxel lies in, (n,).

        Of the three planes through the voxel, the slice is the one that is labelled
        to the greatest part. A volume of one slice has no other.
        """
        if 1 in self.shape:
            return np.full(len(self), self.shape.index(1), np.uint8)
        normals = np.zeros(len(self), np.uint8)
        greatest = np.zeros(len(self))
        voxels = max(1.0, np.prod(self.shape, dtype=float))
        for axis in range(3):
            position = self.coordinates[:, axis]
            count = np.bincount(position, minlength=self.shape[axis])
            part = count * (self.shape[axis] / voxels)
            of_voxel = part[position]
            normals[of_voxel > greatest] = axis
            np.maximum(greatest, of_voxel, out=greatest)
        return normals

    def slices(self) -> list[tuple[int, int, int]]:
        """List the annotated slices as (axis, position, labelled voxels)."""
        found = []
        for axis in range(3):
            mine = self.coordinates[self.normals == axis, axis]
            for position, count in zip(
                *np.unique(mine, return_counts=True), strict=True
            ):
                found.append((axis, int(position), int(count)))
        return found

    def crop(self, low: Sequence[int], size: Sequence[int]) -> NDArray[np.uint8]:
        """Return the labels of a box, which may reach out of the volume.

        Parameters
        ----------
        low, size : (int, int, int)
            First voxel and shape ZYX of the box.

        Returns
        -------
        (Z, Y, X) ndarray of uint8
            0 where nothing is labelled and outside the volume.
        """
        box = np.zeros(tuple(size), np.uint8)
        start = [max(0, a) for a in low]
        stop = [min(n, a + s) for n, a, s in zip(self.shape, low, size, strict=True)]
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            return box
        _, ny, nx = self.shape
        rows = (
            np.arange(start[0], stop[0])[:, None] * ny + np.arange(start[1], stop[1])
        ).reshape(-1) * nx
        first = np.searchsorted(self.index, rows + start[2])
        count = np.searchsorted(self.index, rows + stop[2]) - first
        total = int(count.sum())
        if not total:
            return box
        # Positions in `index` of all voxels found: one run of numbers per row.
        run_start = np.cumsum(count) - count
        found = np.arange(total) - np.repeat(run_start - first, count)
        z, y, x = np.unravel_index(self.index[found], self.shape)
        box[z - low[0], y - low[1], x - low[2]] = self.labels[found]
        return box

    def select(self, keep: NDArray[np.bool_]) -> Annotation:
        """Return the annotation with only the labelled voxels where `keep` is true.

        They lie in the same slices as before.
        """
        part = replace(self, index=self.index[keep], labels=self.labels[keep])
        # What is left of a slice would often seem to lie across another axis.
        vars(part)["normals"] = self.normals[keep]
        return part

    def split(self, fraction: float, seed: int = 0) -> tuple[Annotation, Annotation]:
        """Hold out compact blocks of the annotated slices.

        Neighbouring voxels look alike, so single voxels held out would flatter the
        network; every annotated slice is cut into blocks instead, of which a share is
        held out. A class never loses all its voxels.

        Parameters
        ----------
        fraction : float
            Share of the blocks that is held out.
        seed : int
            Seed of the choice.

        Returns
        -------
        training, held_out : Annotation
            `held_out` is empty where there are fewer than ten blocks.
        """
        nothing = np.zeros(len(self), bool)
        if fraction <= 0 or not len(self):
            return self, self.select(nothing)
        extent = int(max(8, min(32, min(sorted(self.shape)[1:]) // 5)))
        # One number for normal and cell: rows of four would be sorted far slower.
        key = self.normals.astype(np.int64)
        for axis in range(3):
            position = self.coordinates[:, axis]
            key *= self.shape[axis]
            key += np.where(self.normals == axis, position, position // extent)
        keys, block = np.unique(key, return_inverse=True)
        if len(keys) < 10:
            return self, self.select(nothing)
        cells = np.stack(np.unravel_index(keys, (3, *self.shape)), axis=1)
        held = _choose_blocks(cells, block, self.labels, fraction, seed)
        return self.select(~held), self.select(held)


def _choose_blocks(
    cells: Indices,
    block: Indices,
    labels: NDArray[np.uint8],
    fraction: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Mark the voxels of a share of the blocks.

    A block is chosen by a hash of its place, so what was learned from is hardly ever
    held out once more slices are annotated, and at least half of every class stays in
    the training. Of a class that hardly occurs in the chosen blocks further ones are
    taken: a measurement on background alone says nothing.
    """
    counts = np.zeros((len(cells), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (block, labels), 1)
    total = counts.sum(axis=0)
    left = total.copy()
    rank = np.array([_hash(cell, seed) for cell in cells.tolist()])
    chosen = np.zeros(len(cells), bool)
    order = np.argsort(rank, kind="stable")
    for candidate in order:
        # Always one block, so that there is something to measure on.
        if rank[candidate] >= fraction and chosen.any():
            break
        rest = left - counts[candidate]
        if np.all(rest * 2 >= total):
            chosen[candidate] = True
            left = rest
    for label in range(len(total)):
        for candidate in order[counts[order, label] > 0]:
            if total[label] - left[label] >= fraction / 2 * total[label]:
                break
            rest = left - counts[candidate]
            if not chosen[candidate] and np.all(rest * 2 >= total):
                chosen[candidate] = True
                left = rest
    return chosen[block]


def _hash(cell: Sequence[int], seed: int) -> float:
    """Map a cell to a number in [0, 1), the same on every machine."""
    return zlib.crc32(f"{seed}:{cell}".encode()) / 2**32
