"""Progress on the terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from napari_unet3d.engine.events import (
    Saved,
    Segmented,
    Started,
    StepDone,
    Trained,
    TrainingEvent,
    Validated,
    Warned,
)


class Reporter:
    """Tell what happens, on one line that renews itself.

    Where the stream is not a terminal, it is a line every ten seconds.

    Parameters
    ----------
    stream : text stream, optional
        Standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = 0.0
        self._iou = ""
        self._start: tuple[float, int, float] | None = None
        self._width = 0

    def __call__(self, event: TrainingEvent | Segmented) -> None:
        """Show an event."""
        if isinstance(event, Started):
            self._started(event)
        elif isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, Validated):
            self._iou = f", held-out IoU {event.mean_iou:.3f}"
        elif isinstance(event, Warned):
            self._line(f"warning: {event.message}")
        elif isinstance(event, Saved):
            self._line(f"saved {event.path} after {event.step} steps")
        elif isinstance(event, Trained):
            self._line(
                f"training {event.reason}: {event.step} steps in "
                f"{duration(event.seconds)}{self._iou}"
            )
        elif self._due(event.progress >= 1):
            self._renew(f"segmented {event.progress:4.0%}", event.progress >= 1)

    def _started(self, event: Started) -> None:
        levels = len(event.pooling) + 1
        held_out = f", {event.held_out_voxels:,} held out"
        self._line(
            f"network: {event.n_parameters:,} parameters ({levels} levels, "
            f"{event.base_channels} base channels) on {event.device} in "
            f"{event.precision}"
        )
        self._line(
            f"data: {event.labelled_voxels:,} labelled voxels"
            f"{held_out if event.held_out_voxels else ''}; a step takes "
            f"{event.batch_size} patches of {_size(event.patch_size)} voxels"
        )

    def _step(self, event: StepDone) -> None:
        now = time.monotonic()
        # The first step is slower than those after it.
        start = self._start or (now, event.step, event.progress)
        self._start = start
        if not self._due():
            return
        seconds, steps = now - start[0], event.step - start[1]
        rate = f" ({steps / seconds:.1f}/s)" if steps and seconds > 0 else ""
        left = ""
        if (done := event.progress - start[2]) > 0 and seconds > 2:
            left = f", {duration(seconds * (1 - event.progress) / done)} left"
        self._renew(
            f"{event.progress:4.0%}  step {event.step}{rate}, "
            f"loss {event.loss:.3f}{self._iou}{left}"
        )

    def _due(self, certainly: bool = False) -> bool:
        now = time.monotonic()
        if not certainly and now - self._last < (0.2 if self._live else 10):
            return False
        self._last = now
        return True

    def _renew(self, text: str, final: bool = False) -> None:
        if not self._live:
            print(text, file=self._stream, flush=True)
            return
        # A line that wraps cannot be renewed.
        text = text[: shutil.get_terminal_size().columns - 1]
        end = "\n" if final else ""
        print("\r" + text.ljust(self._width), end=end, file=self._stream, flush=True)
        self._width = 0 if final else len(text)

    def _line(self, text: str) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream)
            self._width = 0
        print(text, file=self._stream, flush=True)


def _size(size: Sequence[int]) -> str:
    return "×".join(str(n) for n in size)


def duration(seconds: float) -> str:
    """Return a time in words."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min"


class RemainingTime(Reporter):
    """Tell how much is segmented and how long the rest will take.

    Parameters
    ----------
    begun : float
        Share that an earlier run did.
    stream : text stream, optional
        Standard error by default.
    """

    def __init__(self, begun: float = 0.0, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._begun = begun
        self._began = time.monotonic()

    def __call__(self, event: TrainingEvent | Segmented) -> None:
        """Show an event."""
        if not isinstance(event, Segmented) or event.progress >= 1:
            super().__call__(event)
        elif self._due():
            seconds = time.monotonic() - self._began
            left = seconds * (1 - event.progress) / (event.progress - self._begun)
            self._renew(f"segmented {event.progress:4.0%}, {duration(left)} left")
