"""Varied training patches: one resampling straight from the volume.

Elastic deformation, rotation, scaling and mirroring are composed into one grid, so a
patch is interpolated once and its corners are real data. What is random is drawn before
anything is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .interpolation import interpolated
from .warp import Warp

if TYPE_CHECKING:
    from .annotation import Annotation
    from .config import AugmentationConfig, Triple
    from .stem import FilterStem
    from .volume import FeatureVolume


@dataclass(frozen=True)
class Variation:
    """All that is random about one patch; drawing it needs no image.

    Parameters
    ----------
    flips : tuple of int
        Axes ZYX to mirror.
    warp : Warp, optional
        How to deform.
    contrast, brightness, bend, noise : float
        How to vary the grey values.
    noise_seed : int
        Of the noise.
    """

    flips: tuple[int, ...]
    warp: Warp | None
    contrast: float
    brightness: float
    bend: float
    noise: float
    noise_seed: int

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        config: AugmentationConfig,
        size: Triple,
        ratio: Sequence[float],
    ) -> Variation:
        """Draw how to vary a patch of shape `size` with voxels of shape `ratio`."""
        flips = tuple(a for a in range(3) if config.flip[a] and rng.integers(2))
        warp = None
        if rng.random() < config.warp_probability:
            warp = Warp.draw(rng, config, size, ratio)
        contrast = float(np.exp(rng.uniform(-1, 1) * np.log1p(config.contrast)))
        brightness = float(rng.uniform(-1, 1)) * config.brightness
        bend = float(rng.uniform(-1, 1)) * config.gamma
        noise = float(rng.random()) * config.noise
        seed = int(rng.integers(2**31)) if noise else 0
        return cls(flips, warp, contrast, brightness, bend, noise, seed)


@dataclass(frozen=True)
class PatchPlace:
    """Where a patch is taken from, and where its anchor lies in it.

    Parameters
    ----------
    anchor : (int, int, int)
        The labelled voxel of the volume that the patch is laid around.
    low : (int, int, int)
        First voxel of the patch, where it is not deformed.
    size : (int, int, int)
        Shape of the patch.
    """

    anchor: Triple
    low: Triple
    size: Triple

    @classmethod
    def around(
        cls,
        anchor: Triple,
        size: Triple,
        centre: Triple,
        shape: Triple,
        move_inside: bool = True,
    ) -> PatchPlace:
        """Lay a patch so that the anchor comes to lie at `centre`, if possible.

        With `move_inside`, a patch that would reach out of the volume of shape
        `shape` is moved into it.
        """
        z, y, x = (
            min(max(a - c, 0), max(0, n - s)) if move_inside else a - c
            for a, c, s, n in zip(anchor, centre, size, shape, strict=True)
        )
        return cls(anchor, (z, y, x), size)

    def position(self, flips: Sequence[int] = ()) -> Triple:
        """Return where the anchor lies in the patch, mirrored along `flips`."""
        z, y, x = (
            n - 1 - (a - b) if axis in flips else a - b
            for axis, (a, b, n) in enumerate(
                zip(self.anchor, self.low, self.size, strict=True)
            )
        )
        return z, y, x


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
    place = PatchPlace.around(anchor, size, centre, volume.shape, move_inside)
    variation = Variation.draw(rng, config, size, volume.stem.ratio)
    features, labels = read_patch(volume, annotation, place, variation)
    return features, labels, place.position(variation.flips)


def read_patch(
    volume: FeatureVolume,
    annotation: Annotation,
    place: PatchPlace,
    variation: Variation,
) -> tuple[Tensor, Tensor]:
    """Read features and labels of a patch, varied: see `sample_patch`."""
    if variation.warp:
        features, labels = _warped(volume, annotation, place, variation.warp)
    else:
        features = volume.crop(place.low, place.size)
        painted = annotation.crop(place.low, place.size)
        labels = torch.from_numpy(painted).to(volume.device)
    features = features.flip([axis + 1 for axis in variation.flips])
    vary_grey_values(features, volume.stem, variation)
    return features, labels.flip(variation.flips)


def _warped(
    volume: FeatureVolume, annotation: Annotation, place: PatchPlace, warp: Warp
) -> tuple[Tensor, Tensor]:
    ratio = volume.stem.ratio
    moves = warp.positions(place.size, place.position(), ratio, volume.device)
    anchor = np.asarray(place.anchor)
    axes = (1, 2, 3)
    limits = torch.stack([moves.amin(axes).floor(), moves.amax(axes).ceil()]).cpu()
    low, high = anchor + limits.numpy().astype(int)
    last = np.array(volume.shape) - 1
    first, end = np.clip(low, 0, last), np.clip(high, 0, last)
    # What lies outside is continued from the border: nothing is computed for it.
    found = volume.crop(first.tolist(), (end - first + 1).tolist())
    features = interpolated(found, moves - _column(first - anchor, moves))
    painted = annotation.crop(low.tolist(), (high - low + 1).tolist())
    nearest = (moves - _column(low - anchor, moves)).round_().long()
    z, y, x = nearest.flatten(1)
    labels = torch.from_numpy(painted).to(volume.device)[z, y, x]
    return features, labels.view(place.size)


def _column(values: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like).view(-1, 1, 1, 1)


def vary_grey_values(features: Tensor, stem: FilterStem, variation: Variation) -> None:
    """Vary contrast, brightness, grey-value curve and noise of a patch, in place.

    Contrast and brightness act on image and filter responses as they would had the
    image been varied before the filters; curve and noise on the image alone.
    """
    contrast, brightness = variation.contrast, variation.brightness
    bend, noise = variation.bend, variation.noise
    shape = (-1, 1, 1, 1)
    shift = (contrast - 1) * stem.mean + brightness * stem.brightness_response
    features.mul_(contrast).add_((shift / stem.deviation).view(shape))
    image = features[: stem.channels]
    if bend:
        # A smooth monotone curve that fixes the mean: x + b x |x| / (1 + |x|).
        image.add_(bend * image * image.abs() / (1 + image.abs()))
    if noise:
        generator = torch.Generator(device=image.device)
        generator.manual_seed(variation.noise_seed)
        image.add_(
            torch.randn(image.shape, generator=generator, device=image.device),
            alpha=noise,
        )
