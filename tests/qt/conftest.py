from __future__ import annotations

import gc
import os
import sys
import threading
import time

import numpy as np
import pytest

WIDGET = "Annotate & Train"

LASTING = ("zarr_io", "asyncio_", "ThreadPoolExecutor-")
"""Threads of zarr and dask, by how their names begin: they stay for the next use."""


def _no_display() -> bool:
    return sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


@pytest.fixture(autouse=True)
def display():
    if _no_display():
        pytest.skip("needs a display; run it with xvfb-run or `make test`")


@pytest.fixture(autouse=True)
def projects(tmp_path, monkeypatch):
    """Keep projects of tests out of the user's folder."""
    folder = tmp_path / "projects"
    monkeypatch.setenv("NAPARI_UNET3D_PROJECTS", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def said(monkeypatch):
    """Collect what the person is told."""
    from napari.utils.notifications import notification_manager

    sentences: list[str] = []

    def remember(notification):
        sentences.append(notification.message)

    notification_manager.notification_ready.connect(remember)
    yield sentences
    notification_manager.notification_ready.disconnect(remember)


@pytest.fixture
def ball():
    """Return a small volume with a bright ball, and its truth: 1 around, 2 in it."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[:24, :40, :40]
    inside = ((z - 12) / 8) ** 2 + ((y - 20) / 12) ** 2 + ((x - 20) / 12) ** 2 < 1
    truth = np.where(inside, 2, 1).astype(np.uint8)
    image = (100 + 80 * inside + rng.normal(0, 15, truth.shape)).astype(np.float32)
    return image, truth


@pytest.fixture
def open_widget(make_napari_viewer_proxy, qtbot):
    """Open the plugin by name; the worker is ended and waited for at the end."""
    opened = []
    before = set(threading.enumerate())

    def open_in(viewer=None):
        viewer = viewer or make_napari_viewer_proxy()
        dock, widget = viewer.window.add_plugin_dock_widget("napari-unet3d", WIDGET)
        opened.append(widget)
        return viewer, dock, widget

    yield open_in
    for widget in opened:
        widget.controller.close()
        assert not widget.controller.client.is_alive
    opened.clear()
    # What still ends in the background holds the viewer, which is checked for leaks.
    until = time.monotonic() + 10
    while time.monotonic() < until and any(
        not thread.name.startswith(LASTING)
        for thread in set(threading.enumerate()) - before
    ):
        qtbot.wait(50)
    gc.collect()


class Driver:
    """Use the widget as a person would, and wait for what follows."""

    def __init__(self, qtbot, viewer, dock, widget):
        self.qtbot, self.viewer, self.dock, self.widget = qtbot, viewer, dock, widget
        self.controller = widget.controller

    @property
    def phase(self) -> str:
        return self.controller.state.phase.value

    def wait(self, condition, seconds=60):
        self.qtbot.waitUntil(condition, timeout=int(1000 * seconds))

    def ready(self):
        self.wait(lambda: self.phase == "idle")
        return self

    def press(self, button):
        self.wait(button.isEnabled, seconds=10)
        button.click()

    def tiny(self, **training):
        """Choose a network that trains in no time."""
        self.widget.advanced.form("model").set_values(
            {"base_channels": 2, "depth": 2, "stem": "none"}
        )
        self.widget.advanced.form("training").set_values(
            {"batch_size": 2, "patch_size": (16, 24, 24), **training}
        )
        return self

    def paint(self, truth, *slices):
        """Paint slices across Z with the truth, through napari's own painting."""
        layer = self.widget.data.annotation()
        for z in slices:
            for label in (1, 2):
                index = np.nonzero(truth[z] == label)
                where = (np.full(len(index[0]), z), *index)
                layer.data_setitem(where, label)
        return layer

    def start(self, truth, **training):
        """Annotate three slices and train until there is a first step."""
        self.tiny(**training)
        self.widget.data.new.click()
        self.paint(truth, 8, 12, 16)
        self.press(self.widget.training.train_button)
        assert self.phase == "training"
        return self.trained(1)

    def trained(self, steps):
        self.wait(lambda: self.controller.state.step >= steps)
        return self


@pytest.fixture
def driver(open_widget, qtbot, ball):
    """Open a viewer with the ball and the plugin."""
    viewer, dock, widget = open_widget()
    viewer.add_image(ball[0], name="ball", scale=(2, 1, 1))
    made = Driver(qtbot, viewer, dock, widget).ready()
    yield made
    # pytest keeps the fixture, and with it the viewer that is to be gone.
    made.__dict__.clear()
