"""The live curve: loss and held-out IoU over the steps."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg

LOSS_COLOR = "#ee7733"
IOU_COLOR = "#33bbee"
MOST_POINTS = 2000


class Curve(pg.PlotWidget):
    """Loss (left, smoothed) and held-out IoU (right) over the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(80)
        self.setMaximumHeight(96)
        self.setMouseEnabled(x=False, y=False)
        self.setMenuEnabled(False)
        self.hideButtons()
        self.steps: list[float] = []
        self.losses: list[float] = []
        self.iou_steps: list[float] = []
        self.ious: list[float] = []
        item = self.getPlotItem()
        # Room for the upper half of the topmost figure.
        item.layout.setContentsMargins(0, 6, 0, 0)
        self._legend = item.addLegend(
            offset=(-1, 1), labelTextSize="8pt", verSpacing=-6, colCount=2
        )
        self._loss_line = item.plot(pen=pg.mkPen(LOSS_COLOR, width=2), name="loss")
        self._right = pg.ViewBox(enableMenu=False)
        self._right.setMouseEnabled(x=False, y=False)
        item.showAxis("right")
        item.scene().addItem(self._right)
        item.getAxis("right").setWidth(30)
        item.getAxis("right").linkToView(self._right)
        self._right.setXLink(item)
        self._right.setYRange(0, 1)
        self._iou_line = pg.PlotDataItem(
            pen=pg.mkPen(IOU_COLOR, width=2),
            symbol="o",
            symbolSize=5,
            symbolBrush=IOU_COLOR,
            symbolPen=None,
        )
        self._right.addItem(self._iou_line)
        self._legend.addItem(self._iou_line, "held-out IoU")
        item.getViewBox().sigResized.connect(self._follow_size)

    def add_loss(self, step: int, loss: float) -> None:
        """Add a step's loss; the curve shows a running mean of it."""
        mean = 0.9 * self.losses[-1] + 0.1 * loss if self.losses else loss
        self.steps.append(step)
        self.losses.append(mean)
        if len(self.steps) > MOST_POINTS:
            del self.steps[::2], self.losses[::2]
        self._loss_line.setData(self.steps, self.losses)

    def add_iou(self, step: int, iou: float) -> None:
        """Add a measurement on the held-out labels."""
        self.iou_steps.append(step)
        self.ious.append(iou)
        self._iou_line.setData(self.iou_steps, self.ious)

    def show_history(self, history: tuple[dict[str, Any], ...]) -> None:
        """Show the training that a loaded model has behind it."""
        self.clear_points()
        for entry in history:
            if entry.get("loss") is not None:
                self.add_loss(entry["step"], entry["loss"])
            mean = entry.get("mean_iou")
            if mean is not None and mean == mean:
                self.add_iou(entry["step"], mean)

    def clear_points(self) -> None:
        """Begin anew."""
        for points in (self.steps, self.losses, self.iou_steps, self.ious):
            points.clear()
        self._loss_line.setData([], [])
        self._iou_line.setData([], [])

    def set_colors(self, background: str, text: str) -> None:
        """Take over the colours of the viewer's theme."""
        self.setBackground(background)
        item = self.getPlotItem()
        # As text, the colours of the lines are too pale for a light background.
        shade = 100 if pg.mkColor(background).lightness() < 128 else 180
        for side, color in (("left", LOSS_COLOR), ("right", IOU_COLOR)):
            item.getAxis(side).setTextPen(pg.mkColor(color).darker(shade))
            item.getAxis(side).setPen(text)
        item.getAxis("bottom").setTextPen(text)
        item.getAxis("bottom").setPen(text)
        self._legend.setLabelTextColor(text)

    def _follow_size(self) -> None:
        self._right.setGeometry(self.getPlotItem().getViewBox().sceneBoundingRect())
