"""Layers on the grid of an image: annotation, preview, segmentation, probability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from .classes import METADATA, Classes, class_metadata, colormap_of, set_classes
from .sparse_volume import SparseVolume, empty_volume
from .volumes import full_resolution
from .zarr_labels import folder_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from .volumes import VolumeChoice


def grid_of(layer: Image) -> dict[str, Any]:
    """Return the arguments that put a ZYX layer where the image is.

    Scale, translation, rotation, shear, affine, units and axis labels are those of the
    image's last three axes.
    """
    grid: dict[str, Any] = {
        "scale": layer.scale[-3:],
        "translate": layer.translate[-3:],
        "rotate": np.asarray(layer.rotate)[-3:, -3:],
        "shear": _shear_of_last_axes(np.asarray(layer.shear), layer.ndim),
        "affine": np.asarray(layer.affine.affine_matrix)[-4:, -4:],
        "units": layer.units[-3:],
    }
    labels = layer.axis_labels[-3:]
    if labels != tuple(str(i) for i in range(-3, 0)):
        grid["axis_labels"] = labels
    return grid


def class_grid_of(layer: Image) -> dict[str, Any]:
    """Return the same for a layer that has an axis for the classes before Z."""
    grid = grid_of(layer)
    affine = np.eye(5)
    affine[1:, 1:] = grid["affine"]
    rotate = np.eye(4)
    rotate[1:, 1:] = grid["rotate"]
    shear = np.zeros((4, 4))
    shear[1:, 1:][np.triu_indices(3, 1)] = grid["shear"]
    more: dict[str, Any] = {
        "scale": (1, *grid["scale"]),
        "translate": (0, *grid["translate"]),
        "rotate": rotate,
        "shear": shear[np.triu_indices(4, 1)],
        "affine": affine,
        "units": ("pixel", *grid["units"]),
    }
    if "axis_labels" in grid:
        more["axis_labels"] = ("class", *grid["axis_labels"])
    return more


def put_on_grid(layer: Layer, image: Image) -> None:
    """Put a layer ZYX, or one of a volume for each class, where an image is now."""
    grid = class_grid_of(image) if layer.ndim == 4 else grid_of(image)
    for name, value in grid.items():
        if name != "axis_labels":
            setattr(layer, name, value)


def add_annotation(
    viewer: ViewerModel,
    choice: VolumeChoice,
    classes: Classes,
    data: Any = None,
) -> Labels:
    """Add an empty annotation layer on the grid of an image, ready to paint."""
    layer = viewer.add_labels(
        empty_volume(choice.shape) if data is None else data,
        name=_named(choice, "annotation"),
        opacity=0.7,
        metadata={METADATA: {"kind": "annotation", **_origin(choice)}},
        **grid_of(choice.layer),
    )
    set_classes(layer, classes)
    layer.selected_label = min(2, len(classes))
    layer.mode = "paint"
    return layer


def add_labels(
    viewer: ViewerModel,
    choice: VolumeChoice,
    kind: str,
    data: Any,
    classes: Classes,
    opacity: float,
) -> Labels:
    """Add a layer of dense labels below the annotation."""
    with _same_selection(viewer):
        layer = viewer.add_labels(
            data,
            name=_named(choice, kind),
            opacity=opacity,
            colormap=colormap_of(classes, hide_background=True),
            metadata={
                METADATA: {
                    "kind": kind,
                    **_origin(choice),
                    **class_metadata(classes),
                }
            },
            **grid_of(choice.layer),
        )
        layer.editable = kind != "preview"
        move_above(viewer, layer, choice.layer)
    return layer


def add_image(
    viewer: ViewerModel,
    choice: VolumeChoice,
    kind: str,
    data: Any,
    colormap: str = "magma",
    **more: Any,
) -> Image:
    """Add a layer of bytes, 255 for certain, below the annotation."""
    with _same_selection(viewer):
        layer = viewer.add_image(
            data,
            name=_named(choice, kind),
            colormap=colormap,
            blending="additive",
            opacity=0.7,
            contrast_limits=(0, 255),
            metadata={METADATA: {"kind": kind, **_origin(choice)}},
            **{**grid_of(choice.layer), **more},
        )
        move_above(viewer, layer, choice.layer)
    return layer


def find(viewer: ViewerModel, choice: VolumeChoice, kind: str) -> Layer | None:
    """Return the newest layer of a kind that was made for a volume."""
    for layer in reversed(viewer.layers):
        kept = layer.metadata.get(METADATA, {})
        if (
            kept.get("kind") == kind
            and kept.get("image") == choice.layer.name
            and kept.get("time") == choice.time
            and layer.data.shape[-3:] == choice.shape
        ):
            return layer
    return None


def is_annotation_for(layer: Layer, choice: VolumeChoice) -> bool:
    """Whether a layer can hold the annotation of a volume."""
    kind = layer.metadata.get(METADATA, {}).get("kind", "annotation")
    return (
        isinstance(layer, Labels)
        and kind == "annotation"
        and can_be_painted(layer.data)
        and tuple(layer.data.shape) == choice.shape
    )


def can_be_painted(data: Any) -> bool:
    """Whether labels can be written into the data of a layer, and found again."""
    return isinstance(data, np.ndarray | SparseVolume) or folder_of(data) is not None


def remember(layer: Layer, facts: dict[str, Any]) -> None:
    """Write down in a layer how it came about."""
    kept = {**layer.metadata.get(METADATA, {}), **facts}
    layer.metadata = {**layer.metadata, METADATA: kept}


def remember_origin(layer: Layer, choice: VolumeChoice) -> None:
    """Write down in a layer which image it belongs to, and which time of it."""
    remember(layer, _origin(choice))


def refresh(layer: Layer) -> None:
    """Show what has changed in the array of a layer."""
    layer.refresh(thumbnail=False, highlight=False, extent=False)


def move_above(viewer: ViewerModel, layer: Layer, below: Layer) -> None:
    """Put a layer directly above another."""
    layers = viewer.layers
    if below in layers:
        layers.move(layers.index(layer), layers.index(below) + 1)


def is_lazy(layer: Image) -> bool:
    """Whether the voxels of a layer are not all in memory."""
    return not isinstance(full_resolution(layer), np.ndarray)


class _same_selection:
    """Leave the selected layer selected, so that the brush stays in the hand."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer

    def __enter__(self) -> None:
        self.active = self.viewer.layers.selection.active

    def __exit__(self, *_: object) -> None:
        if self.active is not None and self.active in self.viewer.layers:
            self.viewer.layers.selection.active = self.active


def _named(choice: VolumeChoice, kind: str) -> str:
    return f"{choice.layer.name} {kind}{choice.at_time}"


def _origin(choice: VolumeChoice) -> dict[str, Any]:
    return {"image": choice.layer.name, "time": choice.time}


def _shear_of_last_axes(shear: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Cut the last three axes out of a shear, upper-triangular vector or matrix."""
    if shear.ndim == 2:
        return shear[-3:, -3:]
    matrix = np.zeros((ndim, ndim))
    matrix[np.triu_indices(ndim, 1)] = shear
    cut: NDArray[Any] = matrix[-3:, -3:][np.triu_indices(3, 1)]
    return cut
