"""Which part of a volume to segment, as the flags say."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.engine.blockwise import Selection
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.location import located
from napari_unet3d.io.mask import open_mask

from .inputs import label_axes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unet3d.engine.regions import Region


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Describe the flags."""
    group.add_argument(
        "--region",
        metavar="BOX",
        help="Segment only this box of voxels, as 0:64,100:400,: with an empty end for "
        "that of the volume; the rest is 0",
    )
    group.add_argument(
        "--mask",
        metavar="FILE",
        help="Segment only where this volume is not 0; the rest is 0",
    )
    group.add_argument(
        "--skip-below",
        metavar="VALUE",
        help="Do not compute chunks of 64 voxels whose grey values are all below this; "
        "they become class 1",
    )


def read_selection(
    shape: Sequence[int],
    region: str | None,
    mask: str | Path | None,
    skip_below: str | float | None,
    axes: str | None = None,
) -> Selection | None:
    """Return what the flags select of a volume, `None` where none was given.

    Raises
    ------
    EngineError
        Where one of them is not understood or does not fit the volume.
    """
    if region is None and mask is None and skip_below is None:
        return None
    selection = Selection(
        None if region is None else _region(region, shape),
        None if mask is None else open_mask(mask, label_axes(axes)),
        None if skip_below is None else _value(skip_below),
    )
    selection.check(shape)
    return selection


def origin(
    region: str | None, mask: str | Path | None, skip_below: str | float | None
) -> dict[str, str]:
    """Say what the flags select, so that another run can be compared."""
    given = {
        "region": region,
        "mask": None if mask is None else _version(mask),
        "skip-below": skip_below,
    }
    return {name: "none" if v is None else str(v) for name, v in given.items()}


def _version(path: str | Path) -> str:
    """Name a file, or the files of a zarr, and when the last of them was changed."""
    absolute = located(os.path.realpath(os.path.expanduser(path))).path
    if not absolute.is_dir():
        return f"{absolute} of {_time(absolute.stat().st_mtime_ns)}"
    # Where chunks are written, the folder itself does not change.
    changes = [
        os.stat(os.path.join(folder, name)).st_mtime_ns
        for folder, _, names in os.walk(absolute)
        for name in names
    ]
    return f"{absolute} of {len(changes)} files until {_time(max(changes, default=0))}"


def _time(nanoseconds: int) -> str:
    return f"{np.datetime64(nanoseconds, 'ns')} UTC"


def _region(text: str, shape: Sequence[int]) -> Region:
    parts = text.split(",")
    ranges = [re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", part) for part in parts]
    if len(ranges) != 3 or None in ranges:
        raise EngineError(
            f"--region is not understood, got {text!r}; give a range along z, y and x, "
            "as 0:64,100:400,100:400"
        )
    z, y, x = (
        (int(found[1] or 0), int(found[2] or n))
        for found, n in zip(ranges, shape, strict=True)
        if found
    )
    return z, y, x


def _value(text: str | float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value:
        raise EngineError(
            f"--skip-below must be a number, got {text!r}; give a grey value"
        )
    return value
