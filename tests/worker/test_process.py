from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from napari_unet3d.engine import load
from napari_unet3d.worker.client import WorkerClient
from napari_unet3d.worker.protocol import (
    ModelChanged,
    PreviewReady,
    Ready,
    Saved,
    SegmentDone,
    SegmentProgress,
    Started,
    StepDone,
    Trained,
    WorkerDied,
)
from napari_unet3d.worker.shared import SharedArray

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
]

PARENT = """
import sys, time
import numpy as np
from napari_unet3d.worker.client import WorkerClient
from napari_unet3d.worker.protocol import Ready, Saved, StepDone
events = []
client = WorkerClient(events.append)
rng = np.random.default_rng(0)
image = rng.normal(size=(16, 32, 32)).astype(np.float32)
volume = client.open_volume(image)
client.replace_annotation(volume, np.arange(1024), np.arange(1024) % 2 + 1)
model = {"base_channels": 2, "depth": 2, "stem": "none"}
training = {"steps": 100000, "patch_size": (8, 16, 16), "device": "cpu"}
client.train([volume], model, training, save_to=sys.argv[1])
while not any(isinstance(event, StepDone) for event in events):
    time.sleep(0.01)
print(client.pid, client._images[volume].reference.name, flush=True)
if sys.argv[2] == "ends":
    sys.exit()
time.sleep(60)
"""
NO_TORCH = """
import sys
import napari_unet3d.worker.client, napari_unet3d.worker.protocol
unwanted = {"torch", "napari", "qtpy", "pydantic", "zarr"} & set(sys.modules)
assert not unwanted, unwanted
"""
NO_GUARD = """
import time
from napari_unet3d.worker.client import WorkerClient
from napari_unet3d.worker.protocol import Ready
events = []
client = WorkerClient(events.append)
while not events:
    time.sleep(0.01)
print(type(events[0]).__name__)
client.close()
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone_within(seconds: float, pid: int) -> bool:
    end = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_the_client_brings_neither_torch_nor_viewer():
    subprocess.run([sys.executable, "-c", NO_TORCH], check=True, timeout=60)


@pytest.mark.parametrize("how", ["-c", "script", "stdin"])
def test_any_program_can_start_a_worker(how, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(NO_GUARD)
    arguments = {"-c": ["-c", NO_GUARD], "script": [str(script)], "stdin": ["-"]}

    finished = subprocess.run(
        [sys.executable, *arguments[how]],
        input=NO_GUARD if how == "stdin" else "",
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert (finished.stdout, finished.stderr) == ("Ready\n", "")


def test_nothing_is_left_after_close(toy, shared_memory_names):
    memory, threads = shared_memory_names(), set(threading.enumerate())
    client = WorkerClient(lambda event: None)
    pid = client.pid
    client.open_volume(toy.image)
    assert len(shared_memory_names()) == len(memory) + 1

    client.close()
    client.close()

    assert not is_running(pid)
    assert shared_memory_names() == memory
    assert set(threading.enumerate()) == threads
    assert not client.is_alive
    client.stop()  # does nothing


def test_close_stops_and_saves_a_training(own_worker, tmp_path):
    path = tmp_path / "model.pt"
    before = own_worker.train(own_worker.open(), save_to=path)
    step = own_worker.events.wait(StepDone, after=before).step

    own_worker.client.close()

    assert load(path).step >= step
    assert not own_worker.events.of(WorkerDied)


def test_a_worker_that_hangs_is_ended(own_worker):
    pid = own_worker.client.pid
    os.kill(pid, signal.SIGSTOP)

    began = time.monotonic()
    own_worker.client.close(seconds=0.5)

    assert time.monotonic() - began < 4
    assert not is_running(pid)


def test_what_is_printed_disturbs_nobody(own_worker, tmp_path):
    # An image whose reader prints: the pipes carry nothing but events.
    path = tmp_path / "image.npy"
    np.save(path, own_worker.toy.image)
    own_worker.client.open_volume(path=path)
    own_worker.client.new_model()
    own_worker.events.wait(ModelChanged)


def kill_and_recover(worker, volume, path, moment):
    """Kill a worker, start it again, and go on from what was saved."""
    deaths = len(worker.events.of(WorkerDied))
    before = len(worker.events)
    time.sleep(moment)
    os.kill(worker.client.pid, signal.SIGKILL)
    died = worker.events.wait(WorkerDied, after=before, seconds=10)
    assert died.exitcode == -signal.SIGKILL
    assert "memory ran out" in died.sentence
    assert not worker.client.is_alive

    before = len(worker.events)
    worker.client.restart()
    worker.events.wait(Ready, after=before)
    worker.client.load_model(path)
    loaded = worker.events.wait(ModelChanged, after=before)
    before = worker.train(volume, proceed=True)
    step = worker.events.wait(StepDone, after=before)
    assert step.step > loaded.summary.step
    assert len(worker.events.of(WorkerDied)) == deaths + 1
    assert not list(path.parent.glob(".*.part"))


@pytest.mark.parametrize("moment", np.random.default_rng(5).uniform(0, 0.8, 2).round(3))
def test_a_worker_killed_while_training(own_worker, tmp_path, moment):
    path = tmp_path / "model.pt"
    volume = own_worker.open()
    before = own_worker.train(volume, save_to=path, training={"save_every": 0.05})
    own_worker.events.wait(Saved, after=before)

    kill_and_recover(own_worker, volume, path, moment)


@pytest.mark.parametrize("moment", np.random.default_rng(6).uniform(0, 0.8, 2).round(3))
def test_a_worker_killed_while_segmenting(own_worker, tmp_path, moment):
    path = tmp_path / "model.pt"
    volume = own_worker.open()
    before = own_worker.train(volume, save_to=path, training={"steps": 5})
    own_worker.events.wait(Trained, after=before)
    image = np.tile(own_worker.toy.image, (8, 4, 4))
    large = own_worker.client.open_volume(image)
    labels = SharedArray.create(image.shape, np.uint8)
    own_worker.client.segment(large, labels)
    own_worker.events.wait(SegmentProgress, after=before)

    kill_and_recover(own_worker, volume, path, moment)
    assert labels.array[0].all()  # what was done is still there


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_killed_at_any_moment(own_worker, tmp_path):
    path = tmp_path / "model.pt"
    volume = own_worker.open()
    image = np.tile(own_worker.toy.image, (8, 4, 4))
    large = own_worker.client.open_volume(image)
    before = own_worker.train(volume, save_to=path, training={"steps": 5})
    own_worker.events.wait(Trained, after=before)

    for moment in np.random.default_rng(7).uniform(0, 1.5, 4):
        kill_and_recover(own_worker, volume, path, moment)
        before = len(own_worker.events)
        own_worker.client.stop()
        own_worker.events.wait(Trained, after=before)
        labels = SharedArray.create(image.shape, np.uint8)
        own_worker.client.segment(large, labels)
        kill_and_recover(own_worker, volume, path, moment)
        before = len(own_worker.events)
        own_worker.client.stop()
        own_worker.events.wait(Trained, after=before)
        own_worker.train(volume, save_to=path, training={"save_every": 0.05})


def test_what_was_painted_is_known_after_a_restart(own_worker):
    volume = own_worker.client.open_volume(own_worker.toy.image)
    index, labels = own_worker.toy.painted()
    half = len(index) // 2
    own_worker.client.update_annotation(volume, index[:half], labels[:half])
    os.kill(own_worker.client.pid, signal.SIGKILL)
    own_worker.events.wait(WorkerDied)
    # The person paints on before anybody starts it again.
    own_worker.client.update_annotation(volume, index[half:], labels[half:])

    own_worker.client.restart()

    before = own_worker.train(volume, training={"steps": 20})
    started = own_worker.events.wait(Started, after=before)
    assert started.labelled_voxels == len(index)
    own_worker.client.request_preview(volume, 0, 3)
    own_worker.events.wait(PreviewReady, after=before)


def test_a_restart_of_a_living_worker_is_no_death(own_worker):
    pid = own_worker.client.pid
    before = len(own_worker.events)

    own_worker.client.restart()
    own_worker.events.wait(Ready, after=before)

    assert own_worker.client.pid != pid
    assert not is_running(pid)
    assert not own_worker.events.of(WorkerDied)


def test_an_ended_worker_tells_what_it_wrote(own_worker):
    os.kill(own_worker.client.pid, signal.SIGSEGV)

    died = own_worker.events.wait(WorkerDied)

    assert died.exitcode == -signal.SIGSEGV
    assert "start it again" in died.sentence
    assert "Segmentation fault" in died.details


@pytest.mark.parametrize("how", ["killed", "ends"])
def test_an_orphan_saves_and_ends_by_itself(tmp_path, how, shared_memory_names):
    path = tmp_path / "model.pt"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        pid, name = parent.stdout.readline().split()
        if how == "killed":
            parent.send_signal(signal.SIGKILL)
        parent.wait()

        assert gone_within(5, int(pid))
        assert load(path).step > 0
        end = time.monotonic() + 5
        while name in shared_memory_names() and time.monotonic() < end:
            time.sleep(0.05)
        assert name not in shared_memory_names()


def test_two_clients_do_not_disturb_each_other(own_worker, shared_worker):
    volume = own_worker.open()
    before = own_worker.train(volume, training={"steps": 5})
    own_worker.events.wait(Trained, after=before)
    labels = SharedArray.create(own_worker.toy.image.shape, np.uint8)
    own_worker.client.segment(volume, labels)
    own_worker.events.wait(SegmentDone, after=before)

    own_worker.client.close()

    assert shared_worker.client.is_alive
