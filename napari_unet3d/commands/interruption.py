"""Ctrl-C, and the system's request to end, as a stop that loses nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event.

    The signal takes its usual effect when the block ends; a second one takes it at
    once. Signals that are ignored, as in a background job of a shell, stay ignored.

    Yields
    ------
    threading.Event
        Set by the signal.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    former: dict[int, Any] = {}
    caught: list[int] = []

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def note(number: int, _: object) -> None:
        caught.append(number)
        stop.set()
        restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            former[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
    if caught:
        signal.raise_signal(caught[0])
