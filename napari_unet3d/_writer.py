"""Write a labels layer as a sparse annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

GRID = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def write_annotation(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the labelled voxels of a layer, with classes and grid.

    Parameters
    ----------
    path : str
        File to write.
    data : (Z, Y, X) array of int
        Labels; 0 is not labelled.
    meta : mapping
        What napari says about the layer.

    Returns
    -------
    list of str
        The file that was written.
    """
    from napari_unet3d._qt.annotation_file import AnnotationFile, save
    from napari_unet3d._qt.classes import METADATA, extended, make_classes
    from napari_unet3d._qt.layers import can_be_painted
    from napari_unet3d._qt.zarr_labels import scanner_of
    from napari_unet3d.engine.errors import EngineError
    from napari_unet3d.io.annotation_file import MAX_CLASSES

    volume = data if can_be_painted(data) else np.asarray(data)
    if len(volume.shape) != 3:
        raise EngineError(
            "a sparse annotation has the axes ZYX, and this layer has "
            f"{len(volume.shape)}; "
            "save it as a TIFF"
        )
    *_, labelled = scanner_of(volume)()
    assert labelled is not None
    if labelled.unusable:
        raise EngineError(
            f"label {labelled.unusable} cannot be kept in a sparse annotation, whose "
            f"classes are 1 to {MAX_CLASSES}; save the layer as a TIFF"
        )
    kept = meta.get("metadata", {}).get(METADATA, {})
    classes = make_classes(
        [str(name) for name in kept.get("class_names", ("background",))],
        [str(color) for color in kept.get("class_colors", ())],
    )
    classes = extended(classes, int(labelled.labels.max(initial=2)))
    grid = {name: _plain(meta[name]) for name in GRID if meta.get(name) is not None}
    save(AnnotationFile(labelled, classes, grid), path)
    return [path]


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, (list, tuple)) and value and not np.isscalar(value[0]):
        try:
            return np.asarray(value, float).tolist()
        except (TypeError, ValueError):
            return [str(each) for each in value]
    if isinstance(value, (list, tuple)):
        return [v if isinstance(v, str) else float(v) for v in value]
    return np.asarray(value, float).tolist()
