"""A titled part of the dock widget that can be folded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Section(QWidget):
    """A title that folds what is below it, with room for more in its line.

    Parameters
    ----------
    title : str
        What the section is about.
    folded : bool
        Whether it begins folded.
    """

    def __init__(self, title: str, folded: bool = False) -> None:
        super().__init__()
        self.header = QToolButton()
        self.header.setText(title)
        self.header.setCheckable(True)
        self.header.setChecked(not folded)
        self.header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.corner = QHBoxLayout()
        self.corner.setContentsMargins(0, 0, 4, 0)
        self.corner.setSpacing(3)
        self.corner.addWidget(self.header)
        self.corner.addStretch(1)
        self.header.setStyleSheet(
            "QToolButton { border: none; font-weight: bold; text-align: left;"
            " background: transparent; padding: 0; }"
        )
        self.body = QWidget()
        self.rows = QVBoxLayout(self.body)
        self.rows.setContentsMargins(4, 0, 0, 4)
        self.rows.setSpacing(3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        layout.addLayout(self.corner)
        layout.addWidget(self.body)
        self.header.toggled.connect(self._fold)
        self._fold(not folded)

    def fill_corner(self, widget: QWidget) -> None:
        """Give a widget the rest of the title's line."""
        self.corner.setStretch(1, 0)
        self.corner.addWidget(widget, 1)

    def _fold(self, opened: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow
        self.header.setArrowType(arrow)
        self.body.setVisible(opened)


def button(
    text: str, tip: str, clicked: Callable[..., object] | None = None
) -> QPushButton:
    """Make a button that says in its tooltip what it does."""
    made = QPushButton(text)
    made.setToolTip(tip)
    # A dock is narrow: buttons share its width, however long their texts are.
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    made.setMinimumWidth(made.fontMetrics().horizontalAdvance(text) + 20)
    if clicked is not None:
        made.clicked.connect(lambda: clicked())
    return made


def offer(widget: QPushButton, tip: str, why_not: str | None) -> None:
    """Enable a button, or say in its tooltip why it cannot be pressed."""
    widget.setEnabled(why_not is None)
    widget.setToolTip(why_not or tip)


def wrapped(text: str = "") -> QLabel:
    """Make a label that breaks its lines instead of widening the dock."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label
