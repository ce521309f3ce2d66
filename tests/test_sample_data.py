from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet3d._sample_data import (
    CLASS_COLORS,
    CLASS_NAMES,
    sparse_annotation,
    tubules,
)

SHAPE = (40, 56, 60)


@pytest.fixture(scope="module")
def volume():
    return tubules(SHAPE, 3)


def test_shapes_and_types(volume):
    image, truth = volume
    assert image.shape == truth.shape == SHAPE
    assert image.dtype == truth.dtype == np.uint8
    assert np.unique(truth).tolist() == [1, 2, 3]
    assert len(CLASS_NAMES) == len(CLASS_COLORS) == 3


def test_the_same_seed_gives_the_same_volume(volume):
    for one, same, other in zip(
        volume, tubules(SHAPE, 3), tubules(SHAPE, 4), strict=True
    ):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_the_image_uses_its_range_and_shows_the_classes(volume):
    image, truth = volume
    assert np.ptp(image) > 150
    assert (image == 255).mean() < 0.01
    background, wall, lumen = (image[truth == k].mean() for k in (1, 2, 3))
    assert wall > background + 20
    assert wall > lumen + 20


def test_every_class_is_a_fair_part(volume):
    share = np.bincount(volume[1].ravel(), minlength=4)[1:] / volume[1].size
    assert share[0] > 0.4
    assert share.min() > 0.03


def test_walls_are_connected_and_enclose_the_lumen(volume):
    truth = volume[1]
    labels, count = ndimage.label(truth > 1)
    sizes = np.sort(np.bincount(labels.ravel())[1:])
    # A few long tubules, not a spray of blobs
    assert count <= 12
    assert sizes[-1] > 0.3 * sizes.sum()
    touched = ndimage.binary_dilation(truth == 3) & (truth == 1)
    assert touched.sum() < 0.01 * (truth == 3).sum()


def test_the_annotation_is_the_truth_on_one_slice_per_axis(volume):
    truth = volume[1]
    labels = sparse_annotation(truth)
    assert labels.dtype == np.uint8
    painted = labels > 0
    np.testing.assert_array_equal(labels[painted], truth[painted])
    expected = np.zeros(SHAPE, bool)
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        (full,) = np.flatnonzero(painted.all(axis=others))
        # All classes on each, so that one alone would do
        assert np.unique(labels.take(full, axis)).tolist() == [1, 2, 3]
        assert abs(full - SHAPE[axis] // 2) < SHAPE[axis] // 4
        box = [slice(None)] * 3
        box[axis] = full
        expected[tuple(box)] = True
    np.testing.assert_array_equal(painted, expected)


def test_an_annotation_where_no_slice_has_all_classes():
    truth = np.ones((6, 6, 6), np.uint8)
    truth[0], truth[1] = 2, 3
    labels = sparse_annotation(truth)
    assert (labels > 0).any()
    np.testing.assert_array_equal(labels[labels > 0], truth[labels > 0])


def test_the_default_volume_can_be_learned_from():
    image, truth = tubules()
    assert image.shape == (72, 112, 112)
    labels = sparse_annotation(truth)
    assert 0.02 < (labels > 0).mean() < 0.05
    assert np.bincount(labels.ravel(), minlength=4)[1:].min() > 500
