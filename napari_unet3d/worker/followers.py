"""Further processes that train with the worker, each on a device of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from torch import distributed

from napari_unet3d.distributed.group import joined
from napari_unet3d.distributed.processes import (
    GRACE,
    LOOPBACK,
    Process,
    end,
    environment,
    start,
)
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.memory import VARIABLE, free_memory
from napari_unet3d.engine.model_file import save

from .live_ranks import LiveRanks

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet3d.engine.checkpoint import Checkpoint

    from .requests import OpenVolume, Train, UpdateAnnotation

PROGRAM = ("-P", "-m", "napari_unet3d.worker.follower")
"""What each of them runs."""

READY, FAILED = "ready", "failed"
"""Words that a follower leaves, with its rank, for the first process."""

PATIENCE = timedelta(minutes=5)
"""For another process where it has nothing else to do."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """All that the others need to train along."""

    train: Train
    volumes: tuple[OpenVolume, ...]
    annotations: tuple[UpdateAnnotation, ...]
    model: str | None = None
    """The file to go on from."""


class Followers:
    """Start the other processes of a training, and see to their end.

    Use it in a `with` statement.

    Parameters
    ----------
    count : int
        Processes in all, this one included.
    attend : callable
        Called while they start; an exception ends it.
    deliver : callable
        Called with labels that changed, before the next step.
    """

    ranks: LiveRanks

    def __init__(
        self,
        count: int,
        attend: Callable[[], None],
        deliver: Callable[[list[UpdateAnnotation]], None],
    ) -> None:
        self._count = count
        self._attend = attend
        self._deliver = deliver
        self._stack = ExitStack()
        self._processes: list[Process] = []

    def __enter__(self) -> Followers:
        """Start them, and wait until they are there."""
        with self._stack as stack:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="napari-unet3d-", ignore_cleanup_errors=True
                )
            )
            self._folder = Path(folder)
            place = self._folder / "store"
            stack.callback(end, self._processes)
            # Each may keep as much of the images as if it had its share alone.
            share = f"{free_memory() / 2**30 / self._count:.3f}"
            for rank in range(1, self._count):
                settings = environment(rank, self._count, place) | {VARIABLE: share}
                self._processes.append(start(PROGRAM, settings))
            own = environment(0, self._count, place)
            if LOOPBACK in own:
                os.environ[LOOPBACK] = own[LOOPBACK]
            self._store = distributed.FileStore(str(place), self._count)
            self._wait_for_all()
            stack.enter_context(joined(0, self._count, str(place), PATIENCE))
            self.ranks = LiveRanks(self._deliver)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Leave the others, and end those that do not end by themselves."""
        if error is None:
            with suppress(subprocess.TimeoutExpired):
                for process in self._processes:
                    process.wait(GRACE)
        end(self._processes)
        self._stack.close()

    def assign(self, assignment: Assignment, checkpoint: Checkpoint | None) -> None:
        """Tell the others what to do, and from where to go on."""
        if checkpoint is not None:
            # Not as it is: its tensors may lie on this process's device.
            path = str(self._folder / "model.pt")
            save(checkpoint, path)
            assignment = replace(assignment, model=path)
        self.ranks.first(assignment)

    def why_lost(self) -> EngineError:
        """Say why another process is gone."""
        for rank in range(1, self._count):
            if sentence := self._said(FAILED, rank):
                return EngineError(sentence)
        return EngineError(
            f"one of the {self._count} processes of the training ended; if memory ran "
            "out, use fewer devices or a smaller patch_size"
        )

    def _wait_for_all(self) -> None:
        for rank, process in enumerate(self._processes, start=1):
            while not self._said(READY, rank):
                self._attend()
                if process.poll() is not None:
                    raise self.why_lost()

    def _said(self, word: str, rank: int) -> str:
        """Return what a follower has left, within a moment."""
        key = f"{word} {rank}"
        try:
            self._store.wait([key], timedelta(seconds=0.1))
        except RuntimeError:
            return ""
        return self._store.get(key).decode()
