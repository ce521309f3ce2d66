"""Open a sparse annotation as a layer, and a model in the dock widget."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL_MARK = b"napari-unet3d model"
"""What the description inside a model file says (`engine.model_file.FORMAT`)."""

WIDGET = "Annotate & Train"

LayerData = list[tuple[Any, ...]]


def get_reader(path: str | list[str]) -> Callable[[Any], LayerData] | None:
    """Return what opens a file, `None` if it is of another program."""
    from napari_unet3d._qt.annotation_file import is_annotation

    if not isinstance(path, str):
        return None
    if path.endswith(".npz") and is_annotation(path):
        return read_annotation
    if path.endswith(".pt") and is_model(path):
        return open_model
    return None


def read_annotation(path: str) -> LayerData:
    """Read a sparse annotation as a labels layer with its classes."""
    from napari_unet3d._qt.annotation_file import load
    from napari_unet3d._qt.classes import METADATA, class_metadata, colormap_of

    content = load(path)
    about = {
        "name": Path(path).stem,
        "opacity": 0.7,
        "colormap": colormap_of(content.classes),
        "metadata": {
            METADATA: {"kind": "annotation", **class_metadata(content.classes)}
        },
        **content.grid,
    }
    return [(content.labelled.dense(), about, "labels")]


def open_model(path: str) -> LayerData:
    """Show a model in the dock widget of the current viewer; there is no layer."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        _, widget = viewer.window.add_plugin_dock_widget("napari-unet3d", WIDGET)
        widget.controller.load_model(path)
    return [(None,)]


def is_model(path: str) -> bool:
    """Whether a file is a model of ours; nothing of it is executed."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("data.pkl")]
            return any(MODEL_MARK in archive.read(name) for name in names)
    except (OSError, zipfile.BadZipFile):
        return False
