"""Segmentation into OME-Zarrs that goes on where it was stopped."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
import torch
import zarr

from napari_unet3d.engine import SegmentationConfig, Segmenter, load, segment
from napari_unet3d.io import create_volume, open_image, read_labels
from napari_unet3d.io.affine_view import AffineView
from napari_unet3d.io.lazy_image import StoredImage
from napari_unet3d.io.record import BlockRecord, differences
from napari_unet3d.io.stored_array import locate
from napari_unet3d.worker.protocol import (
    Failed,
    ModelChanged,
    Ready,
    SegmentCancelled,
    SegmentDone,
    SegmentOpened,
    SegmentProgress,
    Trained,
    Warned,
    WorkerDied,
)
from napari_unet3d.worker.segmentation_origin import describe_origin

pytestmark = pytest.mark.timeout(280)

SHAPE = (20, 150, 170)
SMALL = {"memory": 0.002}
"""GiB, for several blocks."""


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(1)
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    bright = (np.sin(y / 9) + np.sin(x / 7) > 0.5)[None]
    return (100 + 80 * bright + rng.normal(0, 10, SHAPE)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def source(wide, tmp_path):
    """Where the image lies."""
    with create_volume(tmp_path / "image.ome.zarr", SHAPE, "u1", labels=False) as array:
        array[...] = wide
    stored = locate(zarr.open_array(tmp_path / "image.ome.zarr" / "0", mode="r"))
    return StoredImage(((stored, AffineView.whole(SHAPE)[None]),), "|u1")


@pytest.fixture
def model_file(worker, tmp_path):
    """Train a model on the balls; returns its file."""
    path = tmp_path / "model.pt"
    before = worker.train(worker.open(), training={"steps": 20}, save_to=path)
    worker.events.wait(Trained, after=before)
    torch.set_num_threads(worker.events.of(Ready)[0].threads)
    return path


def finished(target):
    record = BlockRecord.read(target)
    return sorted(record.finished), record.blocks


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_record_names_the_number_format(model_file, wide, precision):
    checkpoint, config = load(model_file), SegmentationConfig(precision=precision)
    described = describe_origin(Segmenter(checkpoint, wide, config), [])
    assert described["precision"] == precision
    assert described == describe_origin(Segmenter(checkpoint, wide, config), [])
    other = SegmentationConfig(precision=precision, weights="latest")
    changed = describe_origin(Segmenter(checkpoint, wide, other), [])
    assert differences(described, changed)


def test_it_equals_the_engine_and_can_be_looked_at_meanwhile(
    worker, model_file, source, wide, tmp_path
):
    volume = worker.client.open_volume(stored=source, spacing=(2.0, 1.0, 1.0))
    target, soft = tmp_path / "labels.ome.zarr", tmp_path / "soft.ome.zarr"
    before = len(worker.events)
    worker.client.segment(volume, target, soft, SMALL, resumable=True)
    opened = worker.events.wait(SegmentOpened, after=before)
    assert opened.progress == 0
    assert opened.folders == (f"{target}.unfinished", f"{soft}.unfinished")
    worker.events.wait(SegmentDone, after=before)

    expected = segment(load(model_file), wide, probabilities=True)
    found = read_labels(target)
    np.testing.assert_array_equal(found.data, expected.labels)
    assert found.spacing == (2.0, 1.0, 1.0)
    # Blocks of another size round the last bit otherwise.
    shares = np.asarray(open_image(soft).data, np.int16)
    np.testing.assert_allclose(shares, expected.probabilities, rtol=0, atol=1)
    assert {path.name for path in tmp_path.iterdir()} == {
        "image.ome.zarr", "labels.ome.zarr", "soft.ome.zarr", "model.pt",
    }  # fmt: skip


@pytest.mark.parametrize("first", ["cpu", "cpu,cpu"])
def test_several_devices_go_on_where_one_stopped(
    first, worker, model_file, source, wide, tmp_path
):
    volume = worker.client.open_volume(stored=source)
    target = tmp_path / "labels.ome.zarr"
    stop_after_a_block(worker, volume, target, device=first)
    done, blocks = finished(target)

    before = len(worker.events)
    other = {"device": "cpu" if "," in first else "cpu,cpu"}
    worker.client.segment(volume, target, None, SMALL | other, resumable=True)
    opened = worker.events.wait(SegmentOpened, after=before)
    assert 0 < opened.progress < 1
    worker.events.wait(SegmentDone, after=before)

    expected = segment(load(model_file), wide).labels
    np.testing.assert_array_equal(read_labels(target).data, expected)
    assert len(done) < blocks


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_ended_after_the_last_block_only_the_rest_is_done(
    device, worker, model_file, source, wide, tmp_path
):
    volume = worker.client.open_volume(stored=source)
    target = tmp_path / "labels.ome.zarr"
    stop_after_a_block(worker, volume, target)
    before = len(worker.events)
    worker.client.segment(volume, target, None, SMALL, resumable=True)
    worker.events.wait(SegmentDone, after=before)
    whole = read_labels(target).data[:]
    # As if another one had been killed when it was to get its name
    other = tmp_path / "other.ome.zarr"
    stop_after_a_block(worker, volume, other)
    record, unfinished = BlockRecord.read(other), tmp_path / "other.ome.zarr.unfinished"
    for number in range(record.blocks):
        record.add(number)
    shutil.rmtree(unfinished)
    target.rename(unfinished)

    before = len(worker.events)
    config = SMALL | {"device": device}
    worker.client.segment(volume, other, None, config, resumable=True)
    worker.events.wait(SegmentDone, after=before)

    np.testing.assert_array_equal(read_labels(other).data, whole)


def stop_after_a_block(worker, volume, target, **settings):
    """Segment until one block is finished, then stop."""
    before = len(worker.events)
    config = SMALL | settings
    generation = worker.client.segment(volume, target, None, config, resumable=True)
    worker.events.wait(SegmentOpened, after=before)
    while not finished(target)[0]:
        worker.events.wait(SegmentProgress, after=len(worker.events) - 1)
    worker.client.cancel_segmentation(generation)
    worker.events.wait(SegmentCancelled, after=before)
    done, blocks = finished(target)
    assert 0 < len(done) < blocks
    assert not target.exists()


def test_stopped_it_goes_on_with_the_same_model_wherever_that_is_from(
    worker, model_file, source, wide, tmp_path
):
    volume = worker.client.open_volume(stored=source)
    target = tmp_path / "labels.ome.zarr"
    stop_after_a_block(worker, volume, target)

    # Now the model is the one in the file.
    before = len(worker.events)
    worker.client.load_model(model_file)
    worker.events.wait(ModelChanged, after=before, that=lambda e: e.path)
    before = len(worker.events)
    worker.client.segment(volume, target, None, SMALL, resumable=True)
    opened = worker.events.wait(SegmentOpened, after=before)
    assert opened.progress > 0
    worker.events.wait(SegmentDone, after=before)
    expected = segment(load(model_file), wide).labels
    np.testing.assert_array_equal(read_labels(target).data, expected)
    assert not [e for e in worker.events.all[before:] if isinstance(e, Warned)]


def test_with_another_model_it_begins_anew_and_says_so(
    worker, model_file, source, tmp_path
):
    volume = worker.client.open_volume(stored=source)
    target = tmp_path / "labels.ome.zarr"
    stop_after_a_block(worker, volume, target)
    before = len(worker.events)
    worker.client.new_model()
    worker.train(worker.open(), training={"steps": 5, "seed": 3})
    worker.events.wait(Trained, after=before)
    worker.client.segment(volume, target, None, SMALL, resumable=True)
    assert worker.events.wait(SegmentOpened, after=before).progress == 0
    (warning,) = [
        event.message
        for event in worker.events.all[before:]
        if isinstance(event, Warned) and "blocks" in event.message
    ]
    assert "segmented anew: model of weights" in warning
    worker.events.wait(SegmentDone, after=before)
    assert read_labels(target).data.all()


def test_a_damaged_output_is_begun_anew(worker, model_file, source, wide, tmp_path):
    volume = worker.client.open_volume(stored=source)
    target = tmp_path / "labels.ome.zarr"
    stop_after_a_block(worker, volume, target)
    (tmp_path / "labels.ome.zarr.unfinished/0/zarr.json").write_text("{")
    before = len(worker.events)
    worker.client.segment(volume, target, None, SMALL, resumable=True)
    assert worker.events.wait(SegmentOpened, after=before).progress == 0
    worker.events.wait(SegmentDone, after=before)
    (warning,) = [e for e in worker.events.all[before:] if isinstance(e, Warned)]
    assert "labels.ome.zarr.unfinished is damaged; the volume is" in warning.message
    expected = segment(load(model_file), wide).labels
    np.testing.assert_array_equal(read_labels(target).data, expected)


def test_killed_it_goes_on(own_worker, source, wide, tmp_path):
    client, events = own_worker.client, own_worker.events
    model_file, target = tmp_path / "model.pt", tmp_path / "labels.ome.zarr"
    before = own_worker.train(
        own_worker.open(), training={"steps": 20}, save_to=model_file
    )
    events.wait(Trained, after=before)
    volume = client.open_volume(stored=source)
    before = len(events)
    client.segment(volume, target, None, SMALL, resumable=True)
    events.wait(SegmentProgress, after=before, that=lambda e: e.progress > 0.3)
    os.kill(client.pid, signal.SIGKILL)
    events.wait(WorkerDied, after=before)
    done, blocks = finished(target)
    assert 0 < len(done) < blocks

    before = len(events)
    client.restart()
    client.load_model(model_file)
    client.segment(volume, target, None, SMALL, resumable=True)
    opened = events.wait(SegmentOpened, after=before)
    assert opened.progress > 0
    events.wait(SegmentDone, after=before)
    torch.set_num_threads(events.of(Ready)[0].threads)
    expected = segment(load(model_file), wide).labels
    np.testing.assert_array_equal(read_labels(target).data, expected)


def test_an_image_that_vanishes_is_told_and_nothing_is_made_of_its_absence(
    worker, model_file, source, tmp_path
):
    volume = worker.client.open_volume(stored=source)
    target = tmp_path / "labels.ome.zarr"
    before = len(worker.events)
    worker.client.segment(volume, target, None, SMALL, resumable=True)
    worker.events.wait(SegmentProgress, after=before)
    (tmp_path / "image.ome.zarr").rename(tmp_path / "away")
    failed = worker.events.wait(Failed, SegmentDone, after=before)
    assert isinstance(failed, Failed)
    assert "image.ome.zarr" in failed.sentence
    assert "is gone; see whether its disk is still there" in failed.sentence
    assert not target.exists()
