"""How the processes of a training are started and ended; here they only pretend."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from napari_unet3d.distributed import processes
from napari_unet3d.engine import EngineError

WAIT = "import os, sys, time\nrank = int(os.environ['RANK'])\n"


@pytest.fixture
def run(monkeypatch):
    """Run two processes with Python code in place of the training."""

    def call(code, stop=None, count=2):
        monkeypatch.setattr(processes, "PROGRAM", ("-c", WAIT + code))
        return processes.run_processes(["train"], count, stop or threading.Event())

    return call


@pytest.fixture(autouse=True)
def none_is_left(monkeypatch):
    """Check that no process outlives its test."""
    started = []
    start = processes.start

    def noted(*arguments):
        started.append(start(*arguments))
        return started[-1]

    monkeypatch.setattr(processes, "start", noted)
    yield
    assert started
    assert all(process.returncode is not None for process in started)
    assert all(process.stdin.closed for process in started)


def test_all_are_done(run, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "cores", lambda: 7)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
    code = (
        f"open(r'{tmp_path}/' + str(rank), 'w').write("
        f"' '.join([*sys.argv[1:], *(os.environ[n] for n in {names})]))"
    )
    assert run(code, count=3) == 0
    said = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert said == {str(rank): f"train {rank} {rank} 3 3 2" for rank in range(3)}


def test_threads_that_a_person_has_settled_stay(run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert run("sys.exit(os.environ['OMP_NUM_THREADS'] != '5')") == 0


def test_a_stop_is_passed_on_and_waited_for(run, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.1)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert run("sys.stdin.read(); time.sleep(0.5); sys.exit(143)", stop) == 143


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_stop_before_anything_is_there_to_be_stopped(run):
    stop = threading.Event()
    stop.set()
    code = "import signal; sys.stdin.read(); os.kill(os.getpid(), signal.SIGTERM)"
    assert run(code, stop) == 143


def test_one_that_was_asked_to_stop_does_not_end_the_others(run, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.1)
    assert run("time.sleep(rank == 0); sys.exit(143 * rank)") == 143


def test_what_a_process_has_said_is_not_said_again(run):
    assert run("sys.exit((3, 2)[rank])") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_one_is_killed_and_the_other_hangs(run, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.3)
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if rank: time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(1000)"
    )
    began = time.monotonic()
    with pytest.raises(
        EngineError, match=r"^process 2 of 2 was killed by SIGKILL.* if"
    ):
        run(code)
    assert time.monotonic() - began < 60


def test_one_fails_without_a_word(run):
    with pytest.raises(EngineError, match="process 1 of 2 failed with status 7"):
        run("time.sleep(1000) if rank else sys.exit(7)")


def test_they_lose_one_another(run):
    with pytest.raises(EngineError, match="the 2 processes lost one another"):
        run("sys.exit(3)")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_an_exception_while_waiting_ends_all(run):
    def interrupt():
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run("time.sleep(1000)")
    thread.join()
