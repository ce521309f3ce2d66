from __future__ import annotations

import csv
import json

import pytest

from napari_unet3d.commands.history import History
from napari_unet3d.engine import load
from napari_unet3d.engine.events import StepDone, Trained, Validated

from .conftest import LABELLED, SMALL

NAN = float("nan")
EVENTS = (
    StepDone(step=1, loss=0.5, learning_rate=1e-3, seconds=0.25, progress=0.5),
    Validated(step=1, seconds=0.5, iou=(0.75, NAN), mean_iou=0.75, is_best=True),
    StepDone(step=2, loss=0.25, learning_rate=1e-4, seconds=1, progress=1),
    Trained(step=2, seconds=1, reason="finished"),
)


def record(folder, events=EVENTS, **options):
    history = History(folder, 2, **options)
    for event in events:
        history(event)
    history.close()


def rows(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_and_json(tmp_path):
    record(tmp_path / "log" / "deeper")
    folder = tmp_path / "log" / "deeper"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("history.csv", "history.json"),
    ]
    columns = ["step", "seconds", "loss", "learning_rate", "mean_iou", "iou_1", "iou_2"]
    assert list(rows(folder)[0]) == columns
    assert [list(row.values()) for row in rows(folder)] == [
        ["1", "0.25", "0.5", "0.001", "", "", ""],
        ["1", "0.5", "", "", "0.75", "0.75", ""],
        ["2", "1", "0.25", "0.0001", "", "", ""],
    ]
    # Strictly JSON, which has no NaN
    text = (folder / "history.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == [
        {"step": 1, "seconds": 0.25, "loss": 0.5, "learning_rate": 1e-3},
        {"step": 1, "seconds": 0.5, "mean_iou": 0.75, "iou": [0.75, None]},
        {"step": 2, "seconds": 1, "loss": 0.25, "learning_rate": 1e-4},
    ]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record(tmp_path, tensorboard=True)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("loss", "learning_rate", "mean_iou", "iou/class 1"),
    }
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


def test_nothing_happened_and_nothing_is_left(tmp_path):
    record(tmp_path / "log", events=())
    assert not (tmp_path / "log").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "history.csv").write_text("former")
    record(tmp_path / "old", events=())
    assert (tmp_path / "old" / "history.csv").read_text() == "former"


def test_a_log_that_cannot_be_written_is_only_a_warning(tmp_path, capsys):
    history = History(tmp_path / "log", 2)
    (tmp_path / "log" / "history.csv").mkdir()
    for event in EVENTS:
        history(event)
    history.close()
    error = capsys.readouterr().err
    assert error.count("warning: the history in") == 1
    assert "the training is not touched by that" in error


def test_a_log_that_is_removed_meanwhile_is_only_a_warning(tmp_path, capsys):
    history = History(tmp_path / "log", 2)
    history(EVENTS[0])
    (tmp_path / "log" / "history.csv").unlink()
    (tmp_path / "log").rmdir()
    history(EVENTS[2])
    history.close()
    assert capsys.readouterr().err.count("warning: the history in") == 1


def test_a_resumed_training_has_its_whole_history(work, program):
    start = ("train", *LABELLED, *SMALL, "--validate-every", "2", "--steps", "4")
    logged = ("--log-dir", "log", "--model", "new.pt")
    assert program(*start, *logged, "--stop-after", "3").status == 0
    resumed = ("train", *LABELLED, "--resume", "new.pt", *logged)
    assert program(*resumed).status == 0
    assert program(*start, "--log-dir", "whole", "--model", "whole.pt").status == 0

    def figures(folder):
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in rows(work / folder)
        ]

    assert figures("log") == figures("whole")
    assert [row["step"] for row in figures("log")] == ["1", "2", "2", "3", "4"]
    recorded = json.loads((work / "log" / "history.json").read_text())
    kept = load("new.pt").history
    assert [row["step"] for row in recorded] == [row["step"] for row in kept]
    assert [row.get("loss") for row in recorded] == [row.get("loss") for row in kept]
