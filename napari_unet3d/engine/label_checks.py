"""Sentences for labels that cannot be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EngineError

if TYPE_CHECKING:
    from .annotation import Annotation


def check_labels(labels: Any) -> None:
    """Refuse labels that are not a 3D array of integers.

    Raises
    ------
    EngineError
        Naming shape or dtype.
    """
    if len(labels.shape) != 3:
        raise EngineError(
            f"labels must have three axes ZYX, got shape {tuple(labels.shape)}; "
            "annotate a single volume"
        )
    if np.dtype(labels.dtype).kind not in "iub":
        raise EngineError(
            f"labels must be integers (0 unlabelled, 1, 2, ... classes), got "
            f"{labels.dtype}; save them with an integer type"
        )


def check_range(lowest: int, highest: int) -> None:
    """Refuse labels below 0 or above 254.

    Raises
    ------
    EngineError
        Naming the value.
    """
    if lowest < 0:
        raise EngineError(
            f"labels must not be negative, got {lowest}; use 0 for unlabelled voxels "
            "and 1, 2, ... for classes"
        )
    if highest > 254:
        raise EngineError(
            f"labels must be at most 254, got {highest}; number the classes 1, 2, ... "
            "(instances are not classes)"
        )


def check_annotations(annotations: Sequence[Annotation]) -> int:
    """Return the number of classes of annotations that can be trained on.

    Raises
    ------
    EngineError
        Where nothing is labelled, or only one class.
    """
    if not any(len(annotation) for annotation in annotations):
        raise EngineError(
            "no voxel is labelled (all labels are 0); paint a few slices with 1 for "
            "background and 2 and up for the structures"
        )
    present = sorted({int(c) for a in annotations for c in np.unique(a.labels)})
    if len(present) == 1:
        raise EngineError(
            f"only class {present[0]} is labelled; paint at least two classes, "
            "background being one of them"
        )
    return max(present)
