from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import open_image, read_labels

LABELS = np.zeros((5, 6, 7), np.uint8)


@pytest.fixture
def saved(tmp_path):
    def save(numbers):
        np.save(tmp_path / "labels.npy", numbers)
        return tmp_path / "labels.npy"

    return save


@pytest.mark.parametrize(
    "dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", ">i4", "i8"]
)
def test_the_type_of_the_file_is_kept(saved, dtype):
    labels = LABELS.astype(dtype)
    labels[2] = 100
    data = read_labels(saved(labels)).data
    assert data.dtype == np.dtype(dtype).newbyteorder("=")
    assert data.flags.c_contiguous
    assert data.flags.writeable
    np.testing.assert_array_equal(data, labels)


def test_bool_becomes_bytes(saved):
    assert read_labels(saved(LABELS.astype(bool))).data.dtype == np.uint8


def test_large_classes_are_kept(saved):
    assert read_labels(saved(LABELS + np.uint16(65535))).data.max() == 65535


def test_one_channel_may_be_written_as_such(saved):
    assert read_labels(saved(LABELS[np.newaxis])).data.shape == LABELS.shape


def test_axes_may_be_given(saved):
    assert read_labels(saved(LABELS), axes="XYZ").data.shape == (7, 6, 5)


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (
            LABELS.astype("f4"),
            "labels must be integers, got float32 in .*labels.npy; s",
        ),
        (
            LABELS.astype("i2") - 3,
            "labels must not be negative, got -3 in .*; use 0 for",
        ),
        (
            LABELS + np.int64(70000),
            "labels must be at most 65535, got 70000 in .*; are",
        ),
        (np.stack([LABELS] * 2), "labels must have one channel, got 2 in .*; save one"),
        (LABELS.astype("c8"), "holds numbers of type complex64; save it as integers"),
        (LABELS[0], r"is 2D \(shape \(6, 7\)\); a volume with three axes is needed"),
    ],
)
def test_what_are_no_labels_is_refused(saved, numbers, sentence):
    with pytest.raises(EngineError, match=sentence):
        read_labels(saved(numbers))


@pytest.mark.parametrize("shape", [(0, 5, 6), (5, 0, 6), (2, 5, 6, 0)])
def test_an_empty_volume_is_refused(tmp_path, shape):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["raw"] = np.zeros(shape)
    for read in (open_image, read_labels):
        with pytest.raises(EngineError, match=r"empty.h5 is empty \(shape \("):
            read(tmp_path / "empty.h5")
