"""The dock widget on small screens and with long names."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QRect

from napari_unet3d._qt.classes import make_classes
from napari_unet3d._qt.elision import ElidedComboBox, ElidedLabel
from napari_unet3d._qt.state import Phase

LONG = "a volume whose name goes on and on, aligned, cropped, denoised"


def in_view(widget, window):
    """Whether all of a widget lies in what a window shows."""
    seen = widget.visibleRegion().boundingRect().size()
    place = QRect(widget.mapTo(window, QPoint(0, 0)), widget.size())
    return seen == widget.size() and window.rect().contains(place)


def test_long_names_do_not_widen_the_dock(driver, ball, qtbot):
    viewer, widget = driver.viewer, driver.widget
    viewer.layers["ball"].name = LONG
    widget.data.new.click()
    names = ["background", *[f"{LONG} {number}" for number in range(11)]]
    driver.controller.edit_classes(make_classes(names))
    widget.preview.probability.setCurrentIndex(5)
    widget.training.device.setText(
        "NVIDIA H100 80GB HBM3 of a machine far away, 79 GiB"
    )
    qtbot.wait(50)
    assert widget.minimumSizeHint().width() < 320
    assert driver.dock.minimumSizeHint().width() < 320


def test_train_and_segment_are_in_view_on_a_laptop(make_napari_viewer, qtbot, ball):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    dock, widget = viewer.window.add_plugin_dock_widget(
        "napari-unet3d", "Annotate & Train"
    )
    try:
        viewer.add_image(ball[0], name=LONG)
        widget.data.new.click()
        qtbot.waitUntil(lambda: widget.training.curve is not None)
        qtbot.waitUntil(lambda: widget.controller.state.phase is Phase.IDLE)
        window = viewer.window._qt_window
        for width in (370, 200):
            window.resizeDocks([dock], [width], _horizontal())
            qtbot.wait(200)
            for button in (
                widget.training.train_button,
                widget.training.stop_button,
                widget.segmenting.segment_button,
                widget.annotate.clear_button,
                widget.preview.probability,
            ):
                assert in_view(button, window)
            widget.controller.set_state(phase=Phase.SEGMENTING)
            qtbot.wait(100)
            assert in_view(widget.segmenting.cancel_button, window)
            widget.controller.set_state(phase=Phase.IDLE)
    finally:
        widget.controller.close()


def _horizontal():
    from qtpy.QtCore import Qt

    return Qt.Orientation.Horizontal


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_warnings_can_be_read_in_every_theme(driver, theme):
    from qtpy.QtGui import QColor

    driver.viewer.theme = theme
    style = driver.widget.training.warning.styleSheet()
    text = QColor(style.split(":")[1].strip(" ;"))
    assert (text.lightness() > 128) == (theme == "dark")


def test_texts_end_in_an_ellipsis(qtbot):
    box, label = ElidedComboBox("which", middle=True), ElidedLabel()
    for widget in (box, label):
        qtbot.addWidget(widget)
        widget.resize(100, 30)
        widget.show()
    box.addItem(LONG)
    label.setText(LONG)
    qtbot.waitUntil(lambda: LONG in box.toolTip())
    assert label.text().endswith("…")
    assert label.toolTip() == LONG
    label.resize(2000, 30)
    assert label.text() == LONG
    assert not label.toolTip()
