"""The size of the voxels where napari's reader has left it out.

napari's own reader of TIFF files does not look at the size that they tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .volumes import problem_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_unet3d.io.volume import Spacing

    from .volumes import VolumeChoice

NO_SIZE = (1.0, 1.0, 1.0)


def size_in_file(choice: VolumeChoice) -> tuple[Spacing, str | None] | None:
    """Return spacing and unit that the file of an image tells, and the layer does not.

    `None` where the layer has a size, or the file is no TIFF or does not tell one.
    """
    path = choice.layer.source.path
    if choice.spacing != NO_SIZE or choice.unit or problem_of(choice) is not None:
        return None
    if not path or not str(path).lower().endswith((".tif", ".tiff")):
        return None
    from napari_unet3d.io.tiff import voxel_size

    try:
        found = voxel_size(str(path), choice.shape)
    except EngineError:
        return None
    return None if found is None or found[0] == NO_SIZE else found


def use_size(
    viewer: ViewerModel, choice: VolumeChoice, spacing: Spacing, unit: str | None
) -> None:
    """Scale an image and its further channels; the slice in view stays the same."""
    step = viewer.dims.current_step
    for layer in (choice.layer, *choice.others):
        if unit is not None:
            layer.units = (*layer.units[:-3], unit, unit, unit)
        layer.scale = np.concatenate([layer.scale[:-3], spacing])
    viewer.dims.current_step = step
    viewer.reset_view()
