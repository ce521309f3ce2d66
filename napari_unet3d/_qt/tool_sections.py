"""The smaller sections: annotation tools, preview, model, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel

from napari_unet3d.engine.config import (
    ModelConfig,
    ParallelConfig,
    SegmentationConfig,
    TrainingConfig,
)

from .elision import ElidedComboBox
from .form import Form
from .section import Section, button, offer, wrapped
from .shortcuts import ACCEPT, FILL, NEXT, PREVIEW

if TYPE_CHECKING:
    from .annotation_tools import Slice
    from .classes import Classes
    from .state import State

ACCEPT_HELP = "Take over the preview of this slice where nothing is labelled yet"


class AnnotateSection(Section):
    """Whole slices at once, and where to annotate next."""

    next_slice = Signal()
    fill = Signal()
    accept = Signal()
    clear = Signal()
    jump = Signal(object)
    """A `Slice` to show."""

    def __init__(self) -> None:
        super().__init__("Annotate")
        self.next_button = button(
            "Next slice",
            f"Go to the middle of the widest gap between annotated slices ({NEXT})",
            self.next_slice.emit,
        )
        self.fill_button = button(
            "Fill background",
            f"Label the rest of this slice as background ({FILL})",
            self.fill.emit,
        )
        self.accept_button = button("Accept prediction", ACCEPT_HELP, self.accept.emit)
        self.clear_button = button(
            "Clear slice", "Erase the labels of this slice", self.clear.emit
        )
        self.slices = ElidedComboBox(
            "Go to an annotated slice: one of which a good part is labelled, a few "
            "strokes do not make one"
        )
        self.slices.activated.connect(self._on_slice)
        grid = QGridLayout()
        grid.setSpacing(3)
        grid.addWidget(self.next_button, 0, 0)
        grid.addWidget(self.fill_button, 0, 1)
        grid.addWidget(self.accept_button, 1, 0)
        grid.addWidget(self.clear_button, 1, 1)
        self.fill_corner(self.slices)
        self.rows.addLayout(grid)
        self.show_slices([])

    def show_slices(self, slices: list[Slice]) -> None:
        """List the annotated slices."""
        self.slices.clear()
        count = len(slices)
        self.slices.addItem(
            f"{count} annotated slice{'' if count == 1 else 's'}"
            if count
            else "No annotated slice yet"
        )
        for each in slices:
            self.slices.addItem(each.name, each)
        self.slices.setEnabled(bool(slices))

    def show_state(self, state: State) -> None:
        """Enable the buttons."""
        for each in (self.next_button, self.fill_button, self.clear_button):
            each.setEnabled(state.has_annotation)
        why_not = None
        if not state.has_annotation:
            why_not = "There is no annotation layer: add one."
        elif not state.has_prediction:
            why_not = "There is no preview of this slice yet."
        offer(self.accept_button, f"{ACCEPT_HELP} ({ACCEPT})", why_not)

    def _on_slice(self, index: int) -> None:
        chosen = self.slices.itemData(index)
        self.slices.setCurrentIndex(0)
        if chosen is not None:
            self.jump.emit(chosen)


class PreviewSection(Section):
    """What to show of the slice in view."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Preview")
        self.header.hide()
        self.shown = QCheckBox("Preview")
        self.shown.setChecked(True)
        self.shown.setToolTip(f"Predict the slice in view while training ({PREVIEW})")
        self.uncertainty = QCheckBox("Uncertainty")
        self.uncertainty.setToolTip("Bright where the model is undecided (entropy)")
        self.probability = ElidedComboBox("Show the probability of a class", 3)
        for each in (self.shown, self.uncertainty):
            self.corner.addWidget(each)
        self.fill_corner(self.probability)
        self.show_classes(())
        self.shown.toggled.connect(self.changed)
        self.uncertainty.toggled.connect(self.changed)
        self.probability.currentIndexChanged.connect(self.changed)

    def show_classes(self, classes: Classes) -> None:
        """Offer the classes whose probability can be shown."""
        before = self.probability.currentIndex()
        self.probability.blockSignals(True)
        self.probability.clear()
        self.probability.addItem("no probability")
        self.probability.addItems([f"P({each.name})" for each in classes])
        self.probability.setCurrentIndex(before if 0 < before <= len(classes) else 0)
        self.probability.blockSignals(False)

    @property
    def probability_of(self) -> int | None:
        """Label whose probability is to be shown."""
        return self.probability.currentIndex() or None


class ModelSection(Section):
    """New, load, save, and what the model is."""

    new = Signal()
    load = Signal()
    save = Signal()

    def __init__(self) -> None:
        super().__init__("Model")
        self.new_button = button(
            "New", "Forget the model; the next training begins anew", self.new.emit
        )
        self.load_button = button("Load …", "Open a model file", self.load.emit)
        self.save_button = button("Save …", "Write a model file", self.save.emit)
        self.summary = wrapped()
        row = QHBoxLayout()
        row.setSpacing(3)
        for each in (self.new_button, self.load_button, self.save_button):
            row.addWidget(each)
        self.rows.addLayout(row)
        self.rows.addWidget(self.summary)

    def show_state(self, state: State) -> None:
        """Enable the buttons and say what the model is."""
        self.new_button.setEnabled(state.has_model and not state.busy)
        self.load_button.setEnabled(not state.busy)
        self.save_button.setEnabled(state.has_model)
        self.summary.setText(state.model)


class AdvancedSection(Section):
    """All settings, made from the engine's configuration classes."""

    def __init__(self) -> None:
        super().__init__("Advanced", folded=True)
        self.forms: dict[str, Form] = {}
        self._reset = button(
            "Reset to defaults", "Give every setting its default", self.reset
        )
        self.rows.addWidget(self._reset)
        self.header.toggled.connect(self._make)

    def form(self, name: str) -> Form:
        """Return the form of "model", "training", "parallel" or "segmentation"."""
        self._make()
        return self.forms[name]

    def values(self, name: str) -> dict[str, Any]:
        """Return the settings that were changed."""
        return self.forms[name].values() if name in self.forms else {}

    def problem(self) -> str | None:
        """Say which settings are wrong."""
        said = [form.problem() for form in self.forms.values()]
        return next((sentence for sentence in said if sentence), None)

    def reset(self) -> None:
        """Give every setting its default."""
        for form in self.forms.values():
            form.reset()

    def _make(self, *_: object) -> None:
        # Fifty editors take a while, and few people open this.
        if self.forms:
            return
        self.forms = {
            "model": Form(ModelConfig, hidden=("in_channels", "n_classes", "spacing")),
            "training": Form(TrainingConfig),
            "parallel": Form(ParallelConfig),
            "segmentation": Form(SegmentationConfig),
        }
        for name, form in self.forms.items():
            self.rows.addWidget(QLabel(f"<b>{name.capitalize()}</b>"))
            self.rows.addWidget(form)
