"""The physical size of voxels in the several dialects of TIFF."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from .units import in_one_unit, known_unit, positive_spacing, symbol

if TYPE_CHECKING:
    import tifffile

    from .layout import Layout
    from .volume import Spacing

Size = tuple["Spacing | None", str | None]
_NOTHING: Size = (None, None)
CLASSIC_SIZE = 2**32 - 2**25
"""Largest array, in bytes, for a TIFF file with 32-bit offsets."""


def physical_size(tif: tifffile.TiffFile) -> Size:
    """Read the size of a voxel along Z, Y and X, and its unit, where the file says."""
    if tif.ome_metadata:
        return _ome_size(tif.ome_metadata)
    if tif.imagej_metadata:
        return _imagej_size(tif, tif.imagej_metadata)
    if tif.shaped_metadata:
        return _shaped_size(tif.shaped_metadata[0])
    return _NOTHING


def _ome_size(xml: str) -> Size:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return _NOTHING
    pixels = root.find("{*}Image/{*}Pixels")
    if pixels is None:
        return _NOTHING
    spacing = positive_spacing([pixels.get(f"PhysicalSize{a}") for a in "ZYX"])
    # Micrometres are the default of OME's schema; "pixel" stands for no unit.
    units = [known_unit(pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX"]
    return in_one_unit(spacing, units)


def _imagej_size(tif: tifffile.TiffFile, metadata: dict[str, Any]) -> Size:
    units = [known_unit(metadata.get(key, metadata.get("unit"))) for key in _UNIT_KEYS]
    if "spacing" not in metadata and units[2] is None:
        return _NOTHING
    spacing = positive_spacing(
        # ImageJ leaves out a depth of 1.
        [metadata.get("spacing", 1.0), *(_resolved(tif, metadata, a) for a in "YX")]
    )
    return in_one_unit(spacing, units)


_UNIT_KEYS = ("zunit", "yunit", "unit")
_EXACT_KEYS = {"Y": "pixel_height", "X": "pixel_width"}


def _resolved(tif: tifffile.TiffFile, metadata: dict[str, Any], axis: str) -> float:
    tag = tif.pages.first.tags.get(f"{axis}Resolution")
    pixels, units = tag.value if tag is not None else (1, 1)
    size = units / pixels if pixels and units else 1.0
    # A fraction of 32-bit numbers is not exact. This package writes the number itself
    # as well, which another program may have copied although it changed the fraction.
    exact = metadata.get(_EXACT_KEYS[axis])
    if isinstance(exact, int | float) and math.isclose(exact, size, rel_tol=1e-6):
        return float(exact)
    return float(size)


def _shaped_size(metadata: dict[str, Any]) -> Size:
    # tifffile keeps any further metadata as JSON; these two names are customary.
    sizes = metadata.get("spacing_zyx", metadata.get("spacing"))
    spacing = positive_spacing(sizes) if isinstance(sizes, list) else None
    unit = known_unit(metadata.get("unit"))
    return (None, None) if spacing is None else (spacing, unit)


def imagej_fits(layout: Layout) -> bool:
    """Tell whether ImageJ's variant of TIFF can hold an array and its spacing."""
    # A classic TIFF is full at 4 GB, headers included; a resolution is a fraction of
    # 32-bit numbers; and tifffile takes a last axis of length 1 for a colour.
    return (
        layout.dtype.name in ("uint8", "uint16", "float32")
        and layout.nbytes < CLASSIC_SIZE
        and layout.shape[-1] > 1
        and all(1e-9 < size < 1e9 for size in layout.spacing or ())
    )


def imagej_metadata(layout: Layout) -> dict[str, Any]:
    """Give the options with which tifffile writes a size that ImageJ reads."""
    metadata: dict[str, Any] = {"axes": "ZCYX" if len(layout.shape) == 4 else "ZYX"}
    if layout.spacing is None:
        return {"metadata": metadata}
    z, y, x = layout.spacing
    metadata |= {"spacing": z, "pixel_height": y, "pixel_width": x}
    if layout.unit is not None:
        # The description is ASCII, where ImageJ takes "um" for micrometres.
        metadata["unit"] = (
            symbol(layout.unit).replace("µ", "u").replace("Å", "angstrom")
        )
    return {"metadata": metadata, "resolution": (1 / x, 1 / y)}


def ome_metadata(layout: Layout) -> dict[str, Any]:
    """Give the options with which tifffile writes a size that OME readers read."""
    metadata: dict[str, Any] = {"axes": layout.axes}
    if layout.spacing is not None:
        unit = "pixel" if layout.unit is None else symbol(layout.unit)
        for axis, size in zip("ZYX", layout.spacing, strict=True):
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = unit
    return {"metadata": metadata}
