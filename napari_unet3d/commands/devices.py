"""One training on several devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from .interruption import stopped_by_signals


def train_on_devices(words: Sequence[str], count: int) -> NoReturn:
    """Run a training in as many processes, and end as they end.

    Parameters
    ----------
    words : sequence of str
        Command line after ``napari-unet3d``.
    count : int
        How many processes.
    """
    from napari_unet3d.distributed.processes import run_processes

    with stopped_by_signals() as stop:
        status = run_processes(words, count, stop)
    raise SystemExit(status)
