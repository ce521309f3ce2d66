"""Ctrl-C, and the system's request to end, as a stop that loses nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def stopped_by_signals(sentence: bytes = b"") -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event.

    The signal takes its usual effect when the block ends; a second one takes it at
    once. Signals that are ignored, as in a background job of a shell, stay ignored.

    Parameters
    ----------
    sentence : bytes
        To be said at once when the first one comes.

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
        # print may be at work in what was interrupted.
        with suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), sentence)
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
