"""What the person is shown and told when the worker tells something."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_info, show_warning

from napari_unet3d.worker.protocol import (
    Event,
    Failed,
    ModelChanged,
    PreviewReady,
    Saved,
    SegmentCancelled,
    SegmentDone,
    SegmentOpened,
    SegmentProgress,
    StepDone,
    Trained,
    Validated,
    Warned,
    WorkerDied,
)

from .session import SEGMENTATION, TRAINING, Session
from .state import Phase
from .state_changes import after

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_DEATHS = 3
"""Ends of the worker within a minute after which it is not started again."""

BEING_WRITTEN = "Being written to"

_logger = logging.getLogger(__name__)


class Telling(Session):
    """React to the worker's events."""

    _deaths: tuple[float, ...] = ()

    def receive(self, event: Event) -> None:
        """Take an event in: state first, then layers, curve and notifications."""
        if isinstance(event, PreviewReady):
            self.previewing.receive(event)
            return
        of_segmentation = SegmentOpened, SegmentProgress, SegmentDone, SegmentCancelled
        if isinstance(event, of_segmentation) and (
            event.generation != self.segmenting.generation
        ):
            return
        was_training = self.state.is_training
        before, self.state = self.state.phase, after(self.state, event)
        if self.state.phase is Phase.TRAINING and before is not Phase.TRAINING:
            # What a pause or a segmentation took is not the pace of the training.
            self.pace.reset()
            self.state = replace(self.state, rate=0.0, time_left=None)
        reactions: dict[type, Callable[..., None]] = {
            StepDone: self._on_step,
            Validated: self._on_validated,
            Trained: self._on_trained,
            ModelChanged: self._on_model,
            Saved: self._on_saved,
            SegmentOpened: self._on_opened,
            SegmentProgress: self.segmenting.progressed,
            SegmentDone: self._on_segmented,
            SegmentCancelled: self._on_cancelled,
            Warned: lambda event: show_warning(_sentence(event.message)),
            Failed: self._on_failed,
            WorkerDied: lambda event: self._on_death(event, was_training),
        }
        if type(event) in reactions:
            reactions[type(event)](event)
        self.refresh()

    def _on_step(self, event: StepDone) -> None:
        self.state = self.pace.add(self.state, event, time.monotonic())
        self.widget.training.plot("add_loss", event.step, event.loss)

    def _on_validated(self, event: Validated) -> None:
        if self.state.held_out_iou is not None:
            self.widget.training.plot("add_iou", event.step, event.mean_iou)

    def _on_trained(self, event: Trained) -> None:
        self.keep()
        if event.reason == "finished":
            iou = self.summary.held_out_iou if self.summary else None
            said = "" if iou is None else f", best held-out IoU {iou:.2f}"
            show_info(
                f"The training has finished after {event.step:,} steps{said}. Correct "
                "what is wrong and continue, or press Segment volume."
            )

    def _on_model(self, event: ModelChanged) -> None:
        self.summary = event.summary
        if event.path:
            self.widget.training.plot("show_history", event.history)
            self.set_state(step=event.summary.step if event.summary else 0)
            # Another worker opens it again.
            self.model_file = Path(event.path)
            if self.state.phase is Phase.IDLE:
                self.preview_if_possible()

    def _on_saved(self, event: Saved) -> None:
        if event.path == self.saving:
            self.saving = ""
            show_info(f"The model was saved to {event.path}.")

    def _on_opened(self, event: SegmentOpened) -> None:
        self.segmenting.opened(event)
        self.set_state(written_to=f"{BEING_WRITTEN} {self.segmenting.path}")

    def _on_cancelled(self, event: SegmentCancelled) -> None:
        self.segmenting.done()
        self._say_unfinished()

    def _say_unfinished(self) -> None:
        if self.segmenting.path:
            path = self.segmenting.path
            self.set_state(written_to=f"Unfinished: Segment volume goes on with {path}")

    def _on_segmented(self, event: SegmentDone) -> None:
        self.segmenting.done(event)
        if self.segmenting.path:
            self.set_state(written_to=f"Written to {self.segmenting.path}")
        self.previewing.put_aside()

    def _on_failed(self, event: Failed) -> None:
        if event.details:
            _logger.info("%s", event.details)
        if event.what == "segmentation":
            self.segmenting.done()
            self._say_unfinished()
        elif event.what == "volume":
            self.transfer.forget_number(event.generation)
        show_error(_sentence(event.sentence))

    def _on_death(self, event: WorkerDied, was_training: bool) -> None:
        """Say what happened and start another worker, unless that is of no use."""
        was_segmenting = self.state.written_to.startswith(BEING_WRITTEN)
        if event.details:
            _logger.info("%s", event.details)
        self.keep()
        for what in (TRAINING, SEGMENTATION):
            self.transfer.cancel(what)
        self.summary = None
        if was_segmenting:
            self._say_unfinished()
        # There is no checkpoint at first.
        is_lost = was_training and self.kept_model is None
        if is_lost:
            self.widget.training.plot("clear_points")
            self.set_state(step=0, loss=None, held_out_iou=None)
        now = time.monotonic()
        recent = tuple(t for t in (*self._deaths, now) if now - t < 60)
        self._deaths = recent
        sentence = _sentence(event.sentence)
        if len(recent) >= MOST_DEATHS:
            show_error(f"{sentence} It ended {len(recent)} times within a minute.")
            return
        follows = "."
        if is_lost:
            follows = ". What was trained is lost, and Train begins anew."
        elif self.kept_model:
            follows = "; press Continue to go on from the last checkpoint."
        show_error(f"{sentence} It is being started again{follows}")
        self.restart()


def _sentence(text: str) -> str:
    """Begin with a capital and end with one full stop."""
    # "ball: slice 3 …" begins with the name of a layer.
    if not text.partition(" ")[0].endswith(":"):
        text = f"{text[:1].upper()}{text[1:]}"
    return text.rstrip(".") + "."
