"""What the outputs of a segmentation say of themselves, and whether its image fits."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_unet3d.io.units import converted

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


def warn_of_spacing(checkpoint: Checkpoint, volume: Volume) -> None:
    """Tell where voxels have another size or shape than those of the training."""
    trained, spacing = checkpoint.model.spacing, volume.spacing
    if trained is None or spacing is None:
        return
    if checkpoint.unit and volume.unit:
        spacing = converted(spacing, volume.unit, checkpoint.unit)
    if trained == (1, 1, 1) and not checkpoint.unit:
        # Nothing was known but that voxels are cubes.
        z, y, x = (length / min(spacing) for length in spacing)
        spacing = z, y, x
    ratios = [a / b for a, b in zip(spacing, trained, strict=True)]
    if max(ratios) > 1.25 or min(ratios) < 0.8:
        print(
            f"warning: {volume.source} has a spacing of {_shown(spacing)} but the "
            f"model was trained at {_shown(trained)} {checkpoint.unit}".rstrip()
            + "; resample the image for a better segmentation",
            file=sys.stderr,
        )


def _shown(spacing: Sequence[float]) -> str:
    return " × ".join(f"{value:g}" for value in spacing)
