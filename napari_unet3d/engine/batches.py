"""Batches of training patches, and the region of them that is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .augment import PatchPlace, Variation, read_patch
from .patches import PatchLocation, PatchSampler
from .ranks import ALONE, Ranks
from .valid_padding import valid_output

if TYPE_CHECKING:
    from .annotation import Annotation
    from .config import AugmentationConfig, ModelConfig, Triple
    from .patch_plan import PatchPlan
    from .regions import Region
    from .volume import FeatureVolume

SLAB = 2
"""Voxels on either side of the annotated slice in which the logits are evaluated."""


@dataclass(frozen=True)
class Batch:
    """What a training step is computed from."""

    features: Tensor
    """(N, C, Z, Y, X) float32."""
    target: Tensor
    """(N, Z, Y, X) int64, of the region: classes from 0, or `UNLABELLED`."""
    region: Region | None
    """The part of the patch whose logits are evaluated; `None` for all."""


@dataclass(frozen=True)
class Patches:
    """What a batch is made of."""

    features: Tensor
    """(N, C, Z, Y, X) float32."""
    labels: Tensor
    """(N, Z, Y, X) uint8, 0 where unlabelled."""
    normal: int
    """Axis across the annotated slices."""
    positions: list[int]
    """Where the annotated slice lies in each patch, those of other ranks included."""
    inner: Triple
    """Size of what unpadded convolutions leave of a patch."""


class BatchSource:
    """Draw varied batches around labelled voxels.

    Parameters
    ----------
    volumes : sequence of FeatureVolume
        The images.
    annotations : sequence of Annotation
        Their labels, in the same order.
    augmentation : AugmentationConfig
        How much to vary.
    model : ModelConfig
        The network's; its padding decides what of a patch is evaluated.
    """

    def __init__(
        self,
        volumes: Sequence[FeatureVolume],
        annotations: Sequence[Annotation],
        augmentation: AugmentationConfig,
        model: ModelConfig,
    ) -> None:
        self._volumes = volumes
        self._augmentation = augmentation
        self._model = model
        self._sampler = PatchSampler(annotations)

    def draw(
        self, plan: PatchPlan, rng: np.random.Generator, ranks: Ranks = ALONE
    ) -> Batch:
        """Draw one batch, or what this rank has of it.

        All its patches lie along slices of the same orientation. Every rank draws all
        that is random of the whole batch, and reads its own patches.
        """
        return self.complete(self.read(plan, rng, ranks), ranks)

    def read(
        self, plan: PatchPlan, rng: np.random.Generator, ranks: Ranks = ALONE
    ) -> Patches:
        """Do the part of `draw` that each rank does by itself."""
        locations = self._sampler.draw(plan.batch_size, rng)
        normal = locations[0].normal
        size = plan.sizes[normal]
        inner = valid_output(size, self._model) or size
        drawn = [self._lay(location, size, inner, rng) for location in locations]
        patches = [
            read_patch(
                self._volumes[locations[k].volume],
                self._sampler.annotations[locations[k].volume],
                *drawn[k],
            )
            for k in ranks.share(len(drawn))
        ]
        # Copied as they lie in memory, channels last
        features = torch.stack([patch[0].movedim(0, -1) for patch in patches])
        features = features.movedim(-1, 1)
        labels = torch.stack([patch[1] for patch in patches])
        positions = [
            place.position(variation.flips)[normal] for place, variation in drawn
        ]
        return Patches(features, labels, normal, positions, inner)

    def complete(self, patches: Patches, ranks: Ranks = ALONE) -> Batch:
        """Choose with all ranks what of the patches is evaluated."""
        labels = patches.labels
        if self._model.padding == "valid":
            z, y, x = labels.shape[1:]
            target = _target(labels, _centre((z, y, x), patches.inner))
            return Batch(patches.features, target, None)
        region = choose_region(labels, patches.normal, patches.positions, ranks)
        return Batch(patches.features, _target(labels, region), region)

    def _lay(
        self,
        location: PatchLocation,
        size: Triple,
        inner: Triple,
        rng: np.random.Generator,
    ) -> tuple[PatchPlace, Variation]:
        """Draw where a patch lies around a labelled voxel, and how it is varied."""
        shifts = [int(rng.integers(-(m // 4), m // 4 + 1)) for m in inner]
        z, y, x = (
            n // 2 + shift * (axis != location.normal)
            for axis, (n, shift) in enumerate(zip(size, shifts, strict=True))
        )
        volume = self._volumes[location.volume]
        place = PatchPlace.around(
            location.anchor,
            size,
            (z, y, x),
            volume.shape,
            # Unpadded convolutions evaluate the middle only, where a patch at the
            # border of the volume has to keep its labels.
            move_inside=self._model.padding == "same",
        )
        ratio = volume.stem.ratio
        return place, Variation.draw(rng, self._augmentation, size, ratio)


def choose_region(
    labels: Tensor, normal: int, positions: Sequence[int], ranks: Ranks = ALONE
) -> Region:
    """Choose the slab around the annotated slices, or the whole patch.

    The loss lives on a few slices. The decoder is evaluated in a slab around them,
    which costs a fraction, unless most of the labelled voxels would be left out.

    Parameters
    ----------
    labels : Tensor of shape (N, Z, Y, X)
        0 where unlabelled; of this rank's patches.
    normal : int
        Axis across the slices.
    positions : sequence of int
        Where the annotated slice lies in each patch of the whole batch, along
        `normal`.
    ranks : Ranks
        Those that have the other patches; all choose alike.
    """
    size = labels.shape[1:]
    low = max(0, min(positions) - SLAB)
    high = min(int(size[normal]), max(positions) + SLAB + 1)
    region = [(0, int(n)) for n in size]
    inside = labels.narrow(normal + 1, low, high - low).count_nonzero()
    counts = np.array([int(inside), int(labels.count_nonzero())])
    inside_all, labelled_all = ranks.add(counts)
    if 2 * inside_all >= labelled_all:
        region[normal] = (low, high)
    return region[0], region[1], region[2]


def _centre(size: Triple, inner: Triple) -> Region:
    z, y, x = (
        ((n - m) // 2, (n - m) // 2 + m) for n, m in zip(size, inner, strict=True)
    )
    return z, y, x


def _target(labels: Tensor, region: Region) -> Tensor:
    z, y, x = (slice(low, high) for low, high in region)
    return labels[:, z, y, x].long() - 1
