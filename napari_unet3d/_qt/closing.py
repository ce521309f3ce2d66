"""Notice that the viewer's window is being closed, while everything still exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QMainWindow, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable


class WindowWatch(QObject):
    """Call a function when the main window around a widget is closed.

    A docked widget gets no close event, and napari may ask whether to close at all.
    So the window's hiding is waited for; one that was never shown closes at once.

    Parameters
    ----------
    widget : QWidget
        In a dock of the window, floating or not.
    closed : callable
        What to call.
    """

    def __init__(self, widget: QWidget, closed: Callable[[], None]) -> None:
        super().__init__(widget)
        self._widget = widget
        self._closed = closed
        self._window: QMainWindow | None = None
        self._closing = False
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.timeout.connect(self.look)

    def look_soon(self) -> None:
        """Look for the window once the dock is in place."""
        self._delay.start(0)

    def look(self) -> None:
        """Look for the window."""
        above: QWidget | None = self._widget
        while above is not None and not isinstance(above, QMainWindow):
            above = above.parentWidget()
        if above is not None and above is not self._window:
            self._window = above
            above.installEventFilter(self)

    def end(self) -> None:
        """Let go of the window."""
        self._delay.stop()
        if self._window is not None:
            self._window.removeEventFilter(self)
        self._window = None

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """See what happens to the window, and keep nothing from it."""
        if event is not None and watched is self._window and self._window is not None:
            if event.type() == QEvent.Type.Close:
                self._closing = True
                if not self._window.isVisible():
                    self._closed()
            elif event.type() == QEvent.Type.Hide and self._closing:
                self._closed()
            elif event.type() == QEvent.Type.Show:
                self._closing = False
        return False
