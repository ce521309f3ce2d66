"""A process that trains along with the worker; `followers` starts it."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import distributed

from napari_unet3d.distributed.group import at_end_of_input, joined
from napari_unet3d.distributed.processes import STORE
from napari_unet3d.distributed.ranks import are_others_lost
from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.model_file import load

from .boundary import failure
from .followers import FAILED, PATIENCE, READY, Assignment
from .live_ranks import LiveRanks
from .model import CurrentModel
from .training import Training
from .volumes import OpenedVolume

if TYPE_CHECKING:
    from .requests import UpdateAnnotation


def main() -> None:
    """Train along until the first process ends the training, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    at_end_of_input(lambda: os._exit(0))
    keep_freed_memory()
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place = os.environ[STORE]
    store = distributed.FileStore(place, count)
    store.set(f"{READY} {rank}", "yes")
    try:
        with joined(rank, count, place, PATIENCE):
            _follow()
    except Exception as error:  # noqa: BLE001  the first process tells what it is
        if not (isinstance(error, RuntimeError) and are_others_lost(error)):
            store.set(f"{FAILED} {rank}", failure(error, "training").sentence)
        os._exit(2)


def _follow() -> None:
    training: Training | None = None
    volumes: dict[int, OpenedVolume] = {}

    def deliver(updates: list[UpdateAnnotation]) -> None:
        for update in updates:
            volumes[update.volume].update(update)
        if training:
            training.use_labels(_ignore)

    ranks = LiveRanks(deliver)
    assignment: Assignment = ranks.first(None)  # type: ignore[assignment]
    volumes.update((each.volume, OpenedVolume(each)) for each in assignment.volumes)
    for update in assignment.annotations:
        volumes[update.volume].update(update)
    model = CurrentModel(_ignore)
    model.replace(load(assignment.model) if assignment.model else None)
    # The first process saves.
    request = replace(assignment.train, save_to=None)
    training = Training(request, volumes, model, _ignore)
    training.run_with(ranks, _ignore, _ignore)


def _ignore(*_: object) -> None:
    pass


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    # Threads of Gloo may still let go of Python objects, see distributed.__main__.
    os._exit(0)
