"""Exceptions of libraries and of the system turned into sentences."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def unreadable(
    source: str, errors: tuple[type[Exception], ...], kind: str = ""
) -> Iterator[None]:
    """Turn what a library raises on a bad file into one sentence.

    Parameters
    ----------
    source : str
        The path as the person wrote it.
    errors : tuple of exception types
        What the library is known to raise.
    kind : str
        The format, such as "TIFF".

    Raises
    ------
    EngineError
        In place of one of `errors`.
    """
    try:
        yield
    except errors as error:
        if isinstance(error, PermissionError):
            raise EngineError(
                f"{source} may not be read by this user; ask for permission to read it."
            ) from error
        if isinstance(error, MemoryError):
            remedy = "Save a smaller part, or as OME-Zarr, which is read in pieces."
        elif isinstance(error, ImportError) or "imagecodecs" in str(error):
            remedy = "Save it uncompressed, or pip install imagecodecs."
        else:
            remedy = "Check that it is complete and of the type that its name says."
        what = f"cannot be read as {kind}" if kind else "cannot be read"
        raise EngineError(f"{source} {what} ({reason(error)}). {remedy}") from error


@contextmanager
def unwritable(source: str, folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn what the system raises while writing into one sentence.

    Parameters
    ----------
    source : str
        The path as the person wrote it.
    folder : Path
        Where the file is written.
    needed : int
        Bytes that the whole file needs.

    Raises
    ------
    EngineError
        In place of an OSError, or of a RuntimeError, by which HDF5 reports one.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number in _NO_ROOM or "No space left" in str(error):
            raise EngineError(_full(source, folder, needed)) from error
        if number == errno.EROFS or not os.access(folder, os.W_OK):
            raise EngineError(
                f"{source} cannot be written: the folder {folder} is read-only; choose "
                "another one."
            ) from error
        if isinstance(error, PermissionError):
            raise EngineError(
                f"{source} cannot be written: it is write-protected or open in another "
                "program; close it there or choose another name."
            ) from error
        raise EngineError(
            f"{source} cannot be written ({reason(error)}); choose another name or "
            "folder."
        ) from error


def _full(source: str, folder: Path, needed: int) -> str:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        room = ""
    else:
        room = f" ({needed / 1e9:.3g} GB needed, {free / 1e9:.3g} GB free)"
    return (
        f"The disk is full: {source} could not be written{room}. Free some space or "
        "choose a folder on another disk."
    )


def reason(error: Exception) -> str:
    """Return one line that says what went wrong, without a full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, KeyError):
        text = f"{error} is missing"
    line = str(text).strip().splitlines()[0].rstrip(".")
    return line if len(line) <= 160 else line[:157] + "..."


def extra(module: str, name: str, kind: str) -> Any:
    """Import a library that is not part of the plain installation.

    Parameters
    ----------
    module : str
        Its name for ``import``.
    name : str
        The extra of this package that brings it.
    kind : str
        The format that needs it, for the message.

    Raises
    ------
    EngineError
        If the library is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise EngineError(
            f"{kind} files need the library {module}, which is not installed; run "
            f'pip install "napari-unet3d[{name}]".'
        ) from error
