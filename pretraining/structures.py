"""Random structures: blobs, shells, tubes, sheets, cells that touch, organs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scene import Image, Scene, log_uniform, random_level, smooth_noise
from scipy import ndimage, spatial


def _ellipsoids(
    scene: Scene, rng: np.random.Generator, radius: float, share: float
) -> tuple[Image, NDArray[np.int32]]:
    """Return the distance to the centre, 1 at the surface, and the instance."""
    shape = np.array(scene.kind.shape)
    volume = 4.2 * radius**3 * np.prod(scene.stretch)
    count = int(np.clip(share * shape.prod() / volume, 1, 400))
    nearness = np.full(scene.kind.shape, 9.0, np.float32)
    instance = np.zeros(scene.kind.shape, np.int32)
    warp = rng.uniform(0, 0.25) * smooth_noise(scene, max(2.0, 0.6 * radius), rng)
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


def add_blobs(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add ellipsoids, such as nuclei, that may touch."""
    radius = log_uniform(rng, 2.5, 22)
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


def add_shells(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add hollow ellipsoids with a wall."""
    radius = log_uniform(rng, 5, 25)
    nearness, instance = _ellipsoids(scene, rng, radius, rng.uniform(0.05, 0.4))
    wall = np.clip(rng.uniform(1.5, 4) / radius, 0.08, 0.5)
    outer = scene.add(nearness < 1, _per_instance(instance, level, rng))
    inside = nearness < 1 - wall
    if rng.random() < 0.5:
        inner = scene.add(
            inside, _per_instance(instance, random_level(rng, [level]), rng)
        )
        scene.related += [(outer,), (outer, inner), (inner,)]
    else:
        values = _per_instance(instance, random_level(rng, [level]), rng)
        scene.brightness[inside] = values[inside]
        scene.related.append((outer,))
        if rng.random() < 0.5:
            scene.kind[inside] = 0


def add_tubes(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add winding tubes, hollow or not."""
    radius = log_uniform(rng, 1.5, 9)
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
    distance = distance + rng.uniform(0, 0.25) * radius * smooth_noise(
        scene, radius + 1, rng
    )
    kind = scene.add(distance < radius, level)
    scene.related.append((kind,))
    if radius > 3 and rng.random() < 0.5:
        lumen = distance < radius * rng.uniform(0.4, 0.7)
        inner = scene.add(lumen, random_level(rng, [level]))
        scene.related += [(kind, inner), (inner,)]


def add_sheets(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add sheets: where a smooth field has a certain value."""
    scale = log_uniform(rng, 4, 20)
    noise = smooth_noise(scene, scale, rng)
    width = rng.uniform(1.0, 3.5) / scale
    kind = scene.add(np.abs(noise - rng.normal(0, 0.5)) < 0.6 * width, level)
    scene.related.append((kind,))


def add_regions(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add large regions: where a smooth field is high."""
    noise = smooth_noise(scene, log_uniform(rng, 3, 25), rng)
    kind = scene.add(noise > rng.uniform(0.0, 1.5), level)
    scene.related.append((kind,))


def add_cells(scene: Scene, level: float, rng: np.random.Generator) -> None:
    """Add cells that fill a part of the space: membranes, insides, nuclei."""
    edge = log_uniform(rng, 9, 40)
    shape = np.array(scene.kind.shape)
    size = shape / scene.stretch
    seeds = rng.uniform(-0.1, 1.1, (int(np.prod(1.2 * size) / edge**3) + 3, 3)) * size
    coarse = [
        np.arange(0, n + 1, 2) / s for n, s in zip(shape, scene.stretch, strict=True)
    ]
    points = np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1)
    warp = rng.uniform(0, 0.25) * edge
    for axis in range(3):
        noise = smooth_noise(scene, 0.5 * edge, rng)
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
    inner = random_level(rng, [level])
    if rng.random() < 0.3:  # cells of two kinds
        is_other = (rng.random(len(seeds)) < 0.5)[owner]
        first = scene.add(insides & ~is_other, _per_instance(instance, inner, rng))
        other = _per_instance(instance, random_level(rng, [inner]), rng)
        second = scene.add(insides & is_other, other)
        scene.related += [(first,), (second,), (first, second)]
    else:
        first = scene.add(insides, _per_instance(instance, inner, rng))
        scene.related.append((first,))
    if rng.random() < 0.4:
        values = _per_instance(instance, random_level(rng, [inner]), rng)
        nuclei = insides & (middle < rng.uniform(0.2, 0.4) * edge)
        scene.related.append((scene.add(nuclei, values),))
    if rng.random() < 0.4:  # small bodies that are told from membranes by their shape
        radius = log_uniform(rng, 1.5, 5)
        nearness, _ = _ellipsoids(scene, rng, radius, rng.uniform(0.02, 0.15))
        body = scene.add(insides & (nearness < 1), random_level(rng, [level]))
        scene.related = [
            (*group, body) if first in group else group for group in scene.related
        ]
        scene.related.append((body,))


def add_organs(scene: Scene, rng: np.random.Generator) -> None:
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
    scale = log_uniform(rng, 6, 20)
    for axis in range(3):
        points[..., axis] += (
            rng.uniform(0.2, 0.7) * scale * smooth_noise(scene, scale, rng)
        )
    owner = spatial.cKDTree(seeds).query(points)[1]
    middle, spread = rng.uniform(0.2, 0.8), rng.uniform(0.03, 0.2)
    bodies = rng.integers(0, int(rng.integers(3, 8)), len(seeds))
    for body in np.unique(bodies)[1:]:  # what is left is the background
        mask = (bodies == body)[owner]
        kind = scene.add(mask, float(middle + rng.normal(0, spread)))
        scene.related.append((kind,))


def split_ends(scene: Scene, rng: np.random.Generator) -> None:
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
