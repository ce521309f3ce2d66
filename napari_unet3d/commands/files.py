"""Find out before the work whether its results can be written, and where."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.location import located, overlap


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder in place of ``~``."""
    return Path(os.path.expanduser(path))


def check_outputs(outputs: Sequence[str | Path], inputs: Sequence[str | Path]) -> None:
    """Refuse outputs that would take the place of an input or of each other.

    Raises
    ------
    EngineError
        Naming both.
    """
    for k, output in enumerate(outputs):
        for other in [*inputs, *outputs[:k]]:
            if overlap(_file(output), _file(other)):
                raise EngineError(
                    f"{output} would replace {other}; choose another name for what is "
                    "written"
                )


def check_writable(path: str | Path) -> None:
    """Refuse a file that cannot be written.

    Raises
    ------
    EngineError
        Where its folder does not exist or is read-only, or something that is no file
        has its name.
    """
    is_folder = str(path).endswith(("/", os.sep))
    path = expanded(path)
    if is_folder or path.is_dir():
        raise EngineError(f"cannot write {path}: it is a folder; add a name to it")
    if path.exists() and not path.is_file():
        raise EngineError(f"cannot write {path}: it is a device; choose another name")
    try:
        _probe(path.parent)
    except OSError as error:
        raise EngineError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and "
            "may be written to"
        ) from error


def make_folder(folder: str | Path, flag: str) -> Path:
    """Make a folder where there is none, and make sure that it can be written to.

    Raises
    ------
    EngineError
        Naming the flag that chooses another.
    """
    folder = expanded(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
    except OSError as error:
        raise EngineError(
            f"cannot write to the folder {folder}: {error.strerror}; choose another "
            f"with {flag}"
        ) from error
    return folder


def _probe(folder: Path) -> None:
    probe = folder / f".{uuid.uuid4().hex}.probe"
    try:
        probe.touch()
    finally:
        with suppress(OSError):
            probe.unlink()


def _file(source: str | Path) -> Path:
    """Return the file that a path names, without the name of a dataset in it."""
    if not str(source):
        raise EngineError("the name of a file is empty; give the name of a file")
    try:
        return located(source).path
    except EngineError:
        return expanded(source)
