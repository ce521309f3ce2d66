"""How much memory one array may take."""

from __future__ import annotations

import psutil

SHARE = 4
"""Part of the free memory that one array may take: image, annotation, preview and
segmentation may all be of the volume's size."""


def fits_in_memory(nbytes: int) -> bool:
    """Tell whether an array is to be held in memory rather than on the disk."""
    return nbytes * SHARE <= free_memory()


def free_memory() -> int:
    """Return the bytes that programs can still take."""
    return int(psutil.virtual_memory().available)


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
