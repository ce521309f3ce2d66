from __future__ import annotations

import io

import pytest

from napari_unet3d.commands import progress
from napari_unet3d.commands.progress import Reporter
from napari_unet3d.engine.events import (
    Saved,
    Segmented,
    Started,
    StepDone,
    Trained,
    Validated,
    Warned,
)

REGION = ((0, 1), (0, 1), (0, 1))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def started(held_out=0, step=0):
    return Started(
        step=step,
        device="CPU, 2 threads",
        precision="float32",
        n_parameters=12345,
        base_channels=8,
        patch_size=(16, 48, 48),
        batch_size=4,
        pooling=((1, 2, 2), (2, 2, 2)),
        labelled_voxels=5000,
        held_out_voxels=held_out,
    )


def step(number, share, loss=0.5):
    return StepDone(number, loss, 1e-3, 1.0, share)


def test_what_is_trained():
    stream = io.StringIO()
    Reporter(stream)(started(held_out=1500))
    assert stream.getvalue().splitlines() == [
        (
            "network: 12,345 parameters (3 levels, 8 base channels) on CPU, 2 threads "
            "in float32"
        ),
        (
            "data: 5,000 labelled voxels, 1,500 held out; a step takes 4 patches of "
            "16×48×48 voxels"
        ),
    ]
    stream = io.StringIO()
    Reporter(stream)(started())
    assert "held out" not in stream.getvalue()


def test_a_log_file_gets_a_line_now_and_then(clock):
    stream = io.StringIO()
    report = Reporter(stream)
    for number in range(1, 31):
        report(step(number, number / 120))
        clock[0] += 1
    report(Saved(30, "m.pt"))
    report(Trained(30, 95.4, "finished"))
    assert stream.getvalue().splitlines() == [
        "  1%  step 1, loss 0.500",
        "  9%  step 11 (1.0/s), loss 0.500, 1:49 min left",
        " 18%  step 21 (1.0/s), loss 0.500, 1:39 min left",
        "saved m.pt after 30 steps",
        "training finished: 30 steps in 1:35 min",
    ]


def test_the_time_left_of_a_resumed_training(clock):
    """What was done before took no time of this one."""
    stream = io.StringIO()
    report = Reporter(stream)
    report(step(500, 0.50))
    clock[0] += 10
    report(step(510, 0.51))
    assert "step 510 (1.0/s), loss 0.500, 8:10 min left" in stream.getvalue()


def test_a_terminal_has_one_line_that_renews_itself(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    report = Reporter(stream)
    report(step(1, 0.25))
    report(step(2, 0.5))  # too soon
    clock[0] += 1
    report(Validated(2, 1.0, (0.5, 0.5), 0.5, True))
    report(step(3, 0.75))
    report(Warned("careful"))
    assert stream.getvalue() == (
        "\r 25%  step 1, loss 0.500"
        "\r 75%  step 3 (2.0/s), loss 0."
        "\r" + 29 * " " + "\rwarning: careful\n"
    )


def test_the_last_measurement_is_told():
    stream = io.StringIO()
    report = Reporter(stream)
    report(Validated(2, 1.0, (0.5, 0.7), 0.6, True))
    report(Trained(2, 1.0, "stopped"))
    assert stream.getvalue() == (
        "training stopped: 2 steps in 1 s, held-out IoU 0.600\n"
    )


def test_segmenting(clock):
    stream = Terminal()
    report = Reporter(stream)
    report(Segmented(REGION, 0.5))
    report(Segmented(REGION, 0.75))
    report(Segmented(REGION, 1.0))
    assert stream.getvalue() == "\rsegmented  50%\rsegmented 100%\n"
