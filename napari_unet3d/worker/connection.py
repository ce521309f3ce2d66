"""A worker process that can be started again and is told then what it must know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .answers import Failed, SegmentCancelled, SegmentDone, WorkerDied
from .known import Known
from .process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from .answers import Event
    from .requests import Request
    from .shared import SharedArray


class WorkerConnection:
    """Start and end the process, send requests, hand events on.

    Parameters
    ----------
    on_event : callable
        Called with each event, in another thread.
    """

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._known = Known()
        self._images: dict[int, SharedArray] = {}
        self._outputs: dict[int, list[SharedArray]] = {}
        self._process: WorkerProcess | None = None
        self.start()

    @property
    def pid(self) -> int | None:
        """Number of the process; `None` after `close`."""
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive

    def start(self) -> None:
        """Start the process unless it runs."""
        if self.is_alive:
            return
        self._end(0.0)
        self._process = WorkerProcess(self._receive, self._known.remember)
        for request in self._known.again():
            self.send(request)

    def restart(self) -> None:
        """End the process if it runs, and start another that knows all volumes.

        What is painted is known to it, the model is not: load the file that training
        has saved to.
        """
        self._end(0.0)
        self.start()

    def close(self, seconds: float = 5.0) -> None:
        """End the process and let go of all images; may be called twice.

        A training that goes on is stopped and saved if that takes no longer than
        `seconds`. Arrays of results stay valid as long as somebody has them.
        """
        self._end(seconds)
        self._known = Known()
        for array in self._images.values():
            array.close()
        self._images.clear()
        self._outputs.clear()

    def send(self, request: Request) -> None:
        """Send a request as it is; the other methods make them.

        Nothing happens where the process does not run.
        """
        if self._process:
            self._process.send(request)

    def _end(self, seconds: float) -> None:
        process, self._process = self._process, None
        if process:
            process.end(seconds)
            self._known.remove_leftovers(process.pid)

    def _receive(self, event: Event) -> None:
        if isinstance(event, WorkerDied):
            self._outputs.clear()
            if process := self._process:
                self._known.remove_leftovers(process.pid)
        elif isinstance(event, SegmentDone | SegmentCancelled | Failed):
            self._outputs.pop(event.generation, None)
        self._on_event(event)
