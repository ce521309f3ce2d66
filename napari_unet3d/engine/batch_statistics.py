"""The batch normalisation's statistics of a whole volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .tiling import round_up
from .valid_padding import valid_size

if TYPE_CHECKING:
    from .unet import UNet3D
    from .volume import FeatureVolume


def recompute_statistics(
    network: UNet3D, features: FeatureVolume, edge: int = 64, most: int = 8
) -> None:
    """Replace the batch normalisation's statistics by those of this volume.

    The paper normalises with the statistics of what it segments; here they are those
    of the volume, so that no part of it is treated differently. They are averaged
    over evenly spread boxes.
    """
    stride = network.total_stride
    size = [
        min(round_up(n, s), round_up(edge, s))
        for n, s in zip(features.shape, stride, strict=True)
    ]
    if network.padding == "valid":
        size = [
            valid_size(n, [level[axis] for level in network.pooling])
            for axis, n in enumerate(size)
        ]
    elif all(n == s for n, s in zip(size, stride, strict=True)):
        # A single voxel at the bottom has no deviation.
        size = [2 * n for n in size]
    boxes = _spread_boxes(features.shape, size, most)
    if network.padding == "valid":
        # Larger than the volume where need be, which then lies in the middle.
        beyond = [max(0, s - n) // 2 for n, s in zip(features.shape, size, strict=True)]
        boxes = [[a - b for a, b in zip(low, beyond, strict=True)] for low in boxes]
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for low in boxes:
            network(features.compute(low, size)[None])
    network.eval()


def _spread_boxes(
    shape: Sequence[int], size: Sequence[int], most: int
) -> list[list[int]]:
    """Place at most `most` boxes evenly over a volume, in a fixed order."""
    axes = [
        np.linspace(0, max(0, n - s), -(-n // s)).round().astype(int)
        for n, s in zip(shape, size, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = np.linspace(0, len(grid) - 1, min(most, len(grid))).round().astype(int)
    return [[int(a) for a in low] for low in grid[chosen]]
