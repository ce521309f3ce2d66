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

    corners: NDArray[np.int64]
    """(N, 3) first voxel ZYX of each patch."""
    slices: NDArray[np.int64]
    """(N - 1,) position in its patch of the annotated slice; the last one has none."""
    mirrored: NDArray[np.bool_]
    """(3,) whether all patches are mirrored along Z, Y, X."""
    classes: NDArray[np.uint8]
    """(256,) class from 0 of every kind of structure."""

    @property
    def n_classes(self) -> int:
        """Number of classes, the background's included."""
        return int(self.classes.max()) + 1


@dataclass(frozen=True)
class SyntheticVolume:
    """A random volume and the episodes that are played on it."""

    grid: Grid
    normal: int
    """Axis across the annotated slices."""
    image: Tensor
    """(Z, Y, X) float32, normalised."""
    kind: Tensor
    """(Z, Y, X) uint8, kind of structure."""
    episodes: tuple[Episode, ...]


@dataclass(frozen=True)
class Group:
    """Volumes of one kind, of each of which an episode is played at a time."""

    grid: Grid
    normal: int
    features: Tensor
    """(E Z Y X, C) bfloat16, what the network is given."""
    kind: Tensor
    """(E Z Y X,) uint8."""
    episodes: tuple[tuple[Episode, ...], ...]
    """Of every volume."""


@dataclass(frozen=True)
class Batch:
    """An episode each of several volumes of one kind, V voxels in each."""

    grid: Grid
    features: Tensor
    """(E, N, C, Z, Y, X) bfloat16, channels last."""
    target: Tensor
    """(E, V) int64."""
    annotated: Tensor
    """(E, M) int64, which voxels are."""
    n_classes: Tensor
    """(E,) int64."""


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
            torch.from_numpy(kind),
            tuple(
                draw_episode(kind, choose_classes(groups, rng), grid, normal, rng)
                for _ in range(self._episodes)
            ),
        )


def choose_classes(
    groups: list[tuple[int, ...]], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the class from 0 of all 256 kinds, which are put together at random."""
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
    return table


def draw_episode(
    kind: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    grid: Grid,
    normal: int,
    rng: np.random.Generator,
) -> Episode:
    """Draw patches of a volume, of which all but the last have an annotated slice."""
    size = np.array(patch_size(grid, normal))
    centres = rng.uniform(size=(PATCHES, 3)) * kind.shape
    for k in range(0, PATCHES, 2):
        centres[k] = _foreground_voxel(kind, classes, rng)
    corners = np.clip((centres - size // 2).astype(int), 0, kind.shape - size)
    slices = np.clip((centres - corners).astype(int)[:, normal], 0, size[normal] - 1)
    return Episode(corners, slices[:-1], rng.random(3) < 0.5, classes)


def patch_size(grid: Grid, normal: int) -> tuple[int, int, int]:
    """Return the size ZYX of patches that are thin along an axis."""
    size = list(grid.patch)
    size[0], size[normal] = size[normal], size[0]
    return size[0], size[1], size[2]


def _foreground_voxel(
    kind: NDArray[np.uint8], classes: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[int, ...]:
    flat = kind.ravel()
    drawn = rng.integers(flat.size, size=1000)
    found = drawn[classes[flat[drawn]] > 0]
    if not len(found):
        found = rng.permutation(np.flatnonzero(classes[flat]))
    return tuple(int(n) for n in np.unravel_index(found[0], kind.shape))


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
        self._stems: dict[tuple[Grid, int], FilterStem] = {}
        self._device = device

    def of(self, volumes: list[SyntheticVolume]) -> Group:
        """Return volumes of one kind with standardised image and filter responses."""
        grid, count = volumes[0].grid, len(volumes)
        if (grid, count) not in self._stems:
            # To the filters, volumes are channels of an image.
            stem = FilterStem(count, SCALES, grid.spacing)
            self._stems[grid, count] = stem.to(self._device)
        stem = self._stems[grid, count]
        sides = [margin for margin in reversed(stem.margin) for _ in range(2)]
        image = torch.stack([v.image for v in volumes]).to(self._device)
        with torch.no_grad():
            responses = stem(functional.pad(image[None], sides, "replicate")[0])
            responses = responses.unflatten(0, (-1, count))
            deviation, mean = torch.std_mean(responses, (2, 3, 4), keepdim=True)
            responses.sub_(mean).div_(deviation.clamp_min(1e-6)).clamp_(-100, 100)
            features = responses.movedim(0, -1).bfloat16().flatten(0, 3)
        kind = torch.stack([v.kind for v in volumes]).flatten().to(self._device)
        episodes = tuple(v.episodes for v in volumes)
        return Group(grid, volumes[0].normal, features, kind, episodes)


def cut(group: Group, number: int) -> Batch:
    """Cut out the patches of each volume's episode of a number."""
    device = group.features.device
    episodes = [one[number] for one in group.episodes]
    corners, slices, mirrored, classes = (
        torch.from_numpy(np.stack([getattr(e, name) for e in episodes])).to(device)
        for name in ("corners", "slices", "mirrored", "classes")
    )
    size = patch_size(group.grid, group.normal)
    # Voxels of the patches in the volumes, one after the other.
    voxel = torch.arange(len(episodes), device=device).view(-1, 1, 1, 1, 1)
    for axis, (length, n) in enumerate(zip(size, group.grid.shape, strict=True)):
        along = torch.arange(length, device=device)
        along = torch.where(mirrored[:, axis, None], length - 1 - along, along)
        along = corners[:, :, axis, None] + along[:, None]
        shape = [*along.shape[:2], 1, 1, 1]
        shape[2 + axis] = length
        voxel = voxel * n + along.view(shape)
    target = classes.gather(1, group.kind[voxel.flatten(1)].long()).long()
    # Annotated slices in the patches, one after the other.
    across = mirrored[:, group.normal, None]
    slices = torch.where(across, size[group.normal] - 1 - slices, slices)
    order = torch.arange(voxel[0].numel(), device=device).view(-1, *size)[:-1]
    order = order.movedim(group.normal + 1, 1).flatten(2)
    patch = torch.arange(len(order), device=device)
    annotated = order[patch, slices].flatten(1)
    features = group.features[voxel.flatten()].view(*voxel.shape, -1)
    n_classes = torch.tensor([e.n_classes for e in episodes]).to(device)
    return Batch(group.grid, features.movedim(-1, 2), target, annotated, n_classes)
