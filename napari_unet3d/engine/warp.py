"""Smooth random deformations of training patches.

Smooth deformation follows section 3.1 of the paper: random vectors on a coarse grid,
cubic B-spline between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .config import AugmentationConfig, Triple


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
