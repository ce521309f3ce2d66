"""The worker as the controller sees it: its client, and its events as Qt signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from qtpy.QtCore import QObject, Qt, Signal

from napari_unet3d.worker.client import WorkerClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet3d.worker.protocol import Event

ClientFactory: TypeAlias = "Callable[[Callable[[Event], None]], WorkerClient]"
"""Makes a client that hands each event to a function, from any thread."""


class Connection(QObject):
    """Start a worker, and turn what it tells into signals of the main thread.

    Parameters
    ----------
    factory : callable, optional
        Makes the client; by default that of a real process.
    """

    received = Signal(object)
    _arrived = Signal(object)

    def __init__(
        self, factory: ClientFactory | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._is_open = True
        queued = Qt.ConnectionType.QueuedConnection
        self._arrived.connect(self._on_event, queued)  # type: ignore[call-arg]
        self.client: WorkerClient = (factory or WorkerClient)(self._post)

    def close(self, seconds: float = 5.0) -> None:
        """End the worker in order; may be called twice."""
        self._is_open = False
        self.client.close(seconds)

    def _post(self, event: Event) -> None:
        """Hand an event on; called in a thread of the client, touches nothing else."""
        if self._is_open:
            self._arrived.emit(event)

    def _on_event(self, event: Event) -> None:
        if self._is_open:
            self.received.emit(event)
