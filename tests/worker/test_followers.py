"""Several processes train one model while it is painted on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from napari_unet3d.engine import load
from napari_unet3d.worker.protocol import (
    Failed,
    ModelChanged,
    Paused,
    Resumed,
    Saved,
    Started,
    StepDone,
    Trained,
)

from .conftest import TRAINING

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.skipif(sys.platform == "win32", reason="lists processes with ps"),
]


def followers() -> list[int]:
    listed = subprocess.run(
        ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
    ).stdout
    return [
        int(line.split()[0])
        for line in listed.splitlines()
        if "napari_unet3d.worker.follower" in line
    ]


@pytest.fixture(autouse=True)
def none_is_left(worker):
    before = set(followers())
    yield
    worker.client.stop()
    assert set(followers()) <= before


def test_they_make_the_model_of_one(worker, tmp_path):
    losses = []
    for devices in (1, 2):
        before = worker.train(
            worker.open(),
            training={"steps": 30, "precision": "float32"},
            devices=devices,
            save_to=tmp_path / f"{devices}.pt",
        )
        started = worker.events.wait(Started, Failed, after=before)
        assert started.device.startswith("2 × CPU" if devices == 2 else "CPU")
        worker.events.wait(Trained, after=before)
        worker.events.wait(Saved, after=before)
        history = load(tmp_path / f"{devices}.pt").history
        losses.append([entry["loss"] for entry in history if "loss" in entry])
        worker.client.new_model()
    one, two = losses
    assert len(one) == len(two) > 0
    # Rounding grows from step to step.
    assert two[:3] == pytest.approx(one[:3], abs=1e-4)
    assert two == pytest.approx(one, abs=0.05)


def test_all_learn_what_is_painted_meanwhile(worker):
    volume = worker.open()
    before = worker.train(volume, devices=2)
    worker.events.wait(StepDone, after=before, that=lambda event: event.step > 20)
    worker.client.replace_annotation(volume, *worker.toy.painted(swapped=True))
    # Where one of them went on with the old labels, it would stay near ln 2.
    worker.events.wait(
        StepDone, after=before, that=lambda event: event.step > 60 and event.loss < 0.3
    )
    worker.client.stop()
    assert worker.events.wait(Trained, after=before).reason == "stopped"


def test_they_wait_while_the_training_is_held(worker):
    before = worker.train(worker.open(), devices=2)
    worker.events.wait(StepDone, after=before)
    worker.client.pause()
    held = worker.events.wait(Paused, after=before)
    worker.client.resume()
    worker.events.wait(Resumed, after=before)
    worker.events.wait(
        StepDone, after=before, that=lambda event: event.step > held.step
    )
    worker.client.stop()
    worker.events.wait(Trained, after=before)


def test_stop_while_they_start(worker):
    before = worker.train(worker.open(), devices=2)
    worker.client.stop()
    trained = worker.events.wait(Trained, after=before)
    assert trained.reason == "stopped"


def test_one_is_killed(worker):
    earlier = set(followers())
    before = worker.train(worker.open(), devices=2)
    last = worker.events.wait(
        StepDone, after=before, that=lambda event: event.step > 10
    )
    (other,) = set(followers()) - earlier
    os.kill(other, signal.SIGKILL)
    failed = worker.events.wait(Failed, after=before)
    assert failed.what == "training"
    assert failed.sentence.startswith("one of the 2 processes of the training ended")
    # What was learned is kept.
    changed = [e for e in worker.events.of(ModelChanged) if e.summary]
    assert changed[-1].summary.step >= last.step


@pytest.mark.parametrize(
    ("devices", "training", "sentence"),
    [
        (0, {}, "devices must be at least 1, got 0"),
        (3, {}, "3 devices cannot share a batch_size of 2"),
        (2, {"device": "cpu:0"}, "2 devices are to train but device is cpu:0"),
    ],
)
def test_what_cannot_be_is_said(devices, training, sentence, worker):
    before = worker.train(worker.open(), training=training, devices=devices)
    assert sentence in worker.events.wait(Failed, after=before).sentence


def test_what_is_wrong_for_all_is_said_once(worker):
    volume = worker.client.open_volume(worker.toy.image)
    before = len(worker.events)
    worker.client.train([volume], training=dict(TRAINING), devices=2)
    failed = worker.events.wait(Failed, after=before)
    assert "label" in failed.sentence
    assert len(worker.events.of(Failed)) == 1 + sum(
        isinstance(event, Failed) for event in worker.events.all[:before]
    )
