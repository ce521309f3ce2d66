"""Sentences about models and annotations."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_unet3d.worker.protocol import ModelSummary

    from .annotation_file import AnnotationFile
    from .annotation_scan import Labelled
    from .classes import Classes
    from .projects import Project
    from .volumes import VolumeChoice

NO_MODEL = "No model yet: Train makes one, Load opens one."
SPACING_TOLERANCE = 0.2


def describe_model(summary: ModelSummary | None) -> str:
    """Say what a model is, in a line or two."""
    if summary is None:
        return NO_MODEL
    spacing = " × ".join(f"{s:.3g}" for s in summary.spacing)
    channels = f"{summary.in_channels} channel{'' if summary.in_channels == 1 else 's'}"
    iou = summary.held_out_iou
    parts = [
        _few(summary.class_names),
        f"{spacing} {summary.unit}".strip(),
        channels,
        f"{summary.step:,} steps",
        "nothing held out" if iou is None else f"held-out IoU {iou:.2f}",
    ]
    return " · ".join(parts)


def _few(names: tuple[str, ...]) -> str:
    """List names as long as they fit into two lines."""
    text, most = ", ".join(names), 60
    if len(text) <= most:
        return text
    return f"{len(names)} classes: {text[: most - 1].rstrip(' ,')}…"


def why_model_does_not_fit(
    summary: ModelSummary | None, choice: VolumeChoice | None
) -> str | None:
    """Say why a model cannot segment an image; `None` if it can."""
    if summary is None or choice is None or choice.n_channels == summary.in_channels:
        return None
    return (
        f"The model was trained on {summary.in_channels} channel(s) and "
        f"“{choice.layer.name}” has {choice.n_channels}: choose other channels under "
        "Data, or press New."
    )


def doubt_about_model(
    summary: ModelSummary | None, choice: VolumeChoice | None
) -> str | None:
    """Say what about a model may make it segment an image badly."""
    if summary is None or choice is None:
        return None
    ratio = np.array(choice.spacing) / np.array(summary.spacing)
    if (np.abs(np.log(ratio)) <= np.log1p(SPACING_TOLERANCE)).all():
        return None
    here = " × ".join(f"{s:.3g}" for s in choice.spacing)
    there = " × ".join(f"{s:.3g}" for s in summary.spacing)
    return (
        f"The voxels of “{choice.layer.name}” are {here} and those the model was "
        f"trained on {there}: correct the scale of the layer, or train on this image."
    )


def why_not_trainable(
    labelled: Labelled | None, classes: Classes, summary: ModelSummary | None
) -> str | None:
    """Say what an annotation still lacks; `None` if it can be trained on."""
    if labelled is None:
        return "There is no annotation: press New annotation layer and paint."
    found = np.flatnonzero(labelled.counts)
    if not len(found):
        return "Nothing is labelled yet: paint a slice, the background too."
    if len(found) < 2:
        name = classes[found[0] - 1].name if found[0] <= len(classes) else found[0]
        return f"Only “{name}” is labelled: paint at least one other class too."
    if summary is not None and len(classes) > summary.n_classes:
        return (
            f"The model tells {summary.n_classes} classes apart and there are "
            f"{len(classes)} now: press New under Model, then Train."
        )
    return None


def describe_kept(kept: AnnotationFile, project: Project) -> str:
    """Say what was kept of an image, and when."""
    when = datetime.fromtimestamp(project.annotation.stat().st_mtime)
    model = " and a model" if project.model.exists() else ""
    return (
        f"Of {when:%d %b %Y, %H:%M}, an annotation of {len(kept.labelled.index):,} "
        f"voxels{model} of this image was kept."
    )
