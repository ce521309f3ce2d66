from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import SUPPORTED, create_volume, open_image, read_labels
from napari_unet3d.io.location import located


@pytest.mark.parametrize(
    ("text", "kind", "path", "inner"),
    [
        ("a.tif", "TIFF", "a.tif", ""),
        ("a.OME.TIFF", "TIFF", "a.OME.TIFF", ""),
        ("a.zarr", "OME-Zarr", "a.zarr", ""),
        ("a.zarr/", "OME-Zarr", "a.zarr", ""),
        ("a.zarr/labels/cells", "OME-Zarr", "a.zarr/labels/cells", ""),
        ("a.h5", "HDF5", "a.h5", ""),
        ("a.h5:", "HDF5", "a.h5", ""),
        ("a.hdf5:raw", "HDF5", "a.hdf5", "raw"),
        ("a.H5:/volumes/raw", "HDF5", "a.H5", "volumes/raw"),
        (r"C:\data\a.h5:raw", "HDF5", r"C:\data\a.h5", "raw"),
        ("a.nii", "NIfTI", "a.nii", ""),
        ("a.nii.gz", "NIfTI", "a.nii.gz", ""),
        ("a.npy", "NumPy", "a.npy", ""),
    ],
)
def test_the_name_says_the_format(text, kind, path, inner):
    location = located(text)
    assert (location.kind, location.path, location.inner) == (kind, Path(path), inner)
    assert location.source == text


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.save(tmp_path / "a.npy", np.zeros((5, 6, 7)))
    assert open_image("~/a.npy").source == "~/a.npy"


@pytest.mark.parametrize("name", ["a.png", "a.tif.zip", "a.gz", "stack"])
def test_an_unknown_ending_lists_the_known(tmp_path, name):
    (tmp_path / name).write_text("notes")
    endings = r"; use \.tif, \.tiff, \.zarr, \.h5, \.hdf5, \.nii, \.nii\.gz, \.npy\.$"
    for read in (open_image, read_labels):
        with pytest.raises(EngineError, match=f"is no supported file type{endings}"):
            read(tmp_path / name)
    with (
        pytest.raises(EngineError, match=f"is no supported file type{endings}"),
        create_volume(tmp_path / name, (2, 3, 4), "uint8"),
    ):
        pass


def test_a_plain_folder_is_no_volume(tmp_path):
    with pytest.raises(EngineError, match="is a folder; name a file in it"):
        open_image(tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("brian.tif", r"brian.tif does not exist; did you mean brain.tif\?"),
        ("BRAIN.TIF", r"did you mean brain.tif\?"),
        ("brain.h5:raw", r"brain.h5:raw does not exist; did you mean brain.tif\?"),
        ("other.npy", "other.npy does not exist; check the path."),
        ("none/brain.tif", "does not exist: there is no folder .*none; check the path"),
        ("labels.zarr/0", r"0 does not exist; check the path"),
    ],
)
def test_a_missing_file_is_answered_by_the_nearest(tmp_path, name, sentence):
    (tmp_path / "brain.tif").write_text("")
    (tmp_path / "labels.zarr").mkdir()
    with pytest.raises(EngineError, match=sentence):
        open_image(tmp_path / name)


def test_every_supported_type_is_described():
    assert ".zarr" in SUPPORTED
    assert all(SUPPORTED.values())
