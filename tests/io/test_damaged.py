"""Files that are not what they seem end in a sentence, never in a traceback."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import zarr

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, open_image, read_labels

STACK = np.random.default_rng(0).integers(0, 255, (9, 20, 30)).astype(np.uint8)
FILES = ("a.tif", "a.h5", "a.nii", "a.nii.gz", "a.npy")


def written(path):
    with create_volume(
        path, STACK.shape, "uint8", spacing=(2, 1, 1), unit="nm"
    ) as array:
        array[:] = STACK
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [b"", b"II", b"These are notes, not numbers.\n" * 99, b"\0" * 4096]
)
@pytest.mark.parametrize("read", [open_image, read_labels])
def test_foreign_content_is_a_sentence(tmp_path, name, content, read):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"cannot be read as \w+ \(.*\)\. Check that"):
        read(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_a_sentence(tmp_path, name, part):
    path = written(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    if (name, part) == ("a.tif", 0.95):
        # Only the directories of later pages are cut off, which say nothing new.
        np.testing.assert_array_equal(open_image(path).data[0], STACK)
        return
    with pytest.raises(EngineError, match=r"cannot be read as \w+ \(.*\)\. Check that"):
        open_image(path)


@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"compression": "zlib"}])
@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("part", [0.4, 0.8])
def test_a_truncated_tiff_has_no_fewer_slices(tmp_path, options, pieces, part):
    import tifffile

    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in STACK if pieces else [STACK]:
            writer.write(page, contiguous=False, photometric="minisblack", **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(EngineError, match=r"cannot be read as TIFF \("):
        open_image(path)


# HDF5's own library is not safe against changed bytes.
@pytest.mark.parametrize("name", ["a.tif", "a.nii", "a.nii.gz", "a.npy"])
def test_changed_bytes_never_end_in_a_traceback(tmp_path, name):
    path = written(tmp_path / name)
    content = path.read_bytes()
    change = random.Random(0)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(change.choice([1, 4])):
            at = change.randrange(change.choice([500, len(content)]))
            damaged[at] = change.choice([change.randrange(256), 0, 255, ord("9")])
        path.write_bytes(damaged)
        try:
            open_image(path).data[...]
            read_labels(path)
        except EngineError:
            pass


def test_a_zarr_without_or_with_wrong_metadata_is_a_sentence(tmp_path):
    path = written(tmp_path / "a.zarr")
    (path / "0/zarr.json").write_text("{")
    with pytest.raises(EngineError, match=r"a.zarr cannot be read as OME-Zarr \(Exp"):
        open_image(path)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "tree"}')
    with pytest.raises(EngineError, match=r"a.zarr cannot be read as zarr \("):
        open_image(path)
    (path / "zarr.json").unlink()
    with pytest.raises(EngineError, match=r"a.zarr cannot be read as zarr \("):
        open_image(path)


def test_a_damaged_chunk_is_a_sentence(tmp_path):
    path = written(tmp_path / "a.zarr")
    chunk = path / "0/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(EngineError, match=r"a.zarr cannot be read \("):
        open_image(path).data[...]
    with pytest.raises(EngineError, match=r"a.zarr cannot be read \("):
        read_labels(path)


def test_a_file_is_no_zarr_and_a_folder_no_file(tmp_path):
    (tmp_path / "a.zarr").write_text("notes")
    with pytest.raises(EngineError, match="is a file, but OME-Zarr is a folder; check"):
        open_image(tmp_path / "a.zarr")
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(EngineError, match="is a folder, but TIFF is a file; name a"):
        open_image(tmp_path / "a.tif")


def test_objects_are_refused_without_unpickling(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 3, 4), "text", object), allow_pickle=True)
    with pytest.raises(EngineError, match=r"cannot be read as NumPy \(.*objects"):
        open_image(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("a.h5", "h5py", "hdf5"), ("a.nii", "nibabel", "nifti")],
)
def test_a_missing_library_names_its_extra(tmp_path, monkeypatch, name, module, extra):
    path = written(tmp_path / name)
    monkeypatch.setitem(sys.modules, module, None)
    sentence = (
        rf"files need the library {module}, which is not installed; "
        rf'run pip install "napari-unet3d\[{extra}\]"\.'
    )
    with pytest.raises(EngineError, match=sentence):
        open_image(path)
    with (
        pytest.raises(EngineError, match=sentence),
        create_volume(path, (2, 3, 4), "u1"),
    ):
        pass


def test_too_little_memory_is_a_sentence(tmp_path, monkeypatch):
    import tifffile

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib", photometric="minisblack")

    def exhausted(*args, **options):
        raise MemoryError("Unable to allocate 3. TiB")

    monkeypatch.setattr(tifffile.TiffFile, "asarray", exhausted)
    with pytest.raises(
        EngineError, match=r"\(Unable to allocate 3. TiB\). Save a small"
    ):
        open_image(path)


def test_a_file_of_somebody_else_is_a_sentence(tmp_path, monkeypatch):
    path = written(tmp_path / "a.zarr")

    def forbidden(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zarr, "open", forbidden)
    with pytest.raises(EngineError, match="may not be read by this user; ask for perm"):
        open_image(path)


def test_a_damaged_size_is_not_filled_with_zeros(tmp_path):
    import tifffile

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, compression="zlib", metadata=None, rowsperstrip=4)
    with tifffile.TiffFile(path) as tif:
        tags = [page.tags["ImageLength"] for page in tif.pages]
        offsets = [tag.valueoffset for tag in tags]
        size = 2 if tags[0].dtype.name == "SHORT" else 4
    content = bytearray(path.read_bytes())
    for offset in offsets:
        content[offset : offset + size] = (60000).to_bytes(size, "little")
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"\(pieces of a page are missing\)"):
        open_image(path)
