"""Which image is looked at, and which layer holds its annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QLabel,
    QMenu,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .elision import ElidedComboBox
from .other_volumes import OtherVolumes
from .section import Section, button, wrapped
from .volumes import VolumeChoice, possible_axes, spatial_shape, time_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image, Labels


class DataSection(Section):
    """Image layer, what its axes mean, further channels, annotation layer."""

    changed = Signal()
    """Another image, channel or time point."""
    annotation_changed = Signal()
    """Another annotation layer is chosen; there are some to choose now, or none."""
    new_annotation = Signal()
    restore = Signal()
    keep_aside = Signal()
    """What was kept is not wanted now."""
    use_size = Signal()
    """The layer is to get the size of the voxels that its file tells."""

    def __init__(self) -> None:
        super().__init__("Data")
        self.images = ElidedComboBox(
            "The volume to annotate and to segment", middle=True
        )
        self.annotations = ElidedComboBox(
            "The layer that is painted on: 0 is not labelled, 1 background",
            middle=True,
        )
        self.axes = ElidedComboBox("What the axes of the layer mean")
        self.time = QSpinBox()
        self.time.setToolTip("The time point that is annotated")
        self.channels = QToolButton()
        # napari's theme draws the arrow of a menu over the text.
        self.channels.setText("Channels ▾")
        self.channels.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.channels.setToolTip("Layers that are further channels of this image")
        self.channels.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._menu = QMenu(self.channels)
        self.channels.setMenu(self._menu)
        self.new = button(
            "New annotation layer",
            "Add an empty layer on the grid of the image, ready to paint",
            self.new_annotation.emit,
        )
        self.time_in_view = wrapped()
        self.time_in_view.hide()
        self.others = OtherVolumes()
        self.problem = wrapped()
        self.problem.hide()
        self._axes_label, self._time_label = QLabel("Axes"), QLabel("Time")
        grid = QGridLayout()
        grid.setSpacing(3)
        grid.addWidget(QLabel("Image"), 0, 0)
        grid.addWidget(self.images, 0, 1, 1, 3)
        grid.addWidget(self.channels, 0, 4)
        grid.addWidget(self._axes_label, 1, 0)
        grid.addWidget(self.axes, 1, 1)
        grid.addWidget(self._time_label, 1, 2)
        grid.addWidget(self.time, 1, 3)
        grid.addWidget(QLabel("Labels"), 2, 0)
        grid.addWidget(self.annotations, 2, 1, 1, 4)
        grid.setColumnStretch(1, 1)
        self.rows.addLayout(grid)
        self.rows.addWidget(self.time_in_view)
        self.rows.addWidget(self._make_size())
        self.rows.addWidget(self.new)
        self.rows.addWidget(self.others)
        self.rows.addWidget(self.problem)
        self.rows.addWidget(self._make_offer())
        self.images.currentIndexChanged.connect(self._on_image)
        self.axes.currentIndexChanged.connect(self._on_axes)
        self.time.valueChanged.connect(self.changed)
        self.annotations.currentIndexChanged.connect(self.annotation_changed)
        self._on_image()

    def choice(self) -> VolumeChoice | None:
        """Return the volume that is chosen."""
        layer = self.images.currentData()
        if layer is None:
            return None
        others = tuple(a.data() for a in self._menu.actions() if a.isChecked())
        axes = self.axes.currentText() or "ZYX"
        return VolumeChoice(layer, axes, self.time.value(), others)

    def annotation(self) -> Labels | None:
        """Return the layer that is painted on."""
        layer: Labels | None = self.annotations.currentData()
        return layer

    def set_images(self, layers: Sequence[Image], preferred: Image | None) -> None:
        """Offer layers; the chosen one stays chosen while it is there."""
        before = self.choice()
        chosen = preferred or (layers[-1] if layers else None)
        if before is not None and before.layer in layers:
            chosen = before.layer
        if _fill(self.images, layers, chosen):
            self._on_image()
        elif before is not None:
            self._offer_channels(before.layer, before.others)
            if before.others != (self.choice() or before).others:
                self.changed.emit()

    def set_annotations(self, layers: Sequence[Labels], chosen: Labels | None) -> None:
        """Offer layers that fit the image."""
        self.annotations.setPlaceholderText("choose a layer" if layers else "")
        had_some = self.annotations.count() > 0
        if _fill(self.annotations, layers, chosen) or had_some != bool(layers):
            self.annotation_changed.emit()

    def choose_annotation(self, layer: Labels) -> None:
        """Paint on this layer."""
        self.annotations.setCurrentIndex(_index_of(self.annotations, layer))

    def show_names(self) -> None:
        """Show the names of the layers anew."""
        for combo in (self.images, self.annotations):
            for index in range(combo.count()):
                combo.setItemText(index, combo.itemData(index).name)
        for action in self._menu.actions():
            action.setText(action.data().name)

    def set_time(self, time: int) -> None:
        """Choose the nearest time point there is; nobody is told."""
        self.time.blockSignals(True)
        self.time.setValue(time)
        self.time.blockSignals(False)

    def show_time_in_view(self, time: int | None) -> None:
        """Say so where another time point is in view than the chosen one."""
        differs = time is not None and time != self.time.value()
        self.time_in_view.setText(
            f"Time {time} is in view, and what is painted belongs to time "
            f"{self.time.value()}: set Time to {time} to annotate what you see."
            if differs
            else ""
        )
        self.time_in_view.setVisible(differs)

    def show_problem(self, sentence: str | None) -> None:
        """Say why the image cannot be used."""
        self.problem.setText(sentence or "")
        self.problem.setVisible(bool(sentence))

    def offer_size(self, sentence: str | None) -> None:
        """Say that the file tells a size of the voxels and offer to use it."""
        self._size_text.setText(sentence or "")
        self.size_offer.setVisible(bool(sentence))

    def offer_restore(self, sentence: str | None) -> None:
        """Say what was kept of the last time and offer to restore it."""
        self._offer_text.setText(sentence or "")
        self.offer.setVisible(bool(sentence))

    def _make_size(self) -> QWidget:
        self.size_offer = QWidget()
        self._size_text = wrapped()
        self.size_button = button(
            "Use the file's size",
            "Scale the image, and the plugin's layers on it, as its file says",
            self.use_size.emit,
        )
        rows = QVBoxLayout(self.size_offer)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(3)
        rows.addWidget(self._size_text)
        rows.addWidget(self.size_button)
        self.size_offer.hide()
        return self.size_offer

    def _make_offer(self) -> QWidget:
        self.offer = QWidget()
        self._offer_text = wrapped()
        self.restore_button = button(
            "Restore", "Open what was kept in a new layer", self.restore.emit
        )
        self.aside_button = button(
            "Not now",
            "Begin anew; what was kept stays on the disk",
            self.keep_aside.emit,
        )
        grid = QGridLayout(self.offer)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        grid.addWidget(self._offer_text, 0, 0, 1, 2)
        grid.addWidget(self.restore_button, 1, 0)
        grid.addWidget(self.aside_button, 1, 1)
        self.offer.hide()
        return self.offer

    def _on_image(self) -> None:
        layer = self.images.currentData()
        options = possible_axes(layer) if layer is not None else ()
        self.axes.blockSignals(True)
        self.axes.clear()
        self.axes.addItems(options)
        self.axes.blockSignals(False)
        self._offer_channels(layer, ())
        for part in (self._axes_label, self.axes):
            part.setVisible(len(options) > 1)
        self._on_axes()

    def _on_axes(self) -> None:
        layer, axes = self.images.currentData(), self.axes.currentText()
        count = time_points(layer, axes) if layer is not None and axes else 1
        self.time.blockSignals(True)
        self.time.setRange(0, count - 1)
        self.time.blockSignals(False)
        for part in (self._time_label, self.time):
            part.setVisible(count > 1)
        self.changed.emit()

    def _offer_channels(self, layer: Any, checked: tuple[Any, ...]) -> None:
        self._menu.clear()
        for index in range(self.images.count()):
            other = self.images.itemData(index)
            if other == layer or layer is None or other.ndim != 3 or layer.ndim != 3:
                continue
            if spatial_shape(other) != spatial_shape(layer):
                continue
            action = self._menu.addAction(other.name)
            action.setCheckable(True)
            action.setData(other)
            action.setChecked(other in checked)
            action.toggled.connect(self.changed)
        self.channels.setVisible(bool(self._menu.actions()))


def _index_of(combo: QComboBox, layer: Any) -> int:
    # Qt would compare by identity, but layers come in proxies.
    found = (i for i in range(combo.count()) if combo.itemData(i) == layer)
    return next(found, -1)


def _fill(combo: QComboBox, layers: Sequence[Any], chosen: Any) -> bool:
    """Offer layers and tell whether another one is chosen now."""
    before = combo.currentData()
    combo.blockSignals(True)
    combo.clear()
    for layer in layers:
        combo.addItem(layer.name, layer)
    combo.setCurrentIndex(_index_of(combo, chosen) if chosen is not None else -1)
    combo.blockSignals(False)
    after = combo.currentData()
    return bool(before != after)
