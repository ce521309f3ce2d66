"""What the outputs of a segmentation say of themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_unet3d.engine.checkpoint import Checkpoint
    from napari_unet3d.io import Volume


def descriptions(
    checkpoint: Checkpoint, volume: Volume
) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
    """Return shape and description of the files for labels and probabilities."""
    shape = volume.data.shape[1:]
    common: dict[str, Any] = {
        "spacing": volume.spacing,
        "unit": volume.unit,
        "affine": volume.affine,
    }
    classes = {
        "class_names": checkpoint.class_names,
        "class_colors": _colors(checkpoint),
    }
    n_classes = checkpoint.model.n_classes or 0
    return [
        (shape, common | classes),
        ((n_classes, *shape), common | {"labels": False}),
    ]


def _colors(checkpoint: Checkpoint) -> list[list[float]] | None:
    """Return the colours of the classes as numbers from 0 to 1, if it has any."""
    colors = checkpoint.class_colors
    if not colors or not all(re.fullmatch(r"#[0-9a-fA-F]{6}", c) for c in colors):
        return None
    return [[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in colors]
