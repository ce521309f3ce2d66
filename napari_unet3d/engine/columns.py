"""How wide a column may be for its sweep along Z to fit in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from .device import available_memory
from .tiling import receptive_margin

if TYPE_CHECKING:
    from .config import SegmentationConfig
    from .unet import UNet3D

SLAB = 8
"""Slices that enter a sweep at once, about."""

MOST_MEMORY = 8 * 2**30
"""Bytes that a sweep takes at most unless more are allowed."""

SHARE = 0.4
"""Of the memory that there is."""


def column_pixels(network: UNet3D, memory: float) -> float:
    """Return the area, in voxels of a slice, of a column that fits in `memory` bytes.

    Its halo counts as well.
    """
    first = next(m for m in network.modules() if isinstance(m, torch.nn.Conv3d))
    base, inputs = first.out_channels, first.in_channels
    voxel = 4 * (4 * inputs + 16 * base)
    waiting = 2 * receptive_margin(network.pooling, 0)
    return memory / (voxel * SLAB + 4 * 2 * base * waiting)


def present_memory(config: SegmentationConfig, device: torch.device) -> float:
    """Return the bytes for a sweep, of what is free now where no limit is given."""
    if config.memory:
        return config.memory * 2**30
    return min(MOST_MEMORY, SHARE * available_memory(device))


def lasting_memory(config: SegmentationConfig, device: torch.device) -> float:
    """Return the bytes for a sweep, the same in every run on a machine.

    What happens to be free does not count: a plan that is carried out in several runs
    must not depend on it.
    """
    if config.memory:
        return config.memory * 2**30
    return min(MOST_MEMORY, SHARE * _built_in_memory(device))


def _built_in_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # no such call on Windows
        return 8 * 2**30
