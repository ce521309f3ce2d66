"""Layers whose voxels lie in files: the worker reads them there, napari does not."""

from __future__ import annotations

import os
import shutil

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image

from napari_unet3d._qt import spooling
from napari_unet3d._qt.previewing import slice_in_view
from napari_unet3d._qt.projects import Project
from napari_unet3d._qt.segmentation_file import target_beside
from napari_unet3d._qt.volumes import VolumeChoice
from napari_unet3d._qt.voxel_origin import stored_image_of
from napari_unet3d.engine import load, segment
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, read_labels
from napari_unet3d.io.lazy_array import LazyArray
from napari_unet3d.io.lazy_image import LazyImage
from napari_unet3d.worker import room
from napari_unet3d.worker.protocol import OpenVolume

from .conftest import Driver


@pytest.fixture
def voxels():
    """Two channels of noise, every voxel another one."""
    return np.random.default_rng(0).permutation(2 * 20 * 30 * 40).astype(np.uint16)


@pytest.fixture
def in_zarr(voxels, tmp_path):
    array = zarr.create_array(
        tmp_path / "image.zarr", shape=(2, 20, 30, 40), chunks=(1, 8, 8, 16), dtype="u2"
    )
    array[...] = voxels.reshape(array.shape)
    return array


def found(choice):
    """Return the voxels as the worker would read them."""
    image = stored_image_of(choice)
    assert image is not None
    return LazyImage(image)[:]


def test_layers_of_a_zarr_are_found_where_they_lie(in_zarr, voxels):
    truth = voxels.reshape(in_zarr.shape)
    lazy = da.from_zarr(in_zarr)
    for data, axes, expected in (
        (in_zarr, "CZYX", truth),
        (lazy, "CZYX", truth),
        (lazy[1], "ZYX", truth[1:]),
        (np.take(lazy, 1, axis=0), "ZYX", truth[1:]),
        (lazy.rechunk((1, 20, 30, 11)), "CZYX", truth),
        (lazy[0].transpose(2, 0, 1)[5:30, ::-1], "ZYX",
         truth[:1].transpose(0, 3, 1, 2)[:, 5:30, ::-1]),
    ):  # fmt: skip
        np.testing.assert_array_equal(found(VolumeChoice(Image(data), axes)), expected)
    second = VolumeChoice(Image(lazy), "TZYX", time=1)
    np.testing.assert_array_equal(found(second), truth[1:])
    pyramid = Image([lazy[0], lazy[0, :, ::2, ::2]], multiscale=True)
    np.testing.assert_array_equal(found(VolumeChoice(pyramid)), truth[:1])
    both = VolumeChoice(Image(lazy[1]), others=(Image(lazy[0]),))
    np.testing.assert_array_equal(found(both), truth[::-1])


def test_mapped_files_and_hdf5_are_found_where_they_lie(voxels, tmp_path):
    h5py = pytest.importorskip("h5py")
    volume = voxels.reshape(2, 20, 30, 40)[0]
    tifffile.imwrite(tmp_path / "a.tif", volume)
    mapped = tifffile.memmap(tmp_path / "a.tif", mode="r")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("in/side", data=volume, chunks=(8, 8, 8))
    dataset = h5py.File(tmp_path / "a.h5")["in/side"]
    for data, expected in (
        (mapped, volume),
        (mapped.T[:, 3:20:2], volume.T[:, 3:20:2]),
        (dataset, volume),
        (da.from_array(dataset)[::-1], volume[::-1]),
    ):
        read = found(VolumeChoice(Image(data)))
        np.testing.assert_array_equal(read, expected[None])


def test_arrays_of_tensorstore_are_found_where_they_lie(in_zarr, tmp_path):
    ts = pytest.importorskip("tensorstore")
    store = {"driver": "file", "path": str(tmp_path / "image.zarr")}
    array = ts.open({"driver": "zarr3", "kvstore": store}, read=True).result()
    truth = in_zarr[:]
    part = array[1, 3:10][ts.d[:].translate_to[0]].T
    for data, axes, expected in (
        (array, "CZYX", truth),
        (part, "ZYX", truth[1, 3:10].T[None]),
    ):
        np.testing.assert_array_equal(found(VolumeChoice(Image(data), axes)), expected)


def test_what_is_computed_or_changed_has_no_file(in_zarr, voxels, tmp_path):
    lazy = da.from_zarr(in_zarr)[0]
    changed = np.memmap(tmp_path / "raw", "u2", "w+", shape=(20, 30, 40))
    changed.flush()
    private = np.memmap(tmp_path / "raw", "u2", "c", shape=(20, 30, 40))
    private[0] = 7
    for data in (
        lazy + 1,
        lazy.map_blocks(lambda block: block),
        lazy[[3, 5, 8]],
        lazy.astype("f4"),
        da.concatenate([lazy[:8], lazy[16:]]),
        da.stack([lazy[5]] * 8),
        da.where(lazy > 7, lazy, 0),
        da.from_array(voxels.reshape(2, 20, 30, 40)[0]),
        private,
        voxels.reshape(2, 20, 30, 40)[0],
    ):
        assert stored_image_of(VolumeChoice(Image(data))) is None


def test_a_file_that_is_gone_or_differs_is_not_relied_on(in_zarr, monkeypatch):
    choice = VolumeChoice(Image(da.from_zarr(in_zarr)[0]))
    assert stored_image_of(choice) is not None
    with monkeypatch.context() as patch:
        read = VolumeChoice.read
        patch.setattr(VolumeChoice, "read", lambda self, box: read(self, box) + 1)
        assert stored_image_of(choice) is None
    shutil.rmtree(in_zarr.store.root)
    assert stored_image_of(choice) is None


def test_what_is_computed_and_too_large_goes_to_the_disk(in_zarr, projects):
    choice = VolumeChoice(Image(da.from_zarr(in_zarr)[0] // 2))
    shares = []
    image = spooling.spool(choice, shares.append)
    np.testing.assert_array_equal(LazyImage(image)[:], in_zarr[:1] // 2)
    assert shares[-1] == 1
    assert list((projects / "cache").iterdir())
    spooling.remove_spooled(image)
    assert not list((projects / "cache").iterdir())


def test_what_fits_nowhere_is_refused_with_its_size(in_zarr, projects, monkeypatch):
    choice = VolumeChoice(Image(da.from_zarr(in_zarr)[0] // 2))
    monkeypatch.setattr(spooling, "SPARE", 2**60)
    with pytest.raises(EngineError, match=r"takes 0 MiB, but .* are free; save it as"):
        spooling.spool(choice, lambda share: None)


def test_leftovers_of_ended_programs_are_removed(projects):
    folder = projects / "cache"
    dead, alive = folder / "4194305-1.ome.zarr", folder / f"{os.getpid()}-1.ome.zarr"
    for path in (dead, alive):
        path.mkdir(parents=True)
    spooling.remove_leftovers()
    assert [path.name for path in folder.iterdir()] == [alive.name]


@pytest.fixture
def opened(ball, tmp_path, open_widget, qtbot):
    """Open the ball from an OME-Zarr, with File → Open, and the plugin."""
    path = tmp_path / "ball.ome.zarr"
    with create_volume(
        path, ball[0].shape, "f4", spacing=(2, 1, 1), unit="nm", labels=False
    ) as array:
        array[...] = ball[0]
    viewer, dock, widget = open_widget()
    viewer.open(path, plugin="napari-unet3d")
    made = Driver(qtbot, viewer, dock, widget).ready()
    yield made
    made.__dict__.clear()


def sent(driver, kind):
    """Collect the requests of a kind that are sent."""
    requests = []
    send = driver.controller.client.send

    def remember(request):
        if isinstance(request, kind):
            requests.append(request)
        send(request)

    driver.controller.client.send = remember
    return requests


def test_a_zarr_is_trained_on_and_segmented_where_it_lies(
    opened, ball, monkeypatch, tmp_path
):
    viewer, widget = opened.viewer, opened.widget
    requests = sent(opened, OpenVolume)
    np.testing.assert_array_equal(viewer.layers["ball"].scale, (2, 1, 1))
    opened.start(ball[1])
    (request,) = requests
    assert request.source.parts[0][0].path == str(tmp_path / "ball.ome.zarr")
    opened.trained(20)
    widget.training.stop_button.click()
    opened.wait(lambda: opened.phase == "idle")
    opened.press(widget.segmenting.segment_button)
    opened.wait(lambda: opened.phase == "idle")
    model = load(opened.controller.project.model)
    expected = segment(model, ball[0], probabilities=True)
    layer = viewer.layers["ball segmentation"]
    np.testing.assert_array_equal(layer.data, expected.labels)

    # Where memory is too small, the result goes to the disk and is seen there.
    monkeypatch.setattr(room, "SHARE", 10**9)
    widget.segmenting.probabilities.setChecked(True)
    opened.press(widget.segmenting.segment_button)
    opened.wait(lambda: opened.phase == "segmenting")
    opened.wait(lambda: opened.phase == "idle")
    target = tmp_path / "ball_segmentation.ome.zarr"
    assert f"Written to {target}" in widget.segmenting.line.toolTip()
    assert isinstance(layer.data, LazyArray)
    assert not layer.editable
    assert layer.metadata["napari-unet3d"]["path"] == str(target)
    np.testing.assert_array_equal(layer.data[:], expected.labels)
    np.testing.assert_array_equal(read_labels(target).data, expected.labels)
    soft = viewer.layers["ball probabilities"].data
    shares = soft[:].astype(np.int16)
    np.testing.assert_allclose(shares, expected.probabilities, rtol=0, atol=1)
    # What is on the screen is what is on the disk, not what was there before.
    seen = slice_in_view(viewer, opened.controller.choice)
    for y, x in ((20, 20), (2, 2), (20, 31)):
        value = layer.get_value((2 * seen.position, y, x), world=True)
        assert value == expected.labels[seen.position, y, x] > 0

    # The next one takes another name, and is gone on with after it was cancelled.
    widget.segmenting.probabilities.setChecked(False)
    opened.press(widget.segmenting.segment_button)
    widget.segmenting.cancel_button.click()
    opened.wait(lambda: opened.phase == "idle")
    second = tmp_path / "ball_segmentation_2.ome.zarr"
    if not second.exists():  # else it was faster than the button
        assert f"goes on with {second}" in widget.segmenting.line.toolTip()
        opened.press(widget.segmenting.segment_button)
        opened.wait(lambda: opened.phase == "segmenting")
        opened.wait(lambda: opened.phase == "idle")
    assert layer.data.origin[0].path == f"{second}/0"
    np.testing.assert_array_equal(layer.data[:], expected.labels)
    assert target.exists()
    assert not list(tmp_path.glob("*.unfinished*"))
    assert sum("segmentation" in each.name for each in viewer.layers) == 1


def test_computed_voxels_travel_by_the_disk_where_memory_is_too_small(
    driver, ball, monkeypatch, projects
):
    monkeypatch.setattr(room, "SHARE", 10**9)
    requests = sent(driver, OpenVolume)
    driver.viewer.layers["ball"].data = da.from_array(ball[0], chunks=8) + 0
    driver.start(ball[1])
    (request,) = requests
    assert request.source.parts[0][0].path.startswith(str(projects / "cache"))
    driver.widget.controller.close()
    assert not list((projects / "cache").iterdir())


def test_the_name_of_a_segmentation(in_zarr, tmp_path, projects, monkeypatch):
    project = Project(projects / "a")
    choice = VolumeChoice(Image(da.from_zarr(in_zarr)[0], name="big one"))
    beside = tmp_path / "big_one_segmentation.ome.zarr"
    assert target_beside(choice, project) == beside
    beside.mkdir()
    second = tmp_path / "big_one_segmentation_2.ome.zarr"
    assert target_beside(choice, project) == second
    movie = VolumeChoice(Image(da.from_zarr(in_zarr), name="movie"), "TZYX", time=1)
    name = "movie_time1_segmentation.ome.zarr"
    assert target_beside(movie, project) == tmp_path / name
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)
        expected = project.folder / "big_one_segmentation.ome.zarr"
        assert target_beside(choice, project) == expected
    computed = VolumeChoice(Image(da.from_zarr(in_zarr)[0] + 1, name="x"))
    assert target_beside(computed, project).parent == project.folder
