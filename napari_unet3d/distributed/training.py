"""The training in each of several processes, however they were started."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING

from napari_unet3d import cli

from .group import at_end_of_input, joined
from .processes import LOST_OTHERS, STORE
from .ranks import ProcessRanks, are_others_lost

if TYPE_CHECKING:
    from torch.distributed import Store

USAGE = (
    "napari-unet3d: start this with torchrun --nproc-per-node N -m "
    "napari_unet3d.distributed train CONFIG.yaml [flags], or without torchrun as "
    "napari-unet3d train --devices N"
)
PATIENCE = timedelta(seconds=2)
"""For the first process to say why it failed, if it did."""


def main(arguments: Sequence[str]) -> int:
    """Train as one of several processes.

    Parameters
    ----------
    arguments : sequence of str
        "train", a configuration file or none, and flags of ``napari-unet3d train``.

    Returns
    -------
    int
        Exit status, as of ``napari-unet3d``; 3 where another process is missing.
    """
    words = list(arguments)
    if words[:1] != ["train"] or not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        print(USAGE, file=sys.stderr)
        return 2
    if len(words) > 1 and not words[1].startswith("-"):
        words.insert(1, "--config")
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        place = os.environ.get(STORE)
        if place:
            # Stop after the present step.
            at_end_of_input(lambda: signal.raise_signal(signal.SIGTERM))
        with joined(rank, count, place) as store:
            status, said = _train(words, ProcessRanks(), aloud=rank == 0)
            if status == 2 and rank == 0:
                store.set("failed", "first")
            elif status == 2 and not _has_failed(store):
                # What ends all at once, as a missing file, is said once.
                print(said or "failed", file=sys.stderr)
    except RuntimeError as error:
        if not are_others_lost(error):
            raise
        status = LOST_OTHERS
    return status


def _train(words: Sequence[str], ranks: ProcessRanks, aloud: bool) -> tuple[int, str]:
    """Train; return the exit status and the last line of what was not said aloud."""
    silence = io.StringIO()
    with ExitStack() as stack:
        if not aloud:
            stack.enter_context(redirect_stdout(silence))
            stack.enter_context(redirect_stderr(silence))
        status = cli.main(words, ranks)
    return status, "".join(silence.getvalue().splitlines()[-1:])


def _has_failed(store: Store) -> bool:
    """Tell whether the first process failed by itself and said why."""
    try:
        store.wait(["failed"], PATIENCE)
    except RuntimeError:
        return False
    return True
