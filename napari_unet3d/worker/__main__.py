"""The worker's process; `napari_unet3d.worker.process` starts it."""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from .channel import Channel
from .requests import Shutdown

if TYPE_CHECKING:
    from .answers import Event
    from .requests import Request

FAREWELL = 3.0
"""Seconds that an orphan has to save what it is at."""


def main(parent: int) -> None:
    """Serve until the end is asked for, or the parent process is gone."""
    # An interrupt at the terminal is for the parent, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    lifeline = Lifeline(_take_pipes())
    threading.Thread(target=lifeline.read, daemon=True).start()
    threading.Thread(target=lifeline.watch, args=(parent,), daemon=True).start()

    from napari_unet3d.engine.allocation import keep_freed_memory

    from .courtesy import step_back
    from .server import Server

    step_back()
    keep_freed_memory()
    server = Server(lifeline.inbox, lifeline.send)
    lifeline.is_serving = True
    server.serve()


class Lifeline:
    """The connection to the parent process, and what is done when it breaks.

    Parameters
    ----------
    channel : Channel
        To the parent.
    """

    def __init__(self, channel: Channel) -> None:
        self.inbox: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self.is_serving = False
        """Whether there may be something to save in the end."""
        self._channel = channel

    def send(self, event: Event) -> None:
        """Tell the parent; nobody listens any more where it is gone."""
        with suppress(OSError):
            self._channel.send(event)

    def read(self) -> None:
        """Take what the parent sends, until it is gone."""
        try:
            while True:
                request: Request = self._channel.receive()
                self.inbox.put(request)
                if isinstance(request, Shutdown) and not self.is_serving:
                    os._exit(0)
        except (EOFError, OSError):
            self._end_alone()

    def watch(self, parent: int) -> None:
        """Notice that the parent is gone where the pipe does not tell.

        Another child of the parent may have inherited its end of the pipe.
        """
        while sys.platform != "win32":
            time.sleep(1)
            if os.getppid() != parent:
                self._end_alone()

    def _end_alone(self) -> None:
        """Save, then end, whatever the main thread is at."""
        if self.is_serving:
            self.inbox.put(Shutdown())
            time.sleep(FAREWELL)
        os._exit(1)


def _take_pipes() -> Channel:
    """Take standard input and output; what is printed goes to the error output."""
    reader, writer = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(reader, os.O_BINARY)
        msvcrt.setmode(writer, os.O_BINARY)
    return Channel(open(reader, "rb", buffering=0), open(writer, "wb", buffering=0))


if __name__ == "__main__":
    main(int(sys.argv[1]))
    # Without torch's own end, which takes long and on some systems fails.
    sys.stderr.flush()
    os._exit(0)
