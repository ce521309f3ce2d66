from __future__ import annotations

import time

import numpy as np
import pytest

from napari_unet3d.engine import load
from napari_unet3d.worker.protocol import (
    Failed,
    ModelChanged,
    Paused,
    PreviewReady,
    Resumed,
    Saved,
    Started,
    StepDone,
    Trained,
    Validated,
    Warned,
)

pytestmark = pytest.mark.timeout(280)


def test_a_training_tells_what_happens(worker):
    volume = worker.open(spacing=(2.0, 1.0, 1.0), unit="micrometer")

    before = worker.train(
        volume,
        training={"steps": 60, "validate_every": 20},
        class_names=["ground", "ball"],
        class_colors=["#000000", "#ff0000"],
    )
    trained = worker.events.wait(Trained, after=before)

    assert (trained.step, trained.reason) == (60, "finished")
    told = worker.events.all[before:]
    assert isinstance(told[-1], Trained)
    kinds = [type(event) for event in told]
    assert kinds[:2] == [ModelChanged, Started]
    # After 20 steps and after 30, before what is held out is learned too.
    assert kinds.count(Validated) == 2
    steps = [event.step for event in told if isinstance(event, StepDone)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60
    summary = worker.events.of(ModelChanged)[-1].summary
    assert summary.class_names == ("ground", "ball")
    assert summary.class_colors == ("#000000", "#ff0000")
    assert summary.n_classes == 2
    assert (summary.in_channels, summary.base_channels) == (1, 2)
    assert (summary.spacing, summary.unit) == ((2.0, 1.0, 1.0), "micrometer")
    assert summary.step == 60
    assert 0 <= summary.held_out_iou <= 1


def test_steps_are_told_at_most_ten_times_a_second(worker):
    before = worker.train(worker.open())
    worker.events.wait(StepDone, after=before, that=lambda event: event.step > 100)
    worker.client.stop()
    worker.events.wait(Trained, after=before)

    times = [
        when
        for when, event in zip(
            worker.events.times[before:], worker.events.all[before:], strict=True
        )
        if isinstance(event, StepDone)
    ]
    # The last one is told before the end, whenever that is.
    assert len(times) <= 2 + (times[-1] - times[0]) / 0.1


def test_labels_that_change_are_used_at_the_next_step(worker):
    volume = worker.open()
    before = worker.train(volume)
    worker.events.wait(StepDone, after=before)
    worker.client.request_preview(volume, 0, 12)

    def agrees(truth):
        return lambda event: (event.labels == truth).mean() > 0.9

    truth = worker.toy.truth[12]
    worker.events.wait(PreviewReady, after=before, that=agrees(truth))
    index, labels = worker.toy.painted(swapped=True)
    for part in np.array_split(np.random.default_rng(0).permutation(len(index)), 5):
        worker.client.update_annotation(volume, index[part], labels[part])
    worker.events.wait(PreviewReady, after=before, that=agrees(3 - truth))


def test_labels_painted_while_it_begins_are_used(worker):
    volume = worker.open()
    index, labels = worker.toy.painted((3,))
    before = worker.train(volume, training={"steps": 5, "validation_fraction": 0.0})
    worker.client.update_annotation(volume, index, labels)
    worker.client.stop()

    worker.events.wait(Trained, after=before)

    assert not [e for e in worker.events.all[before:] if isinstance(e, Failed)]


def test_a_class_that_is_new_is_left_out_with_a_warning(worker):
    volume = worker.open()
    before = worker.train(volume)
    worker.events.wait(StepDone, after=before)

    worker.client.update_annotation(volume, [0, 1], [7, 7])
    worker.client.update_annotation(volume, [2, 3], [7, 7])

    warning = worker.events.wait(Warned, after=before)
    assert "class 7 is new" in warning.message
    at = len(worker.events)
    worker.events.wait(StepDone, after=at)
    worker.client.stop()
    worker.events.wait(Trained, after=before)
    warnings = [e for e in worker.events.all[before:] if isinstance(e, Warned)]
    assert len(warnings) == 1


def test_named_classes_may_be_painted_later(worker):
    volume = worker.open()
    before = worker.train(volume, class_names=["ground", "ball", "hole"])
    started = worker.events.wait(StepDone, after=before)

    worker.client.update_annotation(volume, np.arange(50), np.full(50, 3))
    worker.events.wait(
        StepDone, after=before, that=lambda event: event.step > started.step + 20
    )

    assert worker.events.of(ModelChanged)[-1].summary.n_classes == 3
    assert not [e for e in worker.events.all[before:] if isinstance(e, Warned | Failed)]


def test_erasing_everything_does_not_end_it(worker):
    volume = worker.open()
    before = worker.train(volume)
    step = worker.events.wait(StepDone, after=before).step

    worker.client.replace_annotation(volume, [], [])

    warning = worker.events.wait(Warned, after=before)
    assert "no voxel is labelled" in warning.message
    worker.events.wait(
        StepDone, after=before, that=lambda event: event.step > step + 20
    )


def test_pause_holds_and_resume_goes_on(worker):
    before = worker.train(worker.open())
    worker.events.wait(StepDone, after=before)

    worker.client.pause()
    paused = worker.events.wait(Paused, after=before)
    held = len(worker.events)
    time.sleep(0.5)
    assert not [e for e in worker.events.all[held:] if isinstance(e, StepDone)]
    worker.client.resume()
    worker.events.wait(Resumed, after=held)
    step = worker.events.wait(StepDone, after=held)

    assert step.step > paused.step


def test_a_preview_is_answered_while_it_is_held(worker):
    volume = worker.open()
    before = worker.train(volume)
    worker.events.wait(StepDone, after=before)
    worker.client.pause()
    worker.events.wait(Paused, after=before)

    generation = worker.client.request_preview(volume, 1, 7)

    answer = worker.events.wait(PreviewReady, after=before)
    assert answer.generation == generation


def test_stop_ends_a_held_training(worker):
    before = worker.train(worker.open())
    worker.events.wait(StepDone, after=before)
    worker.client.pause()
    worker.events.wait(Paused, after=before)

    worker.client.stop()

    assert worker.events.wait(Trained, after=before).reason == "stopped"


def test_stop_takes_less_than_a_second_and_keeps_the_model(worker, tmp_path):
    path = tmp_path / "model.pt"
    before = worker.train(worker.open(), save_to=path)
    worker.events.wait(StepDone, after=before)

    began = time.monotonic()
    worker.client.stop()
    trained = worker.events.wait(Trained, after=before)

    assert time.monotonic() - began < 1
    assert trained.reason == "stopped"
    assert worker.events.wait(Saved, after=before).path == str(path)
    assert load(path).step == trained.step


def test_stop_before_the_first_step_ends_it(worker):
    before = worker.train(worker.open())
    worker.client.stop()

    assert worker.events.wait(Trained, after=before).reason == "stopped"


def test_a_model_is_saved_loaded_and_trained_on(worker, tmp_path):
    path = tmp_path / "model.pt"
    volume = worker.open()
    before = worker.train(volume, training={"steps": 30, "validate_every": 10})
    worker.events.wait(Trained, after=before)
    worker.client.save_model(path)
    worker.events.wait(Saved, after=before)

    before = len(worker.events)
    worker.client.new_model()
    assert worker.events.wait(ModelChanged, after=before).summary is None
    worker.client.load_model(path)
    loaded = worker.events.wait(
        ModelChanged, after=before, that=lambda event: event.path
    )
    assert (loaded.path, loaded.summary.step) == (str(path), 30)
    assert [entry["step"] for entry in loaded.history if "loss" in entry][-1] == 30
    assert sum("mean_iou" in entry for entry in loaded.history) == 2
    before = worker.train(volume, training={"steps": 20}, proceed=True)
    assert worker.events.wait(Trained, after=before).step == 50


def test_without_proceed_a_new_model_is_trained(worker):
    volume = worker.open()
    for _ in range(2):
        before = worker.train(volume, training={"steps": 5})
        assert worker.events.wait(Trained, after=before).step == 5


def test_what_was_asked_for_after_stop_is_done(worker):
    before = worker.train(worker.open())
    worker.events.wait(StepDone, after=before)

    worker.client.stop()
    worker.client.new_model()

    worker.events.wait(ModelChanged, after=before, that=lambda e: e.summary is None)
    assert not [e for e in worker.events.all[before:] if isinstance(e, Failed)]


def test_another_training_is_refused_while_one_goes_on(worker):
    volume = worker.open()
    before = worker.train(volume)
    worker.events.wait(StepDone, after=before)

    worker.client.train([volume])
    failed = worker.events.wait(Failed, after=before)

    assert failed.what == "request"
    assert "stop it first" in failed.sentence
    worker.events.wait(StepDone, after=len(worker.events))


def test_a_busy_person_slows_training_but_does_not_stop_it(worker):
    before = worker.train(worker.open())
    worker.events.wait(StepDone, after=before)

    worker.client.be_courteous(30.0)
    time.sleep(0.5)
    quiet = len(worker.events)
    time.sleep(1.0)
    steps = [e for e in worker.events.all[quiet:] if isinstance(e, StepDone)]
    assert len(steps) <= 1
    worker.events.wait(StepDone, after=len(worker.events), seconds=10)
    worker.client.stop()

    assert worker.events.wait(Trained, after=before, seconds=5)
