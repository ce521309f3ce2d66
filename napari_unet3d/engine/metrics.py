"""Agreement of two segmentations, over labelled voxels only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError
from .label_checks import check_range, read_slabs


@dataclass(frozen=True, eq=False)
class Scores:
    """How well a segmentation agrees with the truth.

    Classes that occur in neither have NaN and are left out of the means.
    """

    overlap: NDArray[np.int64]
    """Voxels of each class, from class 1 on, in which both agree."""
    truth: NDArray[np.int64]
    """Voxels of each class in the truth."""
    found: NDArray[np.int64]
    """Voxels of each class in the segmentation, where the truth is labelled."""

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class."""
        return _ratio(self.overlap, self.truth + self.found - self.overlap)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice coefficient of each class."""
        return _ratio(2 * self.overlap, self.truth + self.found)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of all classes that occur."""
        return _mean(self.iou)

    @property
    def mean_foreground_iou(self) -> float:
        """Mean IoU of all classes but the first, the background by convention."""
        return _mean(self.iou[1:])

    @property
    def voxels(self) -> int:
        """Voxels that were compared."""
        return int(self.truth.sum())

    def as_dict(self) -> dict[str, Any]:
        """Return all figures as plain values, for JSON; NaN becomes None."""

        def plain(values: Sequence[float]) -> dict[str, float | None]:
            return {
                str(k): None if np.isnan(value) else float(value)
                for k, value in enumerate(values, start=1)
            }

        return {
            "iou": plain(self.iou.tolist()),
            "mean_iou": plain([self.mean_iou])["1"],
            "mean_foreground_iou": plain([self.mean_foreground_iou])["1"],
            "dice": plain(self.dice.tolist()),
            "mean_dice": plain([_mean(self.dice)])["1"],
            "voxels": self.voxels,
            "truth_voxels": {str(k): int(n) for k, n in enumerate(self.truth, 1)},
            "segmentation_voxels": {
                str(k): int(n) for k, n in enumerate(self.found, 1)
            },
        }


def evaluate(segmentation: Any, truth: Any, exclude: Any = None) -> Scores:
    """Compare a segmentation with the truth where the truth is labelled.

    Parameters
    ----------
    segmentation, truth : (Z, Y, X) array of int
        Classes 1 to K, at most 254; voxels with 0 in the truth are not scored. Read
        some slices at a time, so either may be lazy.
    exclude : (Z, Y, X) array of int, optional
        Voxels that are not 0 here are not scored: the annotation that was trained on.

    Raises
    ------
    EngineError
        Where the shapes differ, a label is above 254 or nothing is left to score.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 2, 2, 0]]])
    >>> scores = evaluate(np.array([[[1, 2, 2, 2, 1]]]), truth)
    >>> [round(value, 3) for value in scores.iou.tolist()]
    [0.5, 0.667]
    """
    volumes = {"segmentation": segmentation, "truth": truth}
    if exclude is not None:
        volumes["exclude"] = exclude
    shapes = {name: tuple(volume.shape) for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise EngineError(f"the volumes differ in shape: {listed}; give matching files")
    for name, volume in volumes.items():
        if np.dtype(volume.dtype).kind not in "iub":
            raise EngineError(
                f"{name} must hold integers, got {volume.dtype}; give a label volume"
            )
    totals = np.zeros((3, 0), np.int64)
    for _, slabs in read_slabs(*volumes.values()):
        for found, true, *excluded in zip(*slabs, strict=True):
            scored = true > 0
            for trained_on in excluded:
                scored &= trained_on == 0
            true, found = true[scored], np.maximum(found[scored], 0)
            for name, labels in (("truth", true), ("segmentation", found)):
                check_range(0, int(labels.max(initial=0)), f"labels of the {name}")
            totals = _add(totals, count(true, found))
    if not totals.sum():
        raise EngineError(
            "no voxel is left to score: the truth is 0 everywhere or all of it is "
            "excluded; give a truth with classes 1, 2, ..."
        )
    return Scores(*totals)


def count(
    truth: NDArray[np.integer], segmentation: NDArray[np.integer], n_classes: int = 0
) -> NDArray[np.int64]:
    """Count the voxels of each class, from 1 on.

    Parameters
    ----------
    truth, segmentation : ndarray of int, of one shape
        Labels; those of the segmentation may be 0 where nothing was found.
    n_classes : int
        Count at least this many classes.

    Returns
    -------
    (3, K) ndarray of int64
        Voxels in which both agree, in the truth, in the segmentation.
    """
    size = 1 + max(
        n_classes, int(truth.max(initial=0)), int(segmentation.max(initial=0))
    )
    agreed = truth[truth == segmentation]
    return np.stack(
        [
            np.bincount(labels.reshape(-1), minlength=size)[1:]
            for labels in (agreed, truth, segmentation)
        ]
    )


def _add(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.zeros((3, max(a.shape[1], b.shape[1])), np.int64)
    total[:, : a.shape[1]] += a
    total[:, : b.shape[1]] += b
    return total


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    nan = np.full(len(whole), np.nan)
    np.divide(part, whole, out=nan, where=whole > 0)
    return nan


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
