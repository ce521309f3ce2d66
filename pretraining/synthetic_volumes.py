"""Volumes of random structures with random appearance, to learn features from.

Nothing in them is taken from a real image: blobs, shells, tubes, sheets, cells that
touch and fields are laid over one another, each kind and each instance is given a
brightness and a texture, and the whole is blurred, shaded and made noisy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, spatial

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
    scene.brightness[:] = _level(rng, [])
    levels = [float(scene.brightness.flat[0])]
    makers = [_blobs, _blobs, _shells, _tubes, _sheets, _cells, _cells, _regions]
    if rng.random() < 0.15:
        _organs(scene, rng)
    for _ in range(rng.integers(1, 5)):
        maker = makers[rng.integers(len(makers))]
        level = _level(rng, levels)
        levels.append(level)
        maker(scene, level, rng)
    if rng.random() < 0.15:
        _ends(scene, rng)
    if rng.random() < 0.3:
        _specks(scene, rng)
    present = set(np.unique(scene.kind).tolist()) - {0}
    classes = [tuple(k for k in group if k in present) for group in scene.related]
    return _expose(scene, rng), scene.kind, [group for group in classes if group]


def _level(rng: np.random.Generator, others: list[float]) -> float:
    """Draw a brightness, often one that is hard to tell from another structure's."""
    if others and rng.random() < 0.25:
        return float(others[rng.integers(len(others))] + rng.normal(0, 0.05))
    return float(rng.uniform(0, 1))


def _noise(scene: Scene, scale: float, rng: np.random.Generator) -> Image:
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


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _ellipsoids(
    scene: Scene, rng: np.random.Generator, radius: float, share: float
) -> tuple[Image, NDArray[np.int32]]:
    """Return the distance to the centre, 1 at the surface, and the instance."""
    shape = np.array(scene.kind.shape)
    volume = 4.2 * radius**3 * np.prod(scene.stretch)
    count = int(np.clip(share * shape.prod() / volume, 1, 400))
    nearness = np.full(scene.kind.shape, 9.0, np.float32)
    instance = np.zeros(scene.kind.shape, np.int32)
    warp = rng.uniform(0, 0.25) * _noise(scene, max(2.0, 0.6 * radius), rng)
    for number in range(1, count + 1):
        centre = rng.uniform(-0.05, 1.05, 3) * shape
        radii = radius * np.exp(rng.normal(0, 0.25, 3))
        reach = np.ceil(1.6 * radii.max() * scene.stretch).astype(int) + 1
        low = np.maximum(centre.astype(int) - reach, 0)
        high = np.minimum(centre.astype(int) + reach + 1, shape)
        if (low >= high).any():
            continue
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] / radii[:, None]
        offsets = [
            (np.arange(a, b) - c) / s
            for a, b, c, s in zip(low, high, centre, scene.stretch, strict=True)
        ]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        z, y, x = np.meshgrid(*offsets, indexing="ij", sparse=True)
        distance = np.sqrt(
            sum((row[0] * z + row[1] * y + row[2] * x) ** 2 for row in axes)
        ).astype(np.float32)
        distance += warp[box] * distance
        closer = distance < nearness[box]
        nearness[box][closer] = distance[closer]
        instance[box][closer] = number
    return nearness, instance


def _per_instance(
    instance: NDArray[np.int32], level: float, rng: np.random.Generator
) -> Image:
    spread = rng.choice([0.0, 0.05, 0.15, 0.25])
    values = level + rng.normal(0, spread, int(instance.max()) + 1)
    return values.astype(np.float32)[instance]


def _blobs(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add ellipsoids, such as nuclei, that may touch."""
    radius = _log_uniform(rng, 2.5, 22)
    nearness, instance = _ellipsoids(scene, rng, radius, rng.uniform(0.03, 0.4))
    values = _per_instance(instance, level, rng)
    if rng.random() < 0.3:  # brighter or darker towards the surface
        values = values + rng.normal(0, 0.2) * np.clip(nearness, 0, 1) ** 2
    kind = scene.add(nearness < 1, values.astype(np.float32))
    scene.related.append((kind,))
    if rng.random() < 0.3:  # a second kind that differs in size only
        other = radius * rng.choice([0.4, 2.2])
        nearness, instance = _ellipsoids(scene, rng, other, rng.uniform(0.03, 0.15))
        second = scene.add(nearness < 1, _per_instance(instance, level, rng))
        scene.related.append((second,))


def _shells(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add hollow ellipsoids with a wall."""
    radius = _log_uniform(rng, 5, 25)
    nearness, instance = _ellipsoids(scene, rng, radius, rng.uniform(0.05, 0.4))
    wall = np.clip(rng.uniform(1.5, 4) / radius, 0.08, 0.5)
    outer = scene.add(nearness < 1, _per_instance(instance, level, rng))
    inside = nearness < 1 - wall
    if rng.random() < 0.5:
        inner = scene.add(inside, _per_instance(instance, _level(rng, [level]), rng))
        scene.related += [(outer,), (outer, inner), (inner,)]
    else:
        values = _per_instance(instance, _level(rng, [level]), rng)
        scene.brightness[inside] = values[inside]
        scene.related.append((outer,))
        if rng.random() < 0.5:
            scene.kind[inside] = 0


def _tubes(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add winding tubes, hollow or not."""
    radius = _log_uniform(rng, 1.5, 9)
    shape = np.array(scene.kind.shape)
    line = np.ones(scene.kind.shape, bool)
    length = 0.0
    wanted = rng.uniform(0.02, 0.25) * shape.prod() / np.prod(scene.stretch)
    while length * np.pi * radius**2 < wanted:
        steps = int(rng.uniform(30, 150))
        turns = ndimage.gaussian_filter1d(
            rng.normal(size=(steps + 40, 3)), rng.uniform(6, 20), axis=0
        )[20:-20]
        heading = rng.normal(size=3) / 4 + np.cumsum(turns, axis=0)
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        path = rng.uniform(0, 1, 3) * shape + np.cumsum(heading, 0) * scene.stretch
        voxels = path.round().astype(int)
        voxels = voxels[((voxels >= 0) & (voxels < shape)).all(axis=1)]
        line[tuple(voxels.T)] = False
        length += steps
    distance = ndimage.distance_transform_edt(line, sampling=1 / scene.stretch)
    distance = distance + rng.uniform(0, 0.25) * radius * _noise(scene, radius + 1, rng)
    kind = scene.add(distance < radius, level)
    scene.related.append((kind,))
    if radius > 3 and rng.random() < 0.5:
        lumen = distance < radius * rng.uniform(0.4, 0.7)
        inner = scene.add(lumen, _level(rng, [level]))
        scene.related += [(kind, inner), (inner,)]


def _sheets(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add sheets: where a smooth field has a certain value."""
    scale = _log_uniform(rng, 4, 20)
    noise = _noise(scene, scale, rng)
    width = rng.uniform(1.0, 3.5) / scale
    kind = scene.add(np.abs(noise - rng.normal(0, 0.5)) < 0.6 * width, level)
    scene.related.append((kind,))


def _regions(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add large regions: where a smooth field is high."""
    noise = _noise(scene, _log_uniform(rng, 3, 25), rng)
    kind = scene.add(noise > rng.uniform(0.0, 1.5), level)
    scene.related.append((kind,))


def _cells(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add cells that fill a part of the space: membranes, insides, nuclei."""
    edge = _log_uniform(rng, 9, 40)
    shape = np.array(scene.kind.shape)
    size = shape / scene.stretch
    seeds = rng.uniform(-0.1, 1.1, (int(np.prod(1.2 * size) / edge**3) + 3, 3)) * size
    coarse = [
        np.arange(0, n + 1, 2) / s for n, s in zip(shape, scene.stretch, strict=True)
    ]
    points = np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1)
    warp = rng.uniform(0, 0.25) * edge
    for axis in range(3):
        noise = _noise(scene, 0.5 * edge, rng)
        points[..., axis] += (
            warp
            * np.pad(noise, [(0, 2)] * 3, mode="edge")[::2, ::2, ::2][
                : points.shape[0], : points.shape[1], : points.shape[2]
            ]
        )
    distance, owner = spatial.cKDTree(seeds).query(points, k=2)
    zoomed = _doubled(distance[..., 1] - distance[..., 0], scene.kind.shape)
    middle = _doubled(distance[..., 0], scene.kind.shape)
    owner = owner[..., 0].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    owner = owner[: shape[0], : shape[1], : shape[2]]
    is_there = rng.random(len(seeds)) < rng.choice([1.0, 1.0, rng.uniform(0.3, 0.9)])
    within = is_there[owner]
    wall = rng.uniform(1.0, 4.0)
    instance = owner.astype(np.int32)
    insides = within & (zoomed >= wall)
    if rng.random() < 0.85:
        membrane = scene.add(within & (zoomed < wall), level)
        scene.related += [(membrane,)] * 2
    inner = _level(rng, [level])
    if rng.random() < 0.3:  # cells of two kinds
        is_other = (rng.random(len(seeds)) < 0.5)[owner]
        first = scene.add(insides & ~is_other, _per_instance(instance, inner, rng))
        other = _per_instance(instance, _level(rng, [inner]), rng)
        second = scene.add(insides & is_other, other)
        scene.related += [(first,), (second,), (first, second)]
    else:
        first = scene.add(insides, _per_instance(instance, inner, rng))
        scene.related.append((first,))
    if rng.random() < 0.4:
        values = _per_instance(instance, _level(rng, [inner]), rng)
        nuclei = insides & (middle < rng.uniform(0.2, 0.4) * edge)
        scene.related.append((scene.add(nuclei, values),))
    if rng.random() < 0.4:  # small bodies that are told from membranes by their shape
        radius = _log_uniform(rng, 1.5, 5)
        nearness, _ = _ellipsoids(scene, rng, radius, rng.uniform(0.02, 0.15))
        body = scene.add(insides & (nearness < 1), _level(rng, [level]))
        scene.related = [
            (*group, body) if first in group else group for group in scene.related
        ]
        scene.related.append((body,))


def _organs(scene: Scene, rng: np.random.Generator) -> None:
    """Fill the space with a few bodies of about the same brightness, all to be told."""
    shape = np.array(scene.kind.shape)
    size = shape / scene.stretch
    seeds = rng.uniform(-0.1, 1.1, (int(rng.integers(4, 14)), 3)) * size
    points = np.stack(
        np.meshgrid(
            *[np.arange(n) / s for n, s in zip(shape, scene.stretch, strict=True)],
            indexing="ij",
        ),
        axis=-1,
    ).astype(np.float32)
    scale = _log_uniform(rng, 6, 20)
    for axis in range(3):
        points[..., axis] += rng.uniform(0.2, 0.7) * scale * _noise(scene, scale, rng)
    owner = spatial.cKDTree(seeds).query(points)[1]
    middle, spread = rng.uniform(0.2, 0.8), rng.uniform(0.03, 0.2)
    bodies = rng.integers(0, int(rng.integers(3, 8)), len(seeds))
    for body in np.unique(bodies)[1:]:  # what is left is the background
        mask = (bodies == body)[owner]
        kind = scene.add(mask, float(middle + rng.normal(0, spread)))
        scene.related.append((kind,))


def _ends(scene: Scene, rng: np.random.Generator) -> None:
    """Make two kinds of one: the ends of every instance that lie to the same side."""
    kind = int(rng.integers(1, scene.count + 1))
    instance, count = ndimage.label(scene.kind == kind)
    if not 0 < count < 500:
        return
    numbers = np.arange(1, count + 1)
    centres = np.array(ndimage.center_of_mass(instance > 0, instance, numbers))
    voxels = np.argwhere(instance)
    number = instance[tuple(voxels.T)] - 1
    direction = rng.normal(size=3)
    side = ((voxels - centres[number]) / scene.stretch) @ direction
    beyond = voxels[side > rng.normal(0, 0.3) * side.std()]
    scene.count += 1
    scene.kind[tuple(beyond.T)] = scene.count
    parts = {kind, scene.count}
    scene.related = [
        tuple({*group, scene.count}) if kind in group else group
        for group in scene.related
    ]
    scene.related += [(part,) for part in sorted(parts)] * 2


def _doubled(values: NDArray[np.float64], shape: tuple[int, ...]) -> Image:
    """Enlarge twofold between neighbours."""
    values = values.astype(np.float32)
    for axis in range(3):
        values = np.moveaxis(values, axis, 0)
        fine = np.empty((2 * len(values) - 1, *values.shape[1:]), np.float32)
        fine[::2] = values
        fine[1::2] = (values[1:] + values[:-1]) / 2
        values = np.moveaxis(fine, 0, axis)
    return values[: shape[0], : shape[1], : shape[2]]


def _specks(scene: Scene, rng: np.random.Generator) -> None:
    """Add small bright or dark grains that belong to no class."""
    seeds = rng.random(scene.kind.shape) < _log_uniform(rng, 1e-4, 3e-3)
    grains = ndimage.gaussian_filter(seeds.astype(np.float32), rng.uniform(0.5, 1.5))
    amount = rng.choice([-1, 1]) * rng.uniform(0.2, 0.8)
    scene.brightness += amount * grains / max(float(grains.max()), 1e-6)


def _expose(scene: Scene, rng: np.random.Generator) -> Image:
    """Turn brightness into an image: texture, blur, shading, noise, contrast."""
    image = scene.brightness.copy()
    for kind in range(scene.count + 1):
        if rng.random() < 0.5:
            texture = _noise(scene, _log_uniform(rng, 0.7, 15), rng)
            amount = rng.uniform(0.02, 0.25)
            mask = scene.kind == kind
            image[mask] += amount * texture[mask]
    blur = rng.uniform(0.3, 1.8) * np.array([rng.uniform(1, 1.8), 1, 1])
    image = ndimage.gaussian_filter(image, blur * scene.stretch)
    if rng.random() < 0.5:
        image *= 1 + rng.uniform(0, 0.3) * _noise(scene, rng.uniform(15, 40), rng)
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
    amount = _log_uniform(rng, 0.01, 0.2)
    if rng.random() < 0.5:  # photons: more noise where it is bright
        noise *= np.sqrt(image + 0.05)
    image += amount * noise
    if rng.random() < 0.3:
        image = -image
    return image.astype(np.float32)
