"""Join the other processes of a training, and leave them in the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

LONGEST_WAIT = timedelta(hours=1)
"""For the others; the first process may be saving a model on a slow disk."""


@contextmanager
def joined(
    rank: int,
    count: int,
    place: str | None = None,
    longest_wait: timedelta = LONGEST_WAIT,
) -> Iterator[distributed.Store]:
    """Join the other processes, and leave them at the end if all went well.

    Parameters
    ----------
    rank, count : int
        Which of how many processes this is.
    place : str, optional
        File through which they find one another; else the environment says how.
    longest_wait : timedelta
        For another process that is still there; one that ends is noticed at once.

    Yields
    ------
    torch.distributed.Store
        Where all can leave a word.
    """
    store: distributed.Store
    if place:
        store = distributed.FileStore(str(Path(place)), count)
    else:
        store, rank, count = next(iter(distributed.rendezvous("env://")))
    distributed.init_process_group(
        _backend(rank),
        store=distributed.PrefixStore("group", store),
        rank=rank,
        world_size=count,
        timeout=longest_wait,
    )
    yield store
    distributed.destroy_process_group()


def _backend(rank: int) -> str:
    """Choose what carries the sums: NCCL between GPUs, Gloo in main memory."""
    local = int(os.environ.get("LOCAL_RANK", rank))
    if not torch.cuda.is_available() or local >= torch.cuda.device_count():
        return "gloo"
    # "cuda" without a number means this one from now on.
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl" if distributed.is_nccl_available() else "gloo"


def at_end_of_input(act: Callable[[], object]) -> None:
    """Do something once who started this process closes its input, or dies."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        act()

    threading.Thread(target=wait, daemon=True).start()
