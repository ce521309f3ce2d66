"""Buttons and sentences follow from the state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image

from napari_unet3d._qt import sentences, state_changes
from napari_unet3d._qt.annotation_scan import Labelled
from napari_unet3d._qt.classes import DEFAULT_CLASSES, make_classes
from napari_unet3d._qt.state import NO_MODEL, Phase, State
from napari_unet3d._qt.volumes import VolumeChoice
from napari_unet3d.worker import protocol

SUMMARY = protocol.ModelSummary(
    class_names=("background", "structure"),
    class_colors=(),
    in_channels=1,
    base_channels=8,
    pooling=((2, 2, 2),),
    stem="none",
    spacing=(2.0, 1.0, 1.0),
    unit="micrometer",
    step=1200,
    seconds=60.0,
    held_out_iou=0.834,
    version="0.1.0",
)

STEP = protocol.StepDone(5, 0.5, 1e-3, 10.0, 0.25)
TRAINING = State(phase=Phase.TRAINING, has_model=True)


@pytest.mark.parametrize(
    ("state", "event", "phase"),
    [
        (State(), protocol.Ready("CPU, 2 threads", 2), Phase.IDLE),
        # Train was pressed while the worker was starting.
        (TRAINING, protocol.Ready("CPU, 2 threads", 2), Phase.TRAINING),
        (TRAINING, protocol.Paused(3), Phase.PAUSED),
        (replace(TRAINING, phase=Phase.PAUSED), protocol.Resumed(3), Phase.TRAINING),
        (replace(TRAINING, phase=Phase.STOPPING), protocol.Resumed(3), Phase.STOPPING),
        (TRAINING, protocol.Trained(9, 1.0, "finished"), Phase.IDLE),
        (TRAINING, protocol.Failed("no", "training"), Phase.IDLE),
        (TRAINING, protocol.Failed("no", "preview"), Phase.TRAINING),
        (TRAINING, protocol.WorkerDied(-9, "killed"), Phase.DEAD),
        (
            state_changes.segmenting(TRAINING),
            protocol.SegmentCancelled(1),
            Phase.TRAINING,
        ),
        (
            state_changes.segmenting(replace(TRAINING, phase=Phase.PAUSED)),
            protocol.SegmentCancelled(1),
            Phase.PAUSED,
        ),
        (
            state_changes.segmenting(State(phase=Phase.IDLE)),
            protocol.Failed("no", "segmentation"),
            Phase.IDLE,
        ),
        (
            state_changes.segmenting(TRAINING),
            protocol.Trained(9, 1.0, "stopped"),
            Phase.SEGMENTING,
        ),
    ],
)
def test_phases(state, event, phase):
    assert state_changes.after(state, event).phase is phase


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["background", "nucleus", "mito"], None),
        (["background", "nucleus"], None),
        (["background", "core", "mito"], None),
        (["background", "mito"], "“mito” is class 2 now and class 3 of the model"),
        (["nucleus", "background"], "“nucleus” is class 1 now and class 2 of the"),
    ],
)
def test_classes_that_have_moved_are_not_learned_on(names, sentence):
    look = Labelled((2, 3, 4), np.arange(2), np.array([1, 2], np.uint8))
    summary = replace(SUMMARY, class_names=("background", "nucleus", "mito"))
    said = sentences.why_not_trainable([look], make_classes(names), summary)
    assert said is None if sentence is None else sentence in said


def test_figures_of_a_training():
    pace = state_changes.Pace()
    state = pace.add(TRAINING, STEP, now=100.0)
    event = replace(STEP, step=15, progress=0.5)
    state = pace.add(state_changes.after(state, event), event, now=105.0)
    assert state.rate == 2.0
    assert state.time_left == pytest.approx(10.0)
    state = state_changes.after(
        state, protocol.Validated(15, 1.0, (0.5, 0.7), 0.6, True)
    )
    assert state.progress_line == (
        "step 15 · 2.0/s · loss 0.500 · held-out IoU 0.60 · 0:10 left"
    )


def test_what_a_model_is():
    assert sentences.describe_model(None) == NO_MODEL
    untrained = sentences.describe_model(replace(SUMMARY, step=0, held_out_iou=None))
    assert untrained.endswith(" · 1 channel")
    assert sentences.describe_model(SUMMARY) == (
        "background, structure · 2 × 1 × 1 micrometer · 1 channel · 1,200 steps · "
        "best held-out IoU 0.83"
    )


def test_a_model_that_does_not_fit_says_how():
    fits = VolumeChoice(Image(np.zeros((4, 5, 6)), name="a", scale=(2, 1, 1)))
    assert sentences.why_model_does_not_fit(SUMMARY, fits) is None
    assert sentences.doubt_about_model(SUMMARY, fits) is None
    two = VolumeChoice(Image(np.zeros((2, 4, 5, 6)), name="b"), "CZYX")
    assert "“b” has 2" in sentences.why_model_does_not_fit(SUMMARY, two)
    fine = VolumeChoice(Image(np.zeros((4, 5, 6)), name="c", scale=(0.5, 0.2, 0.2)))
    assert "0.5 × 0.2 × 0.2" in sentences.doubt_about_model(SUMMARY, fine)


@pytest.mark.parametrize(
    ("labels", "classes", "sentence"),
    [
        (None, DEFAULT_CLASSES, "There is no annotation"),
        ([], DEFAULT_CLASSES, "Nothing is labelled yet"),
        ([2, 2], DEFAULT_CLASSES, "Only “structure” is labelled"),
        ([1, 2], make_classes(["a", "b", "c"]), "tells 2 classes apart"),
        ([1, 2], DEFAULT_CLASSES, None),
    ],
)
def test_what_an_annotation_lacks(labels, classes, sentence):
    found = []
    if labels is not None:
        painted = np.array(labels, np.uint8)
        found = [Labelled((2, 3, 4), np.arange(len(labels)), painted)]
    said = sentences.why_not_trainable(found, classes, SUMMARY)
    assert said is None if sentence is None else sentence in said


def test_annotations_add_up():
    one = Labelled((2, 3, 4), np.array([5]), np.array([1], np.uint8))
    two = Labelled((9, 9, 9), np.array([5]), np.array([2], np.uint8))
    assert sentences.why_not_trainable([one, two], DEFAULT_CLASSES, None) is None


@pytest.mark.parametrize(
    ("shape", "axes", "names", "sentence"),
    [
        ((2, 3, 4), "ZYX", ["background", "structure"], None),
        ((2, 3, 4), "ZYX", ["background", "structure", "class 3"], None),
        ((2, 2, 3, 4), "CZYX", ["background", "structure"], "has 2 channel(s)"),
        ((2, 3, 4), "ZYX", ["background", "cell"], "Class 2 is “cell” in “other”"),
    ],
)
def test_why_two_images_are_not_learned_from_together(shape, axes, names, sentence):
    other = VolumeChoice(Image(np.zeros(shape), name="other"), axes)
    here = VolumeChoice(Image(np.zeros((9, 9, 9)), name="here"))
    said = sentences.why_not_together(other, make_classes(names), here, DEFAULT_CLASSES)
    assert said is None if sentence is None else sentence in said


def test_images_of_other_voxels_are_doubted():
    one = VolumeChoice(Image(np.zeros((2, 3, 4)), name="one", scale=(4, 1, 1)))
    two = VolumeChoice(Image(np.zeros((2, 3, 4)), name="two"))
    assert "4 × 1 × 1" in sentences.doubt_about_spacing(one, two)
    assert sentences.doubt_about_spacing(one, one) is None


def test_why_not():
    idle = State(phase=Phase.IDLE)
    assert idle.why_not_train is None
    assert "no model yet" in idle.why_not_segment
    assert replace(idle, has_model=True).why_not_segment is None
    assert "under way" in TRAINING.why_not_train
    assert TRAINING.why_not_segment is None
    opening = replace(idle, opening_model=True)
    assert "being opened" in opening.why_not_train
    for event in (
        protocol.ModelChanged(None),
        protocol.Failed("no such file", "model"),
    ):
        assert not state_changes.after(opening, event).opening_model
    dead = replace(idle, phase=Phase.DEAD)
    assert "restart it" in dead.why_not_train
    assert "restart it" in dead.why_not_segment
