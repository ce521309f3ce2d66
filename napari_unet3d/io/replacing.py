"""Temporary names, and how what has one takes the place of an older file."""

from __future__ import annotations

import shutil
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FORMER = ".former"
"""Ending of the name that an older folder has while a new one takes its place."""


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
