from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_unet3d.engine import EngineError, evaluate
from napari_unet3d.engine.metrics import count

LABELS = arrays(np.uint8, (2, 3, 4), elements=st.integers(1, 4))


def row(*labels):
    return np.array([[labels]])


def test_by_hand():
    scores = evaluate(
        segmentation=row(1, 1, 2, 2, 2, 3, 1), truth=row(1, 2, 2, 2, 1, 3, 0)
    )
    np.testing.assert_array_equal(scores.overlap, [1, 2, 1])
    np.testing.assert_array_equal(scores.truth, [2, 3, 1])
    np.testing.assert_array_equal(scores.found, [2, 3, 1])
    np.testing.assert_allclose(scores.iou, [1 / 3, 2 / 4, 1])
    np.testing.assert_allclose(scores.dice, [2 / 4, 4 / 6, 1])
    assert scores.mean_iou == pytest.approx(11 / 18)
    assert scores.mean_foreground_iou == pytest.approx(3 / 4)
    assert scores.voxels == 6


def test_a_class_that_occurs_in_neither_is_left_out_of_the_means():
    scores = evaluate(row(1, 3, 3), row(1, 3, 1))
    assert np.isnan(scores.iou[1])
    assert np.isnan(scores.dice[1])
    assert scores.mean_iou == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_a_class_that_is_only_found_scores_zero():
    scores = evaluate(row(1, 1, 2), row(1, 1, 1))
    np.testing.assert_allclose(scores.iou, [2 / 3, 0])


def test_only_background_has_no_foreground():
    scores = evaluate(row(1, 1), row(1, 1))
    assert np.isnan(scores.mean_foreground_iou)
    assert scores.as_dict()["mean_foreground_iou"] is None


@pytest.mark.parametrize("nothing", [0, -1])
def test_where_nothing_was_found_no_class_was(nothing):
    scores = evaluate(row(1, nothing, 2), row(1, 1, 2))
    np.testing.assert_allclose(scores.iou, [1 / 2, 1])


def test_voxels_that_were_trained_on_can_be_excluded():
    segmentation, truth = row(1, 2, 2, 1), row(1, 1, 2, 2)
    scores = evaluate(segmentation, truth, exclude=row(0, 5, 0, 0))
    assert scores.voxels == 3
    np.testing.assert_allclose(scores.iou, [1 / 2, 1 / 2])


def test_classes_may_appear_in_later_slices():
    truth = np.array([[[1, 1]], [[3, 2]]])
    np.testing.assert_array_equal(evaluate(truth, truth).truth, [2, 1, 1])


def test_volumes_may_be_lazy():
    labels = np.arange(1, 151)[:, None, None]
    asked = []

    class Lazy:
        shape, dtype = labels.shape, labels.dtype

        def __getitem__(self, k):
            asked.append((k.start, k.stop))
            return labels[k] % 5 + 1

    scores = evaluate(Lazy(), Lazy(), exclude=labels == 150)
    assert scores.mean_iou == 1
    assert scores.truth.tolist() == [29, 30, 30, 30, 30]
    assert sorted(asked) == sorted([(0, 64), (64, 128), (128, 150)] * 2)


@given(labels=LABELS)
def test_perfect_is_one(labels):
    scores = evaluate(labels, labels)
    for values in (scores.iou, scores.dice):
        np.testing.assert_array_equal(values[~np.isnan(values)], 1)
    assert scores.mean_iou == 1


@given(a=LABELS, b=LABELS)
def test_scores_are_symmetric_and_between_zero_and_one(a, b):
    there, back = evaluate(a, b), evaluate(b, a)
    np.testing.assert_array_equal(there.iou, back.iou)
    np.testing.assert_array_equal(there.dice, back.dice)
    known = there.iou[~np.isnan(there.iou)]
    assert np.all((known >= 0) & (known <= 1))
    np.testing.assert_allclose(there.dice, 2 * there.iou / (1 + there.iou))


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", ">i4", "uint32", "int64", "uint64"]
)
def test_any_integers_can_be_scored(dtype):
    labels = row(1, 2, 2).astype(dtype)
    assert evaluate(labels, labels).mean_iou == 1


def test_figures_are_plain():
    scores = evaluate(row(1, 3, 3), row(1, 3, 1))
    assert json.loads(json.dumps(scores.as_dict())) == {
        "iou": {"1": 0.5, "2": None, "3": 0.5},
        "mean_iou": 0.5,
        "mean_foreground_iou": 0.5,
        "dice": {"1": 2 / 3, "2": None, "3": 2 / 3},
        "mean_dice": 2 / 3,
        "voxels": 3,
        "truth_voxels": {"1": 2, "2": 0, "3": 1},
        "segmentation_voxels": {"1": 1, "2": 0, "3": 2},
    }


def test_shapes_that_differ_are_named():
    with pytest.raises(
        EngineError, match=r"segmentation \(1, 1, 2\), truth \(1, 1, 3\)"
    ):
        evaluate(row(1, 2), row(1, 2, 2))
    with pytest.raises(EngineError, match=r"exclude \(1, 1, 1\)"):
        evaluate(row(1, 2), row(1, 2), exclude=row(0))


@pytest.mark.parametrize("exclude", [None, row(1, 1)])
def test_nothing_to_score_is_no_score(exclude):
    truth = row(0, 0) if exclude is None else row(1, 2)
    with pytest.raises(EngineError, match="no voxel is left to score"):
        evaluate(row(1, 2), truth, exclude)


@pytest.mark.parametrize("instance", [255, 3_000_000_000, 2**64 - 1])
def test_instances_are_no_classes(instance):
    classes, instances = row(1, 2), row(1, 2).astype(np.uint64)
    instances[0, 0, 1] = instance
    sentence = f"must be at most 254, got {instance}; number the classes"
    with pytest.raises(EngineError, match=f"labels of the segmentation {sentence}"):
        evaluate(instances, classes)
    with pytest.raises(EngineError, match=f"labels of the truth {sentence}"):
        evaluate(classes, instances)


def test_the_highest_class_is_254():
    assert evaluate(row(1, 254), row(1, 254)).iou[253] == 1


def test_what_is_not_scored_may_be_anything():
    instances = row(1, 2, 3000)
    assert evaluate(instances, row(1, 2, 0)).mean_iou == 1
    assert evaluate(row(1, 2, 1), instances, exclude=row(0, 0, 3000)).mean_iou == 1


def test_probabilities_are_no_segmentation():
    with pytest.raises(
        EngineError, match="segmentation must hold integers, got float64"
    ):
        evaluate(row(0.1, 0.9), row(1, 2))


def test_counting_at_least_so_many_classes():
    one = np.array([1])
    np.testing.assert_array_equal(count(one, one, 3), [[1, 0, 0]] * 3)
    assert count(one[:0], one[:0], 2).tolist() == [[0, 0]] * 3
