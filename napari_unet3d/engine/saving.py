"""Write the model while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SaveError
from .events import Saved, TrainingEvent, Warned
from .model_file import save

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


class RegularSaving:
    """Write the model now and then, and at the end.

    Parameters
    ----------
    path : path, optional
        Model file; without one nothing is written.
    every : float
        Seconds between two times.
    checkpoint : callable
        Returns the present state.
    """

    def __init__(
        self,
        path: str | Path | None,
        every: float,
        checkpoint: Callable[[], Checkpoint],
    ) -> None:
        self._path, self._every, self._checkpoint = path, every, checkpoint
        self._last = time.monotonic()

    def begin(self) -> None:
        """Count the seconds from here on."""
        self._last = time.monotonic()

    def if_due(self) -> Iterator[TrainingEvent]:
        """Write it if it is time; that it cannot be written is only warned of.

        Raises
        ------
        EngineError
            Where its weights are useless.
        """
        if not self._path or time.monotonic() - self._last <= self._every:
            return
        try:
            yield from self.at_the_end()
        except SaveError as error:
            yield Warned(f"{error}; training goes on")
        self._last = time.monotonic()

    def at_the_end(self) -> Iterator[TrainingEvent]:
        """Write it.

        Raises
        ------
        EngineError
            Where it cannot be written, or its weights are useless.
        """
        if self._path:
            state = self._checkpoint()
            save(state, self._path)
            yield Saved(state.step, str(self._path))
