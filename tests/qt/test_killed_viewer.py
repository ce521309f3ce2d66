"""A napari that is killed loses next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet3d._qt import annotation_file
from napari_unet3d.engine import load

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform == "win32", reason="needs /proc or ps"),
]

PERSON = """
import sys, time
import napari, numpy as np
from qtpy.QtWidgets import QApplication
from napari_unet3d._qt import autosave

autosave.EVERY_MS = 500
image, painted = sys.argv[1:]
viewer = napari.Viewer()
viewer.open(image)
_, widget = viewer.window.add_plugin_dock_widget("napari-unet3d", "Annotate & Train")
state = lambda: widget.controller.state

def wait(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        QApplication.processEvents()
        time.sleep(0.01)

def paint(z):
    for label, size in ((1, 60), (2, 18)):
        layer.brush_size = size
        layer.paint((z, 20, 20), label)

wait(lambda: state().phase.value == "idle")
widget.advanced.form("model").set_values(
    {"base_channels": 2, "depth": 2, "stem": "none"}
)
widget.advanced.form("training").set_values(
    {"batch_size": 2, "patch_size": (16, 24, 24), "save_every": 1.0}
)
widget.data.new.click()
layer = widget.data.annotation()
for z in (8, 12, 16):
    paint(z)
wait(widget.training.train_button.isEnabled)
widget.training.train_button.click()
wait(lambda: state().step >= 1)
paint(4)
np.save(painted, layer.data)
print(widget.controller.client.pid, flush=True)
napari.run()
"""


def is_running(pid: int) -> bool:
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    )
    return found.stdout.strip()[:1] not in ("", "Z")


def wait(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def kept_of(project: Path) -> tuple[int, int]:
    """Return how many voxels and how many steps are on the disk."""
    annotation, model = project / "annotation.npz", project / "model.pt"
    voxels = (
        len(annotation_file.load(annotation).labelled.index)
        if annotation.exists()
        else 0
    )
    return voxels, load(model).step if model.exists() else 0


@pytest.fixture
def killed(tmp_path, projects, ball):
    """Paint and train in another napari, kill it; return image and what was painted."""
    image, painted = tmp_path / "ball.tif", tmp_path / "painted.npy"
    tifffile.imwrite(image, ball[0])
    with subprocess.Popen(
        [sys.executable, "-c", PERSON, str(image), str(painted)],
        stdout=subprocess.PIPE,
        env=os.environ | {"NAPARI_CONFIG": str(tmp_path / "settings.yaml")},
        text=True,
    ) as napari:
        try:
            worker = int(napari.stdout.readline())
            labels = np.load(painted)
            (project,) = (p for p in projects.iterdir() if p.is_dir())
            # What was painted after Train was pressed is kept by the clock alone.
            wait(lambda: kept_of(project)[0] == np.count_nonzero(labels))
            wait(lambda: kept_of(project)[1] > 0)
            assert napari.poll() is None
            assert is_running(worker)
        finally:
            napari.kill()
    wait(lambda: not is_running(worker), seconds=60)
    return image, labels


def test_a_killed_napari_leaves_no_worker_and_what_it_kept_is_restored(
    killed, open_widget, make_napari_viewer_proxy, qtbot
):
    path, painted = killed
    viewer = make_napari_viewer_proxy()
    viewer.open(str(path), plugin="napari")
    _, _, widget = open_widget(viewer)
    state = lambda: widget.controller.state  # noqa: E731

    assert widget.data.offer.isVisibleTo(widget)
    said = widget.data._offer_text.text()
    assert f"{np.count_nonzero(painted):,} voxels and a model of this image" in said
    qtbot.waitUntil(lambda: state().phase.value == "idle", timeout=60_000)
    widget.data.restore_button.click()
    np.testing.assert_array_equal(widget.data.annotation().data, painted)
    assert set(np.unique(painted[4])) == {1, 2}
    qtbot.waitUntil(lambda: state().has_model, timeout=60_000)
    step = state().step
    assert step > 0

    # It goes on from there.
    assert widget.training.train_button.text() == "Continue"
    widget.training.train_button.click()
    qtbot.waitUntil(lambda: state().step > step, timeout=60_000)
