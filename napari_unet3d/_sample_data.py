"""A generated volume to try everything on: branching tubules, as in a kidney."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SPACING = (2.04, 1.76, 1.76)
"""Micrometres per voxel ZYX, as of the volumes in the paper."""

CLASS_NAMES = ("background", "tubule", "lumen")
CLASS_COLORS = ("#4477aa", "#ee6677", "#ccbb44")

_SEGMENT = 9.0
"""Steps of a tubule between two changes of its direction."""


def tubules(
    shape: tuple[int, int, int] = (72, 112, 112), seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Generate a volume of branching tubules with its dense truth.

    Parameters
    ----------
    shape : (int, int, int)
        Voxels ZYX.
    seed : int
        Another seed gives another volume.

    Returns
    -------
    image : (Z, Y, X) ndarray of uint8
        Blurred and noisy grey values.
    truth : (Z, Y, X) ndarray of uint8
        1 background, 2 wall of the tubules, 3 their lumen.
    """
    rng = np.random.default_rng(seed)
    radius = _paths(shape, rng)
    distance, nearest = ndimage.distance_transform_edt(radius == 0, return_indices=True)
    own = radius[tuple(nearest)]
    truth = np.ones(shape, np.uint8)
    truth[distance < own] = 2
    truth[distance < 0.5 * own] = 3
    return _expose(truth, rng), truth


def sparse_annotation(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the truth on one slice per axis, 0 elsewhere, as a person would paint.

    Each is the slice nearest to the middle that shows all classes.
    """
    labels = np.zeros_like(truth)
    classes = len(np.unique(truth))
    for axis, size in enumerate(truth.shape):
        by_distance = sorted(range(size), key=lambda k: abs(k - size // 2))
        chosen = next(
            (k for k in by_distance if len(np.unique(truth.take(k, axis))) == classes),
            size // 2,
        )
        box: list[Any] = [slice(None)] * 3
        box[axis] = chosen
        labels[tuple(box)] = truth[tuple(box)]
    return labels


def tubules_layers() -> list[tuple[NDArray[np.uint8], dict[str, Any], str]]:
    """Return image and sparse annotation as layers, for File → Open Sample."""
    from napari_unet3d._qt.classes import (
        METADATA,
        class_metadata,
        colormap_of,
        make_classes,
    )

    image, truth = tubules()
    grid: dict[str, Any] = {
        "scale": SPACING,
        "units": ("micrometer",) * 3,
        "axis_labels": ("z", "y", "x"),
    }
    classes = make_classes(CLASS_NAMES, CLASS_COLORS)
    metadata = {METADATA: {"kind": "annotation", **class_metadata(classes)}}
    about = {
        "name": "tubules annotation",
        "opacity": 0.7,
        "colormap": colormap_of(classes),
        "metadata": metadata,
        **grid,
    }
    return [
        (image, {"name": "tubules", **grid}, "image"),
        (sparse_annotation(truth), about, "labels"),
    ]


def _paths(
    shape: tuple[int, int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Mark the centre lines of the tubules with their radius."""
    radius = np.zeros(shape, np.float32)
    size = np.array(shape, float)
    count = max(3, int(np.prod(size) / 30_000))
    stack = [
        (rng.uniform(0.1, 0.9, 3) * size, rng.normal(size=3), rng.uniform(5.5, 9))
        for _ in range(count)
    ]
    while stack:
        position, direction, wide = stack.pop()
        for _ in range(int(rng.uniform(5, 10))):
            bend = rng.normal(size=3)
            for t in np.linspace(0, 1, int(_SEGMENT)):
                heading = direction + 0.8 * t * bend
                position = position + heading / np.linalg.norm(heading)
                voxel = tuple(position.round().astype(int))
                if all(0 <= k < n for k, n in zip(voxel, shape, strict=True)):
                    radius[voxel] = wide
            direction = direction + 0.8 * bend
            if rng.random() < 0.15 and wide > 5:
                stack.append((position, rng.normal(size=3), 0.8 * wide))
    return radius


def _expose(truth: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn the truth into a micrograph: nuclei, blur, shading, photon noise."""
    brightness = np.array([0, 0.28, 0.72, 0.16])[truth]
    texture = ndimage.gaussian_filter(rng.normal(size=truth.shape), 3)
    brightness = brightness + 0.04 * texture / texture.std()
    seeds = rng.random(truth.shape) < np.array([0, 7e-4, 1.5e-3, 0])[truth]
    nuclei = ndimage.distance_transform_edt(~seeds) < 2.6
    brightness[nuclei & (truth < 3)] += 0.35
    blurred = ndimage.gaussian_filter(brightness, (1.3, 0.8, 0.8))
    depth = np.linspace(1, 0.65, truth.shape[0]).reshape(-1, 1, 1)
    photons = rng.poisson(np.clip(blurred * depth, 0.02, None) * 40)
    return np.clip(photons * 4.2, 0, 255).astype(np.uint8)
