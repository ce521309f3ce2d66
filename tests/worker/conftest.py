from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from napari_unet3d.worker.client import WorkerClient
from napari_unet3d.worker.protocol import ModelChanged, Ready, WorkerDied
from napari_unet3d.worker.shared import PREFIX

SHAPE = (24, 40, 40)
MODEL = {"base_channels": 2, "depth": 2, "stem": "none"}
TRAINING = {
    "steps": 100_000,
    "patch_size": (8, 16, 16),
    "batch_size": 2,
    "device": "cpu",
    "validate_every": 1000,
}


@dataclass(frozen=True)
class Toy:
    """Bright balls on a dark ground, and what is painted in them."""

    image: np.ndarray
    truth: np.ndarray  # 1 ground, 2 balls

    def painted(self, positions=(6, 12, 18), swapped=False):
        """Return flat indices and labels of some whole slices across Z."""
        labels = np.zeros(self.truth.shape, np.uint8)
        for z in positions:
            labels[z] = 3 - self.truth[z] if swapped else self.truth[z]
        index = np.flatnonzero(labels)
        return index, labels.reshape(-1)[index]


class Events:
    """Keeps what a client tells, to be waited for."""

    def __init__(self) -> None:
        self.all: list[object] = []
        self.times: list[float] = []
        self._changed = threading.Condition()

    def __call__(self, event: object) -> None:
        with self._changed:
            self.all.append(event)
            self.times.append(time.monotonic())
            self._changed.notify_all()

    def of(self, *kinds: type) -> list:
        with self._changed:
            return [event for event in self.all if isinstance(event, kinds)]

    def wait(self, *kinds: type, after: int = 0, that=lambda event: True, seconds=100):
        """Return the first event of some kinds that came `after` that many others."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                for event in self.all[after:]:
                    if isinstance(event, kinds) and that(event):
                        return event
                left = end - time.monotonic()
                if left <= 0:
                    names = [kind.__name__ for kind in kinds]
                    raise AssertionError(f"no {names} among {self.all[after:]}")
                self._changed.wait(left)

    def __len__(self) -> int:
        return len(self.all)


@pytest.fixture(scope="session")
def toy() -> Toy:
    rng = np.random.default_rng(0)
    grid = np.indices(SHAPE)
    ball = np.zeros(SHAPE, bool)
    for centre in rng.uniform(4, np.array(SHAPE) - 4, (12, 3)):
        ball |= ((grid - centre[:, None, None, None]) ** 2).sum(axis=0) < 36
    image = 100.0 + 80.0 * ball + rng.normal(0, 10, SHAPE)
    return Toy(image.clip(0, 255).astype(np.uint8), ball.astype(np.uint8) + 1)


@pytest.fixture(scope="session")
def model_config() -> dict:
    return dict(MODEL)


@pytest.fixture(scope="session")
def training_config() -> dict:
    return dict(TRAINING)


@pytest.fixture(scope="session", autouse=True)
def one_thread_in_workers():
    """The workers compute in one thread: tests of other programs go on beside them."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = before


@dataclass
class Worker:
    """A client, what it told, and a volume that is annotated."""

    client: WorkerClient
    events: Events
    toy: Toy

    def open(self, **options) -> int:
        volume = self.client.open_volume(self.toy.image, **options)
        self.client.replace_annotation(volume, *self.toy.painted())
        return volume

    def train(self, volume: int, **options) -> int:
        """Begin to train; returns how many events there were before."""
        before = len(self.events)
        training = {**TRAINING, **options.pop("training", {})}
        self.client.train([volume], MODEL, training, **options)
        return before


@pytest.fixture(scope="session")
def shared_worker(toy):
    events = Events()
    client = WorkerClient(events)
    events.wait(Ready)
    yield Worker(client, events, toy)
    client.close()
    assert not events.of(WorkerDied)


@pytest.fixture
def worker(shared_worker):
    """A worker without a model; the process is used by many tests."""
    before = len(shared_worker.events)
    shared_worker.client.stop()
    shared_worker.client.new_model()
    shared_worker.events.wait(
        ModelChanged, after=before, that=lambda event: event.summary is None
    )
    yield shared_worker
    shared_worker.client.stop_preview()
    shared_worker.client.stop()


@pytest.fixture
def own_worker(toy):
    """A worker of the test's own, which it may kill."""
    events = Events()
    client = WorkerClient(events)
    events.wait(Ready)
    yield Worker(client, events, toy)
    client.close()


@pytest.fixture
def shared_memory_names():
    """Return a function that lists the shared memory of this program."""
    folder = Path("/dev/shm")

    def names() -> set[str]:
        if not folder.is_dir():
            pytest.skip("shared memory cannot be listed here")
        return {path.name for path in folder.iterdir() if path.name.startswith(PREFIX)}

    return names
