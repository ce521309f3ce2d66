"""Progress on the terminal and on disk."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from napari_unet3d.engine.errors import EngineError
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
    """Tell on a terminal what happens, one line that renews itself.

    Where the output is not a terminal, a line every ten seconds.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = 0.0
        self._iou = ""
        self._rate = (0.0, 0)
        self._width = 0

    def __call__(self, event: TrainingEvent | Segmented) -> None:
        """Show an event."""
        if isinstance(event, Started):
            held = (
                f", {event.held_out_voxels} held out" if event.held_out_voxels else ""
            )
            self._line(
                f"{event.device} ({event.precision}): {event.n_parameters:,} "
                f"parameters, base {event.base_channels}, "
                f"{event.batch_size} patches of {_size(event.patch_size)} voxels a "
                f"step, {event.labelled_voxels:,} labelled voxels{held}"
            )
            self._rate = (time.monotonic(), event.step)
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
                f"{event.seconds:.0f} s{self._iou}"
            )
        elif self._due(event.progress >= 1):
            self._renew(f"segmented {event.progress:4.0%}", event.progress >= 1)

    def _step(self, event: StepDone) -> None:
        if not self._due():
            return
        seconds, first = time.monotonic() - self._rate[0], self._rate[1]
        left = ""
        if event.progress > 0.01 and seconds > 1:
            rest = seconds * (1 - event.progress) / event.progress
            left = f", {rest:.0f} s left"
        self._renew(
            f"{event.progress:4.0%}  step {event.step} "
            f"({(event.step - first) / max(seconds, 1e-3):.1f}/s), "
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
        end = "\n" if final else ""
        print("\r" + text.ljust(self._width), end=end, file=self._stream, flush=True)
        self._width = 0 if final else len(text)

    def _line(self, text: str) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream)
            self._width = 0
        print(text, file=self._stream, flush=True)


class History:
    """Write what is measured to `history.csv`, `history.json` and TensorBoard.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    tensorboard : bool
        Whether to write event files too, which needs the extra.

    Raises
    ------
    EngineError
        Where the folder cannot be written to or the extra is missing.
    """

    COLUMNS = ("step", "seconds", "loss", "learning_rate", "mean_iou", "iou")

    def __init__(self, folder: str | Path, tensorboard: bool = False) -> None:
        self._folder = Path(folder)
        self._rows: list[dict[str, Any]] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._folder / "history.csv", "w", newline="")  # noqa: SIM115
        except OSError as error:
            raise EngineError(
                f"cannot write to the log folder {folder}: {error.strerror}; choose "
                "another with --log-dir"
            ) from error
        self._csv = csv.DictWriter(self._file, self.COLUMNS)
        self._csv.writeheader()
        self._board = _summary_writer(self._folder) if tensorboard else None

    def __call__(self, event: TrainingEvent) -> None:
        """Record an event, where it holds figures."""
        if isinstance(event, StepDone):
            row: dict[str, Any] = {
                "loss": event.loss,
                "learning_rate": event.learning_rate,
            }
        elif isinstance(event, Validated):
            row = {"mean_iou": event.mean_iou}
            row |= {f"iou/class {k}": iou for k, iou in enumerate(event.iou, 1)}
        else:
            return
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, event.step)
        row = {name: value for name, value in row.items() if name in self.COLUMNS}
        if isinstance(event, Validated):
            row["iou"] = " ".join(f"{value:.4f}" for value in event.iou)
        row = {"step": event.step, "seconds": round(event.seconds, 3), **row}
        self._csv.writerow(row)
        self._rows.append(row)

    def close(self) -> None:
        """Complete the files."""
        self._file.close()
        with open(self._folder / "history.json", "w") as file:
            json.dump(self._rows, file, indent=1)
        if self._board is not None:
            self._board.close()


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise EngineError(
            "TensorBoard is not installed; pip install 'napari-unet3d[tensorboard]' "
            "or leave --tensorboard out"
        ) from error
    return SummaryWriter(str(folder))


def _size(size: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in size)
