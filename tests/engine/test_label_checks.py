from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import EngineError, label_checks
from napari_unet3d.engine.label_checks import check_range, read_slabs


@given(depth=st.integers(0, 200))
def test_slabs_side_by_side_are_the_volumes(depth):
    one = np.arange(depth * 6).reshape(depth, 2, 3)
    other = one.astype(np.int16) + 1
    slabs = list(read_slabs(one, other))
    assert [first for first, _ in slabs] == list(range(0, depth, 64))
    for k, volume in enumerate((one, other)):
        parts = [volume[:0], *(slab[k] for _, slab in slabs)]
        np.testing.assert_array_equal(np.concatenate(parts), volume)


@pytest.mark.parametrize(
    ("room", "thickness"),
    [(2**20, 64), (64 * 12, 64), (64 * 12 - 1, 32), (30, 2), (1, 1)],
)
def test_slabs_of_large_slices_are_thin(monkeypatch, room, thickness):
    monkeypatch.setattr(label_checks, "SLAB_BYTES", room)
    labels = np.zeros((70, 2, 3), np.uint16)
    narrow = labels.astype(np.uint8)
    for volumes in ((labels,), (narrow, labels), (labels, narrow)):
        slabs = [slab for _, slab in read_slabs(*volumes)]
        assert len(slabs[0][0]) == thickness
        assert sum(len(slab[0]) for slab in slabs) == 70


def test_slices_without_voxels_are_slabs_too():
    assert [slab[0].shape for _, slab in read_slabs(np.zeros((3, 0, 5)))] == [(3, 0, 5)]


@pytest.mark.parametrize(
    ("lowest", "highest", "message"),
    [
        (-3, 1, "seeds must not be negative, got -3"),
        (1, 255, "seeds must be at most 254, got 255"),
    ],
)
def test_a_sentence_names_the_labels_and_the_value(lowest, highest, message):
    with pytest.raises(EngineError, match=message):
        check_range(lowest, highest, "seeds")
