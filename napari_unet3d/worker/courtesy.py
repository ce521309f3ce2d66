"""How the worker leaves the processor to the viewer."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

import torch

from .threads import Threads, set_threads

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 2.0
"""Seconds without work, after which one step is done even so: who paints all the time
wants to see what comes of it."""

BRIEFLY = 0.05
"""The same where threads can be left to the viewer."""

AFTERGLOW = 1.0
"""Seconds with fewer threads after the person was busy."""

NICENESS = 10
"""Steps below the viewer's priority. With the lowest, 19, the worker did not even start
within two minutes beside programs that kept all cores busy, and the viewer was hardly
more fluent."""


class Courteous:
    """Wait while the person is busy, and take fewer threads for a while after that.

    Parameters
    ----------
    listen : callable
        Waits for requests for some seconds, and takes them.
    """

    def __init__(self, listen: Callable[[float], None]) -> None:
        self._listen = listen
        self._all_threads = torch.get_num_threads()
        self.threads = Threads(self._all_threads)
        self._until = 0.0
        self._trained = 0.0

    def extend(self, seconds: float) -> None:
        """Note that the person is busy, and will be for some time."""
        self._until = max(self._until, time.monotonic() + seconds)

    def begin(self, processes: int = 1) -> None:
        """Begin a training with the number of threads that was best so far.

        Parameters
        ----------
        processes : int
            How many share the cores.
        """
        share = max(1, self._all_threads // max(1, processes))
        if share != self.threads.most:
            self.threads = Threads(share)
        set_threads(self.threads.wanted)

    def note_step(self, seconds: float) -> None:
        """Note how many seconds of training there were when a step was done."""
        if torch.get_num_threads() == self.threads.wanted:
            self.threads.note(seconds - self._trained)
        self._trained = seconds

    def wait(self, over: Callable[[], bool], slower: bool = True) -> None:
        """Wait until the person is done, or something is `over`.

        Parameters
        ----------
        over : callable
            Tells whether waiting has become pointless.
        slower : bool
            Whether the number of threads may change; results are then not the same
            to the last bit.
        """
        has_room = slower and self.threads.fewer < self.threads.most
        last = time.monotonic() + (BRIEFLY if has_room else LONGEST)
        end = min(self._until, last)
        while time.monotonic() < end and not over():
            self._listen(max(0.001, end - time.monotonic()))
            end = min(self._until, last)
        if not slower:
            set_threads(self.threads.most)
        elif time.monotonic() < self._until + AFTERGLOW:
            set_threads(self.threads.fewer)
        else:
            set_threads(self.threads.wanted)


def step_back() -> None:
    """Give this process a low priority.

    On Windows it is started with a low one.
    """
    if sys.platform != "win32":
        os.nice(NICENESS)


def slowed_by() -> str:
    """Say why the worker is slower than this machine could be, if it is."""
    if torch.cuda.is_available() or not shutil.which("nvidia-smi"):
        return ""
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return (
            f"there is an NVIDIA GPU, but torch {torch.__version__} is built for the "
            "CPU; install a CUDA build from https://pytorch.org"
        )
    return (
        f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it; update "
        "the driver"
    )
