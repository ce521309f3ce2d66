from __future__ import annotations

import time

import numpy as np
import pytest

from napari_unet3d.engine import Segmenter, load
from napari_unet3d.engine.preview import predict_plane
from napari_unet3d.worker.protocol import (
    Failed,
    ModelChanged,
    PreviewReady,
    Saved,
    StepDone,
    Trained,
)

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def trained(worker):
    """A worker with a model, a volume, and a file of the model."""
    volume = worker.open()
    before = worker.train(volume, training={"steps": 60})
    worker.events.wait(Trained, after=before)
    return worker, volume


def last_preview(worker, before, quiet=0.7):
    """Return the newest answer once none has come for a while."""
    worker.events.wait(PreviewReady, after=before)
    while time.monotonic() - worker.events.times[-1] < quiet:
        time.sleep(0.05)
    return worker.events.of(PreviewReady)[-1]


@pytest.mark.parametrize(
    ("axis", "shape"), [(0, (40, 40)), (1, (24, 40)), (2, (24, 40))]
)
def test_a_preview_becomes_what_the_segmentation_will_be(
    trained, axis, shape, tmp_path
):
    worker, volume = trained
    before = len(worker.events)
    worker.client.save_model(tmp_path / "model.pt")
    worker.events.wait(Saved, after=before)

    generation = worker.client.request_preview(
        volume, axis, 11, probability_of=2, entropy=True
    )
    found = last_preview(worker, before)

    assert (found.generation, found.volume) == (generation, volume)
    assert (found.axis, found.position, found.step) == (axis, 11, 60)
    segmenter = Segmenter(load(tmp_path / "model.pt"), worker.toy.image)
    logits = predict_plane(segmenter.network, segmenter.features, axis, 11)
    shares = logits.softmax(dim=0).numpy()
    entropy = -(shares * np.log(shares)).sum(axis=0) / np.log(2)
    assert found.labels.shape == shape
    assert (found.labels == logits.argmax(dim=0).numpy() + 1).mean() > 0.999
    np.testing.assert_allclose(found.probability / 255, shares[1], atol=0.01)
    np.testing.assert_allclose(found.entropy / 255, entropy, atol=0.01)
    assert found.labels.dtype == found.probability.dtype == np.uint8


def test_only_labels_come_unless_more_is_wanted(trained):
    worker, volume = trained
    before = len(worker.events)

    worker.client.request_preview(volume, 0, 3)

    found = worker.events.wait(PreviewReady, after=before)
    assert found.probability is None
    assert found.entropy is None


def test_the_newest_request_wins(trained):
    worker, volume = trained
    before = len(worker.events)

    generations = [worker.client.request_preview(volume, 0, z) for z in range(24)]
    worker.events.wait(
        PreviewReady, after=before, that=lambda e: e.generation == generations[-1]
    )
    last_preview(worker, before)

    answers = [e for e in worker.events.all[before:] if isinstance(e, PreviewReady)]
    assert len({answer.generation for answer in answers}) < 10
    told = [answer.generation for answer in answers]
    assert told == sorted(told)


def test_it_improves_by_itself_while_training(worker):
    volume = worker.open()
    worker.client.request_preview(volume, 0, 12)
    before = worker.train(volume)

    for _ in range(4):
        step = worker.events.wait(PreviewReady, after=before).step
        before = len(worker.events)
    worker.client.stop()
    trained = worker.events.wait(Trained, after=before)

    assert step < trained.step
    final = last_preview(worker, before)
    assert final.step == trained.step
    assert (final.labels == worker.toy.truth[12]).mean() > 0.7


def test_the_first_preview_does_not_wait_for_long(worker):
    volume = worker.open()
    worker.client.request_preview(volume, 0, 12)
    before = worker.train(volume)

    step = worker.events.wait(StepDone, after=before)
    preview = worker.events.wait(PreviewReady, after=before)

    assert preview.step <= step.step + 2


def test_previews_take_a_share_of_the_time_only(worker):
    volume = worker.open()
    worker.client.request_preview(volume, 0, 12)
    before = worker.train(volume)
    worker.events.wait(PreviewReady, after=before)
    began, seconds = time.monotonic(), worker.events.of(StepDone)[-1].seconds

    time.sleep(4)
    worker.client.stop()
    trained = worker.events.wait(Trained, after=before)

    share = (trained.seconds - seconds) / (time.monotonic() - began)
    assert share > 0.6
    answers = [e for e in worker.events.all[before:] if isinstance(e, PreviewReady)]
    assert len(answers) > 2


def test_no_preview_comes_after_it_was_stopped(worker):
    volume = worker.open()
    worker.client.request_preview(volume, 0, 12)
    before = worker.train(volume)
    worker.events.wait(PreviewReady, after=before)

    worker.client.stop_preview()
    worker.events.wait(StepDone, after=len(worker.events))
    quiet = len(worker.events)
    time.sleep(1)

    assert not [e for e in worker.events.all[quiet:] if isinstance(e, PreviewReady)]


def test_a_volume_that_is_not_trained_on(worker):
    volume = worker.open()
    other = worker.client.open_volume(worker.toy.image[:, :32, ::-1].copy())
    before = worker.train(volume)
    worker.events.wait(StepDone, after=before)

    worker.client.request_preview(other, 0, 3)

    assert worker.events.wait(PreviewReady, after=before).labels.shape == (32, 40)


@pytest.mark.parametrize("goes_on", [True, False], ids=["training", "trained"])
def test_an_image_that_does_not_fit_the_model(worker, goes_on):
    volume = worker.open()
    two = worker.client.open_volume(np.stack([worker.toy.image] * 2))
    before = worker.train(volume, training={} if goes_on else {"steps": 2})
    worker.events.wait(StepDone if goes_on else Trained, after=before)

    worker.client.request_preview(two, 0, 3)

    failed = worker.events.wait(Failed, after=before)
    assert failed.what == "preview"
    assert "takes 1 channels but the image has 2" in failed.sentence


def test_without_a_model_it_waits_for_one(worker, tmp_path):
    volume = worker.open()
    before = len(worker.events)
    generation = worker.client.request_preview(volume, 0, 3)
    time.sleep(0.3)
    assert not [e for e in worker.events.all[before:] if isinstance(e, PreviewReady)]

    worker.train(volume, training={"steps": 2})

    answer = worker.events.wait(PreviewReady, after=before)
    assert answer.generation == generation


def test_a_closed_volume_is_previewed_no_more(trained):
    worker, volume = trained
    before = len(worker.events)
    worker.client.request_preview(volume, 0, 3)
    worker.events.wait(PreviewReady, after=before)

    worker.client.close_volume(volume)
    worker.client.new_model()
    worker.events.wait(ModelChanged, after=before)

    assert not [e for e in worker.events.all[before:] if isinstance(e, Failed)]
