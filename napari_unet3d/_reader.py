"""Open volumes and sparse annotations as layers, and a model in the dock widget."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet3d.io.lazy_array import LazyArray
    from napari_unet3d.io.open_pyramid import Pyramid

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")

MODEL_MARK = b"napari-unet3d model"
"""What the description inside a model file says (`engine.model_file.FORMAT`)."""

WIDGET = "Annotate & Train"

VOLUME_ENDINGS = (".nii", ".nii.gz", ".h5", ".hdf5")

LayerData = list[tuple[Any, ...]]


def get_reader(path: str | list[str]) -> Callable[[Any], LayerData] | None:
    """Return what opens a file, `None` if it is of another program."""
    from napari_unet3d.io.annotation_file import is_annotation

    if not isinstance(path, str):
        return None
    if is_zarr_path(path):
        return read_zarr
    if path.endswith(".npz") and is_annotation(path):
        return read_annotation
    if path.endswith(".pt") and is_model(path):
        return open_model
    if path.lower().endswith(VOLUME_ENDINGS):
        from ._volume_layers import read_volume

        return read_volume
    return None


def is_zarr_path(path: str) -> bool:
    """Whether a path is that of a zarr on this machine, or of something in it."""
    folder = Path(path)
    if not any(part.lower().endswith(".zarr") for part in folder.parts):
        return False
    return any((folder / mark).is_file() for mark in ZARR_MARKS)


def read_zarr(path: str) -> LayerData:
    """Open an OME-Zarr, or a zarr array, to be read as it is looked at.

    Each channel becomes a layer. What is read stays in memory up to a limit.
    """
    from napari_unet3d.io.lazy_array import LazyArray
    from napari_unet3d.io.open_pyramid import open_pyramid
    from napari_unet3d.worker.room import viewing_memory

    pyramid = open_pyramid(path, viewing_memory())
    axes = pyramid.axes
    place = {axis: k for k, axis in enumerate(axes)}
    shown = [axis for axis in "TZYX" if axis in axes]
    spacing = dict(zip("ZYX", pyramid.spacing or (1.0, 1.0, 1.0), strict=True))
    unit = pyramid.unit or "pixel"
    about: dict[str, Any] = {
        "scale": [spacing.get(axis, 1.0) for axis in shown],
        "units": ["pixel" if axis == "T" else unit for axis in shown],
        "axis_labels": [axis.lower() for axis in shown],
    }
    stem = _stem(path)
    count = pyramid.levels[0].shape[place["C"]] if "C" in axes else 1
    layers: LayerData = []
    for channel in range(count):
        levels = []
        for cache in pyramid.levels:
            key = [
                channel if axis == "C" else 0 if axis == "-" else slice(None)
                for axis in axes
            ]
            view = LazyArray(cache).view[tuple(key)]
            rest = [axis for axis in axes if axis in "TZYX"]
            view = view.transposed([rest.index(axis) for axis in shown])
            levels.append(LazyArray(cache, view))
        data: Any = levels if len(levels) > 1 else levels[0]
        this = {**about, "name": stem, "multiscale": len(levels) > 1}
        if pyramid.is_labels and levels[0].dtype.kind in "iu":
            layers.append((data, {**this, **_class_arguments(pyramid)}, "labels"))
            continue
        known = dict(enumerate(pyramid.channels)).get(channel)
        if count > 1:
            this["name"] = f"{stem} {(known and known.name) or f'channel {channel}'}"
            this["blending"] = "additive"
        if known and known.color:
            this["colormap"] = known.color
        this["contrast_limits"] = (known and known.limits) or _limits(levels[-1])
        layers.append((data, this, "image"))
    return layers


def _stem(path: str) -> str:
    name = Path(path).name
    for ending in (".ome.zarr", ".zarr"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def _limits(level: LazyArray) -> list[float]:
    """Return the range of grey values in the slice that is shown first."""
    import numpy as np

    plane = level[tuple(n // 2 for n in level.shape[:-2])]
    finite = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0, 1)
    return [low, high if high > low else low + 1]


def _class_arguments(pyramid: Pyramid) -> dict[str, Any]:
    """Return colours and names of the classes of a segmentation."""
    from napari_unet3d._qt.classes import (
        METADATA,
        class_metadata,
        colormap_of,
        make_classes,
    )

    known = pyramid.classes
    if list(known) != list(range(1, len(known) + 1)) or not known:
        return {}
    names = [name or f"class {label}" for label, (name, _) in known.items()]
    colors = [color for _, color in known.values()]
    classes = make_classes(names, colors if all(colors) else [])
    about = {"kind": "segmentation", **class_metadata(classes)}
    return {
        "opacity": 0.6,
        "colormap": colormap_of(classes, hide_background=True),
        "metadata": {METADATA: about},
    }


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
