"""Where training patches are drawn: at labelled voxels, never by rejection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .annotation import Annotation
    from .config import Triple


@dataclass(frozen=True)
class PatchLocation:
    """A labelled voxel that a training patch is laid around."""

    volume: int
    """Which of the volumes."""
    anchor: Triple
    """The voxel, ZYX."""
    normal: int
    """Axis across the annotated slice that the voxel lies in."""


@dataclass(frozen=True)
class _Slice:
    volume: int
    normal: int
    members: NDArray[np.int64]
    classes: tuple[NDArray[np.int64], ...]


class PatchSampler:
    """Draw labelled voxels, balanced over annotated slices and over classes.

    Slices count by the square root of their labelled voxels, so that a stroke is
    neither lost beside a full slice nor repeated as often. Half of the draws take
    every class of the slice equally often, the other half any labelled voxel.

    Parameters
    ----------
    annotations : sequence of Annotation
        One per volume; at least one voxel must be labelled.
    """

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self.annotations = tuple(annotations)
        self._slices = [
            part
            for volume, annotation in enumerate(annotations)
            for part in _slices(volume, annotation)
        ]
        weights = np.sqrt([float(len(part.members)) for part in self._slices])
        self._weights = weights / weights.sum()
        self._normals = np.array([part.normal for part in self._slices])

    def draw(self, count: int, rng: np.random.Generator) -> list[PatchLocation]:
        """Draw the locations of one batch, all with the same normal."""
        normal = self._normals[rng.choice(len(self._slices), p=self._weights)]
        mine = np.flatnonzero(self._normals == normal)
        weights = self._weights[mine] / self._weights[mine].sum()
        return [
            self._draw_in(self._slices[chosen], rng)
            for chosen in rng.choice(mine, size=count, p=weights)
        ]

    def _draw_in(self, part: _Slice, rng: np.random.Generator) -> PatchLocation:
        members = part.members
        if rng.random() < 0.5:
            members = part.classes[rng.integers(len(part.classes))]
        annotation = self.annotations[part.volume]
        z, y, x = annotation.coordinates[members[rng.integers(len(members))]].tolist()
        return PatchLocation(part.volume, (z, y, x), part.normal)


def _slices(volume: int, annotation: Annotation) -> list[_Slice]:
    found = []
    for normal in range(3):
        members = np.flatnonzero(annotation.normals == normal)
        position = annotation.coordinates[members, normal]
        order = np.argsort(position, kind="stable")
        borders = np.flatnonzero(np.diff(position[order])) + 1
        for group in np.split(members[order], borders):
            if len(group):
                labels = annotation.labels[group]
                classes = tuple(group[labels == label] for label in np.unique(labels))
                found.append(_Slice(volume, normal, group, classes))
    return found
