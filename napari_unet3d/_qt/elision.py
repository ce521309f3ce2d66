"""Boxes and labels whose texts end in an ellipsis where there is no room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QLabel,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
)

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent, QResizeEvent


class ElidedComboBox(QComboBox):
    """A box as narrow as its dock.

    Parameters
    ----------
    tip : str
        What the box is for; the whole text is shown below it.
    characters : int
        For which there is always room.
    middle : bool
        Whether the end of the text is shown too: layers made for an image begin with
        its name, and only the end tells them apart.
    """

    def __init__(self, tip: str, characters: int = 6, middle: bool = False) -> None:
        super().__init__()
        mode = Qt.TextElideMode
        self._mode = mode.ElideMiddle if middle else mode.ElideRight
        self._tip = tip
        self.setToolTip(tip)
        self.setMinimumContentsLength(characters)
        self.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the box with as much of its text as fits."""
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        style = self.style()
        assert style is not None
        room = style.subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            self,
        )
        whole = option.currentText
        if self.currentIndex() < 0:
            whole = self.placeholderText()
        option.currentText = self.fontMetrics().elidedText(
            whole, self._mode, room.width()
        )
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        self.setToolTip(
            self._tip if option.currentText == whole else f"{self._tip}\n{whole}"
        )


class ElidedLabel(QLabel):
    """A line of text, on the right, that never widens what it is in."""

    def __init__(self) -> None:
        super().__init__()
        self._whole = ""
        self.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def setText(self, text: str | None) -> None:
        """Show as much of a text as fits, all of it as a tooltip."""
        if text != self._whole:
            self._whole = text or ""
            self.updateGeometry()
            self._elide()

    def sizeHint(self) -> QSize:
        """Ask for the width of the whole text."""
        width = self.fontMetrics().horizontalAdvance(self._whole) + 4
        return QSize(width, super().sizeHint().height())

    def minimumSizeHint(self) -> QSize:
        """Ask for no width."""
        return QSize(0, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Show as much as fits now."""
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        shown = self.fontMetrics().elidedText(
            self._whole, Qt.TextElideMode.ElideRight, max(0, self.width() - 2)
        )
        super().setText(shown)
        self.setToolTip("" if shown == self._whole else self._whole)
