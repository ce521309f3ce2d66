"""Start the processes of a training on this machine, and see to their end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    import threading

Process = subprocess.Popen[bytes]

STORE = "NAPARI_UNET3D_STORE"
"""Environment variable with the file through which the processes find one another."""

LOOPBACK = "GLOO_SOCKET_IFNAME"
"""Environment variable with the network interface that Gloo takes."""

PROGRAM = ("-m", "napari_unet3d.distributed")
"""What every process runs."""

LOST_OTHERS = 3
"""Exit status of a process that ended only because another one had."""

STOPPED = 128 + signal.SIGTERM
"""Exit status of a process that was asked to stop."""

GRACE = 5.0
"""Seconds in which the others may end by themselves once one has failed."""


def run_processes(words: Sequence[str], count: int, stop: threading.Event) -> int:
    """Train in processes of this machine that share every batch.

    torchrun would do it too, but it kills the processes half a minute after a signal,
    saved or not, and reports a failure in a page of its own.

    Parameters
    ----------
    words : sequence of str
        Command line after ``napari-unet3d``, which each of them gets.
    count : int
        How many processes.
    stop : threading.Event
        Set it to end after the current step.

    Returns
    -------
    int
        Exit status; of a failure that was already told about, 2.

    Raises
    ------
    EngineError
        Where one of them ended without saying why.
    """
    # Nobody but this person can reach it, and no port is needed.
    with tempfile.TemporaryDirectory(
        prefix="napari-unet3d-", ignore_cleanup_errors=True
    ) as folder:
        processes: list[Process] = []
        try:
            for rank in range(count):
                store = Path(folder, "store")
                processes.append(
                    start((*PROGRAM, *words), environment(rank, count, store))
                )
            _wait(processes, stop)
            # What ends from here on is not to blame.
            statuses = [process.poll() for process in processes]
        finally:
            end(processes)
    if stop.is_set():
        # The signal came before anything was there to be stopped.
        statuses = [
            STOPPED if status == -signal.SIGTERM else status for status in statuses
        ]
    return _status(statuses)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(rank: int, count: int, store: Path) -> dict[str, str]:
    """Return the environment of a process: what torchrun sets, and where to meet.

    Parameters
    ----------
    rank, count : int
        Which of how many processes.
    store : Path
        File through which they find one another; not there yet.
    """
    found = os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        STORE: str(store),
    }
    found.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    # All are on this machine, whose name may not lead to it.
    names = {name for _, name in socket.if_nameindex()}
    for loopback in sorted({"lo", "lo0"} & names):
        found.setdefault(LOOPBACK, loopback)
    return found


def start(arguments: Sequence[str], environment: dict[str, str]) -> Process:
    """Start a process of this interpreter; it has to end where its input ends."""
    command = [sys.executable, *arguments]
    # A signal of the terminal is for this process, which passes it on by ending the
    # input. It ends as well if this process is killed.
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, creationflags=flags
        )
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, start_new_session=True
    )


def _wait(processes: Sequence[Process], stop: threading.Event) -> None:
    """Wait for all to end, for the others of a failed one not long."""
    last = float("inf")
    while time.monotonic() < last:
        statuses = [process.poll() for process in processes]
        if None not in statuses:
            return
        if stop.is_set():
            _close_inputs(processes)
        if last == float("inf") and any(map(_is_failure, statuses)):
            last = time.monotonic() + GRACE
        time.sleep(0.05)


def _is_failure(status: int | None) -> bool:
    return status not in (None, 0, STOPPED)


def _close_inputs(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.stdin and not process.stdin.closed:
            process.stdin.close()


def end(processes: Sequence[Process]) -> None:
    """End what still runs: politely, then at once."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    last = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, last - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _close_inputs(processes)


def _status(statuses: Sequence[int | None]) -> int:
    """Return the exit status that stands for all, or raise what nobody has said."""
    count = len(statuses)
    if 2 in statuses:
        return 2
    for rank, status in enumerate(statuses):
        if status in (None, 0, LOST_OTHERS, STOPPED):
            continue
        how = f"failed with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        raise EngineError(
            f"process {rank + 1} of {count} {how}, which ended the training; if memory "
            "ran out use fewer --devices or a smaller --patch-size; go on with "
            "--resume from the model, if it had been saved before"
        )
    if LOST_OTHERS in statuses and STOPPED not in statuses:
        raise EngineError(
            f"the {count} processes lost one another; go on with --resume from the "
            "model, if it had been saved before"
        )
    return STOPPED if STOPPED in statuses else 0
