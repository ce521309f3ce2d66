from __future__ import annotations

import json
import sys

import h5py
import numpy as np
import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, open_image, read_labels

STACK = np.random.default_rng(0).integers(0, 255, (7, 8, 9)).astype(np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "volume.h5"


@pytest.fixture
def file(path):
    with h5py.File(path, "w") as file:
        yield file


def opened(file, inner="", **options):
    path = file.filename
    file.close()
    return open_image(f"{path}:{inner}" if inner else path, **options)


def test_a_dataset_is_named_behind_a_colon(file):
    file["raw"] = STACK
    file["deep/mask"] = STACK > 9
    path = file.filename
    file.close()
    for inner in ("raw", "/raw", "deep/mask", "deep"):
        assert open_image(f"{path}:{inner}").data.shape == (1, *STACK.shape)
    np.testing.assert_array_equal(read_labels(f"{path}:deep/mask").data, STACK > 9)


def test_the_only_volume_needs_no_name(file):
    file["group/raw"] = STACK
    file["table"] = np.arange(5)
    np.testing.assert_array_equal(opened(file).data[0], STACK)


def test_several_volumes_are_listed(file):
    file["raw"] = STACK
    file["mask"] = STACK
    with pytest.raises(
        EngineError,
        match=r"volume.h5 holds 2 datasets; name one, as .*volume.h5:mask \(there are",
    ):
        opened(file)


def test_a_name_that_is_not_there_is_answered_by_the_nearest(file):
    file["volumes/raw"] = STACK
    file["volumes/labels"] = STACK
    with pytest.raises(
        EngineError,
        match=r"no dataset 'volumes/lables', only volumes/labels, volumes/raw; did "
        r"you mean volumes/labels\?",
    ):
        opened(file, "volumes/lables")


def test_a_file_without_volumes_is_refused(file):
    file["table"] = np.arange(5)
    with pytest.raises(EngineError, match="holds no dataset with three to five axes"):
        opened(file)


def test_a_flat_dataset_is_refused(file):
    file["flat"] = STACK[0]
    with pytest.raises(EngineError, match=r"is 2D \(shape \(8, 9\)\); a volume with"):
        opened(file, "flat")


@pytest.mark.parametrize(
    ("attributes", "spacing", "unit"),
    [
        ({"element_size_um": [0.5, 0.2, 0.1]}, (0.5, 0.2, 0.1), "micrometer"),
        ({"spacing": [5, 2, 1], "unit": "nm"}, (5, 2, 1), "nanometer"),
        ({"spacing": [5, 2, 1], "unit": np.bytes_("nm")}, (5, 2, 1), "nanometer"),
        ({"spacing": [5.0, 2, 1]}, (5, 2, 1), None),
        ({"spacing": "wide", "element_size_um": [3.0, 1, 1]}, (3, 1, 1), "micrometer"),
        ({"element_size_um": [0, 0, 0]}, None, None),
        ({"element_size_um": 2.0}, None, None),
        ({}, None, None),
    ],
)
def test_attributes_say_size_and_unit(file, attributes, spacing, unit):
    file["raw"] = STACK
    file["raw"].attrs.update(attributes)
    image = opened(file)
    assert (image.spacing, image.unit) == (spacing, unit)


def test_axes_of_ilastik_are_heeded(file):
    file["exported_data"] = STACK[np.newaxis, ..., np.newaxis].repeat(9, axis=-1)
    tags = {"axes": [{"key": key, "typeFlags": 1} for key in "tzyxc"]}
    file["exported_data"].attrs["axistags"] = json.dumps(tags)
    data = opened(file).data
    assert data.shape == (9, *STACK.shape)
    np.testing.assert_array_equal(data[8], STACK)


@pytest.mark.parametrize("tags", ["{", "{}", '{"axes": [{"key": "z"}]}', "3"])
def test_damaged_axes_of_ilastik_are_left_out(file, tags):
    file["raw"] = STACK
    file["raw"].attrs["axistags"] = tags
    np.testing.assert_array_equal(opened(file).data[0], STACK)


def test_labels_of_dimensions_are_heeded(file):
    file["raw"] = STACK
    for dimension, name in zip(file["raw"].dims, "xyz", strict=True):
        dimension.label = name
    np.testing.assert_array_equal(opened(file).data[0], STACK.T)


def test_compressed_chunks_are_read_when_they_are_asked_for(file):
    file.create_dataset("raw", data=STACK, chunks=(2, 4, 4), compression="gzip")
    np.testing.assert_array_equal(opened(file).data[:, 3:1:-1], STACK[None, 3:1:-1])


def test_text_is_refused(file):
    file["raw"] = np.full((2, 3, 4), b"text")
    with pytest.raises(EngineError, match="holds numbers of type"):
        opened(file)


def test_other_datasets_are_never_lost(file, path):
    file["raw"] = STACK
    file.close()
    before = path.read_bytes()
    with (
        pytest.raises(EngineError, match=r"exists and holds other datasets \(raw\)"),
        create_volume(f"{path}:segmentation", STACK.shape, "uint8"),
    ):
        pass
    assert path.read_bytes() == before


def test_the_same_dataset_is_replaced(path):
    for value in (1, 2):
        with create_volume(f"{path}:cells/dense", STACK.shape, "uint8") as array:
            array[:] = value
    assert read_labels(f"{path}:cells/dense").data.min() == 2


def test_what_is_written_has_the_customary_attributes(path):
    options = {"spacing": (50, 4, 4), "unit": "nm"}
    with create_volume(path, STACK.shape, "uint8", **options) as array:
        array[:] = STACK
    with h5py.File(path) as file:
        dataset = file["segmentation"]
        np.testing.assert_array_equal(dataset, STACK)
        assert dataset.attrs["element_size_um"].tolist() == [0.05, 0.004, 0.004]
        assert [dimension.label for dimension in dataset.dims] == list("zyx")


@pytest.mark.parametrize("inner", [".", "a//b", "../a"])
def test_a_name_that_is_none_is_refused(path, inner):
    with (
        pytest.raises(EngineError, match="is no name of a dataset; give one, as in"),
        create_volume(f"{path}:{inner}", STACK.shape, "uint8"),
    ):
        pass


def test_what_is_no_hdf5_is_replaced(path):
    for content in (b"", b"notes", b"\0" * 4096):
        path.write_bytes(content)
        with create_volume(path, STACK.shape, "uint8") as array:
            array[:] = 3
        assert read_labels(path).data.min() == 3


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_a_file_that_another_program_locks_is_not_replaced(file, path):
    import fcntl

    file["raw"] = STACK
    file.close()
    before = path.read_bytes()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(
                EngineError, match=r"volume.h5 exists and cannot be looked i"
            ),
            create_volume(f"{path}:segmentation", STACK.shape, "uint8"),
        ):
            pass
    assert path.read_bytes() == before


def test_a_dataset_that_came_meanwhile_is_not_lost(path):
    def write_at_the_same_time():
        with create_volume(f"{path}:b", STACK.shape, "uint8") as second:
            second[:] = 2
            with create_volume(f"{path}:a", STACK.shape, "uint8") as first:
                first[:] = 1

    with pytest.raises(EngineError, match=r"exists and holds other datasets \(a\)"):
        write_at_the_same_time()
    assert read_labels(f"{path}:a").data.min() == 1
    assert [each.name for each in path.parent.iterdir()] == [path.name]
