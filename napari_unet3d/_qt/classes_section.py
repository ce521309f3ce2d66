"""The table of classes: name, colour, what is labelled of each."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHeaderView,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
)

from napari_unet3d.io.annotation_file import MAX_CLASSES

from .classes import Classes, LabelClass, extended
from .section import Section, button

COLOR, NAME, VOXELS, SLICES = range(4)


class ClassesSection(Section):
    """Add, name, colour and remove classes; choose the one to paint with."""

    edited = Signal(object)
    """Classes with other names or colours, or one more."""
    removed = Signal(int)
    """A label whose class goes away."""
    selected = Signal(int)
    """A label to paint with."""

    def __init__(self) -> None:
        super().__init__("Classes")
        self.classes: Classes = ()
        self.table = QTableWidget(0, 4)
        self.table.setHorizontalHeaderLabels(["", "Class", "Voxels", "Slices"])
        rows, header = self.table.verticalHeader(), self.table.horizontalHeader()
        assert rows is not None
        assert header is not None
        rows.setDefaultSectionSize(22)
        rows.hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setToolTip(
            "Select a row to paint with it. Double-click the colour or the name to "
            "change it."
        )
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in ((COLOR, 26), (VOXELS, 70), (SLICES, 50)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.table.setColumnWidth(column, width)
        self.table.setFixedHeight(98)
        self.add = button("Add", "Add a class at the end", self._add)
        self.remove = button(
            "Remove",
            "Remove the selected class, erasing its labels; those behind it move up",
            self._remove,
        )
        for each in (self.add, self.remove):
            each.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            self.corner.addWidget(each)
        self.rows.addWidget(self.table)
        self.table.itemChanged.connect(self._on_item)
        self.table.itemSelectionChanged.connect(self._on_selection)
        self.table.cellDoubleClicked.connect(self._on_double_click)
        self.show_classes((), None)

    def show_classes(self, classes: Classes, selected: int | None) -> None:
        """Show the classes of an annotation layer."""
        self.classes = classes
        self.table.blockSignals(True)
        self.table.setRowCount(len(classes))
        for row, each in enumerate(classes):
            color, name = QTableWidgetItem(str(row + 1)), QTableWidgetItem(each.name)
            color.setBackground(QColor(each.color))
            light = QColor(each.color).lightness() > 128
            color.setForeground(QColor("black" if light else "white"))
            color.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            color.setFlags(color.flags() & ~Qt.ItemFlag.ItemIsEditable)
            name.setToolTip(each.name)
            self.table.setItem(row, COLOR, color)
            self.table.setItem(row, NAME, name)
            for column in (VOXELS, SLICES):
                count = QTableWidgetItem("0")
                count.setFlags(count.flags() & ~Qt.ItemFlag.ItemIsEditable)
                count.setTextAlignment(
                    Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                )
                self.table.setItem(row, column, count)
        if selected is not None and 1 <= selected <= len(classes):
            self.table.selectRow(selected - 1)
        else:
            self.table.clearSelection()
        self.table.blockSignals(False)
        self._offer()

    def show_counts(self, counts: list[tuple[int, int]]) -> None:
        """Show how many voxels and slices are labelled of each class."""
        self.table.blockSignals(True)
        for row, (voxels, slices) in enumerate(counts[: self.table.rowCount()]):
            for column, count in ((VOXELS, voxels), (SLICES, slices)):
                item = self.table.item(row, column)
                if item is not None:
                    item.setText(f"{count:,}")
        self.table.blockSignals(False)

    def select(self, label: int) -> None:
        """Show which class is painted with."""
        self.table.blockSignals(True)
        if 1 <= label <= len(self.classes):
            self.table.selectRow(label - 1)
        else:
            self.table.clearSelection()
        self.table.blockSignals(False)
        self._offer()

    @property
    def selected_label(self) -> int | None:
        """The label that is selected."""
        chosen = self.table.selectedItems()
        return chosen[0].row() + 1 if chosen else None

    def _offer(self) -> None:
        count = len(self.classes)
        self.add.setEnabled(0 < count < MAX_CLASSES)
        label = self.selected_label
        self.remove.setEnabled(count > 2 and label is not None and label > 1)

    def _add(self) -> None:
        self.edited.emit(extended(self.classes, len(self.classes) + 1))
        self.table.selectRow(len(self.classes) - 1)

    def _remove(self) -> None:
        if self.selected_label:
            self.removed.emit(self.selected_label)

    def _replace(self, row: int, name: str, color: str) -> None:
        before, after = self.classes[:row], self.classes[row + 1 :]
        self.edited.emit((*before, LabelClass(name, color), *after))

    def _on_item(self, item: QTableWidgetItem) -> None:
        if item.column() == NAME:
            old = self.classes[item.row()]
            self._replace(item.row(), item.text().strip() or old.name, old.color)

    def _on_selection(self) -> None:
        self._offer()
        if self.selected_label:
            self.selected.emit(self.selected_label)

    def _on_double_click(self, row: int, column: int) -> None:
        if column != COLOR:
            return
        old = self.classes[row]
        dialog = QColorDialog(QColor(old.color), self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.colorSelected.connect(
            lambda color: self._replace(row, old.name, color.name())
        )
        dialog.show()
