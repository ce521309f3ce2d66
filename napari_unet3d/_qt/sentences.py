"""Sentences about models and annotations."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.io.units import are_alike

from .state import NO_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet3d.worker.protocol import ModelSummary

    from .annotation_file import AnnotationFile
    from .annotation_scan import Labelled
    from .classes import Classes
    from .projects import Project
    from .volumes import VolumeChoice

    Spacing = tuple[float, float, float]


def describe_model(summary: ModelSummary | None) -> str:
    """Say what a model is, in a line or two."""
    if summary is None:
        return NO_MODEL
    spacing = " × ".join(f"{s:.3g}" for s in summary.spacing)
    channels = f"{summary.in_channels} channel{'' if summary.in_channels == 1 else 's'}"
    iou = summary.held_out_iou
    learned = (
        f"{summary.step:,} steps",
        "no held-out IoU" if iou is None else f"best held-out IoU {iou:.2f}",
    )
    parts = [
        _few(summary.class_names),
        f"{spacing} {summary.unit}".strip(),
        channels,
        # While the first training goes on its steps are told elsewhere.
        *(learned if summary.step else ()),
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
    if summary is None or choice is None or are_alike(choice.spacing, summary.spacing):
        return None
    return (
        f"The voxels of “{choice.layer.name}” are {_size(choice.spacing)} and those "
        f"the model was trained on {_size(summary.spacing)}: correct the scale of the "
        "layer, or train on this image."
    )


def doubt_about_spacing(other: VolumeChoice, choice: VolumeChoice | None) -> str | None:
    """Say what about another image may make learning from both go badly."""
    if choice is None or are_alike(other.spacing, choice.spacing):
        return None
    return (
        f"The voxels of “{other.layer.name}” are {_size(other.spacing)} and those of "
        f"“{choice.layer.name}” {_size(choice.spacing)}: correct the scale of a layer "
        "if it is wrong."
    )


def why_not_together(
    other: VolumeChoice, named: Classes, choice: VolumeChoice, classes: Classes
) -> str | None:
    """Say why two images cannot be learned from together; `None` if they can.

    Parameters
    ----------
    other, named : VolumeChoice, Classes
        The one image and the classes of its annotation.
    choice, classes : VolumeChoice, Classes
        The other.
    """
    name = other.layer.name
    if other.n_channels != choice.n_channels:
        return (
            f"“{name}” has {other.n_channels} channel(s) and “{choice.layer.name}” "
            f"{choice.n_channels}: choose the same number under Data."
        )
    for label, (there, here) in enumerate(zip(named, classes, strict=False), start=1):
        if there.name != here.name:
            return (
                f"Class {label} is “{there.name}” in “{name}” and “{here.name}” here: "
                "give it the same name."
            )
    return None


def why_not_trainable(
    looks: Sequence[Labelled],
    classes: Classes,
    summary: ModelSummary | None,
    offered: bool = False,
) -> str | None:
    """Say what annotations still lack; `None` if they can be trained on.

    Parameters
    ----------
    looks : sequence of Labelled
        The annotations.
    classes : tuple of LabelClass
        Theirs.
    summary : ModelSummary, optional
        Of the model that is trained on.
    offered : bool
        Whether there are layers that could be chosen as the annotation.
    """
    if not looks:
        other = ", or choose a layer under Labels" if offered else ""
        return f"There is no annotation: press New annotation layer and paint{other}."
    found = np.flatnonzero(sum(labelled.counts for labelled in looks))
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
    names = summary.class_names if summary is not None else ()
    for label, (each, name) in enumerate(zip(classes, names, strict=False), 1):
        # A new name is a name; that of another class means that they have moved.
        if each.name != name and each.name in names:
            return (
                f"“{each.name}” is class {label} now and class "
                f"{names.index(each.name) + 1} of the model: press New under Model, "
                "then Train."
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


def describe_size(choice: VolumeChoice, spacing: Spacing, unit: str | None) -> str:
    """Say that the file of an image tells another size of the voxels than the layer."""
    return (
        f"The file says that a voxel is {_size(spacing)}{f' {unit}' if unit else ''} "
        f"(Z, Y, X); the layer has {_size(choice.spacing)}. The network needs to know "
        "how thick slices are."
    )


def _size(spacing: Spacing) -> str:
    return " × ".join(f"{s:.3g}" for s in spacing)
