"""What is measured while training, as CSV, JSON and for TensorBoard."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.events import StepDone, TrainingEvent, Validated

from .doubts import warn
from .files import expanded, make_folder

if TYPE_CHECKING:
    from pathlib import Path


class History:
    """Write what is measured to `history.csv`, `history.json` and TensorBoard.

    The files of an earlier training are replaced when there is something to write. A
    log that cannot be written ends with a warning; the training goes on.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    n_classes : int
        Columns with the IoU of a class.
    past : sequence of mapping
        What was measured before, as in a model that is trained on.
    tensorboard : bool
        Whether to write event files too, which needs the extra.

    Raises
    ------
    EngineError
        Where the folder cannot be written to or the extra is missing.
    """

    def __init__(
        self,
        folder: str | Path,
        n_classes: int,
        past: Sequence[Mapping[str, Any]] = (),
        tensorboard: bool = False,
    ) -> None:
        self._board_type = _summary_writer() if tensorboard else None
        self._is_new = not expanded(folder).exists()
        self._folder = make_folder(folder, "--log-dir")
        self._columns = (
            *("step", "seconds", "loss", "learning_rate", "mean_iou"),
            *(f"iou_{k}" for k in range(1, n_classes + 1)),
        )
        self._rows = [dict(row) for row in past]
        self._file: TextIO | None = None
        self._csv: Any = None
        self._board: Any = None
        self._failed = False

    def __call__(self, event: TrainingEvent) -> None:
        """Record an event, where it holds figures."""
        row: dict[str, Any] = {}
        if isinstance(event, StepDone):
            row = {"loss": event.loss, "learning_rate": event.learning_rate}
        elif isinstance(event, Validated):
            row = {"mean_iou": event.mean_iou, "iou": list(event.iou)}
        if not row or self._failed or not isinstance(event, StepDone | Validated):
            return
        row = {"step": event.step, "seconds": round(event.seconds, 3), **row}
        try:
            if self._file is None:
                self._open()
            self._write(row)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Complete the files."""
        try:
            if self._file is not None:
                self._file.close()
                self._write_json()
            if self._board is not None:
                self._board.close()
        except OSError as error:
            self._fail(error)
        if self._is_new:
            # Nothing was written into it; otherwise it stays.
            with suppress(OSError):
                self._folder.rmdir()

    def _open(self) -> None:
        path = self._folder / "history.csv"
        self._file = open(path, "w", newline="", buffering=1)  # noqa: SIM115
        self._csv = csv.DictWriter(self._file, self._columns)
        self._csv.writeheader()
        self._csv.writerows(_flat(row, self._columns) for row in self._rows)
        if self._board_type is not None:
            self._board = self._board_type(str(self._folder))

    def _write(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        flat = _flat(row, self._columns)
        self._csv.writerow(flat)
        if self._board is not None:
            for name, value in flat.items():
                if name not in ("step", "seconds"):
                    tag = name.replace("iou_", "iou/class ")
                    self._board.add_scalar(tag, value, row["step"])

    def _write_json(self) -> None:
        rows = [{name: _known(value) for name, value in r.items()} for r in self._rows]
        path = self._folder / "history.json"
        temporary = path.with_name(".history.json.partial")
        try:
            temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            warn(
                f"the history in {self._folder} is not complete: "
                f"{error.strerror or error}; the training is not touched by that"
            )
        self._failed = True


def _flat(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return a row with one figure per column; what is unknown stays empty."""
    flat = {name: row[name] for name in columns if name in row}
    iou = row.get("iou", ())
    flat |= {
        f"iou_{k}": value
        for k, value in enumerate(iou, 1)
        if f"iou_{k}" in columns and not math.isnan(value)
    }
    return flat


def _known(value: Any) -> Any:
    """Put None for NaN, which JSON does not have."""
    if isinstance(value, list):
        return [_known(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise EngineError(
            "TensorBoard is not installed; pip install 'napari-unet3d[tensorboard]' "
            "or leave --tensorboard out"
        ) from error
    return SummaryWriter
