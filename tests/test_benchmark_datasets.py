"""Sparse annotation and scores of the benchmarks, on arrays made by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import datasets


def annotated_slices(labels: np.ndarray, axis: int) -> list[int]:
    """Return the positions of the wholly annotated slices along an axis."""
    others = tuple(other for other in range(3) if other != axis)
    return np.flatnonzero((labels > 0).all(axis=others)).tolist()


def test_one_slice_per_axis_is_the_middle_one():
    truth = np.ones((5, 8, 9), np.uint8)
    labels = datasets.annotate(truth)
    assert [annotated_slices(labels, axis) for axis in range(3)] == [[2], [4], [4]]
    assert np.count_nonzero(labels) == 5 * 8 * 9 - 4 * 7 * 8


def test_several_slices_are_evenly_spaced():
    labels = datasets.annotate(np.ones((12, 12, 12), np.uint8), 3)
    for axis in range(3):
        assert annotated_slices(labels, axis) == [2, 6, 10]


def test_annotated_voxels_carry_the_truth_and_the_truth_is_untouched():
    truth = np.random.default_rng(0).integers(1, 4, (6, 7, 8), dtype=np.uint8)
    before = truth.copy()
    labels = datasets.annotate(truth)
    assert labels.dtype == truth.dtype
    np.testing.assert_array_equal(labels[labels > 0], truth[labels > 0])
    np.testing.assert_array_equal(truth, before)


def test_slice_moves_to_the_nearest_one_that_shows_every_class():
    truth = np.ones((20, 20, 20), np.uint8)
    truth[2:5, 2:5, 2:5] = 2
    labels = datasets.annotate(truth)
    assert [annotated_slices(labels, axis) for axis in range(3)] == [[4]] * 3
    plain = datasets.annotate(truth, need_all_classes=False)
    assert [annotated_slices(plain, axis) for axis in range(3)] == [[10]] * 3
    assert plain.max() == 1


def test_slice_with_more_classes_wins_over_a_nearer_one_with_fewer():
    truth = np.ones((11, 11, 11), np.uint8)
    truth[4, 4, 4] = 2
    truth[9, 9, 9] = 2
    truth[9, 9, 10] = 3
    assert annotated_slices(datasets.annotate(truth), 0) == [9]


def test_of_two_equally_near_slices_the_lower_is_taken():
    truth = np.ones((9, 9, 9), np.uint8)
    truth[[2, 6], [2, 6], [2, 6]] = 2
    assert annotated_slices(datasets.annotate(truth), 0) == [2]


def test_moved_slices_stay_in_their_part_of_the_axis():
    truth = np.ones((12, 12, 12), np.uint8)
    truth[5, 5, 5] = 2
    for axis in range(3):
        assert annotated_slices(datasets.annotate(truth, 2), axis) == [5, 9]


def test_seeded_slices_repeat_and_differ_between_seeds():
    truth = np.ones((40, 40, 40), np.uint8)
    first, again, other = (datasets.annotate(truth, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    lower, upper = annotated_slices(first, 0)
    assert lower < 20 <= upper


@pytest.mark.parametrize("slices", [0, 6])
def test_impossible_number_of_slices_is_refused(slices):
    with pytest.raises(ValueError, match=r"slices_per_axis must be in \[1, 5\]"):
        datasets.annotate(np.ones((5, 8, 9), np.uint8), slices)


def test_iou_counted_by_hand():
    truth = np.array([[[1, 1, 1, 2, 2, 3]]], np.uint8)
    segmentation = np.array([[[1, 1, 2, 2, 2, 1]]], np.uint8)
    scores = datasets.score(segmentation, truth)
    assert scores["iou"] == pytest.approx([2 / 4, 2 / 3, 0])
    assert scores["mean_iou"] == pytest.approx((2 / 4 + 2 / 3) / 3)
    assert scores["mean_foreground_iou"] == pytest.approx((2 / 3) / 2)


def test_excluded_voxels_do_not_count():
    truth = np.array([[[1, 1, 2, 2]]], np.uint8)
    segmentation = np.array([[[2, 1, 2, 1]]], np.uint8)
    labels = np.array([[[1, 0, 0, 2]]], np.uint8)
    assert datasets.score(segmentation, truth, labels)["iou"] == [1, 1]


def test_class_found_in_neither_is_left_out_of_the_means():
    truth = np.array([[[1, 1, 2, 3]]], np.uint8)
    labels = np.array([[[0, 0, 2, 0]]], np.uint8)
    scores = datasets.score(truth, truth, labels)
    assert np.isnan(scores["iou"][1])
    assert scores["mean_iou"] == scores["mean_foreground_iou"] == 1


def test_unlabelled_prediction_is_wrong():
    truth = np.array([[[1, 1, 2, 2]]], np.uint8)
    segmentation = np.array([[[1, 1, 0, 2]]], np.uint8)
    assert datasets.score(segmentation, truth)["iou"] == [1, 0.5]


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        datasets.score(np.ones((1, 2, 3)), np.ones((3, 2, 1)))


def test_folder_cases_finds_both_kinds_of_pair(tmp_path):
    image = np.zeros((2, 3, 4), np.uint16)
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0] = 1
    for start in ("", "brain_", "heart_"):
        tifffile.imwrite(tmp_path / f"{start}image.tif", image)
        if start != "heart_":
            tifffile.imwrite(tmp_path / f"{start}labels.tif", labels)
    cases = datasets.folder_cases(tmp_path, (2, 1, 1))
    assert sorted(case.name for case in cases) == sorted(["brain", tmp_path.name])
    for case in cases:
        np.testing.assert_array_equal(case.truth, labels + 1)
        assert case.class_names == ("class 1", "class 2")
        assert case.spacing == (2, 1, 1)


def test_every_set_loads_and_is_dense():
    if not datasets.data_folder().is_dir():
        pytest.skip("the benchmark volumes are not here: UNET3D_DATA names no folder")
    for name in datasets.names():
        case = datasets.load(name)
        assert case.image.shape == case.truth.shape
        assert case.truth.dtype == np.uint8
        classes = np.unique(case.truth).tolist()
        assert classes == list(range(1, len(case.class_names) + 1))


def test_unknown_and_missing_sets_are_named(monkeypatch, tmp_path):
    with pytest.raises(KeyError, match="nuclei_9999"):
        datasets.load("nuclei_9999")
    monkeypatch.setenv("UNET3D_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="UNET3D_DATA"):
        datasets.load("ovule")
