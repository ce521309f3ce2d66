from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.worker.protocol import (
    Failed,
    ImageFile,
    OpenVolume,
    StepDone,
    Trained,
)

pytestmark = pytest.mark.timeout(280)


def fail(worker, ask):
    """Return the sentence of what fails, and make sure that the worker lives on."""
    before = len(worker.events)
    ask()
    failed = worker.events.wait(Failed, after=before)
    volume = worker.open()
    at = worker.train(volume, training={"steps": 1})
    worker.events.wait(Trained, after=at)
    return failed


def test_nothing_painted(worker):
    volume = worker.client.open_volume(worker.toy.image)

    failed = fail(worker, lambda: worker.client.train([volume]))

    assert failed.what == "training"
    assert failed.sentence.startswith("no voxel is labelled")


@pytest.mark.parametrize(
    ("model", "training", "sentence"),
    [
        ({"base_chanels": 2}, {}, "did you mean base_channels"),
        ({}, {"learning_rate": -1}, "learning_rate"),
        ({}, {"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_settings_that_are_wrong(worker, model, training, sentence):
    volume = worker.open()

    failed = fail(worker, lambda: worker.client.train([volume], model, training))

    assert (failed.what, sentence in failed.sentence) == ("training", True)
    assert "Traceback" in failed.details


@pytest.mark.parametrize("number", [999, -1])
def test_a_volume_that_is_not_open(worker, number):
    failed = fail(worker, lambda: worker.client.train([number]))
    assert f"there is no volume {number}" in failed.sentence
    failed = fail(worker, lambda: worker.client.update_annotation(number, [0], [1]))
    assert failed.what == "annotation"


def test_labels_of_another_grid(worker):
    volume = worker.open()
    voxels = worker.toy.image.size

    failed = fail(
        worker, lambda: worker.client.update_annotation(volume, [voxels], [1])
    )

    assert failed.what == "annotation"
    assert "same grid" in failed.sentence


def test_a_file_that_is_not_there(worker, tmp_path):
    path = tmp_path / "nothing.tif"

    failed = fail(worker, lambda: worker.client.open_volume(path=path))

    assert failed.what == "volume"
    assert failed.generation > 0
    assert "does not exist" in failed.sentence


def test_no_model(worker, tmp_path):
    failed = fail(worker, lambda: worker.client.save_model(tmp_path / "model.pt"))
    assert failed.what == "model"
    assert "no model yet" in failed.sentence


def test_a_file_that_is_no_model(worker, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"not a model")

    failed = fail(worker, lambda: worker.client.load_model(path))

    assert failed.what == "model"
    assert "cannot be read as a model" in failed.sentence


def test_a_preview_that_cannot_be(worker):
    volume = worker.open()
    before = worker.train(volume)
    worker.events.wait(StepDone, after=before)

    generation = worker.client.request_preview(volume, 0, 1000)

    failed = worker.events.wait(Failed, after=before)
    assert (failed.what, failed.generation) == ("preview", generation)
    assert "no slice 1000" in failed.sentence
    at = len(worker.events)
    worker.events.wait(StepDone, after=at)
    assert not [e for e in worker.events.all[at:] if isinstance(e, Failed)]


def test_something_unforeseen(worker):
    failed = fail(
        worker,
        lambda: worker.client.send(OpenVolume(77, ImageFile(5))),  # type: ignore[arg-type]
    )
    assert failed.what == "volume"
    assert failed.sentence.startswith("volume failed: ")


def test_an_image_that_is_none(worker):
    from napari_unet3d.engine import EngineError

    with pytest.raises(EngineError, match="ZYX or CZYX"):
        worker.client.open_volume(np.zeros((3, 3)))
    with pytest.raises(EngineError, match="real numbers"):
        worker.client.open_volume(np.zeros((3, 3, 3), complex))
    with pytest.raises(EngineError, match="no image"):
        worker.client.open_volume()


def test_a_volume_closed_before_it_was_opened_is_no_error(own_worker):
    before = len(own_worker.events)
    own_worker.client.restart()
    volume = own_worker.client.open_volume(own_worker.toy.image)
    own_worker.client.replace_annotation(volume, [0], [1])
    own_worker.client.close_volume(volume)

    at = own_worker.train(own_worker.open(), training={"steps": 1})

    own_worker.events.wait(Trained, after=at)
    assert not [e for e in own_worker.events.all[before:] if isinstance(e, Failed)]
