"""Names of units of length, as files write them and as this package does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .volume import Spacing

# name: (metres, symbol of OME and of ImageJ, what else is seen in files)
_UNITS: dict[str, tuple[float, str, tuple[str, ...]]] = {
    "angstrom": (1e-10, "Å", ("å", "angstroms", "\u212b")),
    "nanometer": (1e-9, "nm", ("nanometers", "nanometre", "nanometres")),
    "micrometer": (
        1e-6,
        "µm",
        (
            *("\u03bcm", "um", "micron", "microns", "micrometers"),
            *("micrometre", "micrometres", "\\u00b5m", "\\u03bcm"),
        ),
    ),
    "millimeter": (1e-3, "mm", ("millimeters", "millimetre", "millimetres")),
    "centimeter": (1e-2, "cm", ("centimeters", "centimetre", "centimetres")),
    "meter": (1.0, "m", ("meters", "metre", "metres")),
    "inch": (0.0254, "in", ("inches",)),
}
TOLERANCE = 1.25
"""Ratio of two voxel sizes that are still taken for the same."""

_NAMES = {
    alias: name
    for name, (_, symbol, aliases) in _UNITS.items()
    for alias in (name, symbol, *aliases)
}


def known_unit(text: object) -> str | None:
    """Give the full name of a unit of length, or None where it is not known.

    >>> known_unit("um"), known_unit("Micron"), known_unit("pixel")
    ('micrometer', 'micrometer', None)
    """
    written = str(text).strip().strip("\0")
    return _NAMES.get(written) or _NAMES.get(written.lower())


def required_unit(text: str | None) -> str | None:
    """Give the full name of a unit that is to be written.

    Raises
    ------
    EngineError
        If the unit is not known; "pixel" counts as no unit.
    """
    if text is None or text.strip().lower() in ("", "pixel", "pixels", "px", "voxel"):
        return None
    name = known_unit(text)
    if name is None:
        raise EngineError(
            f"The unit {text!r} is not known; use one of {', '.join(_UNITS)}."
        )
    return name


def symbol(name: str) -> str:
    """Give the symbol of a unit, as OME writes it.

    >>> symbol("nanometer")
    'nm'
    """
    return _UNITS[name][1]


def converted(spacing: Spacing, unit: str, wanted: str) -> Spacing:
    """Express a spacing in another unit.

    >>> converted((10.0, 4.0, 4.0), "nanometer", "micrometer")
    (0.01, 0.004, 0.004)
    """
    # Dividing by a whole number rounds once, multiplying by 1e-3 twice.
    up = _UNITS[unit][0] / _UNITS[wanted][0]
    down = _UNITS[wanted][0] / _UNITS[unit][0]
    z, y, x = (s * round(up, 9) if up >= 1 else s / round(down, 9) for s in spacing)
    return z, y, x


def are_alike(spacing: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether voxels of two sizes, in one unit, may be taken for the same.

    >>> are_alike((2, 1, 1), (2.1, 1, 1)), are_alike((2, 1, 1), (1, 1, 1))
    (True, False)
    """
    ratios = [a / b for a, b in zip(spacing, other, strict=True)]
    return max(ratios) <= TOLERANCE and min(ratios) >= 1 / TOLERANCE


def positive_spacing(values: Any) -> Spacing | None:
    """Give three sizes as floats, or None unless all are positive and finite.

    >>> positive_spacing([2, 1, 1]), positive_spacing([0, 1, 1])
    ((2.0, 1.0, 1.0), None)
    """
    try:
        sizes = [float(value) for value in values]
    except (TypeError, ValueError):
        return None
    if len(sizes) != 3 or not all(0 < size < math.inf for size in sizes):
        return None
    return sizes[0], sizes[1], sizes[2]


def in_one_unit(
    spacing: Spacing | None, units: Sequence[str | None]
) -> tuple[Spacing | None, str | None]:
    """Bring the three sizes of a voxel to the unit of the last axis.

    Parameters
    ----------
    spacing : tuple of three floats, or None
        Sizes along Z, Y and X, each in its own unit.
    units : sequence of three str or None
        Full names of these units.
    """
    if spacing is None:
        return None, None
    z_unit, y_unit, unit = units
    if z_unit == y_unit == unit:
        return spacing, unit
    if z_unit is None or y_unit is None or unit is None:
        return spacing, None
    z = converted(spacing, z_unit, unit)[0]
    y = converted(spacing, y_unit, unit)[1]
    return (z, y, spacing[2]), unit
