"""Annotation of volumes that would not fit into memory as an ndarray."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels

from napari_unet3d._qt import annotation_tools
from napari_unet3d._qt.annotation_scan import changes_between
from napari_unet3d._qt.annotation_tools import Slice
from napari_unet3d._qt.layers import is_annotation_for
from napari_unet3d._qt.sparse_volume import SparseVolume
from napari_unet3d._qt.volumes import VolumeChoice
from napari_unet3d._qt.zarr_labels import ZarrScan, scanner_of
from napari_unet3d._reader import read_annotation
from napari_unet3d._writer import write_annotation
from napari_unet3d.worker import room

SHAPE = (37, 50, 41)


def random_key(rng):
    """Return integers and slices, some backwards, for one to three axes."""
    key = []
    for n in SHAPE[: rng.integers(1, 4)]:
        low, high = sorted(rng.integers(0, n + 1, 2).tolist())
        options = [
            int(rng.integers(-n, n)),
            slice(None),
            slice(low, high),
            slice(None, None, int(rng.choice([2, -1, -3]))),
        ]
        key.append(options[rng.integers(len(options))])
    return tuple(key)


def test_it_reads_and_writes_like_an_ndarray():
    rng = np.random.default_rng(0)
    plain, sparse = np.zeros(SHAPE, np.uint8), SparseVolume(SHAPE)
    for number in range(1500):
        if number % 3 == 0:
            key = tuple(rng.integers(-n, n, 20) for n in SHAPE)
        else:
            key = random_key(rng)
        value = int(rng.integers(0, 3))
        if number % 4 == 0 and isinstance(key[0], slice):
            value = rng.integers(0, 3, plain[key].shape).astype(np.uint8)
        if number % 2 == 0:
            plain[key] = sparse[key] = value
        np.testing.assert_array_equal(sparse[key], plain[key], str(key))
        if number % 200 == 0:
            plain[:] = 0
            sparse.clear()
    np.testing.assert_array_equal(np.asarray(sparse), plain)
    *_, labelled = scanner_of(sparse)()
    np.testing.assert_array_equal(labelled.index, np.flatnonzero(plain))
    np.testing.assert_array_equal(labelled.dense(), plain)
    with pytest.raises(IndexError):
        sparse[SHAPE[0]]


def test_a_terabyte_takes_what_is_painted():
    volume = SparseVolume((10_000, 10_000, 10_000))
    assert volume.nbytes == 10**12
    volume[5000, 100:612, 100:612] = 1
    volume[4000:4100, 7, 8] = 2
    assert volume.kept_bytes < 6 * 2**20
    *_, labelled = scanner_of(volume)()
    assert np.bincount(labelled.labels).tolist() == [0, 512 * 512, 100]
    assert int(labelled.index[0]) == (4000 * 10_000 + 7) * 10_000 + 8


@pytest.fixture(params=["sparse", "zarr"])
def data(request, tmp_path):
    if request.param == "sparse":
        return SparseVolume(SHAPE)
    return zarr.create_array(
        tmp_path / "labels.zarr", shape=SHAPE, chunks=(16, 16, 16), dtype="u1"
    )


def labels_of(layer):
    *_, labelled = scanner_of(layer.data)()
    return labelled


def test_painting_in_it_is_as_in_an_ndarray(data):
    plain, huge = Labels(np.zeros(SHAPE, np.uint8)), Labels(data)
    assert is_annotation_for(huge, VolumeChoice(Image(np.zeros(SHAPE, np.uint8))))
    diagonal = np.arange(9)
    steps = (
        lambda layer: layer.paint((18, 20, 20), 2),
        lambda layer: layer.data_setitem((np.full(9, 18), diagonal, diagonal), 3),
        lambda layer: layer.fill((18, 40, 30), 1),
        lambda layer: layer.undo(),
        lambda layer: annotation_tools.fill_background(layer, Slice(1, 7)),
        lambda layer: annotation_tools.clear(layer, Slice(0, 3)),
        lambda layer: annotation_tools.remove_label(layer, 2),
        lambda layer: layer.undo(),
        lambda layer: layer.redo(),
        lambda layer: annotation_tools.replace_label(layer, 1, 2),
    )  # fmt: skip
    for number, step in enumerate(steps):
        for layer in (plain, huge):
            layer.brush_size = 9
            step(layer)
        expected, found = labels_of(plain), labels_of(huge)
        assert len(expected.index), number
        assert len(changes_between(expected, found)) == 0, number


def test_only_chunks_that_have_changed_are_read(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(64, 64, 64), chunks=(8, 8, 8), dtype="u2"
    )
    array[:16, :8, :8] = 1
    look = ZarrScan(array)
    read = []
    whole = look._read

    def remember(place):
        read.append(place)
        return whole(place)

    look._read = remember
    assert len([*look()][-1].index) == 1024
    assert read == [(0, 0, 0), (1, 0, 0)] or read == [(1, 0, 0), (0, 0, 0)]
    read.clear()
    assert len([*look()][-1].index) == 1024
    assert read == []
    array[20, 20, 20] = 7
    array[:8, :8, :8] = 0
    labelled = [*look()][-1]
    assert len(labelled.index) == 513
    assert read == [(2, 2, 2)]
    array[20, 20, 20] = 3000
    assert [*look()][-1].unusable == 3000


def test_it_is_saved_and_opened_again(data, tmp_path, monkeypatch):
    data[5, 10:20, 10:20] = 2
    path = str(tmp_path / "kept.npz")
    write_annotation(path, data, {"metadata": {}})
    monkeypatch.setattr(room, "SHARE", 10**9)
    ((again, _, _),) = read_annotation(path)
    assert isinstance(again, SparseVolume)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(data[:, :, :]))


def test_annotate_and_train_where_nothing_of_the_volumes_size_fits(
    driver, ball, monkeypatch
):
    monkeypatch.setattr(room, "SHARE", 10**9)
    driver.start(ball[1])
    layer = driver.widget.data.annotation()
    assert isinstance(layer.data, SparseVolume)
    np.testing.assert_array_equal(layer.data[12], ball[1][12])
    assert driver.controller.annotating.labelled.voxels_of(1) > 0
    driver.wait(lambda: "ball preview" in driver.viewer.layers)
    preview = driver.viewer.layers["ball preview"].data
    assert isinstance(preview, SparseVolume)
    position = driver.controller.previewing.slice_in_view().position
    driver.wait(lambda: preview[position].all())
    driver.controller.previewing.forget()
    assert not preview[position].any()
