"""How often a training may be held up for a preview."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Pace:
    """Keep what is done beside a work to a share of the time.

    What somebody asked for may be done ahead of its time, so that it comes at once
    unless it is asked for again and again.

    Parameters
    ----------
    share : float
        Of all time, in the long run.
    ahead : float
        Seconds that may be spent before their time, or one and a half times what was
        spent last, whichever is more.
    clock : callable
        Returns seconds.

    Examples
    --------
    >>> seconds = 0.0
    >>> pace = Pace(share=0.2, clock=lambda: seconds)
    >>> pace.spend(1.0)
    >>> seconds = 3.9
    >>> pace.allows(asked_for=False), pace.allows(asked_for=True)
    (False, True)
    >>> seconds = 5.0
    >>> pace.allows(asked_for=False)
    True
    """

    def __init__(
        self,
        share: float = 0.2,
        ahead: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share, self._ahead, self._clock = share, ahead, clock
        self._debt = self._last = 0.0
        self._since = clock()

    def spend(self, seconds: float) -> None:
        """Note time that was spent."""
        self._debt = self._owed() + seconds
        self._since = self._clock()
        self._last = seconds

    def allows(self, asked_for: bool) -> bool:
        """Tell whether more may be spent now."""
        limit = max(self._ahead, 1.5 * self._last) if asked_for else 0.0
        return self._owed() <= limit

    def _owed(self) -> float:
        passed = self._clock() - self._since
        return max(0.0, self._debt - self._share * passed)
