"""The dock widget "Annotate & Train": it shows a state and tells what was pressed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QStyle, QVBoxLayout, QWidget

from .classes_section import ClassesSection
from .closing import WindowWatch
from .controller import Controller
from .data_section import DataSection
from .tool_sections import (
    AdvancedSection,
    AnnotateSection,
    ModelSection,
    PreviewSection,
)
from .training_section import SegmentSection, TrainSection

if TYPE_CHECKING:
    import napari.viewer

    from napari_unet3d.worker.client import WorkerClient

    from .connection import ClientFactory
    from .state import State


class AnnotateAndTrain(QWidget):
    """Annotate a volume, train a network on it, segment it.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where layers are looked for and added.
    client : callable, optional
        What makes the worker's client; by default the real one.
    """

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        client: ClientFactory | None = None,
    ) -> None:
        super().__init__()
        self.data = DataSection()
        self.classes = ClassesSection()
        self.annotate = AnnotateSection()
        self.training = TrainSection()
        self.preview = PreviewSection()
        self.segmenting = SegmentSection()
        self.model = ModelSection()
        self.advanced = AdvancedSection()
        self._lay_out()
        self.controller = Controller(napari_viewer, self, client)
        self.controller.start()
        self._window_watch = WindowWatch(self, self.controller.close)
        # Should the widget go without a word, the process must not stay.
        self.destroyed.connect(partial(_end, self.controller.client))

    def show_state(self, state: State) -> None:
        """Show what is going on; all buttons follow from it."""
        self.data.show_problem(state.problem)
        self.data.new.setEnabled(state.problem is None)
        self.data.others.show_volumes(state.others, enabled=not state.busy)
        self.annotate.show_state(state)
        self.training.show_state(state)
        self.segmenting.show_state(state)
        self.model.show_state(state)

    def sizeHint(self) -> QSize:
        """Ask for the width of a laptop's dock."""
        return QSize(370, 700)

    def minimumSizeHint(self) -> QSize:
        """Ask for the width at which nothing is cut off, scroll bar included."""
        style = self.style()
        assert style is not None
        bar = style.pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        width = self._inside.minimumSizeHint().width() + bar
        return QSize(width, super().minimumSizeHint().height())

    def event(self, event: QEvent | None) -> bool:
        """End the worker when the dock is closed for good.

        A dock's close button takes the parent away; neither floating nor moving nor
        hiding does.
        """
        moved = event is not None and event.type() == QEvent.Type.ParentChange
        if moved and hasattr(self, "_window_watch"):
            if self.parent() is None:
                self.controller.close()
                self._window_watch.end()
            else:
                self._window_watch.look_soon()
        return bool(super().event(event))

    def _on_folded(self, opened: bool) -> None:
        self.updateGeometry()

    def _lay_out(self) -> None:
        inside = QWidget()
        rows = QVBoxLayout(inside)
        rows.setContentsMargins(4, 2, 4, 2)
        rows.setSpacing(2)
        for section in (
            self.data,
            self.classes,
            self.annotate,
            self.training,
            self.preview,
            self.segmenting,
            self.model,
            self.advanced,
        ):
            rows.addWidget(section)
            # Unfolded, a section may need more width.
            section.header.toggled.connect(self._on_folded)
        rows.addStretch(1)
        self._inside = inside
        scroll = QScrollArea()
        scroll.setWidget(inside)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)


def _end(client: WorkerClient, *_: object) -> None:
    client.close(0.0)
