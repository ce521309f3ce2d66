"""The batch of each step, on a GPU drawn while the one before is learned from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from .ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch

    from .batches import Batch, BatchSource, Patches
    from .patch_plan import PatchPlan


class NextBatch:
    """Draw batches that depend on the seed and the number of the step alone.

    Parameters
    ----------
    seed : int
        Of the training.
    device : torch.device
        Where it is computed. Only for CUDA is anything drawn ahead: the cores of a CPU
        are busy.
    ranks : Ranks
        Those that share a batch.
    """

    def __init__(self, seed: int, device: torch.device, ranks: Ranks = ALONE) -> None:
        self._seed, self._ranks = seed, ranks
        self._thread = (
            ThreadPoolExecutor(1, thread_name_prefix="drawing")
            if device.type == "cuda"
            else None
        )
        self._for: tuple[object, ...] = ()
        self._drawn: Future[Patches] | None = None

    def draw(self, source: BatchSource, plan: PatchPlan, step: int) -> Batch:
        """Return the batch of a step: that which was drawn ahead, if it is for this."""
        drawn, self._drawn = self._drawn, None
        try:
            if drawn is not None and self._for == (source, plan, step):
                patches = drawn.result()
            else:
                drawn = None
                patches = self._read(source, plan, step)
        finally:
            # An error in it would hold on to it, and to what was read until then.
            del drawn
        return source.complete(patches, self._ranks)

    def forget(self) -> None:
        """Give up what was drawn ahead, and its memory."""
        self._for, self._drawn = (), None

    @contextmanager
    def ahead(self, source: BatchSource, plan: PatchPlan, step: int) -> Iterator[None]:
        """Draw for a step while the body of the `with` statement is carried out.

        Nothing else may read the volumes of `source` meanwhile. What fails, fails when
        the batch is asked for.
        """
        if self._thread is None:
            yield
            return
        self._for = source, plan, step
        drawn = self._thread.submit(self._read, source, plan, step)
        try:
            yield
        finally:
            drawn.exception()  # waits
            self._drawn = drawn

    def _read(self, source: BatchSource, plan: PatchPlan, step: int) -> Patches:
        rng = np.random.default_rng((self._seed, step))
        return source.read(plan, rng, self._ranks)
