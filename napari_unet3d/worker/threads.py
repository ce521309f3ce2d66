"""How many threads torch takes."""

from __future__ import annotations

import statistics
from collections import deque

import torch

FIRST_TRIAL = 5
"""Steps before the other number is tried for the first time."""

INTERVAL = 20
"""Steps before it is tried again; twice as many each time that it was not better."""

SAMPLES = 3
"""Steps that a trial takes, and one before them in which threads are started."""


class Threads:
    """Choose between all threads and one less, by what a step takes.

    Threads that share an operation wait for the last of them. On a machine where
    something else is busy, a viewer that draws in software for instance, all threads
    can be several times slower than one less; on an idle one they are quicker.

    Parameters
    ----------
    most : int
        All of them.

    Examples
    --------
    >>> threads = Threads(2)
    >>> for step in range(15):
    ...     threads.note(seconds=0.6 if threads.wanted == 2 else 1.0)
    >>> threads.wanted
    2
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.fewer = max(1, most - 1)
        self.wanted = self.fewer
        """The better number, or the one that is on trial."""
        self._usual: deque[float] = deque(maxlen=SAMPLES)
        self._trial: list[float] | None = None
        self._rest, self._interval = FIRST_TRIAL, INTERVAL

    def note(self, seconds: float) -> None:
        """Note how long a step has taken with the wanted number."""
        if self.most == self.fewer:
            return
        if self._trial is None:
            self._usual.append(seconds)
            self._rest -= 1
            if not self._rest:
                self._switch()
                self._trial = []
                self._rest = 1
        elif self._rest:
            self._rest = 0
        else:
            self._trial.append(seconds)
            self._judge(self._trial, statistics.median(self._usual))

    def _judge(self, trial: list[float], usual: float) -> None:
        if len(trial) < SAMPLES and trial[-1] < 2 * usual:
            return
        if statistics.median(trial) < usual:
            self._usual.extend(trial)
            self._interval = INTERVAL
        else:
            self._switch()
            self._interval *= 2
        self._trial, self._rest = None, self._interval

    def _switch(self) -> None:
        self.wanted = self.most if self.wanted == self.fewer else self.fewer


def set_threads(count: int) -> None:
    """Set the number of torch's threads, where it is another one."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
