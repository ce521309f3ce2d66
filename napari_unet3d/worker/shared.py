"""Arrays that two processes see without copying them from one to the other."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import secrets
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

PREFIX = "unet3d_"
"""How the names of shared memory begin."""

_tracking = threading.Lock()


@dataclass(frozen=True)
class ArrayReference:
    """Where another process finds an array."""

    kind: Literal["memory", "file"]
    name: str
    """Of the shared memory, or the path of the file."""
    shape: tuple[int, ...]
    dtype: str
    offset: int = 0
    """Bytes before the array in a file."""
    writable: bool = True


class SharedArray:
    """An array in shared memory, or in a file that both processes map.

    The array, and views of it, may outlive this object: the memory goes back to the
    system with the last of them, in whichever process. `close` (or the end of the
    program, however it ends) only takes the name away, so that nothing is left over.
    """

    def __init__(
        self,
        array: NDArray[Any],
        reference: ArrayReference,
        dispose: Callable[[], None] | None = None,
    ) -> None:
        self.array = array
        self.reference = reference
        self._dispose = weakref.finalize(self, dispose or _nothing)

    @classmethod
    def create(cls, shape: Sequence[int], dtype: DTypeLike) -> SharedArray:
        """Make an array of zeros.

        Where the system keeps too little shared memory (containers often have 64 MiB)
        it is a temporary file.

        Raises
        ------
        EngineError
            Where there is no room for it.
        """
        found = np.dtype(dtype).newbyteorder("=")
        size = max(1, math.prod(shape) * found.itemsize)
        try:
            memory = _new_memory(size)
        except OSError:
            return cls._create_file(tuple(shape), found, size)
        reference = ArrayReference("memory", memory.name, tuple(shape), found.str)
        array = _array_in(memory, reference)
        return cls(array, reference, partial(_unlink, memory))

    @classmethod
    def of_file(cls, array: NDArray[Any]) -> SharedArray | None:
        """Share a memory-mapped file as it is; `None` where that cannot be done."""
        if (
            not isinstance(array, np.memmap)
            or not isinstance(array.base, mmap.mmap)  # else a view of a part
            or array.filename is None
            or array.mode not in ("r", "r+", "w+")
            or not array.flags.c_contiguous
            or not array.dtype.isnative
        ):
            return None
        reference = ArrayReference(
            "file",
            os.path.abspath(array.filename),
            array.shape,
            array.dtype.str,
            array.offset,
            writable=False,
        )
        return cls(array, reference)

    @classmethod
    def attach(cls, reference: ArrayReference) -> SharedArray:
        """Open an array that another process has made.

        Raises
        ------
        EngineError
            Where it is not there any more.
        """
        try:
            if reference.kind == "file":
                return cls(_map_file(reference), reference)
            memory = _existing_memory(reference.name)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"the array {reference.name} cannot be opened ({error}); open the "
                "image again"
            ) from error
        return cls(_array_in(memory, reference), reference)

    @classmethod
    def _create_file(
        cls, shape: tuple[int, ...], dtype: np.dtype[Any], size: int
    ) -> SharedArray:
        from napari_unet3d.io.mapped import reserve

        descriptor, path = tempfile.mkstemp(prefix=PREFIX)
        try:
            with open(descriptor, "r+b") as file:
                reserve(file, 0, size)
        except OSError as error:
            _remove(path)
            raise EngineError(
                f"there is no room for an array of {size / 2**30:.1f} GiB, neither in "
                f"shared memory nor in {tempfile.gettempdir()}; close other images or "
                "open the image from a file"
            ) from error
        reference = ArrayReference("file", path, shape, dtype.str)
        return cls(_map_file(reference), reference, partial(_remove, path))

    def close(self) -> None:
        """Take the name away; may be called twice."""
        self._dispose()


class _Mapped:
    """Let an array own shared memory.

    `SharedMemory.close` refuses to work while there are arrays on its buffer. An array
    made through this interface keeps the object alive instead, and its destructor
    closes it when the last view is gone.
    """

    def __init__(self, memory: SharedMemory, reference: ArrayReference) -> None:
        self._memory = memory
        assert memory.buf is not None
        address = np.frombuffer(memory.buf, np.uint8).ctypes.data
        self.__array_interface__ = {
            "shape": reference.shape,
            "typestr": reference.dtype,
            "data": (address, not reference.writable),
            "version": 3,
        }


def _new_memory(size: int) -> SharedMemory:
    memory = SharedMemory(PREFIX + secrets.token_hex(8), create=True, size=size)
    if sys.platform == "linux":
        # Writing where the system has no page left would end the process by a signal.
        try:
            with open(f"/dev/shm/{memory.name}", "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            memory.unlink()
            raise
    return memory


def _existing_memory(name: str) -> SharedMemory:
    """Open shared memory that another process takes away in the end."""
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    with _untracked():
        return SharedMemory(name)


@contextlib.contextmanager
def _untracked() -> Iterator[None]:
    """Keep Python before 3.13 from taking memory away that it has only opened."""
    with _tracking:
        register = resource_tracker.register
        resource_tracker.register = _track_nothing  # type: ignore[assignment]
        try:
            yield
        finally:
            resource_tracker.register = register


def _track_nothing(name: str, rtype: str) -> None:
    pass


def _array_in(memory: SharedMemory, reference: ArrayReference) -> NDArray[Any]:
    return np.asarray(_Mapped(memory, reference))


def _map_file(reference: ArrayReference) -> NDArray[Any]:
    return np.memmap(
        reference.name,
        np.dtype(reference.dtype),
        "r+" if reference.writable else "r",
        reference.offset,
        reference.shape,
    )


def _unlink(memory: SharedMemory) -> None:
    with contextlib.suppress(FileNotFoundError):
        memory.unlink()


def _remove(path: str) -> None:
    # Windows removes no file that is still mapped, and cleans its folder itself.
    with contextlib.suppress(OSError):
        os.remove(path)


def _nothing() -> None:
    pass
