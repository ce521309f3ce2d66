"""Notice what is painted, erased or undone in the annotation layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from .annotation_scan import Labelled, changes_between
from .zarr_labels import scanner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Labels

DELAY_MS = 300
"""From the last stroke to the look; strokes in between are looked at together."""

UNREADABLE = (OSError, RuntimeError, ValueError)
"""What the files behind a layer raise that are gone or damaged."""


class AnnotationWatch(QObject):
    """Look at a labels layer after it was painted on, block by block.

    napari tells of painting, but of undo only that the view has changed; so every look
    compares with the one before.
    """

    changed = Signal(object, object)
    """`Changes` since the last look, and everything `Labelled` now."""
    looked = Signal()
    """Before that, and also where nothing has changed."""
    reshaped = Signal()
    """The layer has got data of another shape."""
    unreadable = Signal(str)
    """Why the layer cannot be looked at; once, until it can be again."""
    painting = Signal()
    """At once, for a worker that should leave the processor to the viewer."""

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.layer: Labels | None = None
        self.labelled = Labelled((1, 1, 1))
        self._scan: Iterator[Labelled | None] | None = None
        self._scanner: tuple[Any, Callable[[], Iterator[Labelled | None]]] | None = None
        """The data that are looked at, and what does so."""
        self._step: tuple[int, ...] = ()
        self._again = self._complained = False
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY_MS)
        self._delay.timeout.connect(self._begin)
        self._next = QTimer(self)
        self._next.setInterval(0)
        self._next.timeout.connect(self._advance)

    def watch(self, layer: Labels | None) -> None:
        """Watch this layer from now on, and look at it at once."""
        self._disconnect()
        self.layer = layer
        self.labelled = Labelled(tuple(layer.data.shape) if layer else (1, 1, 1))
        if layer is not None:
            layer.events.paint.connect(self._on_paint)
            layer.events.data.connect(self._on_paint)
            layer.events.set_data.connect(self._on_view)
            self.flush()

    def flush(self) -> Labelled:
        """Look at the whole layer now."""
        self._delay.stop()
        self._scan = None
        self._next.stop()
        if self.layer is not None:
            try:
                *_, labelled = self._new_scan()
            except UNREADABLE as error:
                self._complain(error)
            else:
                assert labelled is not None
                self._compare(labelled)
        return self.labelled

    def close(self) -> None:
        """Let go of the layer."""
        self._disconnect()
        self._delay.stop()
        self._next.stop()

    def _disconnect(self) -> None:
        if self.layer is not None:
            self.layer.events.paint.disconnect(self._on_paint)
            self.layer.events.data.disconnect(self._on_paint)
            self.layer.events.set_data.disconnect(self._on_view)
        self.layer = None
        self._scan = self._scanner = None
        self._next.stop()
        self._delay.stop()

    def _on_paint(self, event: object = None) -> None:
        self.painting.emit()
        self._delay.start()

    def _on_view(self, event: object = None) -> None:
        # Stepping through slices changes the view as undo does.
        step = tuple(self._viewer.dims.current_step) + tuple(self._viewer.dims.order)
        if step == self._step:
            self._delay.start()
        self._step = step

    def _begin(self) -> None:
        if self.layer is None:
            return
        if self._scan is not None:
            self._again = True
            return
        self._scan = self._new_scan()
        self._next.start()

    def _new_scan(self) -> Iterator[Labelled | None]:
        assert self.layer is not None
        if self._scanner is None or self._scanner[0] is not self.layer.data:
            self._scanner = self.layer.data, scanner_of(self.layer.data)
        return self._scanner[1]()

    def _advance(self) -> None:
        if self._scan is None:
            self._next.stop()
            return
        try:
            labelled = next(self._scan)
        except UNREADABLE as error:
            self._scan = None
            self._next.stop()
            self._complain(error)
            return
        if labelled is None:
            return
        self._scan = None
        self._next.stop()
        self._compare(labelled)
        if self._again:
            self._again = False
            self._delay.start()

    def _complain(self, error: Exception) -> None:
        """Tell that nothing new is known; what was labelled at the last look stays."""
        if not self._complained:
            self._complained = True
            reason = str(error) or type(error).__name__
            self.unreadable.emit(f"The annotation cannot be read: {reason}")

    def _compare(self, labelled: Labelled) -> None:
        self._complained = False
        if labelled.shape != self.labelled.shape:
            self.reshaped.emit()
            return
        self.looked.emit()
        changes = changes_between(self.labelled, labelled)
        self.labelled = labelled
        if len(changes) or labelled.unusable:
            self.changed.emit(changes, labelled)
