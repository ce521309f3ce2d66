"""How wide a column may be for its sweep along Z to fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from .composition import count_taps
from .layers import Level
from .memory import available_memory, built_in_memory
from .sweep import SHORTCUT_SLICES
from .tiling import decoded_range, receptive_margin, with_halo

if TYPE_CHECKING:
    import torch

    from .config import SegmentationConfig
    from .regions import Range
    from .unet import UNet3D

SLAB = 8
"""Slices that enter a sweep at once, about."""

MOST_MEMORY = 8 * 2**30
"""Bytes that a sweep takes at most unless more are allowed."""

SHARE = 0.4
"""Of the memory that there is."""

RESPONSE_WORK = 18
"""What a filter response costs, in pairs of channels of a 3³ convolution (measured)."""

BESIDE = 2048
"""Bytes a voxel of a slice for what is read, filtered and written, if nobody says."""

CEILING = 1.3
"""How much more memory a process takes than what is in use of it: gaps in between."""

FIXED = 240 * 2**20
"""Bytes that modules, tables of the convolutions and buffers of the files take.

A block alone takes about 100 MiB less; with that set aside, 16 blocks took more than
was allowed (measured with a sweep that still upsampled).
"""


def slab_depth(network: UNet3D) -> int:
    """Return how many slices enter a sweep at once."""
    stride = network.total_stride[0]
    return max(1, SLAB // stride) * stride


@dataclass(frozen=True)
class Extent:
    """Voxels of each layer that a sweep computes, along one axis or of a slice.

    Parameters
    ----------
    whole : float
        Of the column with its halo: what enters, and what the encoder computes.
    core : float
        Whose logits are wanted.
    decoded : tuple of float
        What each level of the decoder computes, in voxels of the level.
    """

    whole: float
    core: float
    decoded: tuple[float, ...]

    def times(self, other: Extent) -> Extent:
        """Return the extent of a slice from those along its two axes."""
        pairs = zip(self.decoded, other.decoded, strict=True)
        return Extent(
            self.whole * other.whole,
            self.core * other.core,
            tuple(a * b for a, b in pairs),
        )


def extent(network: UNet3D, axis: int, core: Range, size: int) -> Extent:
    """Return what a column's sweep computes along an axis.

    Parameters
    ----------
    network : UNet3D
        Its pooling decides the halo.
    axis : int
        Of Z, Y, X.
    core : (int, int)
        Of the column.
    size : int
        Voxels of the volume.
    """
    low, high = with_halo(network, core, axis, size)
    wanted, there = (core[0] - low, core[1] - low), high - low
    decoded = []
    for stride in network.pooling:
        first, last = decoded_range(wanted, stride[axis], there)
        decoded.append(last - first)
        wanted = first // stride[axis], last // stride[axis]
        there //= stride[axis]
    return Extent(high - low, core[1] - core[0], tuple(decoded))


def sweep_work(network: UNet3D, slice_extent: Extent) -> float:
    """Return what a slice of a column costs, in pairs of channels of a convolution."""
    given = _convolutions(network, 0)[0].in_channels
    work, share = RESPONSE_WORK * given * slice_extent.whole, 1.0
    for level, (encoded, decoded) in enumerate(_areas(network, slice_extent)):
        for k, conv in enumerate(_convolutions(network, level)):
            area = encoded if k < 2 else decoded
            seen = float(conv.in_channels)
            if k == 2:
                # Of what comes from below each voxel sees fewer: see `composition`.
                taps = [count_taps(stride) for stride in network.pooling[level]]
                seen = _skipped(network, level)
                seen += (conv.in_channels - seen) * prod(taps) / 27
            work += share * area * seen * conv.out_channels
        if level < len(network.pooling):
            share /= network.pooling[level][0]
    return work


def sweep_bytes(network: UNet3D, slice_extent: Extent) -> float:
    """Return the bytes that a sweep takes.

    That is what the layers remember, the input of the convolution that has the largest,
    and on top of it the step that needs most.
    """
    depth, head = slab_depth(network), network.head.out_channels
    core, whole = slice_extent.core, slice_extent.whole
    given = _convolutions(network, 0)[0].in_channels
    size = network.head.weight.element_size()
    # Filter responses
    remembered, most = float(depth * given * whole), depth
    inputs = []
    # What the filters need in between: smoothed slices of every scale
    steps = [remembered * 2 / size]
    for level, (encoded, decoded) in enumerate(_areas(network, slice_extent)):
        for k, conv in enumerate(_convolutions(network, level)):
            area = encoded if k < 2 else decoded
            before, after = conv.in_channels, conv.out_channels
            if k == 2:
                join = _join_memory(network, level, conv, most)
                remembered += join.remembered * area
                inputs.append(join.most_input * area)
                steps.append(join.used * area)
                continue
            remembered += 2 * before * area
            # With two slices from before and one beyond the end
            inputs.append(area * before * (most + 3))
            # What it is copied from; the output, pooled
            used: float = max(before, after) * most
            if k == 0 and level == 0:
                used = after * most
            elif k == 1 and level < len(network.pooling):
                # One row of windows on the way
                windows = most / prod(network.pooling[level])
                used += after * (windows + 1.5)
            steps.append(area * used)
        if level < len(network.pooling):
            waiting = receptive_margin(network.pooling[level:], 0) + most
            remembered += decoded * _skipped(network, level) * waiting
            most = max(1, most // network.pooling[level][0])
    joined = network.head.in_channels
    if len(network.shortcut):
        width = joined - _convolutions(network, 0)[-1].out_channels
        waiting = receptive_margin(network.pooling, 0) + depth
        remembered += min(head, given) * waiting * core
        slices = depth
        if head <= given:
            slices, joined = SHORTCUT_SLICES, joined - width
        steps.append((2 * width * slices + head * depth) * core)
    # Logits, their softmax, and 64-bit numbers of the likeliest class
    single = 4 / size * (3 * head + 2)
    steps.append(depth * (joined + single) * core)
    # The logits before are still being written.
    written = 4 * head * depth * core
    return size * (remembered + max(inputs) + max(steps)) + written


class _JoinMemory(NamedTuple):
    """What joining a skip connection with what is below takes, in numbers a voxel."""

    remembered: float
    most_input: float
    used: float


def _join_memory(
    network: UNet3D, level: int, conv: torch.nn.Conv3d, most: int
) -> _JoinMemory:
    stride = network.pooling[level]
    portion = max(1, most // stride[0])
    skipped, after = _skipped(network, level), conv.out_channels
    below = (conv.in_channels - skipped) / prod(stride[1:])
    taps = count_taps(stride[0])
    return _JoinMemory(
        2 * skipped + (taps - 1) * below,
        max(skipped * (portion * stride[0] + 3), below * (portion + taps)),
        # What comes from below; the output of either part, and a block on the way
        below * portion + after * stride[0] * (2 * portion + 2),
    )


def _skipped(network: UNet3D, level: int) -> int:
    """Return the channels of a level's skip connection."""
    return _convolutions(network, level)[1].out_channels


def _areas(network: UNet3D, slice_extent: Extent) -> Iterator[tuple[float, float]]:
    """Yield the voxels of a slice that each level encodes and decodes."""
    area = slice_extent.whole
    for level, decoded in enumerate(slice_extent.decoded):
        yield area, decoded
        area /= prod(network.pooling[level][1:])
    yield area, 0.0


def _convolutions(network: UNet3D, level: int) -> list[torch.nn.Conv3d]:
    """Return the 3³ convolutions of a level, in the order in which they work."""
    parts = [network.encoder[level]]
    if level < len(network.pooling):
        parts.append(network.decoder[level])
    levels = [part for part in parts if isinstance(part, Level)]
    return [c.conv for part in levels for c in (part.first, part.second)]


def column_bytes(
    network: UNet3D, slice_extent: Extent, beside: float = BESIDE
) -> float:
    """Return the memory, in bytes, that the segmentation of a column takes.

    Parameters
    ----------
    network : UNet3D
        That of the sweep.
    slice_extent : Extent
        Of a slice.
    beside : float
        Bytes for each of its voxels for what is read, filtered and written.
    """
    # As trained, averaged, best, optimised (twice), in the network and folded
    weights = 7 * 4 * sum(p.numel() for p in network.parameters())
    weights += kernel_bytes(network)
    used = sweep_bytes(network, slice_extent) + beside * slice_extent.whole
    return FIXED + weights + used * CEILING


def kernel_bytes(network: UNet3D) -> int:
    """Return the bytes of the weights that a sweep has of its own."""
    count = 0
    for level, stride in enumerate(network.pooling):
        conv = _convolutions(network, level)[2]
        skipped = _skipped(network, level)
        taps = prod(map(count_taps, stride)) * prod(stride)
        seen = 27 * skipped + taps * (conv.in_channels - skipped)
        count += conv.out_channels * seen
    return count * network.head.weight.element_size()


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
    return min(MOST_MEMORY, SHARE * built_in_memory(device))
