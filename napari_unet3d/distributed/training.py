"""The training in each of several processes, however they were started."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from napari_unet3d import cli

from .processes import LOST_OTHERS, STORE
from .ranks import ProcessRanks, are_others_lost

USAGE = (
    "napari-unet3d: start this with torchrun --nproc-per-node N -m "
    "napari_unet3d.distributed train CONFIG.yaml [flags], or without torchrun as "
    "napari-unet3d train --devices N"
)
LONGEST_WAIT = timedelta(hours=1)
"""For the others; the first process may be saving a model on a slow disk."""

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
        with _joined(rank, count) as store:
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


@contextmanager
def _joined(rank: int, count: int) -> Iterator[distributed.Store]:
    """Join the other processes, and leave them at the end if all went well.

    Yields
    ------
    torch.distributed.Store
        Where all can leave a word.
    """
    store: distributed.Store
    if place := os.environ.get(STORE):
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
        store = distributed.FileStore(str(Path(place)), count)
    else:
        store, rank, count = next(iter(distributed.rendezvous("env://")))
    distributed.init_process_group(
        _backend(),
        store=distributed.PrefixStore("group", store),
        rank=rank,
        world_size=count,
        timeout=LONGEST_WAIT,
    )
    yield store
    distributed.destroy_process_group()


def _backend() -> str:
    """Choose what carries the sums: NCCL between GPUs, Gloo in main memory."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if not torch.cuda.is_available() or local >= torch.cuda.device_count():
        return "gloo"
    # "cuda" without a number means this one from now on.
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl" if distributed.is_nccl_available() else "gloo"


def _stop_at_end_of_input() -> None:
    """Stop after the present step once who started this process says so, or dies."""
    while os.read(0, 1):
        pass
    signal.raise_signal(signal.SIGTERM)


def _has_failed(store: distributed.Store) -> bool:
    """Tell whether the first process failed by itself and said why."""
    try:
        store.wait(["failed"], PATIENCE)
    except RuntimeError:
        return False
    return True
