"""An image (C, Z, Y, X) put together from stored arrays, read box by box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .chunk_cache import ChunkCache, has_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .affine_view import AffineView
    from .stored_array import StoredArray

KEPT_WHERE_LARGE = 2**30
"""Bytes of chunks that are kept of an image too large for memory."""


@dataclass(frozen=True)
class StoredImage:
    """Where the voxels of an image lie.

    Attributes
    ----------
    parts : tuple of (StoredArray, AffineView)
        Each shows some of the channels, with axes CZYX.
    dtype : str
        Number format that all of them are handed on in.
    """

    parts: tuple[tuple[StoredArray, AffineView], ...]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and voxels, CZYX."""
        channels = sum(view.shape[0] for _, view in self.parts)
        return (channels, *self.parts[0][1].shape[1:])

    @property
    def nbytes(self) -> int:
        """Size of the whole image if it were in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class LazyImage:
    """An image whose voxels are read when they are asked for.

    Parameters
    ----------
    image : StoredImage
        Where they lie.
    capacity : int
        Bytes of chunks that are kept.

    Raises
    ------
    EngineError
        Where an array is not there any more, or is another one.
    """

    def __init__(self, image: StoredImage, capacity: int = KEPT_WHERE_LARGE) -> None:
        self.shape = image.shape
        self.dtype = np.dtype(image.dtype)
        opened: dict[StoredArray, Any] = {}
        for stored in dict.fromkeys(stored for stored, _ in image.parts):
            array = stored.open()
            if stored.kind != "raw" and has_chunks(array):
                share = capacity // len(image.parts)
                array = ChunkCache(array, share, stored)
            opened[stored] = array
        self._parts = [(opened[stored], view) for stored, view in image.parts]

    @property
    def ndim(self) -> int:
        """Number of axes: 4."""
        return 4

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a box selected by integers and slices."""
        keys: Sequence[Any] = key if isinstance(key, tuple) else (key,)
        if any(each is Ellipsis for each in keys):
            at = next(k for k, each in enumerate(keys) if each is Ellipsis)
            fill = (slice(None),) * (5 - len(keys))
            keys = (*keys[:at], *fill, *keys[at + 1 :])
        channels, *space = keys
        wanted = range(self.shape[0])[channels]
        one = isinstance(wanted, int)
        blocks = [self._channel(c, space) for c in ([wanted] if one else wanted)]
        if one:
            return blocks[0]
        if not blocks:
            whole = (0, *self._parts[0][1].shape[1:])
            return np.empty(whole, self.dtype)[(slice(None), *space)]
        return np.stack(blocks)

    def _channel(self, channel: int, space: Sequence[Any]) -> NDArray[Any]:
        for array, view in self._parts:
            if channel < view.shape[0]:
                found = view[(channel, *space)].take(array)
                return found.astype(self.dtype, copy=False)
            channel -= view.shape[0]
        raise IndexError(f"there is no channel {channel}")
