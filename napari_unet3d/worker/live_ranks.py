"""Processes that train together while the person goes on painting."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

from napari_unet3d.distributed.ranks import ProcessRanks

if TYPE_CHECKING:
    from collections.abc import Callable

    from .requests import UpdateAnnotation

HELD = timedelta(days=30)
"""How long a training may be paused."""


class LiveRanks(ProcessRanks):
    """Those of a training whose labels change, which all of them learn at once.

    Parameters
    ----------
    deliver : callable
        Called with the changes before the next step, in every process.
    """

    def __init__(self, deliver: Callable[[list[UpdateAnnotation]], None]) -> None:
        super().__init__()
        # The others wait while the first one is held, for as long as the person likes:
        # before a step, or where what they have learned is to be measured.
        self._adding = distributed.new_group(backend="gloo", timeout=HELD)
        self._deliver = deliver
        self._posted: list[UpdateAnnotation] = []

    def post(self, update: UpdateAnnotation) -> None:
        """Have a change delivered; in the first process."""
        self._posted.append(update)

    def agree(self, seconds: float, stop: bool) -> tuple[float, bool]:
        """Deliver what was posted; return the first one's time, and whether to stop."""
        mine = (seconds, len(self._posted)) if self.rank == 0 else (0.0, 0)
        sums = torch.tensor([*mine, float(stop)], dtype=torch.float64)
        distributed.all_reduce(sums, group=self._adding)
        time, posted, stops = sums.tolist()
        if posted:
            updates = self.first(self._posted)
            self._posted = []
            self._deliver(updates)
        return time, stops > 0
