"""Prediction of a single slice, in any orientation, for a look while training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from .tiling import even_cores, with_halo

if TYPE_CHECKING:
    from torch import Tensor

    from .regions import Range, Region
    from .unet import UNet3D
    from .volume import FeatureVolume

EDGE = 256
"""Edge, in voxels, of the tiles that a slice is cut into."""


def predict_plane(
    network: UNet3D,
    features: FeatureVolume,
    axis: int,
    position: int,
    *,
    halo: int | None = None,
    edge: int = EDGE,
) -> Tensor:
    """Compute the logits of one slice.

    Parameters
    ----------
    network : UNet3D
        In evaluation mode; its statistics stay as they are.
    features : FeatureVolume
        The volume.
    axis, position : int
        The slice: 0, 1, 2 for a slice across Z, Y, X, and where it lies.
    halo : int, optional
        At most that many voxels around a tile are looked at. By default all that the
        logits depend on, and they equal those of a `Segmenter` within rounding.
    edge : int
        Edge of the tiles.

    Returns
    -------
    Tensor of shape (K, H, W)
        The slice's two axes in the order of the volume.
    """
    height, width = (n for a, n in enumerate(features.shape) if a != axis)
    plane: Tensor | None = None
    for rows, columns, logits in plane_tiles(
        network, features, axis, position, halo=halo, edge=edge
    ):
        if plane is None:
            plane = logits.new_empty((logits.shape[0], height, width))
        plane[:, slice(*rows), slice(*columns)] = logits
    assert plane is not None
    return plane


def plane_tiles(
    network: UNet3D,
    features: FeatureVolume,
    axis: int,
    position: int,
    *,
    halo: int | None = None,
    edge: int = EDGE,
    cached: bool = False,
) -> Iterator[tuple[Range, Range, Tensor]]:
    """Compute the logits of one slice, tile by tile, those of its middle first.

    Parameters
    ----------
    network, features, axis, position, halo, edge
        As for `predict_plane`.
    cached : bool
        Whether to take the features from the blocks that training keeps: quicker, and
        rounded to half precision.

    Yields
    ------
    rows, columns : (int, int)
        Where the tile lies in the slice.
    logits : Tensor of shape (K, h, w)
    """
    if not 0 <= position < features.shape[axis]:
        raise IndexError(
            f"slice {position} of axis {axis} is outside of a volume of shape "
            f"{features.shape}"
        )
    padded = copy.copy(network)
    # Both paddings share weights; halos stand in for what "valid" leaves out.
    padded.padding = "same"
    take = features.crop if cached else features.compute
    across, down = (a for a in range(3) if a != axis)
    middle = [features.shape[a] / 2 for a in (across, down)]
    tiles = [
        (rows, columns)
        for rows in _cores(network, features, across, edge)
        for columns in _cores(network, features, down, edge)
    ]
    tiles.sort(
        key=lambda tile: max(
            abs(sum(side) / 2 - m) for side, m in zip(tile, middle, strict=True)
        )
    )
    for rows, columns in tiles:
        core: list[Range] = [(position, position + 1)] * 3
        core[across], core[down] = rows, columns
        box = [
            with_halo(network, core[a], a, features.shape[a], halo) for a in range(3)
        ]
        low = [first for first, _ in box]
        block = take(low, [last - first for first, last in box])
        block = block.to(network.head.weight.dtype)
        z, y, x = (
            (first - a, last - a) for (first, last), a in zip(core, low, strict=True)
        )
        region: Region = (z, y, x)
        with torch.no_grad():
            logits = padded(
                block[None].contiguous(memory_format=torch.channels_last_3d), region
            )
        yield rows, columns, logits[0].select(axis + 1, 0).float()


def _cores(
    network: UNet3D, features: FeatureVolume, axis: int, edge: int
) -> list[Range]:
    return even_cores((0, features.shape[axis]), edge, network.total_stride[axis])
