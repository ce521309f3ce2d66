"""Those that train one model together, each with a share of every batch.

The engine knows only what it needs of the others: which patches are whose, and sums
over all. How they reach one another is settled by a subclass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .unet import UNet3D

Value = TypeVar("Value")


class Ranks:
    """One that trains alone; the base of those that are several.

    Several make the same model as one alone, because sums are over the whole batch: of
    the loss and its weight, of the gradient, and of the batch normalisation. Every
    method has to be called by all ranks, in the same order.
    """

    rank = 0
    """Which one this is, from 0."""
    count = 1
    """How many there are."""

    def share(self, patches: int) -> range:
        """Return which of so many patches are this rank's; they differ by at most one.

        Examples
        --------
        >>> Ranks().share(3)
        range(0, 3)
        """
        few, more = divmod(patches, self.count)
        first = self.rank * few + min(self.rank, more)
        return range(first, first + few + (self.rank < more))

    def first(self, value: Value) -> Value:
        """Return the value that the first rank has."""
        return value

    def add(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of integers or floats over all ranks."""
        return values

    def total(self, sums: Tensor) -> Tensor:
        """Return sums over all ranks; their gradient is that of this rank's part.

        The gradients of all ranks then add up to that of the whole.
        """
        return sums

    def parallel(self, network: UNet3D) -> Callable[..., Tensor]:
        """Return what to call in place of a network that learns on all ranks.

        In the backward pass the gradients of all ranks are added up. The network's
        batch normalisation is replaced by one over the whole batch.
        """
        return network

    def agree(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """Return the first rank's time, and whether any is to stop."""
        mine = seconds if self.rank == 0 else 0.0
        time, stops = self.add(np.array([mine, float(stop)])).tolist()
        return time, stops > 0


ALONE = Ranks()
