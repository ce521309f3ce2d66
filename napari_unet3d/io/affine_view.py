"""Which voxels of a stored array something shows: sliced, turned, never computed."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AffineView:
    """A part of an array, with its axes in some order.

    It is sliced and transposed like an array, without one; `take` reads the voxels.

    Attributes
    ----------
    start, step : tuple of int
        First index, and distance between two, along each axis of the array.
    order : tuple of int
        Axis of the array for each axis that is shown; -1 for a new one of length 1.
    shape : tuple of int
        Length of each axis that is shown.

    Examples
    --------
    >>> view = AffineView.whole((4, 5, 6))[1, ::-1].transposed((1, 0))
    >>> view.shape
    (6, 5)
    >>> view.take(np.arange(120).reshape(4, 5, 6))[0].tolist()
    [54, 48, 42, 36, 30]
    """

    start: tuple[int, ...]
    step: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> AffineView:
        """Show an array as it is."""
        n = len(shape)
        return cls((0,) * n, (1,) * n, tuple(range(n)), tuple(map(int, shape)))

    @property
    def ndim(self) -> int:
        """Number of axes that are shown."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> AffineView:
        """Show a part, selected by integers, slices, an ellipsis and None.

        Raises
        ------
        TypeError
            Where voxels are picked one by one.
        """
        start, step = list(self.start), list(self.step)
        order: list[int] = []
        shape: list[int] = []
        axis = 0
        for each in _expanded(key, self.ndim):
            if each is None:
                order.append(-1)
                shape.append(1)
                continue
            source, length = self.order[axis], self.shape[axis]
            axis += 1
            if isinstance(each, slice):
                chosen = range(length)[each]
                order.append(source)
                shape.append(len(chosen))
            else:
                index = operator.index(each)
                chosen = range(length)[index : index + 1 or None]
                if not chosen:
                    raise IndexError(f"{index} is out of bounds for length {length}")
            if source >= 0 and chosen:
                start[source] += chosen[0] * step[source]
                if isinstance(each, slice):
                    step[source] *= chosen.step
        return AffineView(tuple(start), tuple(step), tuple(order), tuple(shape))

    def transposed(self, axes: Sequence[int]) -> AffineView:
        """Show the axes in another order."""
        if sorted(axes) != list(range(self.ndim)):
            raise TypeError(f"{tuple(axes)} is no order of {self.ndim} axes")
        return replace(
            self,
            order=tuple(self.order[a] for a in axes),
            shape=tuple(self.shape[a] for a in axes),
        )

    def joined(self, other: AffineView, axis: int) -> AffineView:
        """Show this and what follows along an axis.

        Raises
        ------
        ValueError
            Where the other does not follow.
        """
        length = self.shape[axis] + other.shape[axis]
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        both = replace(self, shape=shape)
        where = (slice(None),) * axis
        if self.order[axis] < 0 or both[(*where, slice(self.shape[axis], None))] != (
            other
        ):
            raise ValueError("the parts do not follow each other")
        return both

    def take(self, array: Any) -> NDArray[Any]:
        """Read the voxels from the array."""
        keys: list[slice] = []
        lengths = dict(zip(self.order, self.shape, strict=True))
        for axis, (start, step) in enumerate(zip(self.start, self.step, strict=True)):
            last = start + (lengths.get(axis, 1) - 1) * step
            low, high = min(start, last), max(start, last) + 1
            # Where nothing is shown along an axis, `last` lies before `start`.
            if lengths.get(axis, 1) == 0:
                low = high = 0
            keys.append(slice(low, high, abs(step)))
        block = np.asarray(array[tuple(keys)])
        block = block[
            tuple(
                (slice(None, None, -1) if self.step[axis] < 0 else slice(None))
                if axis in lengths
                else 0
                for axis in range(block.ndim)
            )
        ]
        kept = [axis for axis in self.order if axis >= 0]
        block = block.transpose([sorted(kept).index(axis) for axis in kept])
        for position, axis in enumerate(self.order):
            if axis < 0:
                block = np.expand_dims(block, position)
        return block


def _expanded(key: Any, ndim: int) -> tuple[Any, ...]:
    keys = key if isinstance(key, tuple) else (key,)
    dots = [k for k, each in enumerate(keys) if each is Ellipsis]
    missing = ndim - sum(each is not None for each in keys) + len(dots)
    if len(dots) > 1 or missing < 0:
        raise IndexError(f"{len(keys)} indices are too many for {ndim} axes")
    at = dots[0] if dots else len(keys)
    return (*keys[:at], *(slice(None),) * missing, *keys[at + 1 :])
