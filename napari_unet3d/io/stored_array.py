"""An array in a file or store that any process can open for itself."""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

_ERRORS = (
    *(OSError, ValueError, RuntimeError, MemoryError, ImportError),
    *(ArithmeticError, AttributeError, LookupError, TypeError),
)
"""What the libraries raise where a file is gone, damaged or another one."""

_REMOTE = ("http", "https", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl")
"""Protocols under which another process finds the same."""


@dataclass(frozen=True)
class StoredArray:
    """Where an array lies.

    Attributes
    ----------
    kind : str
        "raw" for numbers that lie uncompressed in a file.
    path : str
        Absolute path, or URL, of the file or store; for tensorstore its specification.
    inner : str
        Path of the array in the store or file.
    shape : tuple of int
        As it is stored.
    dtype : str
        Number format, as numpy writes it.
    offset : int
        Bytes before the first number of a raw array.
    strides : tuple of int
        Bytes between its numbers along each axis.
    options : dict
        What opening a remote store takes.
    """

    kind: Literal["zarr", "hdf5", "raw", "tensorstore"]
    path: str
    inner: str
    shape: tuple[int, ...]
    dtype: str
    offset: int = 0
    strides: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def nbytes(self) -> int:
        """Size of all numbers, uncompressed."""
        size = np.dtype(self.dtype).itemsize
        for length in self.shape:
            size *= length
        return size

    def open(self) -> Any:
        """Open the array to be read in parts.

        Raises
        ------
        EngineError
            Where it is not there any more, or is another one.
        """
        where = f"{self.path}/{self.inner}".rstrip("/")
        try:
            array = _OPEN[self.kind](self)
            found = tuple(map(int, array.shape)), np.dtype(_dtype(array)).str
        except _ERRORS as error:
            raise EngineError(
                f"{where} cannot be read ({error or type(error).__name__}); see "
                "whether it is still there, and open the image again"
            ) from error
        if found != (self.shape, self.dtype):
            raise EngineError(
                f"{where} has shape {found[0]} and type {found[1]} now, but had "
                f"{self.shape} and {self.dtype}; open the image again"
            )
        return array


def locate(array: Any) -> StoredArray | None:
    """Say where an array lies; `None` where that cannot be found or relied on.

    Parameters
    ----------
    array : array-like
        A zarr array, a dataset of h5py, a memory-mapped file or a part of one, an
        array of tensorstore, or something that knows its `stored` itself.
    """
    known = getattr(array, "stored", None)
    if isinstance(known, StoredArray):
        return known
    finders: tuple[tuple[str, Callable[[Any], StoredArray | None]], ...] = (
        ("zarr", _locate_zarr),
        ("h5py", _locate_hdf5),
        ("numpy", _locate_raw),
        ("tensorstore", _locate_tensorstore),
    )
    library = type(array).__module__.partition(".")[0]
    for name, find in finders:
        if library == name:
            try:
                return find(array)
            except _ERRORS:
                return None
    return None


def _describe(
    kind: Literal["zarr", "hdf5", "raw", "tensorstore"],
    path: str,
    inner: str,
    array: Any,
    **more: Any,
) -> StoredArray:
    shape = tuple(map(int, array.shape))
    return StoredArray(kind, path, inner, shape, np.dtype(_dtype(array)).str, **more)


def _dtype(array: Any) -> Any:
    return getattr(array.dtype, "numpy_dtype", array.dtype)


def _locate_zarr(array: Any) -> StoredArray | None:
    import zarr
    from zarr.storage import FsspecStore, LocalStore, ZipStore

    if not isinstance(array, zarr.Array):
        return None
    store = array.store
    if isinstance(store, LocalStore):
        return _describe("zarr", os.path.abspath(store.root), array.path, array)
    if isinstance(store, ZipStore):
        return _describe("zarr", os.path.abspath(store.path), array.path, array)
    if isinstance(store, FsspecStore):
        protocol = store.fs.protocol
        names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
        if set(names) & set(_REMOTE):
            url = str(store.fs.unstrip_protocol(store.path))
            options = dict(store.fs.storage_options)
            # Both belong to this process.
            options.pop("asynchronous", None)
            options.pop("loop", None)
            return _describe("zarr", url, array.path, array, options=options)
    return None


def _open_zarr(stored: StoredArray) -> Any:
    import zarr

    if stored.path.endswith(".zip"):
        store: Any = zarr.storage.ZipStore(stored.path, mode="r")
        return zarr.open_array(store, path=stored.inner, mode="r")
    options = stored.options or None
    return zarr.open_array(
        stored.path, path=stored.inner, mode="r", storage_options=options
    )


def _locate_hdf5(array: Any) -> StoredArray | None:
    import h5py

    # A file that is open for writing is locked, or has not everything on the disk.
    if not isinstance(array, h5py.Dataset) or array.file.mode != "r":
        return None
    path = os.path.abspath(array.file.filename)
    if not os.path.isfile(path) or array.name is None:
        return None
    return _describe("hdf5", path, array.name, array)


def _open_hdf5(stored: StoredArray) -> Any:
    import h5py

    return h5py.File(stored.path, "r")[stored.inner]


def _locate_raw(array: Any) -> StoredArray | None:
    owner = array
    while owner is not None and not isinstance(getattr(owner, "base", None), mmap.mmap):
        owner = getattr(owner, "base", None)
    if not isinstance(owner, np.memmap) or owner.filename is None:
        return None
    if owner.mode not in ("r", "r+", "w+"):  # changes would not be in the file
        return None
    assert owner.base is not None
    # A map begins where a page does.
    begin = owner.offset - owner.offset % mmap.ALLOCATIONGRANULARITY
    mapped = np.frombuffer(owner.base, np.uint8)
    offset = begin + array.ctypes.data - mapped.ctypes.data
    path = os.path.abspath(owner.filename)
    return _describe("raw", path, "", array, offset=offset, strides=array.strides)


def _open_raw(stored: StoredArray) -> Any:
    return np.ndarray(
        stored.shape,
        np.dtype(stored.dtype),
        np.memmap(stored.path, np.uint8, "r"),
        stored.offset,
        stored.strides,
    )


def _locate_tensorstore(array: Any) -> StoredArray | None:
    spec = array.spec().to_json()
    driver = str(spec.get("kvstore", {}).get("driver", ""))
    if driver not in ("file", "http", "s3", "gcs"):
        return None
    return _describe("tensorstore", json.dumps(spec), "", array)


def _open_tensorstore(stored: StoredArray) -> Any:
    import tensorstore

    array = tensorstore.open(json.loads(stored.path), read=True).result()
    return array[tensorstore.d[:].translate_to[0]]


_OPEN: dict[str, Callable[[StoredArray], Any]] = {
    "zarr": _open_zarr,
    "hdf5": _open_hdf5,
    "raw": _open_raw,
    "tensorstore": _open_tensorstore,
}
