"""The sparse annotation as a file: labelled voxels, classes, grid.

napari's dock widget writes it. It is read like any file of labels, and never written as
a segmentation, which is dense.
"""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .sentences import unreadable
from .units import known_unit, positive_spacing
from .volume import Stored

if TYPE_CHECKING:
    from typing import NoReturn

    from numpy.typing import NDArray

    from .layout import Layout
    from .location import Location

FORMAT = "napari-unet3d annotation"

MAX_CLASSES = 254

_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, EOFError),
    *(MemoryError, zipfile.BadZipFile),
)


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """What a file of sparse annotation holds.

    Parameters
    ----------
    shape : (int, int, int)
        Of the volume, ZYX.
    index : (n,) ndarray of int64
        Flat (C order) indices of the labelled voxels, ascending.
    labels : (n,) ndarray of uint8
        Their labels, 1 to K.
    class_names, class_colors : tuple of str
        Label 1 first; colours as "#rrggbb".
    grid : dict
        Arguments of the layer: scale, translate and the like, as plain values.
    """

    shape: tuple[int, ...]
    index: NDArray[np.int64]
    labels: NDArray[np.uint8]
    class_names: tuple[str, ...] = ()
    class_colors: tuple[str, ...] = ()
    grid: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write under a temporary name, then rename: a file is complete or not there.

        Raises
        ------
        EngineError
            Where the folder cannot be written to.
        """
        path = Path(path)
        header = {
            "format": FORMAT,
            "shape": list(map(int, self.shape)),
            "class_names": list(self.class_names),
            "class_colors": list(self.class_colors),
            "grid": self.grid,
        }
        # Neighbours are labelled together, so differences compress far better.
        steps = np.diff(self.index, prepend=0)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(temporary, "wb") as file:
                np.savez_compressed(
                    file,
                    header=np.array(json.dumps(header)),
                    steps=steps,
                    labels=self.labels,
                )
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise EngineError(
                f"cannot write the annotation {path}: {error.strerror}; choose a "
                "folder that exists, may be written to and has room"
            ) from error


def is_annotation(path: str | Path) -> bool:
    """Whether a file is one that `AnnotationFile.save` has written."""
    try:
        return bool(_header(path).get("format") == FORMAT)
    except _ERRORS:
        return False


def load_annotation(path: str | Path) -> AnnotationFile:
    """Read a file of sparse annotation; nothing in it is executed.

    Raises
    ------
    EngineError
        Where it is missing, damaged or of another program.
    """
    with unreadable(str(path), _ERRORS, "a sparse annotation"):
        return _load(path)


def read(location: Location) -> Stored:
    """Read the labels as a volume, 0 where nothing is painted.

    Its physical size is the scale of the layer.

    Raises
    ------
    EngineError
        If it is damaged or no annotation of this program.
    """
    content = load_annotation(location.path)
    with unreadable(location.source, _ERRORS, "a sparse annotation"):
        volume = np.zeros(content.shape, np.uint8)
    volume.reshape(-1)[content.index] = content.labels
    spacing, unit = _physical_size(content.grid)
    return Stored(
        volume,
        "ZYX",
        spacing,
        unit,
        class_names=content.class_names,
        class_colors=content.class_colors,
        errors=_ERRORS,
    )


def create(path: Path, layout: Layout) -> NoReturn:
    """Refuse to write a volume.

    Raises
    ------
    EngineError
        Always.
    """
    raise EngineError(
        f"{path} cannot be written: .npz is for sparse annotations; choose another "
        "ending."
    )


def _load(path: str | Path) -> AnnotationFile:
    header = _header(path)
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
        index = np.cumsum(content["steps"], dtype=np.int64)
        labels = content["labels"].astype(np.uint8)
    shape = tuple(map(int, header["shape"]))
    _check(header, shape, index, labels)
    names, colors = header["class_names"], header["class_colors"]
    return AnnotationFile(
        shape,
        index,
        labels,
        tuple(map(str, names)),
        tuple(map(str, colors)),
        dict(header["grid"]),
    )


def _header(path: str | Path) -> dict[str, Any]:
    # A file opened by numpy stays open where it is damaged.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
        if "header" not in content.files:
            raise ValueError("it is of another program")
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


def _physical_size(
    grid: dict[str, Any],
) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the spacing and its unit; a scale of pixels is none."""
    scale = grid.get("scale")
    spacing = positive_spacing([abs(float(s)) for s in scale]) if scale else None
    units = grid.get("units") or [None]
    unit = known_unit(str(units[-1])) if units[-1] else None
    if spacing == (1.0, 1.0, 1.0) and unit is None:
        return None, None
    return spacing, unit
