from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import Annotation
from napari_unet3d.engine.patches import PatchSampler


def annotation(*painted, shape=(20, 22, 24)):
    """Label boxes: (first, last, label), ZYX."""
    labels = np.zeros(shape, np.uint8)
    for low, high, label in painted:
        labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = label
    return Annotation.from_labels(labels)


SLICES = (
    annotation(
        ((4, 0, 0), (5, 22, 24), 1),
        ((4, 3, 3), (5, 6, 6), 2),
        ((11, 0, 0), (12, 22, 24), 1),
        ((0, 9, 2), (20, 10, 20), 3),
    ),
    annotation(),
    annotation(((3, 4, 7), (15, 18, 8), 2)),
)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 9))
def test_every_patch_lies_around_a_labelled_voxel(seed, count):
    rng = np.random.default_rng(seed)
    locations = PatchSampler(SLICES).draw(count, rng)
    assert len(locations) == count
    for location in locations:
        assert SLICES[location.volume].crop(location.anchor, (1, 1, 1)) > 0


@given(seed=st.integers(0, 2**32))
def test_patches_of_a_batch_share_their_orientation(seed):
    locations = PatchSampler(SLICES).draw(6, np.random.default_rng(seed))
    assert len({location.normal for location in locations}) == 1
    normal = locations[0].normal
    for location in locations:
        part = SLICES[location.volume]
        (member,) = np.flatnonzero((part.coordinates == location.anchor).all(axis=1))
        assert part.normals[member] == normal


def test_the_same_seed_draws_the_same():
    first, again, other = (
        [PatchSampler(SLICES).draw(4, rng) for _ in range(5)]
        for rng in map(np.random.default_rng, (1, 1, 2))
    )
    assert first == again != other


def draw(*annotations, times=2000):
    sampler, rng = PatchSampler(annotations), np.random.default_rng(0)
    return [location for _ in range(times) for location in sampler.draw(1, rng)]


def shares(values):
    counts = Counter(values)
    return {value: n / counts.total() for value, n in counts.items()}


def test_slices_count_by_the_square_root_of_their_labels():
    # One slice has nine times the labels of the other.
    two = annotation(((3, 0, 0), (4, 9, 9), 1), ((9, 15, 15), (10, 18, 18), 1))
    found = shares(location.anchor[0] for location in draw(two))
    assert found == pytest.approx({3: 9 / 12, 9: 3 / 12}, abs=0.04)


def test_volumes_with_more_slices_are_drawn_from_more_often():
    one = annotation(((3, 0, 0), (4, 9, 9), 1))
    three = annotation(*(((k, 0, 0), (k + 1, 9, 9), 1) for k in (2, 8, 14)))
    found = shares(location.volume for location in draw(one, three))
    assert found == pytest.approx({0: 1 / 4, 1: 3 / 4}, abs=0.04)


def test_orientations_are_drawn_as_often_as_they_are_painted():
    painted = annotation(
        ((3, 0, 0), (4, 10, 10), 1),
        ((9, 0, 0), (10, 10, 10), 1),
        ((10, 15, 10), (20, 16, 20), 1),
    )
    found = shares(location.normal for location in draw(painted))
    assert found == pytest.approx({0: 2 / 3, 1: 1 / 3}, abs=0.04)


def test_half_of_the_draws_take_all_classes_of_a_slice_alike():
    # One voxel in a hundred is of the second class.
    rare = annotation(((3, 0, 0), (4, 10, 10), 1), ((3, 4, 4), (4, 5, 5), 2))
    dense = rare.crop((0, 0, 0), rare.shape)
    found = shares(dense[location.anchor] for location in draw(rare))
    assert found[2] == pytest.approx(0.5 * 0.5 + 0.5 * 0.01, abs=0.03)


def test_all_voxels_of_a_class_are_drawn():
    small = annotation(((3, 2, 2), (4, 5, 5), 1))
    found = shares(location.anchor for location in draw(small))
    assert len(found) == 9
    assert max(found.values()) < 0.15
