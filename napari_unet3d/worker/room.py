"""How much memory one array may take."""

from __future__ import annotations

import os

import psutil

VARIABLE = "NAPARI_UNET3D_MEMORY"
"""Environment variable: GiB to count on, where less than what is free may be taken."""

SHARE = 4
"""Part of the free memory that one array may take: image, annotation, preview and
segmentation may all be of the volume's size."""


def fits_in_memory(nbytes: int) -> bool:
    """Tell whether an array is to be held in memory rather than on the disk."""
    return nbytes * SHARE <= free_memory()


def viewing_memory() -> int:
    """Return the bytes of chunks to keep of an array that is looked at.

    256 MiB hold the chunks of 64³ bytes that a slice of 2048² voxels meets: stepping to
    the next slice reads nothing.
    """
    return min(2**28, free_memory() // 16)


def free_memory() -> int:
    """Return the bytes that programs can still take."""
    free = int(psutil.virtual_memory().available)
    try:
        return min(free, int(float(os.environ[VARIABLE]) * 2**30))
    except (KeyError, ValueError, OverflowError):
        return free


def amount(nbytes: float) -> str:
    """Put a size into words.

    Examples
    --------
    >>> amount(3 * 2**30), amount(5 * 2**20)
    ('3.0 GiB', '5 MiB')
    """
    if nbytes < 2**30:
        return f"{nbytes / 2**20:.0f} MiB"
    return f"{nbytes / 2**30:.1f} GiB"
