"""The file of a sparse annotation, in the terms of the widget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet3d.io import annotation_file

from .annotation_scan import Labelled
from .classes import Classes, make_classes

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """What a file of sparse annotation holds.

    Parameters
    ----------
    labelled : Labelled
        The labelled voxels.
    classes : tuple of LabelClass
        Label 1 first.
    grid : dict
        Arguments of the layer: scale, translate and the like, as plain values.
    """

    labelled: Labelled
    classes: Classes
    grid: dict[str, Any] = field(default_factory=dict)


def save(content: AnnotationFile, path: str | Path) -> None:
    """Write an annotation; raises what `io.annotation_file` does."""
    labelled = content.labelled
    annotation_file.AnnotationFile(
        labelled.shape,
        labelled.index,
        labelled.labels,
        tuple(each.name for each in content.classes),
        tuple(each.color for each in content.classes),
        content.grid,
    ).save(path)


def load(path: str | Path) -> AnnotationFile:
    """Read an annotation; raises what `io.annotation_file` does."""
    found = annotation_file.load_annotation(path)
    return AnnotationFile(
        Labelled(found.shape, found.index, found.labels),
        make_classes(found.class_names, found.class_colors),
        found.grid,
    )
