"""Where the segmentation of a volume goes that is too large for memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet3d.io.location import overlap
from napari_unet3d.worker.room import fits_in_memory

from .volumes import full_resolution

if TYPE_CHECKING:
    from napari.layers import Image

    from .projects import Project
    from .volumes import VolumeChoice


def must_go_to_disk(choice: VolumeChoice, n_classes: int = 0) -> bool:
    """Whether a segmentation, with the probabilities of some classes, is too large."""
    z, y, x = choice.shape
    return not fits_in_memory((1 + n_classes) * z * y * x)


def target_beside(choice: VolumeChoice, project: Project) -> Path:
    """Choose the name of a segmentation: that of an unfinished one, or a new one.

    It lies beside the image where that is a file in a folder that may be written to,
    else in the image's project folder.
    """
    folder = _folder_of(choice)
    if folder is None or not os.access(folder, os.W_OK):
        project.make()
        folder = project.folder
    name = re.sub(r"[^\w.-]+", "_", choice.layer.name).strip("_") or "image"
    if "T" in choice.axes:
        name = f"{name}_time{choice.time}"
    number = 1
    while True:
        suffix = "" if number == 1 else f"_{number}"
        path = folder / f"{name}_segmentation{suffix}.ome.zarr"
        if not path.exists():
            return path
        number += 1


def probabilities_beside(target: str) -> str:
    """Return where the probabilities go that belong to a segmentation.

    Examples
    --------
    >>> probabilities_beside("/data/a_segmentation.ome.zarr")
    '/data/a_probabilities.ome.zarr'
    """
    path = Path(target)
    stem = re.sub(r"(\.ome)?\.zarr$", "", path.name)
    if "_segmentation" in stem:
        name = stem.replace("_segmentation", "_probabilities")
    else:
        name = f"{stem}_probabilities"
    return str(path.with_name(f"{name}.ome.zarr"))


def why_not_into(target: str, choice: VolumeChoice, probabilities: bool) -> str | None:
    """Say why a volume cannot be segmented into a file; `None` where it can."""
    images = [_file_of(layer) for layer in (choice.layer, *choice.others)]
    if any(image is not None and overlap(image, Path(target)) for image in images):
        return f"{target} is where the image lies: choose another name."
    beside = probabilities_beside(target)
    if probabilities and not os.path.exists(target) and os.path.exists(beside):
        return (
            f"The probabilities would replace {beside}: choose another name, or move "
            "that away."
        )
    return None


def _folder_of(choice: VolumeChoice) -> Path | None:
    """Return the folder in which the image lies, if it is on this machine."""
    path = _file_of(choice.layer)
    return None if path is None else path.parent


def _file_of(layer: Image) -> Path | None:
    """Return the file of an image, or the whole zarr, if it is on this machine."""
    from .voxel_origin import origin_of

    found = origin_of(full_resolution(layer))
    written = found[0].path if found is not None else layer.source.path
    if not written or not os.path.exists(written):
        return None
    path = Path(os.path.abspath(written))
    zarrs = [p for p in (path, *path.parents) if p.suffix.lower() == ".zarr"]
    return zarrs[-1] if zarrs else path
