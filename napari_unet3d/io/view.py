"""A stored array seen as (C, Z, Y, X), read block by block."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .sentences import unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .volume import Stored


class View:
    """Show a stored array with axes (C, Z, Y, X) and numbers that torch takes.

    Blocks come as ndarrays in native byte order; booleans come as uint8, and numbers
    with a scale as floating point. Nothing is read before it is asked for.

    Parameters
    ----------
    stored : Stored
        The array as it lies in the file.
    axes : str
        One letter per axis of it, from `resolve_axes`.
    source : str
        The path, for messages.
    channels : sequence of int, optional
        The channels to show, in this order; all by default.

    Raises
    ------
    EngineError
        If the numbers are not real, or a channel does not exist.
    """

    def __init__(
        self,
        stored: Stored,
        axes: str,
        source: str,
        channels: Sequence[int] | None = None,
    ) -> None:
        self._stored = stored
        self._axes = axes
        self._source = source
        lengths = dict(zip(axes, stored.array.shape, strict=True))
        self._channels = _picked(channels, lengths.get("C", 1), source)
        self.shape = (len(self._channels), *(lengths[a] for a in "ZYX"))
        self.dtype = _shown_dtype(stored, source)

    @property
    def ndim(self) -> int:
        """Number of axes: 4."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the whole array if it were read into memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        """Give the number of channels."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Name the file, the shape and the type."""
        return f"<{self._source}: {self.shape} {self.dtype}>"

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Read the whole array."""
        return np.array(self[...], dtype=dtype, copy=copy)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a block selected by integers, slices and an ellipsis."""
        selections = [
            _Selection(k, n) for k, n in zip(_expanded(key), self.shape, strict=True)
        ]
        picked = [self._channels[i] for i in selections[0].indices]
        space = tuple(selection.forward for selection in selections[1:])
        with unreadable(self._source, self._stored.errors):
            block = self._read(picked, space)
        block = block[tuple(selection.finish for selection in selections)]
        # A Python number results where all four axes were given by integers.
        return np.asarray(block)

    def as_dask(self, channel: int) -> Any:
        """Show a channel as a dask array (Z, Y, X), of which nothing is read yet."""
        import dask.array as da

        array = self._stored.array
        chunks = getattr(array, "chunks", None)
        whole = da.from_array(array, chunks=chunks or "auto", name=False)
        picked: dict[str, Any] = {"C": self._channels[channel], "-": 0}
        shown = whole[tuple(picked.get(axis, slice(None)) for axis in self._axes)]
        kept = [axis for axis in self._axes if axis in "ZYX"]
        shown = shown.transpose([kept.index(axis) for axis in "ZYX"])
        if self._stored.scale is None:
            return shown if shown.dtype == self.dtype else shown.astype(self.dtype)
        factor, offset = self._stored.scale
        return shown.astype(self.dtype) * factor + offset

    def _read(self, channels: Sequence[int], space: tuple[slice, ...]) -> NDArray[Any]:
        run = range(channels[0], channels[0] + len(channels)) if channels else range(0)
        if "C" not in self._axes:
            block = self._block(slice(0, 1), space)
            if len(channels) != 1:
                block = np.repeat(block, len(channels), axis=0)
        elif list(channels) == list(run):
            block = self._block(slice(run.start, run.stop), space)
        else:
            block = np.concatenate(
                [self._block(slice(c, c + 1), space) for c in channels]
            )
        return self._shown(block)

    def _block(self, channels: slice, space: tuple[slice, ...]) -> NDArray[Any]:
        wanted: dict[str, slice | int] = dict(zip("ZYX", space, strict=True))
        wanted |= {"C": channels, "-": 0}
        block = np.asarray(self._stored.array[tuple(wanted[a] for a in self._axes)])
        kept = self._axes.replace("-", "")
        if "C" not in kept:
            return block.transpose([kept.index(a) for a in "ZYX"])[np.newaxis]
        return block.transpose([kept.index(a) for a in "CZYX"])

    def _shown(self, block: NDArray[Any]) -> NDArray[Any]:
        if self._stored.scale is None:
            return block.astype(self.dtype, copy=False)
        factor, offset = self._stored.scale
        scaled = block.astype(self.dtype)
        scaled *= factor
        scaled += offset
        return scaled


class _Selection:
    """One axis of a key: what to read forwards, and what to do with it then."""

    def __init__(self, key: Any, length: int) -> None:
        self.finish: slice | int = slice(None)
        if isinstance(key, slice):
            self.indices = range(length)[key]
            if self.indices.step < 0:
                self.finish = slice(None, None, -1)
                self.indices = self.indices[::-1]
        else:
            self.indices = range(length)[operator.index(key) :][:1]
            if not self.indices or operator.index(key) < -length:
                raise IndexError(f"index {key} is out of bounds for length {length}")
            self.finish = 0
        # An empty range may start behind the end, which not every library takes.
        found = self.indices or range(0)
        self.forward = slice(found.start, found.stop, found.step)


def _expanded(key: Any) -> tuple[Any, ...]:
    keys = key if isinstance(key, tuple) else (key,)
    ellipses = [i for i, k in enumerate(keys) if k is Ellipsis]
    missing = 4 - len(keys) + len(ellipses[:1])
    if len(ellipses) > 1 or missing < 0:
        raise IndexError(f"at most 4 indices and one ellipsis are taken, got {key}")
    at = ellipses[0] if ellipses else len(keys)
    return (*keys[:at], *(slice(None),) * missing, *keys[at + 1 :])


def _picked(channels: Sequence[int] | None, count: int, source: str) -> tuple[int, ...]:
    if channels is None:
        return tuple(range(count))
    picked = tuple(operator.index(channel) for channel in channels)
    if not picked or min(picked) < 0 or max(picked) >= count:
        has = "one channel: 0" if count == 1 else f"channels 0 to {count - 1}"
        raise EngineError(
            f"channels={list(picked)} was asked of {source}, which has {has}; pick "
            "from these."
        )
    return picked


def _shown_dtype(stored: Stored, source: str) -> np.dtype[Any]:
    dtype = np.dtype(stored.array.dtype)
    if dtype.kind not in "buif":
        raise EngineError(
            f"{source} holds numbers of type {dtype}; save it as integers or real "
            "floating-point numbers."
        )
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    if stored.scale is not None:
        dtype = np.result_type(dtype, np.float32)
    return dtype.newbyteorder("=")
