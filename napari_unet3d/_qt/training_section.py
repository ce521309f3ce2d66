"""Train, pause, stop; how it goes; and the whole volume in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QProgressBar, QSizePolicy

from .elision import ElidedLabel
from .section import Section, button, offer, wrapped
from .state import Phase, State

if TYPE_CHECKING:
    from typing import Any

    from .curve import Curve

TRAIN_HELP = "Train on what is painted; go on painting meanwhile"
SEGMENT_HELP = (
    "Segment the whole image into a layer, or into an OME-Zarr where it does not fit "
    "into memory"
)


class TrainSection(Section):
    """Buttons, figures and curve of the training."""

    train = Signal()
    pause = Signal()
    stop = Signal()
    restart = Signal()

    def __init__(self) -> None:
        super().__init__("Train")
        self.train_button = button("Train", TRAIN_HELP, self.train.emit)
        self.pause_button = button(
            "Pause", "Pause the training; Resume continues it", self.pause.emit
        )
        self.stop_button = button(
            "Stop", "End the training and keep the best model", self.stop.emit
        )
        self.restart_button = button(
            "Restart the worker",
            "Start the worker process again, with the last saved model",
            self.restart.emit,
        )
        buttons = QHBoxLayout()
        buttons.setSpacing(3)
        for each in (self.train_button, self.pause_button, self.stop_button):
            buttons.addWidget(each)
        self.line = wrapped()
        self.device = ElidedLabel()
        self.device.setTextInteractionFlags(
            self.device.textInteractionFlags().TextSelectableByMouse
        )
        self.warning = wrapped()
        self.rows.addLayout(buttons)
        self.rows.addWidget(self.restart_button)
        self.rows.addWidget(self.line)
        self.fill_corner(self.device)
        self.rows.addWidget(self.warning)
        self.curve: Curve | None = None
        self._before: list[tuple[str, tuple[Any, ...]]] = []
        self._colors = ("#262930", "#f0f1f2")
        # The plotting library takes a third of a second to load: after the opening.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._add_curve)
        self._later.start(200)

    def plot(self, what: str, *values: Any) -> None:
        """Call a method of the curve, now or once it is there."""
        if self.curve is None:
            self._before.append((what, values))
        else:
            getattr(self.curve, what)(*values)

    def set_colors(self, background: str, text: str) -> None:
        """Take over the colours of the viewer's theme."""
        self._colors = (background, text)
        dark = QColor(background).lightness() < 128
        self.warning.setStyleSheet(f"color: {'#ee7733' if dark else '#a84300'};")
        if self.curve is not None:
            self.curve.set_colors(background, text)

    def show_state(self, state: State) -> None:
        """Enable the buttons and show the figures."""
        offer(self.train_button, TRAIN_HELP, state.why_not_train)
        self.train_button.setText("Continue" if state.has_model else "Train")
        running = state.phase in (Phase.TRAINING, Phase.PAUSED)
        self.pause_button.setEnabled(running)
        held = state.phase is Phase.PAUSED
        self.pause_button.setText("Resume" if held else "Pause")
        self.stop_button.setEnabled(running or state.training_held)
        self.restart_button.setVisible(state.phase is Phase.DEAD)
        # What is wrong with the image is said under Data.
        lacking = state.problem is None and state.phase is Phase.IDLE
        self.line.setText(
            state.progress_line or ((state.annotation_problem or "") if lacking else "")
        )
        # Threads are shared out.
        several = f"{state.devices} × {state.device.partition(',')[0]}"
        self.device.setText(several if state.devices > 1 else state.device)
        self.warning.setText(state.device_warning)
        self.warning.setVisible(bool(state.device_warning))

    def _add_curve(self) -> None:
        from .curve import Curve

        self.curve = Curve()
        self.curve.set_colors(*self._colors)
        self.rows.insertWidget(self.rows.indexOf(self.line) + 1, self.curve)
        for what, values in self._before:
            self.plot(what, *values)
        self._before.clear()


class SegmentSection(Section):
    """The big button, its progress, and where the result goes."""

    segment = Signal()
    cancel = Signal()
    choose_file = Signal()

    def __init__(self) -> None:
        super().__init__("Segment")
        self.header.hide()
        self.segment_button = button("Segment volume", SEGMENT_HELP, self.segment.emit)
        self.segment_button.setStyleSheet("font-weight: bold;")
        self.segment_button.setMinimumHeight(32)
        self.probabilities = QCheckBox("with probabilities")
        self.probabilities.setToolTip("Add a layer with the probability of each class")
        self.file_button = button(
            "To file …",
            "Segment into an OME-Zarr of your choice",
            self.choose_file.emit,
        )
        self.cancel_button = button(
            "Cancel", "End the segmentation; what is done stays", self.cancel.emit
        )
        # Beside a bar that takes all the room, a button must ask for its own.
        self.cancel_button.setSizePolicy(
            QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed
        )
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.setFormat("%p %")
        row = QHBoxLayout()
        row.setSpacing(3)
        row.addWidget(self.probabilities, 1)
        row.addWidget(self.file_button, 1)
        self.line = ElidedLabel()
        self._progress_row = QHBoxLayout()
        self._progress_row.addWidget(self.progress, 1)
        self._progress_row.addWidget(self.cancel_button)
        self.rows.addWidget(self.segment_button)
        self.rows.addLayout(row)
        self.rows.addLayout(self._progress_row)
        self.rows.addWidget(self.line)

    def show_state(self, state: State) -> None:
        """Enable the buttons and show the progress."""
        offer(self.segment_button, SEGMENT_HELP, state.why_not_segment)
        self.file_button.setEnabled(state.why_not_segment is None)
        running = state.phase is Phase.SEGMENTING
        self.progress.setVisible(running)
        self.cancel_button.setVisible(running)
        # Statistics of the volume come first: nothing to count yet.
        self.progress.setRange(0, 1000 if state.progress else 0)
        self.progress.setValue(round(1000 * state.progress))
        line = state.reading if running and state.reading else state.written_to
        self.line.setText(line)
        self.line.setVisible(bool(line))
