from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_unet3d.engine import Annotation, EngineError
from napari_unet3d.engine.annotation import _choose_blocks
from napari_unet3d.engine.label_checks import check_annotations

SPARSE = arrays(
    np.uint8,
    array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7),
    elements=st.sampled_from([0, 0, 0, 1, 2, 3]),
)


def empty(shape=(4, 5, 6)):
    return Annotation.from_labels(np.zeros(shape, np.uint8))


def dense(annotation):
    labels = np.zeros(annotation.shape, np.uint8)
    labels.flat[annotation.index] = annotation.labels
    return labels


@given(labels=SPARSE)
def test_labels_come_back(labels):
    annotation = Annotation.from_labels(labels)
    np.testing.assert_array_equal(dense(annotation), labels)
    assert len(annotation) == np.count_nonzero(labels)
    assert annotation.n_classes == labels.max()
    assert np.all(np.diff(annotation.index) > 0)
    np.testing.assert_array_equal(annotation.coordinates, np.argwhere(labels))
    np.testing.assert_array_equal(annotation.counts, np.bincount(labels.flat)[1:])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", ">i4", "int64", "uint64"])
def test_any_integers_are_labels(dtype):
    labels = np.zeros((2, 3, 4), dtype)
    labels[1, 2, 3] = 1
    annotation = Annotation.from_labels(labels)
    assert annotation.labels.dtype == np.uint8
    assert annotation.coordinates.tolist() == [[1, 2, 3]]


def test_labels_may_be_a_list_or_lazy():
    labels = np.arange(24).reshape(2, 3, 4)

    class Lazy:
        shape, dtype = labels.shape, labels.dtype

        def __getitem__(self, k):
            return labels[k]

    for other in (labels.tolist(), Lazy()):
        np.testing.assert_array_equal(dense(Annotation.from_labels(other)), labels)


def test_lazy_labels_are_read_many_slices_at_once():
    labels = np.zeros((150, 2, 3), np.uint8)
    labels[[0, 64, 149], 1, 2] = 1, 2, 3
    asked = []

    class Lazy:
        shape, dtype = labels.shape, labels.dtype

        def __getitem__(self, k):
            asked.append((k.start, k.stop))
            return labels[k]

    annotation = Annotation.from_labels(Lazy())
    assert asked == [(0, 64), (64, 128), (128, 150)]
    np.testing.assert_array_equal(dense(annotation), labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((3, 4), int), r"three axes ZYX, got shape \(3, 4\)"),
        (np.ones((1, 3, 4, 5), int), r"got shape \(1, 3, 4, 5\)"),
        (np.ones((3, 4, 5)), "must be integers .* got float64"),
        (np.full((3, 4, 5), -1), "not be negative, got -1; use 0"),
        (np.full((3, 4, 5), 255), "at most 254, got 255"),
        (np.full((3, 4, 5), 2**40), "at most 254, got 1099511627776"),
    ],
)
def test_what_cannot_be_labels_is_refused(labels, message):
    with pytest.raises(EngineError, match=message):
        Annotation.from_labels(labels)


@given(labels=SPARSE, data=st.data())
def test_a_crop_is_that_of_the_dense_labels(labels, data):
    low = [data.draw(st.integers(-4, n + 4)) for n in labels.shape]
    size = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    padded = np.pad(labels, 16)
    box = tuple(slice(a + 16, a + 16 + s) for a, s in zip(low, size, strict=True))
    found = Annotation.from_labels(labels).crop(low, size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, padded[box])


@given(labels=SPARSE, data=st.data())
def test_a_selection_keeps_labels_where_they_are(labels, data):
    annotation = Annotation.from_labels(labels)
    keep = data.draw(arrays(bool, len(annotation)))
    kept = labels.copy()
    kept.flat[annotation.index[~keep]] = 0
    np.testing.assert_array_equal(dense(annotation.select(keep)), kept)


@given(labels=SPARSE, data=st.data())
def test_a_selection_keeps_voxels_in_their_slices(labels, data):
    annotation = Annotation.from_labels(labels)
    keep = data.draw(arrays(bool, len(annotation)))
    twice = data.draw(arrays(bool, int(keep.sum())))
    normals = annotation.normals[keep][twice]
    part = annotation.select(keep).select(twice)
    np.testing.assert_array_equal(part.normals, normals)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_held_out_lies_across_the_axis_it_was_painted_in(axis):
    labels = np.zeros((4, 96, 96), np.uint8)
    labels[1, 10:30] = 1
    labels[1, 60:80, 10:80] = 2
    annotation = Annotation.from_labels(np.moveaxis(labels, 0, axis))
    parts = annotation.split(0.2)
    assert all(len(part) for part in parts)
    assert all(set(part.normals.tolist()) == {axis} for part in parts)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_voxels_of_a_full_slice_lie_across_its_axis(axis):
    labels = np.zeros((9, 11, 13), np.uint8)
    index = [slice(None)] * 3
    index[axis] = 5
    labels[tuple(index)] = 1
    annotation = Annotation.from_labels(labels)
    assert set(annotation.normals.tolist()) == {axis}
    assert annotation.slices() == [(axis, 5, labels.sum())]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_scribble_lies_across_the_axis_it_was_painted_in(axis):
    labels = np.zeros((20, 20, 20), np.uint8)
    index = [slice(3, 9), slice(4, 13), slice(2, 11)]
    index[axis] = 7
    labels[tuple(index)] = 2
    assert set(Annotation.from_labels(labels).normals.tolist()) == {axis}


def test_slices_across_different_axes_are_told_apart():
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[3] = 1
    labels[:, 5] = 2
    labels[:, :, 6] = 3
    annotation = Annotation.from_labels(labels)
    found = {(axis, position) for axis, position, _ in annotation.slices()}
    assert found == {(0, 3), (1, 5), (2, 6)}
    assert sum(count for *_, count in annotation.slices()) == len(annotation)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_that_slice(axis):
    labels = np.zeros((1, 16, 16), np.uint8)
    labels[0, 3:5] = 1
    labels[0, :, 9] = 2
    annotation = Annotation.from_labels(np.moveaxis(labels, 0, axis))
    assert annotation.slices() == [(axis, 0, 46)]


@given(labels=SPARSE.filter(lambda labels: 1 not in labels.shape))
def test_a_voxel_lies_in_the_plane_that_is_labelled_to_the_greatest_part(labels):
    annotation = Annotation.from_labels(labels)
    parts = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        part = np.count_nonzero(labels, axis=others) * (
            labels.shape[axis] / labels.size
        )
        parts.append(part[annotation.coordinates[:, axis]])
    np.testing.assert_array_equal(annotation.normals, np.argmax(parts, axis=0))


@pytest.mark.parametrize("shape", [(0, 5, 6), (4, 0, 6), (0, 0, 0)])
def test_a_volume_without_voxels_has_nothing_to_hold_out(shape):
    assert [len(part) for part in empty(shape).split(0.1)] == [0, 0]


def test_nothing_labelled_has_no_slices():
    assert len(empty()) == empty().n_classes == len(empty().counts) == 0
    assert empty().slices() == []
    assert not dense(empty()).any()


def blobs(shape=(40, 60, 60), seed=0):
    truth = np.ones(shape, np.uint8)
    _, y, x = np.indices(shape)
    truth[(y - 30) ** 2 + (x - 20) ** 2 < 150] = 2
    truth[(y - 20) ** 2 + (x - 45) ** 2 < 30] = 3
    return truth


def painted(positions, axis=0):
    truth = blobs()
    labels = np.zeros_like(truth)
    for position in positions:
        index = (slice(None),) * axis + (position,)
        labels[index] = truth[index]
    return Annotation.from_labels(labels)


@settings(max_examples=30)
@given(fraction=st.floats(0.01, 0.89), seed=st.integers(0, 100), axis=st.integers(0, 2))
def test_a_split_shares_the_labels_out(fraction, seed, axis):
    annotation = painted([5, 11, 20, 33], axis)
    taught, held = annotation.split(fraction, seed)
    assert not set(taught.index) & set(held.index)
    assert set(taught.index) | set(held.index) == set(annotation.index)
    np.testing.assert_array_equal(dense(taught) + dense(held), dense(annotation))
    assert len(held) > 0
    assert np.all(taught.counts * 2 >= annotation.counts)


@settings(max_examples=30)
@given(
    labels=arrays(
        np.uint8,
        st.tuples(*[st.integers(1, 30)] * 3),
        elements=st.sampled_from([1, 2, 3]),
        fill=st.just(0),
    ),
    planes=st.tuples(*[st.integers(0, 29)] * 3),
    fraction=st.floats(0.01, 0.89),
    seed=st.integers(0, 100),
)
def test_blocks_are_numbered_in_the_order_of_normal_and_place(
    labels, planes, fraction, seed
):
    labels = labels.copy()
    for axis, position in enumerate(planes):
        index = (slice(None),) * axis + (position % labels.shape[axis],)
        labels[index] = axis + 1
    annotation = Annotation.from_labels(labels)
    extent = int(max(8, min(32, sorted(labels.shape)[1] // 5)))
    normals = annotation.normals[:, None] == np.arange(3)
    cell = np.where(normals, annotation.coordinates, annotation.coordinates // extent)
    rows = np.column_stack([annotation.normals, cell])
    cells, block = np.unique(rows, axis=0, return_inverse=True)
    held = np.zeros(len(annotation), bool)
    if len(cells) >= 10:
        block = block.reshape(-1)
        held = _choose_blocks(cells, block, annotation.labels, fraction, seed)
    np.testing.assert_array_equal(
        annotation.split(fraction, seed)[1].index, annotation.index[held]
    )


def test_a_split_takes_little_memory():
    labels = np.zeros((8, 256, 256), np.uint8)
    labels[3] = 1
    annotation = Annotation.from_labels(labels)
    tracemalloc.start()
    annotation.split(0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * len(annotation)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_tenth_is_about_a_tenth(axis):
    annotation = painted(range(2, 40, 4), axis)
    shares = [
        len(annotation.split(0.1, seed)[1]) / len(annotation) for seed in range(9)
    ]
    assert 0.06 < np.mean(shares) < 0.14


def test_what_is_held_out_are_whole_blocks():
    annotation = painted([7])
    held = dense(annotation.split(0.2)[1])[7]
    for y in range(0, 60, 12):
        for x in range(0, 60, 12):
            block = held[y : y + 12, x : x + 12] > 0
            assert block.all() or not block.any()


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_every_class_is_measured_where_it_lies_in_several_blocks(seed):
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[3] = 1
    labels[3, 5:8, 10:14] = labels[3, 40:44, 30:50] = 2
    taught, held = Annotation.from_labels(labels).split(0.1, seed)
    assert np.all(held.counts > 0)
    assert np.all(taught.counts > 0)


def test_what_was_learned_from_is_hardly_ever_held_out_later():
    total = both = 0
    for seed in range(20):
        taught = painted([5, 11, 20]).split(0.1, seed)[0]
        held = painted([3, 5, 8, 11, 15, 20, 31]).split(0.1, seed)[1]
        both += np.isin(held.index, taught.index).sum()
        total += len(held)
    assert both < 0.03 * total


def test_a_split_is_the_same_every_time_and_another_with_another_seed():
    annotation = painted([5, 11, 20])
    first, again, other = (annotation.split(0.2, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.index, again.index)
    assert set(first.index) != set(other.index)


def test_a_class_in_one_block_is_never_held_out():
    labels = np.ones((20, 60, 60), np.uint8)
    labels[1:] = 0
    labels[0, :3, :3] = 2
    annotation = Annotation.from_labels(labels)
    for seed in range(20):
        taught, held = annotation.split(0.5, seed)
        assert taught.counts[1] == 9
        assert len(held)


def test_too_little_to_share_is_not_shared_out():
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[3, :20, :20] = 1
    annotation = Annotation.from_labels(labels)
    for taught, held in (
        annotation.split(0.5),
        painted([5]).split(0),
        empty().split(1),
    ):
        assert len(held) == 0
        assert held.shape == taught.shape
    assert len(annotation.split(0.5)[0]) == 400


def test_the_number_of_classes_is_the_largest_label():
    volumes = [painted([5]), empty(), Annotation.from_labels(np.full((2, 2, 2), 7))]
    assert check_annotations(volumes) == 7


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0], "no voxel is labelled .* paint a few slices"),
        ([0, 2], "only class 2 is labelled; paint at least two"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(labels, message):
    annotations = [Annotation.from_labels(np.full((2, 2, 2), k)) for k in labels]
    with pytest.raises(EngineError, match=message):
        check_annotations(annotations)
