"""Linear interpolation of many channels at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

AS_TABLE = ("cpu", "cuda")
"""Devices that sum rows of a table quickly."""


def interpolated(values: Tensor, positions: Tensor) -> Tensor:
    """Interpolate linearly between voxels.

    Parameters
    ----------
    values : Tensor of shape (C, Z, Y, X), float32
        With the channels last in memory; continued beyond its borders.
    positions : Tensor of shape (3, z, y, x)
        Where, in voxels ZYX.

    Returns
    -------
    Tensor of shape (C, z, y, x)
        With the channels last in memory.
    """
    channels, *shape = values.shape
    size = torch.tensor(shape, device=positions.device).view(3, 1)
    inside = torch.minimum(positions.flatten(1).clamp_min(0), size - 1)
    low = torch.minimum(inside.int(), (size - 2).clamp_min(0).int())
    share = inside - low
    # Beside the last voxel of an axis there is none, and it has no share.
    stride = [shape[1] * shape[2], shape[2], 1]
    reach = [s if n > 1 else 0 for s, n in zip(stride, shape, strict=True)]
    offsets = [
        a + b + c for a in (0, reach[0]) for b in (0, reach[1]) for c in (0, reach[2])
    ]
    begin = low[0] * stride[0] + low[1] * stride[1] + low[2]
    rows = begin[:, None] + torch.tensor(offsets, dtype=torch.int32, device=low.device)
    z, y, x = torch.stack([1 - share, share], dim=-1)
    weights = z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]
    table = values.movedim(0, -1).reshape(-1, channels)
    found = _weighted_rows(table, rows, weights.view(-1, 8))
    return found.view(*positions.shape[1:], channels).movedim(-1, 0)


def _weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sum rows of a table (S, C): 8 of them, with weights, for each of the output."""
    if table.device.type in AS_TABLE:
        # Written for tables of words; four times as fast as grid_sample on a CPU, and
        # the channels stay together.
        bag: Tensor = functional.embedding_bag(
            rows, table, mode="sum", per_sample_weights=weights
        )
        return bag
    total = table.new_zeros((len(rows), table.shape[1]))
    for row, weight in zip(rows.T.long(), weights.T, strict=True):
        total.addcmul_(table[row], weight[:, None])
    return total
