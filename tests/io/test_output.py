"""A file is complete or not there, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import zarr

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, read_labels

NAMES = ("a.tif", "a.zarr", "a.h5", "a.nii", "a.nii.gz", "a.npy")
SHAPE = (5, 6, 7)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_ones(path):
    with create_volume(path, SHAPE, "uint8") as array:
        array[:] = 1


def write_and_stop(path, shape, error):
    with create_volume(path, shape, "uint8") as array:
        array[:] = 2
        raise error("stopped")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "error", [RuntimeError, KeyboardInterrupt, EngineError, OSError]
)
def test_an_exception_passes_and_leaves_nothing(tmp_path, name, error):
    with pytest.raises(error, match=r"^stopped$"):
        write_and_stop(tmp_path / name, SHAPE, error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_leaves_an_older_file_as_it_was(tmp_path, name):
    write_ones(tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(RuntimeError, match="stopped"):
        write_and_stop(tmp_path / name, (9, 9, 9), RuntimeError)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_the_name_appears_at_the_end(tmp_path, name):
    with create_volume(tmp_path / name, SHAPE, "uint8") as array:
        array[:] = 1
        assert not (tmp_path / name).exists()
        assert len(list(tmp_path.iterdir())) == 1
        kept = array[1:3]
        array[1:3] = 2
    assert kept.max() == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_an_older_file_is_replaced(tmp_path, name):
    write_ones(tmp_path / name)
    with create_volume(tmp_path / name, (4, 3, 2), "uint16") as array:
        array[:] = 2
    labels = read_labels(tmp_path / name).data
    assert (labels.shape, labels.min()) == ((4, 3, 2), 2)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(sys.platform == "win32", reason="symlinks need a privilege")
@pytest.mark.parametrize("name", NAMES)
def test_a_link_is_followed(tmp_path, name):
    (tmp_path / "disk").mkdir()
    write_ones(tmp_path / "disk" / name)
    (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    with create_volume(tmp_path / name, SHAPE, "uint8") as array:
        array[:] = 2
    assert (tmp_path / name).is_symlink()
    assert read_labels(tmp_path / "disk" / name).data.min() == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_closed_file_takes_nothing_more(tmp_path, name):
    with create_volume(tmp_path / name, SHAPE, "uint8") as array:
        pass
    with pytest.raises(EngineError, match="is closed; create it again to write"):
        array[0] = 1


@pytest.mark.parametrize("name", NAMES)
def test_a_block_of_a_wrong_shape_is_the_caller_s_mistake(tmp_path, name):
    with (
        pytest.raises(ValueError, match=r"broadcast|shape"),
        create_volume(tmp_path / name, SHAPE, "uint8") as array,
    ):
        array[0:2] = np.ones((3, 6, 7))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_is_not_there_is_named(tmp_path, name):
    with (
        pytest.raises(
            EngineError, match=r"there is no folder .*none; create it or choo"
        ),
        create_volume(tmp_path / "none" / name, SHAPE, "uint8"),
    ):
        pass


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_the_way_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("keep")
    with (
        pytest.raises(
            EngineError, match=r"it is a folder|something that is no zarr has"
        ),
        create_volume(tmp_path / name, SHAPE, "uint8"),
    ):
        pass
    assert contents(tmp_path) == {os.path.join(name, "notes.txt"): b"keep"}


def test_a_file_in_the_way_of_a_zarr_stays(tmp_path):
    (tmp_path / "a.zarr").write_text("keep")
    with (
        pytest.raises(EngineError, match="something that is no zarr has this name"),
        create_volume(tmp_path / "a.zarr", SHAPE, "uint8"),
    ):
        pass


def test_an_empty_folder_becomes_a_zarr(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    write_ones(tmp_path / "a.zarr")
    assert read_labels(tmp_path / "a.zarr").data.min() == 1


@pytest.mark.parametrize("kind", ["group", "array", "image with labels"])
def test_a_zarr_that_holds_more_is_not_replaced(kind, tmp_path):
    path = tmp_path / "a.zarr"
    if kind == "array":
        zarr.create_array(path, shape=SHAPE, dtype="uint8")
    else:
        if kind == "image with labels":
            write_ones(path)
        zarr.open_group(path, mode="a").create_group("labels")
    before = contents(tmp_path)
    name = "an array without" if kind == "array" else "labels"
    with pytest.raises(EngineError, match=f"it exists and holds {name}.* lost"):
        write_ones(path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json"])
@pytest.mark.parametrize("text", ["{", '{"zarr_format": 3, "node_type": "tree"}'])
def test_a_zarr_that_cannot_be_read_is_not_replaced(name, text, tmp_path):
    path = tmp_path / "a.zarr"
    write_ones(path)
    (path / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(
        EngineError, match=r"a.zarr exists and cannot be looked into \(.*or remove it"
    ):
        write_ones(path)
    assert contents(tmp_path) == before


def test_nothing_is_written_into_another_zarr(tmp_path):
    write_ones(tmp_path / "a.zarr")
    with (
        pytest.raises(EngineError, match="lies within another zarr; choose a name of"),
        create_volume(tmp_path / "a.zarr/cells", SHAPE, "uint8"),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": (5, 6)}, r"shape \(5, 6\) cannot be written; give \(Z, Y, X\) or"),
        ({"shape": (5, 0, 6)}, r"shape \(5, 0, 6\) cannot be written"),
        (
            {"dtype": "complex64"},
            "numbers of type complex64 cannot be written; convert",
        ),
        ({"dtype": object}, "numbers of type object cannot be written"),
        ({"spacing": (0, 1, 1)}, r"spacing \(0, 1, 1\) cannot be written; give three"),
        ({"spacing": (1, 1)}, r"spacing \(1, 1\) cannot be written"),
        ({"spacing": (1, 1, 1), "unit": "ell"}, "The unit 'ell' is not known; use one"),
        ({"class_colors": [(1, 2, 3)]}, r"class colour \(1, 2, 3\) cannot be written"),
        ({"class_colors": [(1, 1)]}, r"class colour \(1, 1\) cannot be written"),
    ],
)
def test_what_no_file_can_hold_is_refused(tmp_path, options, sentence):
    given = {"shape": SHAPE, "dtype": "uint8", **options}
    with (
        pytest.raises(EngineError, match=sentence),
        create_volume(tmp_path / "a.zarr", **given),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def failing(number):
    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (
            errno.ENOSPC,
            r"The disk is full: .* could not be written \(.* needed, .* free",
        ),
        (errno.EROFS, r"cannot be written: the folder .* is read-only; choose another"),
        (errno.EACCES, r"write-protected or open in another program|is read-only"),
        (errno.EIO, r"cannot be written \(Input/output error\); choose another name"),
    ],
)
def test_errors_of_the_disk_are_sentences(
    tmp_path, monkeypatch, name, number, sentence
):
    write_ones(tmp_path / name)
    before = contents(tmp_path)
    if name == "a.zarr":
        monkeypatch.setattr("zarr.create_group", failing(number))
    else:
        for module in ("tiff", "hdf5", "nifti", "npy"):
            target = f"napari_unet3d.io.{module}.reserve"
            monkeypatch.setattr(target, failing(number))
    with (
        pytest.raises(EngineError, match=sentence),
        create_volume(tmp_path / name, SHAPE, "uint8"),
    ):
        pass
    assert contents(tmp_path) == before


def test_a_disk_that_fills_while_compressing_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.copyfileobj", failing(errno.ENOSPC))
    with pytest.raises(EngineError, match="The disk is full"):
        write_ones(tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_leaves_the_older_zarr(tmp_path, monkeypatch):
    from pathlib import Path

    write_ones(tmp_path / "a.zarr")
    before = contents(tmp_path)
    rename = Path.rename

    def refused(self, target):
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(EngineError, match="cannot be written"):
        write_ones(tmp_path / "a.zarr")
    assert contents(tmp_path) == before


def test_room_is_taken_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr("napari_unet3d.io.mapped._BLOCK", 100)
    for name in NAMES:
        write_ones(tmp_path / name)
        assert read_labels(tmp_path / name).data.shape == SHAPE


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 200 kB; only root can."""
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk can only be mounted by root on Linux")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_a_sentence_and_left_empty(small_disk, name):
    def write():
        random = np.random.default_rng(0)
        with create_volume(small_disk / name, (100, 100, 100), "uint8") as array:
            for z in range(100):
                array[z] = random.integers(0, 255, (100, 100))

    with pytest.raises(EngineError, match=f"The disk is full: .*{name} could not be"):
        write()
    assert list(small_disk.iterdir()) == []
