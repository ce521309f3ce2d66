"""How much memory one array may take."""

from __future__ import annotations

from napari_unet3d.engine.memory import free_memory

SHARE = 4
"""Part of the free memory that one array may take: image, annotation, preview and
segmentation may all be of the volume's size."""


SCARCE = 4 * 2**30
"""Free bytes below which some time is given for memory."""


def is_scarce() -> bool:
    """Tell whether little memory is free."""
    return free_memory() <= SCARCE


def fits_in_memory(nbytes: int) -> bool:
    """Tell whether an array is to be held in memory rather than on the disk."""
    return nbytes * SHARE <= free_memory()


def viewing_memory() -> int:
    """Return the bytes of chunks to keep of an array that is looked at.

    256 MiB hold the chunks of 64³ bytes that a slice of 2048² voxels meets: stepping to
    the next slice reads nothing.
    """
    return min(2**28, free_memory() // 16)


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
