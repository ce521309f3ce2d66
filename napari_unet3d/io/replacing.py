"""Temporary names, and how what has one takes the place of an older file."""

from __future__ import annotations

import shutil
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_unet3d.engine.errors import EngineError

from .sentences import reason

if TYPE_CHECKING:
    from pathlib import Path

FORMER = ".former"
"""Ending of the name that an older folder has while a new one takes its place."""

REMOVED = ".removed"
"""Ending of the name that a folder has while it is removed."""


def temporary_beside(target: Path) -> Path:
    """Give a name that nobody else uses, in the folder of a file.

    Renaming is a single step only within one folder of one disk.
    """
    return target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex[:8]}.partial")


def move(temporary: Path, target: Path) -> None:
    """Give a finished file or folder its name, in place of what has it now."""
    if not target.is_dir():
        temporary.replace(target)
        return
    # A folder cannot be replaced in one step.
    former = temporary.with_suffix(FORMER)
    target.rename(former)
    try:
        temporary.rename(target)
    except OSError:
        former.rename(target)
        raise
    remove(former)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def remove_at_once(folder: Path) -> None:
    """Remove a folder, a part of which must at no moment pass for the whole.

    Raises
    ------
    EngineError
        If it cannot be removed.
    """
    removed = folder.with_name(folder.name + REMOVED)
    # Left by a run that ended here
    remove(removed)
    if folder.exists():
        try:
            folder.rename(removed)
        except OSError as error:
            raise EngineError(
                f"{folder} cannot be removed ({reason(error)}); remove it yourself, or "
                "choose another name"
            ) from error
        remove(removed)
    if removed.exists():
        raise EngineError(
            f"{removed} cannot be removed; remove it yourself, or choose another name"
        )
