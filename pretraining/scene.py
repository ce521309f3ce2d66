"""A volume of random structures while it is built up, and what is drawn for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Shape = tuple[int, int, int]


@dataclass
class Scene:
    """A label map and what it shows, built up structure by structure."""

    kind: NDArray[np.uint8]
    """(Z, Y, X) number of the kind of structure, 0 for the background."""
    brightness: Image
    """(Z, Y, X) before texture, blur and noise."""
    stretch: NDArray[np.float64]
    """Voxels per unit of length along Z, Y, X, at most 1."""
    count: int = 0
    related: list[tuple[int, ...]] = field(default_factory=list)
    """Kinds that make up one thing, as wall and inside of a shell."""

    def add(self, mask: Mask, brightness: Image | float) -> int:
        """Lay a structure over what is there and return the number of its kind."""
        self.count += 1
        self.kind[mask] = self.count
        self.brightness[mask] = (
            brightness[mask] if isinstance(brightness, np.ndarray) else brightness
        )
        return self.count


def random_level(rng: np.random.Generator, others: list[float]) -> float:
    """Draw a brightness, often one that is hard to tell from another structure's."""
    if others and rng.random() < 0.25:
        return float(others[rng.integers(len(others))] + rng.normal(0, 0.05))
    return float(rng.uniform(0, 1))


def smooth_noise(scene: Scene, scale: float, rng: np.random.Generator) -> Image:
    """Return smooth noise of deviation 1 with structures of a size in voxels.

    White noise on a grid no finer than the Gaussian asks for, and beyond the volume;
    where the values of the voxels come from is a matrix for every axis.
    """
    if scale < 2:  # the grid would be that of the voxels
        white = rng.standard_normal(scene.kind.shape, dtype=np.float32)
        fine: Image = ndimage.gaussian_filter(white, scale * scene.stretch, truncate=3)
        return fine / max(float(fine.std()), 1e-6)
    matrices = []
    for n, stretch in zip(scene.kind.shape, scene.stretch, strict=True):
        width = scale * float(stretch)
        step = max(1.0, width)
        beyond = np.ceil(3 * width / step)
        points = step * np.arange(-beyond, np.ceil((n - 1) / step) + beyond + 1)
        apart = (np.arange(n)[:, None] - points) / width
        matrices.append(torch.from_numpy(np.exp(-0.5 * apart**2).astype(np.float32)))
    shape = [matrix.shape[1] for matrix in matrices]
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    along_z, along_y, along_x = matrices
    noise = along_y @ (along_z @ noise.flatten(1)).unflatten(1, shape[1:])
    smooth: Image = (noise @ along_x.T).numpy()
    return smooth / max(float(smooth.std()), 1e-6)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a positive number whose order of magnitude is what is random."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
