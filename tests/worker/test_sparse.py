from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import EngineError
from napari_unet3d.worker.sparse import SparseLabels

changes = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=20)


@given(st.lists(changes, max_size=5))
def test_changes_have_the_effect_of_painting(strokes):
    dense = np.zeros(31, np.uint8)
    sparse = SparseLabels()

    for stroke in strokes:
        for index, label in stroke:
            dense[index] = label
        sparse = sparse.changed([i for i, _ in stroke], [k for _, k in stroke])

    np.testing.assert_array_equal(sparse.index, np.flatnonzero(dense))
    np.testing.assert_array_equal(sparse.labels, dense[dense > 0])
    assert (sparse.index.dtype, sparse.labels.dtype) == (np.int64, np.uint8)
    assert len(sparse) == np.count_nonzero(dense)


def test_every_voxel_needs_a_label():
    with pytest.raises(EngineError, match="2 voxels were given with 1 labels"):
        SparseLabels().changed([1, 2], [1])
