"""What speeds annotation up: whole slices at once, and where to annotate next.

Everything is written through the layer's own history, one undo step each.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .zarr_labels import scanner_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels
    from numpy.typing import NDArray

    from .annotation_scan import Labelled

BACKGROUND = 1

ENOUGH = 0.05
"""Share of a slice that makes it an annotated slice."""


@dataclass(frozen=True, order=True)
class Slice:
    """A slice of a volume, across one of its axes."""

    axis: int
    """0, 1, 2 for a slice across Z, Y, X."""
    position: int

    @property
    def name(self) -> str:
        """As people call it."""
        return f"{'ZYX'[self.axis]} {self.position}"

    @property
    def key(self) -> tuple[Any, ...]:
        """What selects it from an array."""
        return (slice(None),) * self.axis + (self.position,)

    def of(self, volume: Any) -> Any:
        """Return the slice of an array; of an ndarray it is a view."""
        return volume[self.key]


def fill_background(layer: Labels, where: Slice) -> int:
    """Label what is not labelled in a slice as background; return how many voxels."""
    plane = where.of(layer.data)
    return _write(layer, where, plane == 0, BACKGROUND)


def accept(layer: Labels, where: Slice, prediction: NDArray[np.uint8]) -> int:
    """Take over a slice's prediction where nothing is labelled yet.

    Parameters
    ----------
    prediction : (H, W) ndarray
        Of the slice, 0 where there is none.
    """
    chosen = (where.of(layer.data) == 0) & (prediction > 0)
    return _write(layer, where, chosen, prediction[chosen])


def clear(layer: Labels, where: Slice) -> int:
    """Erase the labels of a slice."""
    return _write(layer, where, where.of(layer.data) > 0, 0)


def replace_label(layer: Labels, old: int, new: int) -> int:
    """Give all voxels of a class another label, 0 to erase them."""
    found = _voxels(layer, lambda labels: labels == old)
    if len(found[0]):
        layer.data_setitem(found, new)
    return len(found[0])


def remove_label(layer: Labels, label: int) -> object | None:
    """Erase a class and let those behind it move up, as one undo step.

    Returns
    -------
    object or None
        For `is_undone`; none where no voxel was changed.
    """
    found = _voxels(layer, lambda labels: labels >= label)
    values = np.asarray(layer.data[found])
    values = np.where(values == label, 0, values - 1).astype(values.dtype)
    if not len(values):
        return None
    layer.data_setitem(found, values)
    history = getattr(layer, "_undo_history", ())
    return history[-1][-1] if history else None


def is_undone(layer: Labels, change: object) -> bool | None:
    """Tell whether a change is undone; none where it is past undo and redo.

    napari does not tell of undo, and that labels are as they were does not mean that
    something was undone. So the change is looked for in the layer's own history.
    """
    for name, undone in (("_undo_history", False), ("_redo_history", True)):
        if any(part is change for item in getattr(layer, name, ()) for part in item):
            return undone
    return None


def _voxels(
    layer: Labels, chosen: Callable[[NDArray[Any]], NDArray[np.bool_]]
) -> tuple[NDArray[Any], ...]:
    """Find the voxels of some labels, without looking where there are none."""
    if isinstance(layer.data, np.ndarray):
        return np.nonzero(chosen(layer.data))
    *_, labelled = scanner_of(layer.data)()
    assert labelled is not None
    index = labelled.index[chosen(labelled.labels)]
    return np.unravel_index(index, labelled.shape)


def annotated_slices(labelled: Labelled) -> list[Slice]:
    """List the slices that are annotated, over all three planes.

    A slice counts from `ENOUGH` of it on, or where it has more labels than its two
    neighbours; a slice across another axis, seen edge-on, does not make one. Of a
    volume that is labelled all over, all slices across its shortest axis count.
    """
    if len(labelled.index) == np.prod(labelled.shape):
        axis = int(np.argmin(labelled.shape))
        return [Slice(axis, k) for k in range(labelled.shape[axis])]
    found = []
    for axis, counts in enumerate(counts_per_slice(labelled)):
        area = np.prod(labelled.shape) / labelled.shape[axis]
        padded = np.pad(counts, 1)
        peak = (counts > 1.5 * padded[:-2]) & (counts > 1.5 * padded[2:])
        dense = counts >= ENOUGH * area
        usual = np.median(counts)
        full = (counts == area) & (counts < area).any()
        chosen = (dense | peak) & (counts > 1.5 * usual) | full
        found += [Slice(axis, int(k)) for k in np.flatnonzero(chosen)]
    return found


def counts_per_slice(labelled: Labelled) -> list[NDArray[np.int64]]:
    """Count the labelled voxels of every slice across Z, Y and X."""
    if not len(labelled.index):
        return [np.zeros(n, np.int64) for n in labelled.shape]
    along = np.unravel_index(labelled.index, labelled.shape)
    return [
        np.bincount(k, minlength=n) for k, n in zip(along, labelled.shape, strict=True)
    ]


def slices_per_class(labelled: Labelled, slices: list[Slice], count: int) -> list[int]:
    """Count for each of the classes the annotated slices that show it."""
    if not len(labelled.index):
        return [0] * count
    found = np.zeros(count + 1, int)
    along = np.unravel_index(labelled.index, labelled.shape)
    for axis, positions in enumerate(along):
        chosen = [each.position for each in slices if each.axis == axis]
        table = np.bincount(
            positions * 256 + labelled.labels, minlength=256 * labelled.shape[axis]
        ).reshape(-1, 256)
        found += (table[chosen, : count + 1] > 0).sum(axis=0)
    return [int(n) for n in found[1:]]


def next_slice(labelled: Labelled) -> Slice:
    """Return the slice whose annotation is missing most.

    Spread evenly over the extent: the plane with the fewest annotated slices comes
    first, and in it the middle of the widest gap.

    Examples
    --------
    >>> from .annotation_scan import Labelled
    >>> next_slice(Labelled((9, 30, 30)))
    Slice(axis=0, position=4)
    """
    done: list[list[int]] = [[], [], []]
    for each in annotated_slices(labelled):
        done[each.axis].append(each.position)
    best = max(
        range(3),
        key=lambda axis: (_widest_gap(done[axis], labelled.shape[axis])[0], -axis),
    )
    return Slice(best, _widest_gap(done[best], labelled.shape[best])[1])


def _widest_gap(done: list[int], size: int) -> tuple[float, int]:
    """Return the widest gap, as a share of the extent, and its middle.

    A gap at the end is counted twice: a slice at the end itself teaches little.
    """
    if not done:
        return 2.0, size // 2
    ends = sorted(done)
    gaps = [(2 * ends[0] / size, ends[0] // 2)]
    gaps += [((b - a) / size, (a + b) // 2) for a, b in itertools.pairwise(ends)]
    last = size - 1 - ends[-1]
    gaps.append((2 * last / size, ends[-1] + (last + 1) // 2))
    return max(gaps)


def _write(layer: Labels, where: Slice, chosen: NDArray[np.bool_], value: Any) -> int:
    """Write into the chosen voxels of a slice as one undo step."""
    across = list(np.nonzero(chosen))
    count = len(across[0])
    if count:
        across.insert(where.axis, np.full(count, where.position))
        layer.data_setitem(tuple(across), value)
    return count
