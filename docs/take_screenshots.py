"""Take the screenshots of the documentation: run it with a display, or xvfb-run.

    python docs/take_screenshots.py [--seconds 40]

Trains for real on the sample, so the pictures show what a person gets.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
SIZE = (1366, 768)


def main() -> None:
    """Take all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="to train")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET3D_PROJECTS"] = folder
        take(options.seconds)


def take(seconds: float) -> None:
    """Open the sample, train, segment, and look at every stage."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_unet3d._qt.start import open_sample

    def wait(condition, limit=180.0):
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > limit:
                raise TimeoutError("the plugin did not come so far")
            QApplication.processEvents()
            time.sleep(0.005)

    def pause(duration):
        until = time.monotonic() + duration
        wait(lambda: time.monotonic() > until)

    def shoot(name):
        pause(0.5)
        viewer.screenshot(str(IMAGES / f"{name}.png"), canvas_only=False, flash=False)

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    widget = open_sample(viewer)
    state = lambda: widget.controller.state  # noqa: E731
    wait(lambda: state().phase.value == "idle")
    pause(1)
    shoot("opened")
    widget.training.train_button.click()
    viewer.dims.set_current_step(0, 24)
    wait(lambda: state().step >= 5)
    pause(seconds / 6)
    shoot("training")
    pause(seconds)
    shoot("trained")
    widget.training.stop_button.click()
    wait(lambda: state().phase.value == "idle")
    widget.segmenting.segment_button.click()
    wait(lambda: state().progress > 0)
    wait(lambda: state().phase.value == "idle")
    shoot("segmented")
    viewer.close()
    pause(0.5)


if __name__ == "__main__":
    main()
