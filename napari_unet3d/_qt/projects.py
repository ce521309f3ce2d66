"""A folder for each image, in which annotation and model are kept."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image

from .layers import is_lazy
from .volumes import full_resolution

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Layer

    from .volumes import VolumeChoice

VARIABLE = "NAPARI_UNET3D_PROJECTS"
"""Environment variable that names another folder for all projects."""

_ASIDE = "previous-"


def projects_folder() -> Path:
    """Return the folder of all projects, where the system keeps a user's data."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "napari-unet3d"


@dataclass(frozen=True)
class Project:
    """The files that belong to one image."""

    folder: Path

    @property
    def annotation(self) -> Path:
        """The sparse annotation."""
        return self.folder / "annotation.npz"

    @property
    def model(self) -> Path:
        """The newest model."""
        return self.folder / "model.pt"

    @property
    def previous(self) -> Project:
        """What was set aside last with an annotation, else this itself."""
        kept = [each for each in self._set_aside() if each.annotation.exists()]
        return kept[-1] if kept else self

    @classmethod
    def of(cls, choice: VolumeChoice, layers: Iterable[Layer] = ()) -> Project:
        """Return the project of an image: the same one when it is opened again.

        The name is for people only: an image may have been renamed meanwhile.

        Parameters
        ----------
        choice : VolumeChoice
            The image.
        layers : iterable of Layer
            All of the viewer: those of the same file have projects of their own.
        """
        name = re.sub(r"[^\w.-]+", "_", choice.layer.name)[:40] or "image"
        digest = hashlib.sha256(_identity(choice, layers).encode()).hexdigest()[:12]
        kept = sorted(projects_folder().glob(f"*-{digest}"))
        return cls(kept[0] if kept else projects_folder() / f"{name}-{digest}")

    def make(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def set_aside(self) -> None:
        """Keep what there is in a folder of its own, so that nothing overwrites it."""
        self._move(self.annotation, self.model)

    def set_model_aside(self) -> None:
        """Keep the model, likewise."""
        self._move(self.model)

    def _move(self, *files: Path) -> None:
        there = [file for file in files if file.exists()]
        if not there:
            return
        number = max((_number(each) for each in self._set_aside()), default=0) + 1
        folder = self.folder / f"{_ASIDE}{number}"
        folder.mkdir()
        for file in there:
            os.replace(file, folder / file.name)

    def _set_aside(self) -> list[Project]:
        """Return what was set aside, the latest last."""
        found = [
            Project(folder)
            for folder in self.folder.glob(f"{_ASIDE}*")
            if folder.name.removeprefix(_ASIDE).isdecimal()
        ]
        return sorted(found, key=_number)


def _number(aside: Project) -> int:
    return int(aside.folder.name.removeprefix(_ASIDE))


def _content(layer: Image) -> str:
    """Describe an image by what is in it, or its name where that is not in memory."""
    if is_lazy(layer):
        return str(layer.name)
    data = np.asarray(full_resolution(layer))
    few = data.flat[:: max(1, data.size // 4096)]
    return hashlib.sha256(few.tobytes()).hexdigest()


def _is_beside(other: Layer, layer: Image) -> bool:
    """Whether another image layer comes from the same file."""
    return (
        other != layer
        and isinstance(other, Image)
        and other.source.path == layer.source.path
    )


def _identity(choice: VolumeChoice, layers: Iterable[Layer]) -> str:
    """Describe an image so that it is recognised when it is opened again."""
    layer = choice.layer
    path = layer.source.path
    if path:
        where = os.path.abspath(path)
        # Channels that lie in one file are images of their own.
        view = getattr(full_resolution(layer), "view", None)
        start = getattr(view, "start", ())
        if any(start):
            where = f"{where}|{start}"
        elif any(_is_beside(other, layer) for other in layers):
            # Scenes of one file, or channels that its reader took apart
            where = f"{where}|{_content(layer)}"
    else:
        where = _content(layer)
    return f"{where}|{choice.shape}|{choice.axes}|{choice.time}"
