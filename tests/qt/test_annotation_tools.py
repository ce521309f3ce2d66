"""Whole slices at once, each one undo step; and where to go next."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_unet3d._qt.annotation_scan import Labelled, changes_between, scan
from napari_unet3d._qt.annotation_tools import (
    Slice,
    accept,
    annotated_slices,
    clear,
    fill_background,
    next_slice,
    remove_label,
    slices_per_class,
)


@pytest.fixture
def layer():
    data = np.zeros((6, 20, 30), np.uint8)
    data[2, 5:10, 5:10] = 2
    return Labels(data)


def labelled(volume) -> Labelled:
    *_, found = scan(volume)
    return found


@pytest.mark.parametrize("where", [Slice(0, 2), Slice(1, 7), Slice(2, 6)])
def test_each_tool_is_one_undo_step(layer, where):
    before = layer.data.copy()
    tools = [
        lambda: fill_background(layer, where),
        lambda: accept(layer, where, np.full_like(where.of(before), 3)),
        lambda: clear(layer, where),
        lambda: remove_label(layer, 2),
    ]
    for tool in tools:
        tool()
        changed = layer.data.copy()
        assert (changed != before).any()
        layer.undo()
        np.testing.assert_array_equal(layer.data, before)
        layer.redo()
        np.testing.assert_array_equal(layer.data, changed)
        layer.undo()


def test_what_is_painted_stays(layer):
    fill_background(layer, Slice(0, 2))
    assert set(np.unique(layer.data[2])) == {1, 2}
    assert (layer.data[2] == 2).sum() == 25
    assert not layer.data[3].any()
    assert fill_background(layer, Slice(0, 2)) == 0


def test_prediction_is_accepted_only_where_there_is_one(layer):
    prediction = np.zeros((20, 30), np.uint8)
    prediction[:, :10] = 3
    assert accept(layer, Slice(0, 2), prediction) == 200 - 25
    assert not layer.data[2, :, 10:].any()


def test_next_slices_spread_over_all_planes():
    volume = np.zeros((40, 60, 80), np.uint8)
    seen = []
    for _ in range(9):
        where = next_slice(labelled(volume))
        seen.append(where)
        where.of(volume)[...] = 1
    assert seen[:3] == [Slice(0, 20), Slice(1, 30), Slice(2, 40)]
    assert sorted(each.axis for each in seen) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(set(seen)) == 9


def test_annotated_slices_are_those_painted_not_those_seen_edge_on():
    volume = np.zeros((40, 60, 80), np.uint8)
    volume[10] = 1
    volume[:, :, 33] = 2
    volume[25, 10:20, 10:20] = 3
    found = labelled(volume)
    assert annotated_slices(found) == [Slice(0, 10), Slice(0, 25), Slice(2, 33)]
    assert slices_per_class(found, annotated_slices(found), 3)[2] == 1


def test_slices_that_are_labelled_all_over_are_annotated():
    labels = np.ones((4, 3, 5), np.uint8)
    *_, found = scan(labels)
    assert annotated_slices(found) == [Slice(1, 0), Slice(1, 1), Slice(1, 2)]
    labels[1] = 0
    *_, found = scan(labels)
    assert annotated_slices(found) == [Slice(0, 0), Slice(0, 2), Slice(0, 3)]
    *_, found = scan(np.ones((1, 30, 40), np.uint8))
    assert annotated_slices(found) == [Slice(0, 0)]


def test_changes_lead_from_one_state_to_the_other():
    rng = np.random.default_rng(0)
    before = (rng.integers(0, 4, (5, 6, 7)) * (rng.random((5, 6, 7)) < 0.3)).astype(
        "u1"
    )
    after = (rng.integers(0, 4, (5, 6, 7)) * (rng.random((5, 6, 7)) < 0.3)).astype("u1")
    changes = changes_between(labelled(before), labelled(after))
    made = before.copy()
    made.reshape(-1)[changes.index] = changes.labels
    np.testing.assert_array_equal(made, after)
    assert len(changes) == (before != after).sum()
    np.testing.assert_array_equal(labelled(after).dense(), after)


def test_a_large_volume_is_scanned_in_blocks(monkeypatch):
    from napari_unet3d._qt import annotation_scan

    monkeypatch.setattr(annotation_scan, "BLOCK", 100)
    volume = np.zeros((9, 8, 7), np.int32)
    volume[4, 2, 1], volume[8, 7, 6] = 300, 5
    *steps, found = scan(volume)
    assert len(steps) == 8
    assert found.index.tolist() == [volume.size - 1]  # 300 is no class
