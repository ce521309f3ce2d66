"""Smooth random deformations of training patches.

Smooth deformation follows section 3.1 of the paper: random vectors on a coarse grid,
cubic B-spline between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        self,
        size: Triple,
        centre: Sequence[float],
        ratio: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return where the voxels of a patch come from, relative to `centre`.

        The centre stays where it is, so the annotated slice stays in the patch.

        Returns
        -------
        (3, Z, Y, X) Tensor of float32
            Offsets in voxels of the volume, on `device`.
        """
        bases = []
        offsets = []
        for n, c, r, points in zip(
            size, centre, ratio, self.control.shape[1:], strict=True
        ):
            indices = np.append(np.arange(n), c)
            base = cubic_b_spline(indices * r / self.spacing, points)
            bases.append(base)
            offsets.append((indices[:-1] - c) * r)
        at_centre = _tensor_product(
            torch.from_numpy(self.control),
            [torch.from_numpy(base[-1:]) for base in bases],
        )
        scale = np.asarray(ratio).reshape(3, 1)
        # What has the size of the patch is computed on the device, in single precision:
        # offsets from the centre are small numbers.
        control = torch.from_numpy(self.control - at_centre.numpy())
        control /= torch.from_numpy(scale)[..., None, None]
        moved = _tensor_product(
            control.to(device, torch.float32),
            [torch.from_numpy(base[:-1]).to(device, torch.float32) for base in bases],
        )
        for axis, offset in enumerate(offsets):
            line = self.matrix[:, axis, None] * offset / scale
            shape = [3, *(n if a == axis else 1 for a, n in enumerate(size))]
            moved += torch.from_numpy(line).to(device, torch.float32).view(shape)
        return moved


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


def _tensor_product(control: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """Evaluate a spline: control (3, a, b, c), bases (Z, a), (Y, b), (X, c)."""
    z, y, x = bases
    value: Tensor = z @ (y @ (control @ x.T)).flatten(2)
    return value.view(len(control), len(z), len(y), len(x))
