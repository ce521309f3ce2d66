"""Memory of napari and of the worker while a large OME-Zarr is used in the widget.

    scripts/with_display python benchmarks/lazy_layer.py [--quick] [--memory 4]

Makes an OME-Zarr of uint8 piece by piece (4 GiB; 256 MiB with --quick), opens it in
napari with the plugin's reader, annotates three slices, trains, looks at previews of
other slices, segments, stops, and segments on to the end. Nothing is to be held in
napari's process: --memory is what the plugin may count on, in GiB, as if the machine
had no more (see `napari_unet3d.worker.room`). Each row is the resident memory at the
end of a phase, and the highest during it; "growth" is that above the one before the
image was opened, when a small one had been opened, painted on and closed. Pages of a
file or of shared memory count as those of a process that has touched them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from gui_latency import Session, machine

PIECE = 128
MIB = 2**20


class Memory:
    """Sample the resident memory of this process and of the worker's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._here = psutil.Process()
        self._peaks = [0, 0]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self.rows: list[dict[str, object]] = []
        self._before = self.now()[0]
        self._began = time.perf_counter()

    def now(self) -> tuple[int, int]:
        """Return the bytes of both."""
        pid = self._session.widget.controller.client.pid
        try:
            worker = psutil.Process(pid).memory_info().rss if pid else 0
        except psutil.NoSuchProcess:
            worker = 0
        return self._here.memory_info().rss, worker

    def end_phase(self, name: str, **more: object) -> None:
        """Print and keep the row of a phase."""
        here, worker = self.now()
        row = {
            "phase": name,
            "seconds": time.perf_counter() - self._began,
            "napari": here / MIB,
            "napari_peak": max(self._peaks[0], here) / MIB,
            "growth": (max(self._peaks[0], here) - self._before) / MIB,
            "worker": worker / MIB,
            "worker_peak": max(self._peaks[1], worker) / MIB,
            **more,
        }
        self._peaks = [0, 0]
        self._began = time.perf_counter()
        self.rows.append(row)
        print(row, flush=True)

    def close(self) -> None:
        """Sample no more."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            self._peaks = [
                max(a, b) for a, b in zip(self._peaks, self.now(), strict=True)
            ]


def main(arguments=None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="256 MiB instead of 4 GiB")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("Z", "Y", "X"))
    parser.add_argument("--memory", type=float, help="GiB that may be counted on")
    parser.add_argument("--train-seconds", type=float)
    parser.add_argument("--segment-seconds", type=float, help="then stop, unfinished")
    parser.add_argument("--segment-memory", type=float, default=1.0, help="GiB")
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--stem", default="filters", choices=["filters", "none"])
    parser.add_argument("--folder", help="where there is room for image and result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--make", metavar="ZARR", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    quick = options.quick
    shape = options.shape or ((256, 1024, 1024) if quick else (1024, 2048, 2048))
    if options.make:
        make_image(options.make, shape)
        return
    options.memory = options.memory or (0.25 if quick else 4.0)
    options.train_seconds = options.train_seconds or (20.0 if quick else 120.0)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["NAPARI_UNET3D_PROJECTS"] = str(Path(folder) / "projects")
        os.environ["NAPARI_UNET3D_MEMORY"] = str(options.memory)
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "settings.yaml")
        image = Path(folder) / "image.ome.zarr"
        sizes = [*map(str, shape)]
        make = [sys.executable, __file__, "--make"]
        subprocess.run([*make, str(image), "--shape", *sizes], check=True)
        small = str(Path(folder) / "small.ome.zarr")
        subprocess.run([*make, small, "--shape", "64", "64", "64"], check=True)
        facts = machine()
        print(facts)
        rows = measure(image, shape, options)
    print_table(rows, shape)
    if options.json:
        content = {"machine": facts, "shape": shape, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1))


def measure(image: Path, shape: tuple[int, int, int], options) -> list[dict]:
    """Go through all that a person does with a volume."""
    session = Viewer()
    session.warm_up_with(image.parent / "small.ome.zarr")
    viewer, widget = session.viewer, session.widget
    controller = widget.controller
    memory = Memory(session)
    memory.end_phase("before")
    viewer.open(image, plugin="napari-unet3d")
    session.run_for(3)
    memory.end_phase("opened")
    for z in range(0, shape[0], shape[0] // 16):
        viewer.dims.set_current_step(0, z)
        session.run_for(0.2)
    memory.end_phase("16 slices looked at")
    widget.advanced.form("model").set_values(
        {"base_channels": options.base_channels, "stem": options.stem}
    )
    widget.advanced.form("segmentation").set_values({"memory": options.segment_memory})
    widget.data.new.click()
    for part in (0.3, 0.5, 0.7):
        paint(widget.data.annotation(), image_of(viewer), int(part * shape[0]))
    session.run_for(1)
    memory.end_phase("three slices annotated", data=type_of(widget.data.annotation()))
    widget.training.train_button.click()
    session.until(lambda: controller.state.step > 0, 600)
    began = time.perf_counter()
    while time.perf_counter() - began < options.train_seconds:
        z = int(shape[0] * (0.1 + 0.8 * (time.perf_counter() % 7) / 7))
        viewer.dims.set_current_step(0, z)
        session.run_for(2)
    memory.end_phase("training, slices previewed", steps=controller.state.step)
    session.stop()
    memory.end_phase("training stopped")
    widget.segmenting.segment_button.click()
    limit = options.segment_seconds or 36_000
    session.until(lambda: controller.state.progress > 0.02, 3600)
    widget.segmenting.cancel_button.click()
    session.until(lambda: session.phase == "idle", 600)
    memory.end_phase("segmenting, stopped", line=widget.segmenting.line.toolTip())
    widget.segmenting.segment_button.click()
    began = time.perf_counter()
    session.until(lambda: session.phase == "segmenting", 60)
    share = 0.0
    while session.phase == "segmenting" and time.perf_counter() - began < limit:
        share = max(share, controller.state.progress)
        viewer.dims.set_current_step(0, int(share * shape[0]))
        session.run_for(2)
    finished = session.phase == "idle"
    memory.end_phase(
        "segmenting to the end" if finished else f"segmenting to {share:.0%}",
        line=widget.segmenting.line.toolTip(),
        data=type_of(viewer.layers["image segmentation"]),
    )
    memory.close()
    session.close()
    return memory.rows


class Viewer(Session):
    """A viewer with the widget, and no image yet."""

    def __init__(self) -> None:
        self.seconds, self.rows, self.waits = 0.0, [], {}
        import napari

        self.viewer = napari.Viewer(title="napari-unet3d")
        self.run_for(2)
        _, self.widget = self.viewer.window.add_plugin_dock_widget(
            "napari-unet3d", "Annotate & Train"
        )
        self.until(lambda: self.phase == "idle", 300)
        self.run_for(4)  # the worker warms up

    def close(self) -> None:
        """Close the viewer; a segmentation that goes on is ended with the worker."""
        self.viewer.close()
        self.run_for(0.5)

    def warm_up_with(self, image: Path) -> None:
        """Open and paint on something small: libraries and shaders take memory once."""
        self.viewer.open(image, plugin="napari-unet3d")
        self.widget.data.new.click()
        layer = self.widget.data.annotation()
        for k in range(10):
            layer.paint((k, 20, 20), 1)
            self.viewer.dims.set_current_step(0, k)
            self.run_for(0.2)
        self.viewer.layers.clear()
        self.run_for(1)


def image_of(viewer):
    """Return the finest level of the image."""
    layer = viewer.layers[0]
    return layer.data[0] if layer.multiscale else layer.data


def paint(layer, image, z: int) -> None:
    """Label a square in the middle of a slice: bright voxels 2, dark ones 1."""
    import numpy as np

    _, height, width = image.shape
    y, x = height // 2 - 128, width // 2 - 128
    square = np.asarray(image[z, y : y + 256, x : x + 256])
    labels = np.where(square > square.mean(), 2, 1).astype(np.uint8)
    rows, columns = np.indices(labels.shape).reshape(2, -1)
    where = np.full(rows.size, z), rows + y, columns + x
    layer.data_setitem(where, labels.reshape(-1))


def type_of(layer) -> str:
    """Say what the data of a layer are."""
    return type(layer.data).__name__


def make_image(path: str, shape: tuple[int, int, int]) -> None:
    """Write generated tubules and their mirror images, cube by cube."""
    import numpy as np

    from napari_unet3d._sample_data import tubules
    from napari_unet3d.io import create_volume

    cube = tubules((PIECE,) * 3, seed=1)[0].astype(np.uint8)
    with create_volume(path, shape, "uint8", labels=False) as array:
        for z in range(0, shape[0], PIECE):
            for y in range(0, shape[1], PIECE):
                for x in range(0, shape[2], PIECE):
                    part = cube
                    for axis, low in enumerate((z, y, x)):
                        part = np.flip(part, axis) if low // PIECE % 2 else part
                    depth, height, width = (
                        min(PIECE, n - a) for n, a in zip(shape, (z, y, x), strict=True)
                    )
                    array[z : z + depth, y : y + height, x : x + width] = part[
                        :depth, :height, :width
                    ]


def print_table(rows: list[dict], shape: tuple[int, int, int]) -> None:
    """Print the phases as Markdown."""
    size = shape[0] * shape[1] * shape[2] / MIB
    print(f"\nImage of {size:.0f} MiB\n")
    print(
        "| phase | seconds | napari, MiB | highest | growth | worker, MiB | highest |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        figures = ("napari", "napari_peak", "growth", "worker", "worker_peak")
        print(
            f"| {row['phase']} | {row['seconds']:.0f} | "
            + " | ".join(f"{row[name]:.0f}" for name in figures)
            + " |"
        )


if __name__ == "__main__":
    main()
