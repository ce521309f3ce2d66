"""How wide a column may be for its sweep along Z to fit in memory."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

import torch

from .device import available_memory
from .layers import Level
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


BESIDE = 2048
"""Bytes a voxel of a slice for what is read, filtered and written, if nobody says."""

CEILING = 1.15
"""How much more memory a process takes than what is in use of it: gaps in between."""

FIXED = 224 * 2**20
"""Bytes that modules, tables of the convolutions and buffers of the files take."""


def slab_depth(network: UNet3D) -> int:
    """Return how many slices enter a sweep at once."""
    stride = network.total_stride[0]
    return max(1, SLAB // stride) * stride


def sweep_bytes(network: UNet3D) -> float:
    """Return the bytes that a sweep takes for each voxel of a slice, halo included.

    That is what the layers remember, and on top of it the step that needs most.
    """
    depth, head = slab_depth(network), network.head.out_channels
    remembered, area, most = 0.0, 1.0, depth
    steps: list[float] = []
    for level in range(len(network.encoder)):
        convolutions = _convolutions(network, level)
        inputs = [conv.in_channels for conv in convolutions]
        outputs = [conv.out_channels for conv in convolutions]
        remembered += 2 * sum(inputs) * area
        for k, (before, after) in enumerate(zip(inputs, outputs, strict=True)):
            # Input with two slices from before and one beyond the end, what it is
            # copied from, and the output.
            upsampled = before - outputs[1] if k == 2 else 0
            source = 2 * upsampled if k == 2 else before * most
            scale = prod(network.pooling[level]) if k == 2 else 1
            steps.append(
                area * (before * (most + 3) + max(source, after * most))
                # What is upsampled, before it is
                + area * upsampled * most / scale
            )
        if level < len(network.pooling):
            waiting = receptive_margin(network.pooling[level:], 0) + most
            remembered += area * outputs[1] * waiting
            stride = network.pooling[level]
            area /= stride[1] * stride[2]
            most = max(1, most // stride[0])
    if len(network.shortcut):
        given = _convolutions(network, 0)[0].in_channels
        width = network.head.in_channels - _convolutions(network, 0)[-1].out_channels
        remembered += min(head, given) * (receptive_margin(network.pooling, 0) + depth)
        steps.append(depth * (given + 2 * width + head))
    # Filter responses, and their copy with the channels last
    steps.append(3 * depth * _convolutions(network, 0)[0].in_channels)
    # Logits, their softmax, and 64-bit numbers of the likeliest class
    steps.append(depth * (network.head.in_channels + 3 * head + 2))
    # The logits before are still being written.
    return 4 * (remembered + max(steps) + head * depth)


def _convolutions(network: UNet3D, level: int) -> list[torch.nn.Conv3d]:
    """Return the 3³ convolutions of a level, in the order in which they work."""
    parts = [network.encoder[level]]
    if level < len(network.pooling):
        parts.append(network.decoder[level])
    levels = [part for part in parts if isinstance(part, Level)]
    return [c.conv for part in levels for c in (part.first, part.second)]


def column_bytes(network: UNet3D, pixels: float, beside: float = BESIDE) -> float:
    """Return the memory, in bytes, for a column with `pixels` voxels in a slice.

    Parameters
    ----------
    network : UNet3D
        That of the sweep.
    pixels : float
        The halo's count as well.
    beside : float
        Bytes for each of them for what is read, filtered and written.
    """
    # As trained, averaged, best, optimised (twice), in the network and folded
    weights = 7 * 4 * sum(p.numel() for p in network.parameters())
    return FIXED + weights + pixels * (sweep_bytes(network) + beside) * CEILING


def column_pixels(network: UNet3D, memory: float, beside: float = BESIDE) -> float:
    """Return how many voxels a slice of a column may have to fit in `memory` bytes.

    The inverse of `column_bytes`; 0 where nothing fits.
    """
    least = column_bytes(network, 0)
    return max(0.0, memory - least) / (column_bytes(network, 1, beside) - least)


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
