"""The list of other annotated volumes, each with a box to learn from it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from .state import OtherVolume

MOST_ROWS = 3
"""That are seen at once; the dock has to fit on a laptop's screen."""


class OtherVolumes(QWidget):
    """Choose what to learn from besides the chosen image; hidden without a choice."""

    ticked = Signal(int, bool)
    """Number of a volume, and whether to learn from it."""

    def __init__(self) -> None:
        super().__init__()
        self.list = QListWidget()
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.list.itemChanged.connect(self._on_item)
        title = QLabel("Also learn from")
        title.setToolTip("Other annotated images that Train learns from too")
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(1)
        rows.addWidget(title)
        rows.addWidget(self.list)
        self._shown: tuple[OtherVolume, ...] = ()
        self.hide()

    def show_volumes(self, volumes: tuple[OtherVolume, ...], enabled: bool) -> None:
        """Show what there is besides the chosen image."""
        self.list.setEnabled(enabled)
        if volumes == self._shown:
            return
        self._shown = volumes
        self.list.blockSignals(True)
        self.list.clear()
        for volume in volumes:
            self.list.addItem(_item(volume))
        self.list.blockSignals(False)
        height = max(self.list.sizeHintForRow(0), 18)
        frame = 2 * self.list.frameWidth()
        self.list.setFixedHeight(height * min(len(volumes), MOST_ROWS) + frame)
        self.setVisible(bool(volumes))

    def _on_item(self, item: QListWidgetItem) -> None:
        ticked = item.checkState() == Qt.CheckState.Checked
        self.ticked.emit(item.data(Qt.ItemDataRole.UserRole), ticked)


def _item(volume: OtherVolume) -> QListWidgetItem:
    said = volume.why_not or volume.doubt or ""
    text = f"{volume.name} · {volume.voxels:,} voxels"
    item = QListWidgetItem(f"{volume.name} · {said}" if said else text)
    item.setToolTip(said or f"Train on “{volume.name}” too")
    item.setData(Qt.ItemDataRole.UserRole, volume.number)
    on, off = Qt.CheckState.Checked, Qt.CheckState.Unchecked
    item.setCheckState(on if volume.ticked else off)
    if volume.why_not:
        item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
    return item
