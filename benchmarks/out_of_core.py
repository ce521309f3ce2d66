"""Segmentation of volumes larger than memory: highest memory, and voxels a second.

    python benchmarks/out_of_core.py [--sizes 256 512 1024] [--memory 2]

Makes cubes of uint8 as OME-Zarr and segments each with the command line into an
OME-Zarr, in a process of its own. "peak RSS" is the highest resident memory of that
process, libraries included; "seconds" are those of the whole command. Both are
compared to the smallest cube. "in memory" is the same network applied to an array, into
an array, in a process of its own too: what files, blocks and their overlap cost is the
difference to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from inference import make_model
from reporting import add_options, machine, prepare, print_table, write_json

from napari_unet3d._sample_data import tubules
from napari_unet3d.io import create_volume

COLUMNS = {
    "voxels": ("size", "d"),
    "method": ("method", ""),
    "seconds": ("seconds", ".1f"),
    "Mvoxel/s": ("rate", ".3f"),
    "rate to in memory": ("relative rate", ".2f"),
    "peak RSS, GiB": ("peak", ".2f"),
    "RSS to smallest": ("relative peak", ".2f"),
}

COMMAND = """
import json, resource, sys, time
from napari_unet3d.cli import main
began = time.perf_counter()
status = main(sys.argv[1:])
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak / 2**30}))
raise SystemExit(status)
"""

IN_MEMORY = """
import json, resource, sys, time
from napari_unet3d.engine import SegmentationConfig, load, segment
from napari_unet3d.engine.device import keep_freed_memory
from napari_unet3d.io import open_image
keep_freed_memory()
image = open_image(sys.argv[2]).data[...]
memory = float(sys.argv[3]) or None
began = time.perf_counter()
segment(load(sys.argv[1]), image, SegmentationConfig(device="cpu", memory=memory))
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak / 2**30}))
"""


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--in-memory-size", type=int, default=256)
    parser.add_argument("--stem", default="filters", choices=["filters", "none"])
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--memory", type=float, default=0, help="GiB; 0: as by default")
    parser.add_argument("--steps", type=int, default=20, help="to train the network")
    parser.add_argument("--folder", help="where there is room for the volumes")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.in_memory_size = [128, 192], 128
    prepare(options.threads)
    facts = machine()
    print(facts)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_model(folder / "model.pt", options.stem, options)
        for size in sorted({options.in_memory_size, *options.sizes}):
            make_image(folder / "image.zarr", size)
            if size == options.in_memory_size:
                rows.append(measure(folder, size, "in memory", options))
            if size in options.sizes:
                rows.append(measure(folder, size, "block by block", options))
    compare(rows)
    print_table(rows, COLUMNS)
    write_json(options.json, facts, rows=rows)


def make_image(path, size):
    """Write a cube slab by slab: a generated volume and its mirror images in turn."""
    edge = min(size, 128)
    image, _ = tubules((edge,) * 3, seed=1)
    image = image.astype(np.uint8)
    pad = [(0, 0)] + [(0, size - edge)] * 2
    with create_volume(path, (size,) * 3, "uint8", labels=False) as array:
        for z in range(0, size, edge):
            part = image if z // edge % 2 == 0 else image[::-1]
            array[z : z + edge] = np.pad(part[: size - z], pad, mode="symmetric")


def measure(folder, size, method, options):
    """Segment the cube in a process of its own; what fails is a row without figures."""
    model, image = str(folder / "model.pt"), str(folder / "image.zarr")
    if method == "in memory":
        command = [IN_MEMORY, model, image, str(options.memory)]
    else:
        memory = ["--memory", str(options.memory)] if options.memory else []
        output = ["--output", str(folder / "segmentation.ome.zarr")]
        command = [COMMAND, "segment", "--model", model, "--image", image, *output]
        command += [*memory, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", *command],
        env=environment,
        capture_output=True,
        text=True,
    )
    row = {"size": size, "method": method, "wall": time.perf_counter() - began}
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed: out of memory?"])[-1]
        row["failed"] = f"{done.returncode}: {reason}"
    else:
        row |= json.loads(done.stdout.splitlines()[-1])
        row["rate"] = size**3 / row["seconds"] / 1e6
    print(row, flush=True)
    return row


def compare(rows):
    """Relate rates to the one in memory, and memory to that of the smallest cube."""
    blocks = [row for row in rows if row["method"] == "block by block"]
    known = next((row for row in rows if row["method"] == "in memory"), {})
    for row in blocks:
        if "rate" in row and "rate" in known:
            row["relative rate"] = row["rate"] / known["rate"]
        if "peak" in row and "peak" in blocks[0]:
            row["relative peak"] = row["peak"] / blocks[0]["peak"]


if __name__ == "__main__":
    main()
