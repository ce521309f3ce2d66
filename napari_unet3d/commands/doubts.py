"""What may be a mistake, and is told without being refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.io.units import are_alike, converted, known_unit

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet3d.engine import TrainingVolume
    from napari_unet3d.engine.config import Spacing

    from .blocks import Task

MOST_NAMED = 8
"""Labels that are named one by one."""


def warn(sentence: str) -> None:
    """Tell something that the person may not have meant."""
    print(f"warning: {sentence}", file=sys.stderr)


def warn_of_labels(volumes: Sequence[TrainingVolume]) -> None:
    """Tell which volumes teach nothing, and which classes nobody has painted."""
    for volume in volumes:
        if not len(volume.annotation):
            warn(f"nothing is labelled in {volume.name}; it teaches nothing")
    present = {int(k) for v in volumes for k in np.unique(v.annotation.labels)}
    highest = max((v.annotation.n_classes for v in volumes), default=0)
    if absent := sorted(set(range(1, highest)) - present):
        warn(
            f"no voxel has the label {_listed(absent)}, though labels go up to "
            f"{highest}; number the classes 1, 2, 3, ... if that is not meant"
        )


def warn_of_spacing(
    name: str | Path,
    spacing: Spacing | None,
    unit: str,
    trained: Spacing | None,
    trained_unit: str,
    remedy: str = "resample the image for a better segmentation",
) -> None:
    """Tell where voxels have another size or shape than those of the training.

    Parameters
    ----------
    name : str or path
        Of the image.
    spacing, unit : Spacing, str
        Of the image; nothing where unknown.
    trained, trained_unit : Spacing, str
        Of the model; likewise.
    remedy : str
        What to do.
    """
    if trained is None or spacing is None:
        return
    if unit and trained_unit and unit != trained_unit:
        one, other = known_unit(unit), known_unit(trained_unit)
        if one is None or other is None:
            # A model's may be any that napari knows.
            return
        spacing = converted(spacing, one, other)
    if trained == (1, 1, 1) and not trained_unit:
        # Nothing was known but that voxels are cubes.
        z, y, x = (length / min(spacing) for length in spacing)
        spacing = z, y, x
    if not are_alike(spacing, trained):
        warn(
            f"{name} has a spacing of {_shown(spacing)} but the model was trained at "
            f"{_shown(trained)} {trained_unit}".rstrip()
            + f"; {remedy}"
        )


def warn_of_little_memory(task: Task) -> None:
    """Tell where less memory is allowed than the smallest blocks take."""
    memory, least = task.memory(), task.least_memory()
    if memory < least:
        warn(
            f"{memory / 2**30:g} GiB of memory are too few: the smallest blocks take "
            f"about {least / 2**30:.2g} GiB, and that is used"
        )


def _listed(labels: Sequence[int]) -> str:
    shown = [str(label) for label in labels[:MOST_NAMED]]
    if len(labels) > MOST_NAMED:
        return f"{', '.join(shown)} and {len(labels) - MOST_NAMED} others"
    return " or ".join(shown)


def _shown(spacing: Sequence[float]) -> str:
    return " × ".join(f"{value:g}" for value in spacing)
