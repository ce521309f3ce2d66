"""How the state follows from what the worker tells: pure functions."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet3d.worker.protocol import (
    Failed,
    ModelChanged,
    Paused,
    Ready,
    Resumed,
    SegmentCancelled,
    SegmentDone,
    SegmentOpened,
    SegmentProgress,
    Started,
    StepDone,
    Trained,
    Validated,
    WorkerDied,
)

from .sentences import describe_model
from .state import Phase, State

if TYPE_CHECKING:
    from napari_unet3d.worker.protocol import Event


def after(state: State, event: Event) -> State:
    """Return the state after an event; `Pace` adds rate and time left."""
    match event:
        case Ready():
            # A training may have been asked for before.
            starts = state.phase in (Phase.STARTING, Phase.DEAD)
            return replace(
                state,
                phase=Phase.IDLE if starts else state.phase,
                device=event.device,
                device_warning=event.warning,
            )
        case Started():
            return replace(
                state,
                step=event.step,
                loss=None,
                held_out_iou=None,
                devices=event.devices,
            )
        case StepDone():
            loss = event.loss
            if state.loss is not None:
                loss = 0.9 * state.loss + 0.1 * loss
            return replace(state, step=event.step, loss=loss)
        case Validated():
            known = None if math.isnan(event.mean_iou) else event.mean_iou
            return replace(state, held_out_iou=known)
        case Paused() if state.phase is Phase.TRAINING:
            return replace(state, phase=Phase.PAUSED)
        case Resumed() if state.phase is Phase.PAUSED:
            return replace(state, phase=Phase.TRAINING)
        case Trained():
            return training_over(replace(state, step=event.step))
        case ModelChanged():
            return replace(
                state,
                has_model=event.summary is not None,
                opening_model=False,
                model=describe_model(event.summary),
            )
        case SegmentOpened() | SegmentProgress():
            return replace(state, progress=event.progress)
        case SegmentDone() | SegmentCancelled():
            return segmentation_over(state)
        case Failed(what="model" | "request"):
            return replace(state, opening_model=False)
        case Failed(what="segmentation"):
            return segmentation_over(state)
        case Failed(what="training"):
            return training_over(state)
        case WorkerDied():
            return replace(
                state,
                phase=Phase.DEAD,
                training_held=False,
                has_prediction=False,
                has_model=False,
                opening_model=False,
                device="the worker has ended",
                device_warning="",
                model=describe_model(None),
            )
    return state


def segmenting(state: State) -> State:
    """Return the state after a segmentation was asked for."""
    held = state.phase in (Phase.TRAINING, Phase.PAUSED)
    return replace(
        state,
        phase=Phase.SEGMENTING,
        training_held=held,
        pause_held=state.phase is Phase.PAUSED,
        progress=0.0,
        written_to="",
    )


def training_over(state: State) -> State:
    """Return the state after the end of a training."""
    if state.phase is Phase.SEGMENTING:
        return replace(state, training_held=False, devices=1)
    return replace(state, phase=Phase.IDLE, training_held=False, devices=1)


def segmentation_over(state: State) -> State:
    """Return the state after the end of a segmentation."""
    if state.phase is not Phase.SEGMENTING:
        return state
    phase = Phase.IDLE
    if state.training_held:
        phase = Phase.PAUSED if state.pause_held else Phase.TRAINING
    return replace(state, phase=phase, training_held=False, progress=0.0)


class Pace:
    """Steps a second, and how long the training still takes."""

    SPAN = 5.0
    """Seconds that the rate is the mean of."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, StepDone]] = deque()

    def reset(self) -> None:
        """Begin anew."""
        self._seen.clear()

    def add(self, state: State, event: StepDone, now: float) -> State:
        """Return the state with the figures after a step.

        Parameters
        ----------
        now : float
            Seconds on any clock that does not jump.
        """
        self._seen.append((now, event))
        while len(self._seen) > 2 and now - self._seen[1][0] > self.SPAN:
            self._seen.popleft()
        then, before = self._seen[0]
        if now <= then:
            return state
        rate = (event.step - before.step) / (now - then)
        left = None
        if event.progress > before.progress:
            pace = (event.progress - before.progress) / (now - then)
            left = (1 - event.progress) / pace
        return replace(state, rate=rate, time_left=left)
