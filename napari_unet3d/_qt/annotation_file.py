"""The sparse annotation as a file: labelled voxels, classes, grid."""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .annotation_scan import Labelled
from .classes import MAX_CLASSES, Classes, make_classes

FORMAT = "napari-unet3d annotation"


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """What a file of sparse annotation holds.

    Parameters
    ----------
    labelled : Labelled
        The labelled voxels.
    classes : tuple of LabelClass
        Label 1 first.
    grid : dict
        Arguments of the layer: scale, translate and the like, as plain values.
    """

    labelled: Labelled
    classes: Classes
    grid: dict[str, Any] = field(default_factory=dict)


def save(content: AnnotationFile, path: str | Path) -> None:
    """Write under a temporary name, then rename: a file is complete or not there.

    Raises
    ------
    EngineError
        Where the folder cannot be written to.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "shape": list(map(int, content.labelled.shape)),
        "class_names": [c.name for c in content.classes],
        "class_colors": [c.color for c in content.classes],
        "grid": content.grid,
    }
    # Neighbours are labelled together, so differences compress far better.
    steps = np.diff(content.labelled.index, prepend=0)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                header=np.array(json.dumps(header)),
                steps=steps,
                labels=content.labelled.labels,
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise EngineError(
            f"cannot write the annotation {path}: {error.strerror}; choose a folder "
            "that exists, may be written to and has room"
        ) from error


def is_annotation(path: str | Path) -> bool:
    """Whether a file is one that `save` has written."""
    try:
        return _header(path).get("format") == FORMAT
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def load(path: str | Path) -> AnnotationFile:
    """Read a file of sparse annotation; nothing in it is executed.

    Raises
    ------
    EngineError
        Where it is missing, damaged or something else.
    """
    try:
        header = _header(path)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            index = np.cumsum(content["steps"], dtype=np.int64)
            labels = content["labels"].astype(np.uint8)
        shape = tuple(map(int, header["shape"]))
        _check(header, shape, index, labels)
        classes = make_classes(header["class_names"], header["class_colors"])
        return AnnotationFile(
            Labelled(shape, index, labels), classes, dict(header["grid"])
        )
    except FileNotFoundError as error:
        raise EngineError(f"there is no file {path}; check the name") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise EngineError(
            f"{path} cannot be read as an annotation ({error}); use a file saved by "
            "napari-unet3d"
        ) from error


def _header(path: str | Path) -> dict[str, Any]:
    # A file opened by numpy stays open where it is damaged.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
        header = json.loads(str(content["header"]))
    if not isinstance(header, dict):
        raise ValueError("its header is damaged")
    return header


def _check(
    header: dict[str, Any], shape: tuple[int, ...], index: Any, labels: Any
) -> None:
    if header["format"] != FORMAT:
        raise ValueError("it is of another program")
    if len(shape) != 3 or min(shape) < 1 or index.shape != labels.shape:
        raise ValueError("its parts do not fit each other")
    if len(index) and (
        index[0] < 0 or index[-1] >= np.prod(shape) or (np.diff(index) <= 0).any()
    ):
        raise ValueError("it labels voxels outside of the volume")
    if len(labels) and (labels.min() < 1 or labels.max() > MAX_CLASSES):
        raise ValueError("it has labels that are none")
