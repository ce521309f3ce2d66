"""Fixed multi-scale filter responses as further input channels of the network.

Those are the features a pixel classifier works with: intensity, edges and the Hessian's
eigenvalues at a few scales. A network that need not learn them first is ahead in the
minutes a person waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .eigenvalues import symmetric_eigenvalues

if TYPE_CHECKING:
    from .config import Spacing
    from .regions import Range

RESPONSES_PER_SCALE = 5
"""Smoothed intensity, gradient magnitude, three eigenvalues of the Hessian."""

PORTION = {"cpu": 2**17, "cuda": 2**21}
"""Voxels, of all channels together, whose derivatives are computed at once, about.

What is needed in between is many times as large as they are, and quick where it stays
in the processor's cache.
"""

SMOOTHED = 128
"""Voxels along an axis that are smoothed in one matrix product."""


LEAST_DEVIATION, LEAST_SHARE = 0.01, 0.1
"""Deviation that a response is taken to have at least, and its share of the largest
among the channels of the image."""


class FilterStem(nn.Module):
    """Append filter responses to every channel of an image.

    The responses are taken inside a margin that the caller provides, so that those of
    a part of the volume equal those of the whole.

    Parameters
    ----------
    channels : int
        Channels of the image.
    scales : sequence of float
        Standard deviations of the Gaussians, in voxels of the finest axis; empty for
        the image alone.
    spacing : (float, float, float)
        Size of a voxel ZYX; only its proportions matter.
    """

    mean: Tensor
    deviation: Tensor
    brightness_response: Tensor
    """How much each output changes when the image becomes brighter by one."""

    def __init__(
        self, channels: int, scales: Sequence[float], spacing: Spacing = (1.0, 1.0, 1.0)
    ) -> None:
        super().__init__()
        self.channels = channels
        self.scales = tuple(float(scale) for scale in scales)
        self.ratio = tuple(float(s) / min(spacing) for s in spacing)
        count = channels * (1 + RESPONSES_PER_SCALE * len(self.scales))
        self.out_channels = count
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        per_scale = [1.0] + [0.0] * (RESPONSES_PER_SCALE - 1)
        response = torch.tensor([1.0, *(per_scale * len(self.scales))])
        self.register_buffer(
            "brightness_response",
            response.repeat_interleave(channels),
            persistent=False,
        )
        self._kernels = [
            [_gaussian(scale / ratio) for ratio in self.ratio] for scale in self.scales
        ]

    @property
    def margin(self) -> tuple[int, int, int]:
        """Voxels ZYX that the input needs around the output, on every side."""
        if not self.scales:
            return 0, 0, 0
        z, y, x = (
            max(len(kernels[axis]) // 2 for kernels in self._kernels) + 1
            for axis in range(3)
        )
        return z, y, x

    def forward(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        """Compute the responses inside the margin of a normalised image.

        Parameters
        ----------
        image : Tensor of shape (C, Z, Y, X)
            Normalised grey values, `margin` included.
        out : Tensor of the returned shape, optional
            Where to write them, in any order in memory.

        Returns
        -------
        Tensor of shape (`out_channels`, Z - 2 mz, Y - 2 my, X - 2 mx)
            Image and responses, standardised with `mean` and `deviation`.
        """
        centre = _inner(image, self.margin)
        if out is None:
            out = image.new_empty((self.out_channels, *centre.shape[1:]))
        mean, deviation = (t.view(-1, 1, 1, 1) for t in (self.mean, self.deviation))
        smooth = [self._smoothed(image, kernels) for kernels in self._kernels]
        portion = PORTION.get(image.device.type, PORTION["cpu"]) // self.channels
        for z, y in _portions(centre.shape[1:], portion):
            parts = [centre[:, z[0] : z[1], y[0] : y[1]]]
            for scale, whole in zip(self.scales, smooth, strict=True):
                around = whole[:, z[0] : z[1] + 2, y[0] : y[1] + 2]
                parts += self._derivatives(around, scale)
            responses = torch.cat(parts).sub_(mean).div_(deviation)
            out[:, z[0] : z[1], y[0] : y[1]] = responses
        return out

    def fit(self, blocks: Sequence[Tensor]) -> None:
        """Set mean and deviation from responses of blocks (C, Z, Y, X) with margins."""
        self.mean.zero_()
        self.deviation.fill_(1)
        values = torch.cat([self(block).flatten(1) for block in blocks], dim=1).double()
        self.mean.copy_(values.mean(dim=1))
        deviation = values.std(dim=1)
        # A channel that is flat here need not be so elsewhere: what it shows there must
        # not become thousands. Grey values have a deviation of 1.
        like = deviation.view(-1, self.channels)
        like = torch.maximum(like, like.amax(dim=1, keepdim=True) * LEAST_SHARE)
        self.deviation.copy_(like.flatten().clamp_min(LEAST_DEVIATION))

    def _smoothed(self, image: Tensor, kernels: Sequence[Sequence[float]]) -> Tensor:
        """Smooth along all axes, keeping a margin of one voxel."""
        for axis, (margin, kernel) in enumerate(zip(self.margin, kernels, strict=True)):
            excess = margin - len(kernel) // 2 - 1
            image = image.narrow(axis + 1, excess, image.shape[axis + 1] - 2 * excess)
            image = _smooth(image, kernel, axis)
        return image

    def _derivatives(self, smooth: Tensor, scale: float) -> list[Tensor]:
        """Return the scale-normalised responses; `smooth` has a margin of one voxel."""
        step = [scale / ratio for ratio in self.ratio]
        z, y, x = 1, 2, 3
        along_z = _difference(smooth, z)
        along_y = _difference(_trimmed(smooth, z), y)
        centre = _inner(smooth, (1, 1, 1))
        first = (
            _trimmed(along_z, y, x),
            _trimmed(along_y, x),
            _difference(_trimmed(smooth, z, y), x),
        )
        pure = [
            _curvature(smooth, axis, centre).mul_(step[axis - 1] ** 2)
            for axis in (z, y, x)
        ]
        mixed = [
            _difference(_trimmed(along_z, x), y).mul_(step[0] * step[1] / 4),
            _difference(_trimmed(along_z, y), x).mul_(step[0] * step[2] / 4),
            _difference(along_y, x).mul_(step[1] * step[2] / 4),
        ]
        magnitude = torch.mul(first[0], first[0]).mul_((step[0] / 2) ** 2)
        for axis in (1, 2):
            magnitude.addcmul_(first[axis], first[axis], value=(step[axis] / 2) ** 2)
        return [
            centre,
            magnitude.sqrt_(),
            *symmetric_eigenvalues(*pure, *mixed),
        ]


def _portions(shape: Sequence[int], voxels: int) -> Iterator[tuple[Range, Range]]:
    """Cut a box (Z, Y, X) along Z, or along Y where a slice is large, into portions."""
    depth, height, width = shape
    rows = min(height, max(1, voxels // width))
    slices = max(1, voxels // (height * width))
    for z in range(0, depth, slices):
        for y in range(0, height, rows):
            yield (z, min(z + slices, depth)), (y, min(y + rows, height))


def _gaussian(sd: float) -> tuple[float, ...]:
    """Weights of a Gaussian, cut at three standard deviations."""
    radius = int(np.ceil(3 * sd)) if sd > 0.3 else 0
    x = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (x / max(sd, 0.3)) ** 2)
    return tuple((weights / weights.sum()).tolist())


def _smooth(image: Tensor, kernel: Sequence[float], axis: int) -> Tensor:
    """Convolve (C, Z, Y, X) along a spatial axis, keeping only what needs no padding.

    A banded matrix product: a small dense product is faster here than a convolution
    with a single channel.
    """
    reach = len(kernel) - 1
    if not reach:
        return image
    size = image.shape[axis + 1] - reach
    # In pieces: the matrix of a long axis would be nearly all zeros.
    pieces = -(-size // SMOOTHED)
    step = -(-size // pieces)
    band = _band(tuple(kernel), min(step, size), image.dtype, image.device)
    parts = []
    for low in range(0, size, step):
        count = min(step, size - low)
        part = image.narrow(axis + 1, low, count + reach)
        parts.append(_times(band[:count, : count + reach], part, axis))
    return torch.cat(parts, dim=axis + 1) if len(parts) > 1 else parts[0]


@lru_cache(64)
def _band(
    kernel: tuple[float, ...], rows: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the matrix whose product with a column is its convolution."""
    band = np.zeros((rows, rows + len(kernel) - 1))
    diagonal = np.arange(rows)
    for offset, weight in enumerate(kernel):
        band[diagonal, diagonal + offset] = weight
    return torch.from_numpy(band).to(device, dtype)


def _times(matrix: Tensor, image: Tensor, axis: int) -> Tensor:
    """Multiply every column along an axis of (C, Z, Y, X) with a matrix."""
    if axis == 2:
        return functional.linear(image, matrix)
    if axis == 0 and image.stride(1) == image.stride(2) * image.shape[2]:
        # Slices without gaps between their rows are columns of one matrix.
        product: Tensor = torch.matmul(matrix, image.flatten(2))
        return product.view(*product.shape[:2], *image.shape[2:])
    moved = image.movedim(axis + 1, -2)
    return torch.matmul(matrix, moved).movedim(-2, axis + 1)


def _inner(image: Tensor, margin: Sequence[int]) -> Tensor:
    for axis, m in enumerate(margin):
        if m:
            image = image.narrow(axis + 1, m, image.shape[axis + 1] - 2 * m)
    return image


def _trimmed(image: Tensor, *dims: int) -> Tensor:
    """Drop a margin of one voxel along some dimensions."""
    for dim in dims:
        image = image.narrow(dim, 1, image.shape[dim] - 2)
    return image


def _difference(image: Tensor, dim: int) -> Tensor:
    """Return twice the central difference, inside a margin of one along `dim`."""
    count = image.shape[dim] - 2
    return image.narrow(dim, 2, count) - image.narrow(dim, 0, count)


def _curvature(image: Tensor, dim: int, centre: Tensor) -> Tensor:
    """Return the second difference along `dim`, inside a margin along all axes."""
    image = _trimmed(image, *(k for k in (1, 2, 3) if k != dim))
    count = image.shape[dim] - 2
    outer = image.narrow(dim, 2, count) + image.narrow(dim, 0, count)
    return outer.sub_(centre, alpha=2)
