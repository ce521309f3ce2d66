"""What follows from the shape and the type of any array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


class ArraySize:
    """Base of array-likes that have a shape and a dtype.

    Examples
    --------
    >>> import numpy as np
    >>> class Nothing(ArraySize):
    ...     shape, dtype = (2, 3), np.dtype("uint16")
    >>> Nothing().ndim, Nothing().size, Nothing().nbytes
    (2, 6, 12)
    """

    @property
    def ndim(self: _Shaped) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self: _Shaped) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self: _Shaped) -> int:
        """Size of all numbers, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize
