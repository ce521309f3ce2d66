"""Open a NIfTI or HDF5 file as layers, with the voxel size that the file tells."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import open_image
from napari_unet3d.io.location import located
from napari_unet3d.worker.room import fits_in_memory

if TYPE_CHECKING:
    from napari_unet3d.io import Volume
    from napari_unet3d.io.view import View

    from ._reader import LayerData

LABEL_WORDS = ("label", "annotation", "segmentation", "mask")
"""What is in the name of a file or dataset that holds labels."""


def read_volume(path: str) -> LayerData:
    """Open every volume of a file; each channel becomes a layer.

    Axes are those that the command line sees: in NIfTI, x comes first in the file and
    last here. What is too large for memory is read as it is looked at. Datasets of one
    HDF5 file that have the same shape have the same voxel size, if one of them has any.

    Raises
    ------
    EngineError
        Where the file is damaged, or a library for it is missing.
    """
    location = located(path)
    stem = location.path.name.removesuffix(".gz").rpartition(".")[0]
    if location.kind != "HDF5":
        return _layers(open_image(path), stem)
    from napari_unet3d.io.hdf5 import volumes

    names = volumes(location.path)
    if len(names) == 1:
        return _layers(open_image(f"{path}:{names[0]}"), stem)
    found = {}
    for name in names:
        # Others may hold points, or one patch after another.
        with suppress(EngineError):
            found[name] = open_image(f"{path}:{name}")
    if not found:
        open_image(f"{path}:{names[0]}")  # which says why not
    layers: LayerData = []
    for name, volume in found.items():
        alike = (v for v in found.values() if v.data.shape[1:] == volume.data.shape[1:])
        sized = next((v for v in (volume, *alike) if v.spacing), volume)
        layers += _layers(replace(volume, spacing=sized.spacing, unit=sized.unit), name)
    return layers


def _layers(volume: Volume, name: str) -> LayerData:
    unit = volume.unit or "pixel"
    about: dict[str, Any] = {
        "name": name,
        "scale": volume.spacing or (1.0, 1.0, 1.0),
        "units": (unit, unit, unit),
        "axis_labels": ("z", "y", "x"),
    }
    view = cast("View", volume.data)
    in_memory = fits_in_memory(view.nbytes)
    count = view.shape[0]
    channels = [view[c] if in_memory else view.as_dask(c) for c in range(count)]
    if count == 1:
        is_labels = view.dtype.kind in "iu" and _means_labels(name)
        return [(channels[0], about, "labels" if is_labels else "image")]
    return [
        (
            voxels,
            {**about, "name": f"{name} channel {c}", "blending": "additive"},
            "image",
        )
        for c, voxels in enumerate(channels)
    ]


def _means_labels(name: str) -> bool:
    return any(word in Path(name).name.lower() for word in LABEL_WORDS)
