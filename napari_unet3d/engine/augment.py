"""Varied training patches: one resampling straight from the volume.

Elastic deformation, rotation, scaling and mirroring are composed into one grid, so a
patch is interpolated once and its corners are real data. Smooth deformation follows
section 3.1 of the paper: random vectors on a coarse grid, cubic B-spline between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from .annotation import Annotation
    from .config import AugmentationConfig, Triple
    from .stem import FilterStem
    from .volume import FeatureVolume


@dataclass(frozen=True)
class Warp:
    """A map from the voxels of a patch to positions in the volume.

    Parameters
    ----------
    matrix : (3, 3) ndarray
        Rotation and scaling, in units of the finest axis.
    control : (3, Z, Y, X) ndarray
        B-spline coefficients of the displacement, in voxels of the finest axis.
    spacing : float
        Voxels of the finest axis between control points.
    """

    matrix: NDArray[np.float64]
    control: NDArray[np.float64]
    spacing: float

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        config: AugmentationConfig,
        size: Triple,
        ratio: Sequence[float],
    ) -> Warp:
        """Draw a warp for patches of shape `size` with voxels of shape `ratio`."""
        angles = np.radians(rng.uniform(-config.rotation, config.rotation, 3))
        scale = np.exp(rng.uniform(-1, 1, 3) * np.log1p(config.scaling))
        spacing = config.elastic_spacing
        points = [int(n * r / spacing) + 4 for n, r in zip(size, ratio, strict=True)]
        control = rng.normal(0, config.elastic_sd, (3, *points))
        return cls(_rotation(angles) * scale, control, spacing)

    def positions(
        self, size: Triple, centre: Sequence[float], ratio: Sequence[float]
    ) -> NDArray[np.float64]:
        """Return where the voxels of a patch come from, relative to `centre`.

        The centre stays where it is, so the annotated slice stays in the patch.

        Returns
        -------
        (3, Z, Y, X) ndarray
            Offsets in voxels of the volume.
        """
        offsets = np.meshgrid(
            *[
                (np.arange(n) - c) * r
                for n, c, r in zip(size, centre, ratio, strict=True)
            ],
            indexing="ij",
        )
        moved = np.tensordot(self.matrix, np.stack(offsets), axes=1)
        moved += self._displacement(size, centre, ratio)
        moved /= np.asarray(ratio).reshape(3, 1, 1, 1)
        return moved

    def _displacement(
        self, size: Triple, centre: Sequence[float], ratio: Sequence[float]
    ) -> NDArray[np.float64]:
        bases = [
            cubic_b_spline(np.arange(n) * r / self.spacing, points)
            for n, r, points in zip(size, ratio, self.control.shape[1:], strict=True)
        ]
        at_centre = [
            cubic_b_spline(np.array([c * r / self.spacing]), points)
            for c, r, points in zip(centre, ratio, self.control.shape[1:], strict=True)
        ]
        return _tensor_product(self.control, bases) - _tensor_product(
            self.control, at_centre
        )


def cubic_b_spline(positions: NDArray[np.floating], points: int) -> NDArray[np.float64]:
    """Return the weights of `points` coefficients at positions in knot spacings.

    Returns
    -------
    (len(positions), points) ndarray
        Position 0 lies on coefficient 1; every row sums to 1.

    Examples
    --------
    >>> cubic_b_spline(np.array([0.0]), 4).round(3).tolist()
    [[0.167, 0.667, 0.167, 0.0]]
    """
    distance = np.abs(positions[:, None] - (np.arange(points) - 1))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights: NDArray[np.float64] = np.where(distance < 1, near, far)
    return weights


def sample_patch(
    volume: FeatureVolume,
    annotation: Annotation,
    anchor: Triple,
    size: Triple,
    centre: Triple,
    config: AugmentationConfig,
    rng: np.random.Generator,
    move_inside: bool = True,
) -> tuple[Tensor, Tensor, Triple]:
    """Draw one varied patch around a labelled voxel.

    Parameters
    ----------
    volume : FeatureVolume
        The image.
    annotation : Annotation
        Its labels.
    anchor : (int, int, int)
        The voxel of the volume that comes to lie at `centre` of the patch.
    size, centre : (int, int, int)
        Shape of the patch and wished position of the anchor in it.
    config : AugmentationConfig
        How much to vary.
    rng : numpy.random.Generator
        Source of all randomness.
    move_inside : bool
        Whether a patch that would reach out of the volume is moved into it.

    Returns
    -------
    features : Tensor of shape (C, Z, Y, X), float32
    labels : Tensor of shape (Z, Y, X), uint8
        0 where unlabelled and outside the volume.
    centre : (int, int, int)
        Where the anchor lies.
    """
    low = [
        min(max(a - c, 0), max(0, n - s)) if move_inside else a - c
        for a, c, s, n in zip(anchor, centre, size, volume.shape, strict=True)
    ]
    position = [a - b for a, b in zip(anchor, low, strict=True)]
    flips = [axis for axis in range(3) if config.flip[axis] and rng.integers(2)]
    if rng.random() < config.warp_probability:
        features, labels = _warped(
            volume, annotation, anchor, size, position, config, rng
        )
    else:
        features = volume.crop(low, size)
        labels = torch.from_numpy(annotation.crop(low, size)).to(volume.device)
    for axis in flips:
        position[axis] = size[axis] - 1 - position[axis]
    features = features.flip([axis + 1 for axis in flips])
    vary_grey_values(features, volume.stem, config, rng)
    z, y, x = position
    return features, labels.flip(flips), (z, y, x)


def _warped(
    volume: FeatureVolume,
    annotation: Annotation,
    anchor: Triple,
    size: Triple,
    centre: Sequence[int],
    config: AugmentationConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    ratio = volume.stem.ratio
    warp = Warp.draw(rng, config, size, ratio)
    positions = warp.positions(size, centre, ratio)
    positions += np.asarray(anchor).reshape(3, 1, 1, 1)
    low = np.floor(positions.min(axis=(1, 2, 3))).astype(int)
    high = np.ceil(positions.max(axis=(1, 2, 3))).astype(int)
    last = np.array(volume.shape) - 1
    first, end = np.clip(low, 0, last), np.clip(high, 0, last)
    # What lies outside is continued from the border: nothing is computed for it.
    grid = _grid(positions, first, end).to(volume.device)
    found = volume.crop(first.tolist(), (end - first + 1).tolist())
    features = functional.grid_sample(found[None], grid, "bilinear", "border", True)[0]
    box = (high - low + 1).tolist()
    painted = torch.from_numpy(annotation.crop(low.tolist(), box)).to(volume.device)
    grid = _grid(positions, low, high).to(volume.device)
    labels = functional.grid_sample(
        painted[None, None].float(), grid, "nearest", "zeros", True
    )[0, 0]
    return features, labels.to(torch.uint8)


def _grid(
    positions: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> Tensor:
    """Express positions (3, Z, Y, X) in the box from `low` to `high` from -1 to 1."""
    grid = (
        2
        * (positions - low.reshape(3, 1, 1, 1))
        / np.maximum(high - low, 1).reshape(3, 1, 1, 1)
        - 1
    )
    return torch.from_numpy(
        np.ascontiguousarray(grid[::-1].transpose(1, 2, 3, 0), np.float32)
    )[None]


def vary_grey_values(
    features: Tensor,
    stem: FilterStem,
    config: AugmentationConfig,
    rng: np.random.Generator,
) -> None:
    """Vary contrast, brightness, grey-value curve and noise of a patch, in place.

    Contrast and brightness act on image and filter responses as they would had the
    image been varied before the filters; curve and noise on the image alone.
    """
    contrast = float(np.exp(rng.uniform(-1, 1) * np.log1p(config.contrast)))
    brightness = float(rng.uniform(-1, 1)) * config.brightness
    bend = float(rng.uniform(-1, 1)) * config.gamma
    noise = float(rng.random()) * config.noise
    shape = (-1, 1, 1, 1)
    shift = (contrast - 1) * stem.mean + brightness * stem.brightness_response
    features.mul_(contrast).add_((shift / stem.deviation).view(shape))
    image = features[: stem.channels]
    if bend:
        # A smooth monotone curve that fixes the mean: x + b x |x| / (1 + |x|).
        image.add_(bend * image * image.abs() / (1 + image.abs()))
    if noise:
        seed = int(rng.integers(2**31))
        generator = torch.Generator(device=image.device).manual_seed(seed)
        image.add_(
            torch.randn(image.shape, generator=generator, device=image.device),
            alpha=noise,
        )


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate about Z, then Y, then X, by angles in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        matrix = turn @ matrix
    return matrix


def _tensor_product(
    control: NDArray[np.float64], bases: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Evaluate a spline: control (3, a, b, c), bases (Z, a), (Y, b), (X, c)."""
    value = np.tensordot(control, bases[2], axes=(3, 1))
    value = np.tensordot(value, bases[1], axes=(2, 1))
    value = np.tensordot(value, bases[0], axes=(1, 1))
    return value.transpose(0, 3, 2, 1)
