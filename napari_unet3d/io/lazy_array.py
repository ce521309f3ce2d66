"""A stored array, or a part of one, that is read as it is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from .affine_view import AffineView
from .array_size import ArraySize
from .chunk_cache import ChunkCache
from .stored_array import StoredArray, locate

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LazyArray(ArraySize):
    """Show a part of a chunked array, as the data of a layer.

    Parameters
    ----------
    cache : ChunkCache
        What is read from; parts of the same array may share it.
    view : AffineView, optional
        The part; by default all of it.
    """

    def __init__(self, cache: ChunkCache, view: AffineView | None = None) -> None:
        self.cache = cache
        self.view = view or AffineView.whole(cache.shape)
        self.dtype: np.dtype[Any] = cache.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along every axis."""
        return self.view.shape

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the chunks, in the order of the axes shown."""
        return tuple(self.cache.chunks[a] if a >= 0 else 1 for a in self.view.order)

    @property
    def origin(self) -> tuple[StoredArray, AffineView] | None:
        """Where the voxels lie."""
        stored = self.cache.stored
        return None if stored is None else (stored, self.view)

    def reopen(self, path: str) -> None:
        """Read from another place from now on, where the same array lies."""
        array = zarr.open_array(path, mode="r")
        self.cache.stored = locate(array)
        self.cache.replace(array)

    def __len__(self) -> int:
        """Give the length of the first axis."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a box."""
        return self.view[key].take(self.cache)

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Read the whole array."""
        return np.array(self[...], dtype=dtype, copy=copy)


def open_lazy(path: str, capacity: int) -> LazyArray:
    """Open a zarr array to be looked at, of which so many bytes are kept."""
    array = zarr.open_array(path, mode="r")
    return LazyArray(ChunkCache(array, capacity, locate(array)))
