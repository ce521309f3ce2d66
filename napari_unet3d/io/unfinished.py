"""OME-Zarr outputs that are filled block by block, over several runs if need be."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError

from .output import WritableArray, planned
from .replacing import FORMER, move, remove, remove_at_once
from .sentences import unreadable, unwritable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from .ome_zarr import ZarrWriter

SUFFIX = ".unfinished"


class DamagedOutputError(EngineError):
    """Say that an output cannot be gone on with; what helps is to begin anew."""


class UnfinishedVolume:
    """An output that has its name only once it is complete, whichever run ends it.

    Until then it lies beside it with ``.unfinished`` after its name.

    Parameters
    ----------
    path, shape, dtype, **description
        As for `create_volume`; the path must be that of an OME-Zarr.

    Raises
    ------
    EngineError
        If it cannot be written there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: Sequence[int],
        dtype: DTypeLike,
        **description: Any,
    ) -> None:
        self._location, self.target, self._layout = planned(
            path, shape, dtype, **description
        )
        if self._location.kind != "OME-Zarr":
            raise EngineError(
                f"{path} cannot be written over several runs; choose a name that ends "
                "in .zarr"
            )
        self.path = self._location.path
        """As it was given: links are not followed."""
        self.folder = unfinished_name(self.target)
        self._former = self.folder.with_suffix(FORMER)
        self._writer: ZarrWriter | None = None
        self._lock: int | None = None
        self.is_mine = False
        """Whether this run has begun or resumed it."""

    @property
    def is_there(self) -> bool:
        """Whether an earlier run began it and none completed it."""
        return self.folder.is_dir()

    def begin(self) -> WritableArray:
        """Create it anew.

        Raises
        ------
        EngineError
            If it cannot be written, or another run is writing it.
        """
        from .ome_zarr import create

        self.discard()
        with self._writing():
            self.is_mine = True
            self._writer = create(self.folder, self._layout)
        self._claim()
        return self._array(self._writer)

    def resume(self) -> WritableArray:
        """Open what an earlier run left, without what it was writing when it ended.

        Raises
        ------
        DamagedOutputError
            If it is damaged or of another shape.
        EngineError
            If it cannot be read, or another run is writing it.
        """
        from .ome_zarr import ERRORS, reopen

        self._claim()
        with unreadable(str(self.folder), ERRORS, "zarr"):
            try:
                self._writer = reopen(self.folder, self._layout)
            except FileNotFoundError as error:
                raise DamagedOutputError(f"{self.folder} is damaged") from error
            except (MemoryError, OSError):
                raise  # may be better next time
            except ERRORS as error:
                raise DamagedOutputError(f"{self.folder} is damaged") from error
        found = self._writer.array
        assert found is not None
        wanted = (self._layout.shape, self._layout.dtype)
        if (found.shape, found.dtype) != wanted:
            raise DamagedOutputError(
                f"{self.folder} has shape {found.shape} and type {found.dtype}, but "
                f"{wanted[0]} of {wanted[1]} is to be written"
            )
        self.is_mine = True
        for rest in self.folder.rglob("*.partial"):
            remove(rest)
        return self._array(self._writer)

    def join(self) -> WritableArray:
        """Open what another process has begun, or resumed, to write parts of it.

        Raises
        ------
        EngineError
            If it is not there or damaged.
        """
        from .ome_zarr import ERRORS, reopen

        with unreadable(str(self.folder), ERRORS, "zarr"):
            self._writer = reopen(self.folder, self._layout)
        return self._array(self._writer)

    def flush(self, region: Sequence[tuple[int, int]]) -> None:
        """Have the chunks of a region (Z, Y, X) on the disk, come what may.

        Raises
        ------
        EngineError
            If the disk is full or gone.
        """
        assert self._writer is not None
        array = self._writer.array
        assert array is not None
        if not (self.folder / "zarr.json").is_file():
            raise EngineError(
                f"{self.folder} is gone; see whether its disk is still there"
            )
        box = [(0, n) for n in array.shape[:-3]] + list(region)
        ranges = [
            range(low // c, -(-high // c))
            for (low, high), c in zip(box, array.chunks, strict=True)
        ]
        with self._writing():
            for place in product(*ranges):
                # A chunk of zeros has no file.
                chunk = self.folder.joinpath("0", "c", *map(str, place))
                if chunk.is_file():
                    _synchronize(chunk)

    def finish(self) -> None:
        """Make its coarser levels and give it its name, in place of what has it now.

        A second call does nothing. Ended in between, the next call goes on.

        Raises
        ------
        EngineError
            If the disk is full or gone, or another run is writing it.
        """
        if self.is_there:
            if self._writer is None:
                self.resume()
            assert self._writer is not None
            with self._writing():
                self._writer.finish(_synchronize)
        self.close()
        with self._writing():
            if self.is_there:
                move(self.folder, self.target)
            # Left where an earlier run ended between two renames
            remove(self._former)

    def discard(self) -> None:
        """Remove what is there of it; an older file of its name stays.

        Raises
        ------
        EngineError
            If it cannot be removed, or another run is writing it.
        """
        if self.is_there:
            self._claim()
        self.close()
        remove_at_once(self.folder)

    def close(self) -> None:
        """Release it, whatever its state."""
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _claim(self) -> None:
        """Keep other runs from writing the same, where the system can do that."""
        if fcntl is None or self._lock is not None:
            return
        with self._writing():
            descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise EngineError(
                f"{self.folder} is being written by another run; wait for its end or "
                "choose another name"
            ) from error
        except OSError:  # a disk without locks
            os.close(descriptor)
        else:
            self._lock = descriptor

    def _array(self, writer: ZarrWriter) -> WritableArray:
        folder, size = self.target.parent, self._layout.nbytes
        return WritableArray(writer, self._location, folder, size)

    def _writing(self) -> Any:
        size = self._layout.nbytes
        return unwritable(self._location.source, self.target.parent, size)


def unfinished_name(target: Path) -> Path:
    """Return the name that an output has until it is complete."""
    return target.with_name(target.name + SUFFIX)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
