"""Training episodes: a volume, a few annotated slices, and all the rest to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from synthetic_volumes import random_volume
from torch import Tensor
from torch.utils.data import Dataset

from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.planning import derive_pooling
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.volume import FeatureVolume

SCALES = (1.0, 2.0, 4.0, 8.0)
PATCHES = 4
MOST_CLASSES = 4


@dataclass(frozen=True)
class Grid:
    """Size and spacing of a kind of volume."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    share: float

    @property
    def pooling(self) -> tuple[tuple[int, int, int], ...]:
        """Strides as a new model of such a volume has them."""
        return derive_pooling(self.spacing, 4, self.shape)


GRIDS = (
    Grid((80, 80, 80), (1.0, 1.0, 1.0), (16, 48, 48), 0.65),
    Grid((40, 96, 96), (2.2, 1.0, 1.0), (8, 48, 48), 0.2),
    Grid((24, 112, 112), (4.5, 1.0, 1.0), (8, 56, 56), 0.15),
)


@dataclass(frozen=True)
class SyntheticVolume:
    """What the network sees of a random volume, and what there is to be told."""

    grid: Grid
    features: Tensor
    """(C, Z, Y, X) float16."""
    kind: Tensor
    """(Z, Y, X) uint8."""
    classes: list[tuple[int, ...]]


@dataclass(frozen=True)
class Episode:
    """Patches of one volume."""

    grid: Grid
    features: Tensor
    """(N, C, Z, Y, X) float32."""
    target: Tensor
    """(N, Z, Y, X) int64, classes from 0."""
    annotated: Tensor
    """(N, Z, Y, X) bool: what the person has labelled."""
    n_classes: int


class SyntheticVolumes(Dataset[SyntheticVolume]):
    """Random volumes by number, the same in every run.

    Parameters
    ----------
    first, count : int
        Numbers of the volumes.
    """

    def __init__(self, first: int, count: int) -> None:
        self._first, self._count = first, count

    def __len__(self) -> int:
        """Return how many there are."""
        return self._count

    def __getitem__(self, index: int) -> SyntheticVolume:
        """Make one volume."""
        if index >= self._count:
            raise IndexError(index)
        torch.set_num_threads(1)
        keep_freed_memory()
        number = self._first + index
        rng = np.random.default_rng((20162, number))
        grid = GRIDS[rng.choice(len(GRIDS), p=[grid.share for grid in GRIDS])]
        attempt, classes = 0, []
        while not classes:
            seed = 100 * number + attempt
            image, kind, related = random_volume(seed, grid.shape, grid.spacing)
            counts = np.bincount(kind.ravel(), minlength=256) / kind.size
            classes = [g for g in related if 0.005 < counts[list(g)].sum() < 0.9]
            attempt += 1
        stem = FilterStem(1, SCALES, grid.spacing)
        volume = image[None]
        features = FeatureVolume(volume, IntensityStatistics.from_image(volume), stem)
        responses = features.compute((0, 0, 0), grid.shape)
        flat = responses.flatten(1)
        deviation = flat.std(1).clamp_min(1e-6)[:, None]
        flat.sub_(flat.mean(1, keepdim=True)).div_(deviation)
        responses = responses.clamp_(-100, 100).half()
        return SyntheticVolume(grid, responses, torch.from_numpy(kind), classes)


def draw_episode(volume: SyntheticVolume, rng: np.random.Generator) -> Episode:
    """Draw patches and choose what the person means and has annotated."""
    target = choose_classes(volume, rng)
    size, normal = list(volume.grid.patch), 0
    if volume.grid.spacing[0] == 1:
        normal = int(rng.integers(3))
        size[0], size[normal] = size[normal], size[0]
    foreground = torch.nonzero(target)
    features, targets, annotated = [], [], []
    for k in range(PATCHES):
        centre = rng.uniform(size=3) * target.shape
        if k % 2 == 0:
            centre = foreground[rng.integers(len(foreground))].numpy()
        low = [
            int(np.clip(c - s // 2, 0, n - s))
            for c, s, n in zip(centre, size, target.shape, strict=True)
        ]
        box = tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))
        mask = torch.zeros(size, dtype=torch.bool)
        if k < PATCHES - 1:
            position = int(np.clip(centre[normal] - low[normal], 0, size[normal] - 1))
            mask.select(normal, position).fill_(True)
        flips = [axis for axis in range(3) if rng.random() < 0.5]
        features.append(
            volume.features[(slice(None), *box)].flip([a + 1 for a in flips])
        )
        targets.append(target[box].flip(flips))
        annotated.append(mask.flip(flips))
    return Episode(
        volume.grid,
        torch.stack(features).float().contiguous(memory_format=torch.channels_last_3d),
        torch.stack(targets),
        torch.stack(annotated),
        int(target.max()) + 1,
    )


def choose_classes(volume: SyntheticVolume, rng: np.random.Generator) -> Tensor:
    """Return the class (Z, Y, X) int64 of every voxel: kinds put together at random."""
    most = MOST_CLASSES - 1 if rng.random() < 0.5 else 1
    table = torch.zeros(256, dtype=torch.int64)
    taken: set[int] = set()
    count = 0
    for chosen in rng.permutation(len(volume.classes)):
        group: Sequence[Any] = volume.classes[chosen]
        if count < most and not taken & set(group):
            count += 1
            taken |= set(group)
            table[list(group)] = count
    return table[volume.kind.long()]
