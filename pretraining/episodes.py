"""Training episodes: a volume, a few annotated slices, and all the rest to be told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from synthetic_volumes import random_volume
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.planning import derive_pooling
from napari_unet3d.engine.stem import FilterStem

SCALES = (1.0, 2.0, 4.0, 8.0)
PATCHES = 4
MOST_CLASSES = 8


@dataclass(frozen=True)
class Grid:
    """Size and spacing of a kind of volume."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    """Thin along Z, across the annotated slice; along other axes where voxels are
    cubes and those are annotated."""
    share: float

    @property
    def pooling(self) -> tuple[tuple[int, int, int], ...]:
        """Strides as a new model of such a volume has them."""
        return derive_pooling(self.spacing, 4, self.shape)

    @property
    def normals(self) -> int:
        """Axes, from Z on, that annotated slices may lie across."""
        return 3 if self.spacing[0] == 1 else 1


GRIDS = (
    Grid((80, 80, 80), (1.0, 1.0, 1.0), (16, 48, 48), 0.65),
    Grid((40, 96, 96), (2.2, 1.0, 1.0), (8, 48, 48), 0.2),
    Grid((24, 112, 112), (4.5, 1.0, 1.0), (8, 56, 56), 0.15),
)


@dataclass(frozen=True)
class Episode:
    """Patches of one volume, and what of them a person has labelled."""

    corners: tuple[tuple[int, int, int], ...]
    """First voxel ZYX of each patch."""
    flips: tuple[tuple[int, ...], ...]
    """Axes ZYX along which each is mirrored."""
    target: NDArray[np.uint8]
    """(N, Z, Y, X) classes from 0."""
    annotated: NDArray[np.bool_]
    """(N, Z, Y, X)."""
    n_classes: int


@dataclass(frozen=True)
class SyntheticVolume:
    """A random volume and the episodes that are played on it."""

    grid: Grid
    normal: int
    """Axis across the annotated slices."""
    image: Tensor
    """(Z, Y, X) float32, normalised."""
    episodes: tuple[Episode, ...]


@dataclass(frozen=True)
class Batch:
    """An episode each of several volumes of one kind."""

    grid: Grid
    features: Tensor
    """(E, N, C, Z, Y, X) float32."""
    target: Tensor
    """(E, N, Z, Y, X) int64."""
    annotated: Tensor
    """(E, N, Z, Y, X) bool, as many voxels of every episode."""
    n_classes: tuple[int, ...]


class SyntheticVolumes(Dataset[SyntheticVolume]):
    """Random volumes by number, the same in every run.

    Parameters
    ----------
    first, count : int
        Numbers of the volumes.
    episodes : int
        Of each of them.
    """

    def __init__(self, first: int, count: int, episodes: int) -> None:
        self._first, self._count, self._episodes = first, count, episodes

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
        attempt, groups = 0, []
        while not groups:
            seed = 100 * number + attempt
            image, kind, related = random_volume(seed, grid.shape, grid.spacing)
            counts = np.bincount(kind.ravel(), minlength=256) / kind.size
            groups = [g for g in related if 0.005 < counts[list(g)].sum() < 0.9]
            attempt += 1
        statistics = IntensityStatistics.from_image(image[None])
        normal = int(rng.integers(grid.normals))
        return SyntheticVolume(
            grid,
            normal,
            torch.from_numpy(statistics.apply(image[None])[0]),
            tuple(
                draw_episode(choose_classes(kind, groups, rng), grid, normal, rng)
                for _ in range(self._episodes)
            ),
        )


def choose_classes(
    kind: NDArray[np.uint8], groups: list[tuple[int, ...]], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the class from 0 of every voxel: kinds put together at random."""
    most = int(rng.choice([1, 1, 2, 3, MOST_CLASSES - 1]))
    table = np.zeros(256, np.uint8)
    taken: set[int] = set()
    count = 0
    for chosen in rng.permutation(len(groups)):
        group = groups[chosen]
        if count < most and not taken & set(group):
            count += 1
            taken |= set(group)
            table[list(group)] = count
    return table[kind]


def draw_episode(
    target: NDArray[np.uint8], grid: Grid, normal: int, rng: np.random.Generator
) -> Episode:
    """Draw patches of a volume, of which all but the last have an annotated slice."""
    size = list(grid.patch)
    size[0], size[normal] = size[normal], size[0]
    foreground = np.flatnonzero(target)
    corners, flips, targets, annotated = [], [], [], []
    for k in range(PATCHES):
        centre = rng.uniform(size=3) * target.shape
        if k % 2 == 0:
            voxel = foreground[rng.integers(len(foreground))]
            centre = np.array(np.unravel_index(voxel, target.shape))
        z, y, x = (
            int(np.clip(c - s // 2, 0, n - s))
            for c, s, n in zip(centre, size, target.shape, strict=True)
        )
        low = (z, y, x)
        box = tuple(slice(a, a + s) for a, s in zip(low, size, strict=True))
        mask = np.zeros(size, bool)
        if k < PATCHES - 1:
            position = int(np.clip(centre[normal] - low[normal], 0, size[normal] - 1))
            mask[(slice(None),) * normal + (position,)] = True
        axes = tuple(axis for axis in range(3) if rng.random() < 0.5)
        corners.append(low)
        flips.append(axes)
        targets.append(np.flip(target[box], axes))
        annotated.append(np.flip(mask, axes))
    return Episode(
        tuple(corners),
        tuple(flips),
        np.stack(targets),
        np.stack(annotated),
        int(target.max()) + 1,
    )


def gathered(
    volumes: Iterable[SyntheticVolume], count: int
) -> Iterator[list[SyntheticVolume]]:
    """Yield so many volumes at a time whose patches have the same shape."""
    waiting: dict[tuple[Grid, int], list[SyntheticVolume]] = {}
    for volume in volumes:
        alike = waiting.setdefault((volume.grid, volume.normal), [])
        alike.append(volume)
        if len(alike) == count:
            yield alike.copy()
            alike.clear()


class Responses:
    """Compute what the network is given of volumes.

    Parameters
    ----------
    device : torch.device
        Where to compute and to keep it.
    """

    def __init__(self, device: torch.device) -> None:
        self._stems = {
            grid: FilterStem(1, SCALES, grid.spacing).to(device) for grid in GRIDS
        }
        self._device = device

    def of(self, volume: SyntheticVolume) -> Tensor:
        """Return standardised image and filter responses (C, Z, Y, X) as float16."""
        stem = self._stems[volume.grid]
        sides = [margin for margin in reversed(stem.margin) for _ in range(2)]
        image = volume.image.to(self._device)[None, None]
        with torch.no_grad():
            responses = stem(functional.pad(image, sides, "replicate")[0])
            deviation, mean = torch.std_mean(responses, (1, 2, 3), keepdim=True)
            responses.sub_(mean).div_(deviation.clamp_min(1e-6))
        return responses.clamp_(-100, 100).half()  # type: ignore[no-any-return]


def cut(volumes: list[SyntheticVolume], responses: list[Tensor], number: int) -> Batch:
    """Cut out the patches of each volume's episode of a number."""
    episodes = [volume.episodes[number] for volume in volumes]
    device = responses[0].device
    size = episodes[0].target.shape[1:]
    patches = [
        found[
            (slice(None), *(slice(a, a + s) for a, s in zip(low, size, strict=True)))
        ].flip([axis + 1 for axis in flips])
        for found, episode in zip(responses, episodes, strict=True)
        for low, flips in zip(episode.corners, episode.flips, strict=True)
    ]
    features = torch.stack(patches).float()
    features = features.contiguous(memory_format=torch.channels_last_3d)
    target = torch.from_numpy(np.stack([e.target for e in episodes]))
    annotated = torch.from_numpy(np.stack([e.annotated for e in episodes]))
    return Batch(
        volumes[0].grid,
        features.unflatten(0, (len(volumes), PATCHES)),
        target.to(device).long(),
        annotated.to(device),
        tuple(e.n_classes for e in episodes),
    )
