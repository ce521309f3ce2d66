from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.engine import load, segment
from napari_unet3d.io import open_image, read_labels
from napari_unet3d.worker.protocol import (
    Failed,
    ModelChanged,
    Ready,
    Saved,
    SegmentCancelled,
    SegmentDone,
    SegmentProgress,
    StepDone,
    Trained,
)
from napari_unet3d.worker.shared import SharedArray

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def trained(worker, tmp_path):
    """A worker with a model and a volume; the model as the engine reads it."""
    volume = worker.open(spacing=(2.0, 1.0, 1.0), unit="micrometer")
    before = worker.train(
        volume,
        training={"steps": 30},
        class_names=["ground", "ball"],
        class_colors=["#000000", "#00ff00"],
        save_to=tmp_path / "model.pt",
    )
    worker.events.wait(Trained, after=before)
    # The same number of threads gives the same rounding.
    torch.set_num_threads(worker.events.of(Ready)[0].threads)
    return worker, volume, load(tmp_path / "model.pt")


def test_it_equals_that_of_the_engine_voxel_for_voxel(trained):
    worker, volume, model = trained
    labels = SharedArray.create(worker.toy.image.shape, np.uint8)
    probabilities = SharedArray.create((2, *worker.toy.image.shape), np.uint8)

    before = len(worker.events)
    generation = worker.client.segment(volume, labels, probabilities)
    done = worker.events.wait(SegmentDone, after=before)

    assert done.generation == generation
    assert done.model.step == 30
    expected = segment(model, worker.toy.image, probabilities=True)
    np.testing.assert_array_equal(labels.array, expected.labels)
    np.testing.assert_array_equal(probabilities.array, expected.probabilities)
    told = [e for e in worker.events.all[before:] if isinstance(e, SegmentProgress)]
    assert {event.generation for event in told} == {generation}
    assert told[-1].progress == 1
    assert told[-1].region[1:] == ((0, 40), (0, 40))


def test_settings_are_used(trained):
    worker, volume, model = trained
    labels = SharedArray.create(worker.toy.image.shape, np.uint8)
    settings = {"weights": "latest", "recompute_statistics": True}

    before = len(worker.events)
    worker.client.segment(volume, labels, config=settings)
    worker.events.wait(SegmentDone, after=before)

    from napari_unet3d.engine import SegmentationConfig

    expected = segment(model, worker.toy.image, SegmentationConfig(**settings))
    np.testing.assert_array_equal(labels.array, expected.labels)


def test_several_devices_make_the_same(trained, tmp_path):
    worker, _, model = trained
    image = np.tile(worker.toy.image, (4, 3, 1))
    volume = worker.client.open_volume(image)
    labels = SharedArray.create(image.shape, np.uint8)
    path = tmp_path / "labels.ome.zarr"
    for target in (labels, path):
        before = len(worker.events)
        worker.client.segment(volume, target, config={"device": "cpu,cpu"})
        worker.events.wait(SegmentDone, after=before)
        told = [e for e in worker.events.all[before:] if isinstance(e, SegmentProgress)]
        assert told[-1].progress == 1
        # Both have worked: there are several blocks.
        assert told[0].region != ((0, 96), (0, 120), (0, 40))

    expected = segment(model, image).labels
    np.testing.assert_array_equal(labels.array, expected)
    np.testing.assert_array_equal(read_labels(path).data, expected)


def test_cancel_ends_several_devices(trained):
    worker, _, _ = trained
    image = np.tile(worker.toy.image, (8, 6, 4))
    volume = worker.client.open_volume(image)
    labels = SharedArray.create(image.shape, np.uint8)
    before = len(worker.events)
    generation = worker.client.segment(volume, labels, config={"device": "cpu,cpu"})
    worker.events.wait(SegmentProgress, after=before)

    worker.client.cancel_segmentation(generation)

    worker.events.wait(SegmentCancelled, after=before)
    assert not labels.array.all()


def test_files_appear_when_they_are_complete(trained, tmp_path):
    worker, volume, model = trained
    path, soft = tmp_path / "labels.ome.zarr", tmp_path / "soft.ome.zarr"

    before = len(worker.events)
    worker.client.segment(volume, path, soft)
    worker.events.wait(SegmentDone, after=before)

    expected = segment(model, worker.toy.image, probabilities=True)
    found = read_labels(path)
    np.testing.assert_array_equal(found.data, expected.labels)
    assert (found.spacing, found.unit) == ((2.0, 1.0, 1.0), "micrometer")
    np.testing.assert_array_equal(open_image(soft).data, expected.probabilities)


def test_an_image_in_a_file_is_read_from_there(trained, tmp_path):
    worker, _, model = trained
    path = tmp_path / "image.npy"
    np.save(path, worker.toy.image)
    volume = worker.client.open_volume(path=path)
    labels = SharedArray.create(worker.toy.image.shape, np.uint8)

    before = len(worker.events)
    worker.client.segment(volume, labels)
    worker.events.wait(SegmentDone, after=before)

    expected = segment(model, worker.toy.image)
    np.testing.assert_array_equal(labels.array, expected.labels)


def test_training_goes_on_after_a_segmentation(worker):
    volume = worker.open()
    before = worker.train(volume)
    worker.events.wait(StepDone, after=before)
    labels = SharedArray.create(worker.toy.image.shape, np.uint8)

    worker.client.segment(volume, labels)

    done = worker.events.wait(SegmentDone, after=before)
    at = worker.events.all.index(done)
    step = worker.events.wait(StepDone, after=at)
    assert step.step > done.model.step
    assert set(np.unique(labels.array)) <= {1, 2}
    assert labels.array.all()


@pytest.fixture
def large(trained):
    """A volume that takes a while."""
    worker, _, _ = trained
    image = np.tile(worker.toy.image, (8, 6, 6))
    volume = worker.client.open_volume(image)
    yield worker, volume, image.shape
    worker.client.close_volume(volume)


def test_cancel_ends_it_soon(large):
    worker, volume, shape = large
    labels = SharedArray.create(shape, np.uint8)
    before = len(worker.events)
    generation = worker.client.segment(volume, labels)
    worker.events.wait(SegmentProgress, after=before)

    worker.client.cancel_segmentation(generation)

    cancelled = worker.events.wait(SegmentCancelled, after=before, seconds=5)
    assert cancelled.generation == generation
    told = [e for e in worker.events.all[before:] if isinstance(e, SegmentProgress)]
    assert told[-1].progress < 1
    z = told[-1].region[0][1]
    assert labels.array[:z].all()


def test_a_file_does_not_appear_after_cancel(large, tmp_path):
    worker, volume, _ = large
    folder = tmp_path / "results"
    folder.mkdir()
    before = len(worker.events)
    generation = worker.client.segment(volume, folder / "labels.ome.zarr")
    worker.events.wait(SegmentProgress, after=before)

    worker.client.cancel_segmentation(generation)

    worker.events.wait(SegmentCancelled, after=before)
    assert not list(folder.iterdir())


def test_one_that_has_not_begun_is_cancelled(large):
    worker, volume, shape = large
    labels = SharedArray.create(shape, np.uint8)
    before = len(worker.events)
    first = worker.client.segment(volume, labels)
    second = worker.client.segment(volume, labels)

    worker.client.cancel_segmentation(second)
    worker.client.cancel_segmentation(first)

    for generation in (first, second):
        worker.events.wait(
            SegmentCancelled,
            after=before,
            that=lambda e, wanted=generation: e.generation == wanted,
        )


def test_models_wait_for_the_end_of_a_segmentation(large):
    worker, volume, shape = large
    labels = SharedArray.create(shape, np.uint8)
    before = len(worker.events)
    generation = worker.client.segment(volume, labels)
    worker.events.wait(SegmentProgress, after=before)

    worker.client.new_model()
    worker.client.cancel_segmentation(generation)

    worker.events.wait(ModelChanged, after=before)
    kinds = [type(event) for event in worker.events.all[before:]]
    assert kinds.index(SegmentCancelled) < kinds.index(ModelChanged)


def test_a_model_is_saved_during_a_segmentation(large, tmp_path):
    worker, volume, shape = large
    labels = SharedArray.create(shape, np.uint8)
    before = len(worker.events)
    generation = worker.client.segment(volume, labels)
    worker.events.wait(SegmentProgress, after=before)

    worker.client.save_model(tmp_path / "saved.pt")

    worker.events.wait(Saved, after=before)
    worker.client.cancel_segmentation(generation)
    worker.events.wait(SegmentCancelled, after=before)
    kinds = [type(event) for event in worker.events.all[before:]]
    assert kinds.index(Saved) < kinds.index(SegmentCancelled)
    assert load(tmp_path / "saved.pt").step == 30


def test_without_a_model_it_fails(worker):
    volume = worker.open()
    labels = SharedArray.create(worker.toy.image.shape, np.uint8)
    before = len(worker.events)

    generation = worker.client.segment(volume, labels)

    failed = worker.events.wait(Failed, after=before)
    assert (failed.what, failed.generation) == ("segmentation", generation)
    assert "no model yet" in failed.sentence


@pytest.mark.parametrize(
    ("shape", "config", "sentence"),
    [
        ((3, 4, 5), {}, "the output has shape (3, 4, 5)"),
        ((24, 40, 40), {"wieghts": "best"}, "did you mean weights"),
    ],
)
def test_what_does_not_fit_is_refused(trained, shape, config, sentence):
    worker, volume, _ = trained
    labels = SharedArray.create(shape, np.uint8)
    before = len(worker.events)

    worker.client.segment(volume, labels, config=config)

    failed = worker.events.wait(Failed, after=before)
    assert failed.what == "segmentation"
    assert sentence in failed.sentence


def test_saving_while_training(worker, tmp_path):
    before = worker.train(worker.open())
    worker.events.wait(StepDone, after=before)

    worker.client.save_model(tmp_path / "model.pt")

    saved = worker.events.wait(Saved, after=before)
    assert load(tmp_path / "model.pt").step == saved.step
