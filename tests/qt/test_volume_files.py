"""NIfTI and HDF5 files as layers; the voxel size of a TIFF file."""

from __future__ import annotations

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from napari.layers._source import Source

from napari_unet3d import _reader, _volume_layers
from napari_unet3d._qt.volumes import VolumeChoice
from napari_unet3d._qt.voxel_size import size_in_file
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.dask_origin import origin_of_dask

VOLUME = np.random.default_rng(0).integers(0, 200, (6, 7, 8)).astype(np.uint8)


@pytest.fixture(params=[True, False], ids=["in memory", "on the disk"])
def in_memory(request, monkeypatch):
    monkeypatch.setattr(_volume_layers, "fits_in_memory", lambda nbytes: request.param)
    return request.param


def layers_of(path):
    return _reader.get_reader(str(path))(str(path))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_is_turned_round_and_keeps_its_size(tmp_path, in_memory, ending):
    path = tmp_path / f"subject.scan{ending}"
    image = nibabel.Nifti1Image(VOLUME.T, np.diag([0.5, 0.25, 3, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    ((data, about, kind),) = layers_of(path)
    layer = Image(data, **about)
    assert (kind, layer.name) == ("image", "subject.scan")
    np.testing.assert_array_equal(layer.data, VOLUME)
    np.testing.assert_allclose(layer.scale, (3, 0.25, 0.5))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert isinstance(data, np.ndarray) == in_memory


def test_stored_numbers_with_a_scale_become_grey_values(tmp_path, in_memory):
    path = tmp_path / "scan.nii"
    image = nibabel.Nifti1Image(VOLUME.T, np.eye(4))
    image.header.set_slope_inter(2.0, -10.0)
    nibabel.save(image, path)
    # nibabel divides by the slope when it saves.
    ((data, _, _),) = layers_of(path)
    np.testing.assert_allclose(data, nibabel.load(path).get_fdata().T)
    assert data.dtype == np.float32


def test_all_volumes_of_an_hdf5_file_and_nothing_else(tmp_path, in_memory):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["raw"] = VOLUME
        file["raw"].attrs["element_size_um"] = (2, 1, 1)
        file["group/labels"] = VOLUME // 100
        file["two"] = np.stack([VOLUME, VOLUME + 1])
        file["list"] = np.arange(4)
        file["patches"] = np.zeros((9, 9, 6, 7, 8))
    found = {
        about["name"]: (data, about, kind) for data, about, kind in layers_of(path)
    }
    assert list(found) == ["group/labels", "raw", "two channel 0", "two channel 1"]
    kinds = {name: kind for name, (_, _, kind) in found.items()}
    assert kinds.pop("group/labels") == "labels"
    assert set(kinds.values()) == {"image"}
    Labels(found["group/labels"][0], **found["group/labels"][1])
    np.testing.assert_array_equal(found["two channel 1"][0], VOLUME + 1)
    # All have the shape of the one that knows its size.
    for _, about, _ in found.values():
        assert about["scale"] == (2.0, 1.0, 1.0)
    if not in_memory:
        stored, view = origin_of_dask(found["two channel 1"][0])
        assert stored.inner.strip("/") == "two"
        assert view.shape == VOLUME.shape


def test_the_only_volume_of_a_file_is_named_after_it(tmp_path):
    path = tmp_path / "cells.hdf5"
    with h5py.File(path, "w") as file:
        file["exported_data"] = VOLUME
    ((data, about, _),) = layers_of(path)
    assert about["name"] == "cells"
    np.testing.assert_array_equal(data, VOLUME)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"list": np.arange(4)}, "no dataset with three to five axes"),
        (
            {"a": np.zeros((9, 9, 6, 7, 8)), "b": np.zeros((9, 9, 6, 7, 8))},
            "does not say which axis is which",
        ),
    ],
)
def test_hdf5_without_volumes_says_so(tmp_path, content, sentence):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value
    with pytest.raises(EngineError, match=sentence):
        layers_of(path)


def test_a_damaged_volume_says_so(tmp_path):
    for name in ("a.h5", "a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(EngineError, match=name):
            layers_of(tmp_path / name)


def write_sized(path):
    tifffile.imwrite(
        path,
        VOLUME,
        imagej=True,
        resolution=(4.0, 4.0),
        metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"},
    )


def test_the_size_is_only_offered_where_the_layer_has_none(tmp_path):
    path = tmp_path / "a.tif"
    write_sized(path)
    size = ((2.0, 0.25, 0.25), "micrometer")

    def found(data=VOLUME, where=path, **more):
        layer = Image(data, **more)
        layer._source = Source(path=None if where is None else str(where))
        return size_in_file(VolumeChoice(layer))

    assert found() == size
    assert found(scale=(3, 1, 1)) is None
    assert found(units=("um",) * 3) is None
    assert found(VOLUME[:3]) is None
    assert found(VOLUME[0]) is None
    assert found(where=None) is None
    assert found(where=tmp_path / "gone.tif") is None
    (tmp_path / "bad.tif").write_bytes(b"II*\0")
    assert found(where=tmp_path / "bad.tif") is None
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, VOLUME)
    assert found(where=plain) is None


def test_the_button_scales_image_and_annotation(open_widget, tmp_path, qtbot):
    write_sized(tmp_path / "a.tif")
    viewer, _, widget = open_widget()
    viewer.open(str(tmp_path / "a.tif"), plugin="napari")
    data = widget.data
    assert data.size_offer.isVisibleTo(data)
    assert "2 × 0.25 × 0.25 micrometer" in data._size_text.text()
    data.new.click()
    viewer.dims.set_current_step(0, 4)
    data.size_button.click()
    image, annotation = viewer.layers
    for layer in (image, annotation):
        np.testing.assert_allclose(layer.scale, (2, 0.25, 0.25))
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
    assert viewer.dims.current_step[0] == 4
    assert not data.size_offer.isVisibleTo(data)
    # As napari's own way of giving the layer a size does.
    image.units = ("pixel",) * 3
    image.scale = (1, 1, 1)
    assert data.size_offer.isVisibleTo(data)
    image.scale = (2, 1, 1)
    assert not data.size_offer.isVisibleTo(data)


def test_a_model_that_knows_another_size_is_told_of(driver, tmp_path, said):
    write_sized(tmp_path / "a.tif")
    driver.viewer.layers.clear()
    driver.viewer.open(str(tmp_path / "a.tif"), plugin="napari")
    driver.controller.set_state(has_model=True)
    driver.widget.data.size_button.click()
    driver.wait(lambda: any("press New under Model" in s for s in said))
