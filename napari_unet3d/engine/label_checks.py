"""Read volumes of labels; sentences for labels that cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError

if TYPE_CHECKING:
    from .annotation import Annotation

SLAB_SLICES = 64
"""Slices of a volume of labels that are read at once, at most."""

SLAB_BYTES = 2**27
"""Bytes of a volume that are read at once, at most, unless a slice has more."""


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


def read_slabs(*volumes: Any) -> Iterator[tuple[int, list[NDArray[Any]]]]:
    """Read volumes of one shape side by side, some slices at once.

    A slab has a power of two of slices and begins at a multiple of it, where chunks
    usually begin, so those of a lazy volume are decoded once if they are no thicker.

    Parameters
    ----------
    *volumes : (Z, Y, X) array-like
        What can be sliced along Z, with `shape` and `dtype`.

    Yields
    ------
    int
        First slice of the slab.
    list of (n, Y, X) ndarray
        The slab of each volume.
    """
    depth, *plane = (int(n) for n in volumes[0].shape)
    voxel = max(np.dtype(volume.dtype).itemsize for volume in volumes)
    step = SLAB_SLICES
    while step > 1 and step * math.prod(plane) * voxel > SLAB_BYTES:
        step //= 2
    for k in range(0, depth, step):
        end = min(k + step, depth)
        yield k, [np.asarray(volume[k:end]) for volume in volumes]


def check_range(lowest: int, highest: int, name: str = "labels") -> None:
    """Refuse labels below 0 or above 254.

    Parameters
    ----------
    lowest, highest : int
        Of all labels.
    name : str
        What to call them.

    Raises
    ------
    EngineError
        Naming the value.
    """
    if lowest < 0:
        raise EngineError(
            f"{name} must not be negative, got {lowest}; use 0 for unlabelled voxels "
            "and 1, 2, ... for classes"
        )
    if highest > 254:
        raise EngineError(
            f"{name} must be at most 254, got {highest}; number the classes 1, 2, ... "
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
