"""Labels of single voxels, and how later ones replace earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class SparseLabels:
    """The labelled voxels of a volume.

    Parameters
    ----------
    index : (n,) ndarray of int64
        Flat (C order) indices, ascending, each once.
    labels : (n,) ndarray of uint8
        Their labels, 1 to K.
    """

    index: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    labels: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def __len__(self) -> int:
        return len(self.index)

    def changed(self, index: ArrayLike, labels: ArrayLike) -> SparseLabels:
        """Return these labels after some voxels were painted or erased.

        Parameters
        ----------
        index : (n,) array-like of int
            Flat indices in the order of painting: the last label of a voxel counts.
        labels : (n,) array-like of int
            Their labels; 0 where a voxel was erased.

        Examples
        --------
        >>> painted = SparseLabels().changed([5, 2, 9], [1, 2, 1])
        >>> painted.changed([2, 5, 5], [0, 1, 3]).labels.tolist()
        [3, 1]
        """
        index = np.asarray(index, np.int64).reshape(-1)
        labels = np.asarray(labels, np.uint8).reshape(-1)
        if len(index) != len(labels):
            raise EngineError(
                f"{len(index)} voxels were given with {len(labels)} labels; give one "
                "label for each voxel"
            )
        # np.unique keeps the first of equals, so the order is reversed.
        index, last = np.unique(index[::-1], return_index=True)
        labels = labels[::-1][last]
        kept = ~np.isin(self.index, index, assume_unique=True)
        painted = labels > 0
        merged = np.concatenate([self.index[kept], index[painted]])
        order = np.argsort(merged, kind="stable")
        values = np.concatenate([self.labels[kept], labels[painted]])
        return SparseLabels(merged[order], values[order])
