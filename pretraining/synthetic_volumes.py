"""Volumes of random structures with random appearance, to learn features from.

Nothing in them is taken from a real image: blobs, shells, tubes, sheets, cells that
touch and fields are laid over one another, each kind and each instance is given a
brightness and a texture, and the whole is blurred, shaded and made noisy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scene import Image, Scene, Shape, log_uniform, random_level, smooth_noise
from scipy import ndimage
from structures import (
    add_blobs,
    add_cells,
    add_organs,
    add_regions,
    add_sheets,
    add_shells,
    add_tubes,
    split_ends,
)

MAKERS = (
    *(add_blobs, add_blobs, add_shells, add_tubes, add_sheets),
    *(add_cells, add_cells, add_regions),
)
"""One of them is drawn for each structure."""


def random_volume(
    seed: int, shape: Shape, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[Image, NDArray[np.uint8], list[tuple[int, ...]]]:
    """Make a volume.

    Parameters
    ----------
    seed : int
        Another seed gives another volume.
    shape : (int, int, int)
        Voxels ZYX.
    spacing : (float, float, float)
        Size of a voxel ZYX; the structures are as long along all axes.

    Returns
    -------
    image : (Z, Y, X) ndarray of float32
        Grey values of any range.
    kind : (Z, Y, X) ndarray of uint8
        Kind of structure, 0 for none.
    classes : list of tuple of int
        Kinds that a person could mean as one class.
    """
    rng = np.random.default_rng((20161, seed))
    stretch = min(spacing) / np.array(spacing)
    scene = Scene(np.zeros(shape, np.uint8), np.zeros(shape, np.float32), stretch)
    scene.brightness[:] = random_level(rng, [])
    levels = [float(scene.brightness.flat[0])]
    if rng.random() < 0.15:
        add_organs(scene, rng)
    for _ in range(rng.integers(1, 5)):
        maker = MAKERS[rng.integers(len(MAKERS))]
        level = random_level(rng, levels)
        levels.append(level)
        maker(scene, level, rng)
    if rng.random() < 0.15:
        split_ends(scene, rng)
    if rng.random() < 0.3:
        _specks(scene, rng)
    present = set(np.unique(scene.kind).tolist()) - {0}
    classes = [tuple(k for k in group if k in present) for group in scene.related]
    return _expose(scene, rng), scene.kind, [group for group in classes if group]


def _specks(scene: Scene, rng: np.random.Generator) -> None:
    """Add small bright or dark grains that belong to no class."""
    seeds = rng.random(scene.kind.shape) < log_uniform(rng, 1e-4, 3e-3)
    grains = ndimage.gaussian_filter(seeds.astype(np.float32), rng.uniform(0.5, 1.5))
    amount = rng.choice([-1, 1]) * rng.uniform(0.2, 0.8)
    scene.brightness += amount * grains / max(float(grains.max()), 1e-6)


def _expose(scene: Scene, rng: np.random.Generator) -> Image:
    """Turn brightness into an image: texture, blur, shading, noise, contrast."""
    image = scene.brightness.copy()
    for kind in range(scene.count + 1):
        if rng.random() < 0.5:
            texture = smooth_noise(scene, log_uniform(rng, 0.7, 15), rng)
            amount = rng.uniform(0.02, 0.25)
            mask = scene.kind == kind
            image[mask] += amount * texture[mask]
    blur = rng.uniform(0.3, 1.8) * np.array([rng.uniform(1, 1.8), 1, 1])
    image = ndimage.gaussian_filter(image, blur * scene.stretch)
    if rng.random() < 0.5:
        image *= 1 + rng.uniform(0, 0.3) * smooth_noise(scene, rng.uniform(15, 40), rng)
    if rng.random() < 0.3:  # dimmer with depth
        axis = rng.integers(3)
        fall = np.linspace(1, rng.uniform(0.4, 1), image.shape[axis])
        image *= fall.reshape([-1 if a == axis else 1 for a in range(3)])
    if rng.random() < 0.3:  # slices of different brightness
        image += rng.normal(0, rng.uniform(0, 0.08), (len(image), 1, 1))
    image -= image.min()
    image /= max(float(image.max()), 1e-6)
    image **= np.exp(rng.normal(0, 0.35))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.4:
        noise = ndimage.gaussian_filter(noise, rng.uniform(0.3, 1.0))
        noise /= noise.std()
    amount = log_uniform(rng, 0.01, 0.2)
    if rng.random() < 0.5:  # photons: more noise where it is bright
        noise *= np.sqrt(image + 0.05)
    image += amount * noise
    if rng.random() < 0.3:
        image = -image
    return image.astype(np.float32)
