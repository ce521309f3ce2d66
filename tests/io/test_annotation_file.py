"""Sparse annotations that were saved in napari, read as labels."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, open_image, read_labels
from napari_unet3d.io.annotation_file import (
    AnnotationFile,
    is_annotation,
    load_annotation,
)


@pytest.fixture
def labels():
    volume = np.zeros((5, 6, 7), np.uint8)
    volume[2] = np.random.default_rng(0).integers(1, 4, (6, 7))
    volume[:, 0, 0] = 3
    return volume


def save(labels, path, **more):
    index = np.flatnonzero(labels)
    AnnotationFile(labels.shape, index, labels.ravel()[index], **more).save(path)
    return path


def test_labels_come_with_size_and_classes(labels, tmp_path):
    names, colors = ("background", "a", "b"), ("#000000", "#ff0000", "#00ff00")
    grid = {"scale": [-4.0, 0.5, 0.5], "units": ["micrometer"] * 3}
    path = save(
        labels,
        tmp_path / "a.npz",
        class_names=names,
        class_colors=colors,
        grid=grid,
    )
    assert is_annotation(path)
    found = read_labels(path)
    np.testing.assert_array_equal(found.data, labels)
    assert found.data.dtype == np.uint8
    assert (found.spacing, found.unit) == ((4.0, 0.5, 0.5), "micrometer")
    assert (found.class_names, found.class_colors) == (names, colors)
    again = load_annotation(path)
    assert (again.class_names, again.grid) == (names, grid)


@pytest.mark.parametrize(
    "grid", [{}, {"scale": [1, 1, 1], "units": ["pixel"] * 3}, {"scale": [0, 1, 1]}]
)
def test_a_layer_that_was_not_scaled_has_no_size(labels, tmp_path, grid):
    found = read_labels(save(labels, tmp_path / "a.npz", grid=grid))
    assert found.spacing is None
    assert found.unit is None


def test_nothing_painted_is_all_zeros(tmp_path):
    empty = np.zeros((2, 3, 4), np.uint8)
    np.testing.assert_array_equal(read_labels(save(empty, tmp_path / "a.npz")).data, 0)


def test_neither_an_image_nor_an_output(labels, tmp_path):
    path = save(labels, tmp_path / "a.npz")
    with pytest.raises(EngineError, match=r"a\.npz is no image"):
        open_image(path)
    with (
        pytest.raises(EngineError, match=r"b\.npz cannot be written: \.npz is for"),
        create_volume(tmp_path / "b.npz", (2, 3, 4), np.uint8),
    ):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"]


def test_other_npz_files_and_damaged_ones_say_so(labels, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(3))
    with pytest.raises(EngineError, match=r"other\.npz cannot be read as a sparse"):
        read_labels(other)
    assert not is_annotation(other)
    whole = save(labels, tmp_path / "a.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    for size in range(0, len(whole), 97):
        cut.write_bytes(whole[:size])
        with pytest.raises(EngineError, match=r"cut\.npz cannot be read"):
            read_labels(cut)
