"""Segmentation of volumes larger than memory: highest memory, and voxels a second.

    python benchmarks/out_of_core.py [--sizes 256 1024] [--memory 0.8]
    python benchmarks/out_of_core.py --kill 20 [--kill-size 192]

Makes cubes of uint8 as OME-Zarr, slab by slab, and segments each with the command line
into an OME-Zarr, in a process of its own. "peak RSS" is the highest resident memory of
that process, libraries included; "growth" is that above the interpreter with torch
loaded, which `--memory` limits; "seconds" are those of the whole command. Memory is
compared to the smallest cube: give a `--memory` that the smallest one needs as well,
and it should be the same for all. "in memory" is the same network applied to an array,
into an array, in a process of its own too, with as much memory: what files, blocks and
their overlap cost is the difference to it.

With `--kill` a smaller cube is segmented once without interruption and once killed that
many times at random moments (SIGKILL) and resumed; then all files are compared.
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
from napari_unet3d.io.record import BlockRecord

COLUMNS = {
    "voxels": ("size", "d"),
    "method": ("method", ""),
    "seconds": ("seconds", ".1f"),
    "Mvoxel/s": ("rate", ".3f"),
    "rate to in memory": ("relative rate", ".2f"),
    "peak RSS, GiB": ("peak", ".2f"),
    "RSS to smallest": ("relative peak", ".2f"),
    "growth, GiB": ("growth", ".2f"),
}

LOADING = 4
"""Seconds until a command has loaded its libraries and opened what it reads, about."""

# The kernel's own mark of the highest memory, which begins anew with the program; that
# of getrusage begins with what the program that started it had.
PEAK = """
import json, os, sys, time
import torch
def peak():
    with open("/proc/self/status") as file:
        found = [line.split()[1] for line in file if line.startswith("VmHWM")]
    return int(found[0]) / 2**20
def report(began, before):
    seconds = time.perf_counter() - began
    print(json.dumps({
        "seconds": seconds, "peak": peak(), "growth": peak() - before,
        "busy": (sum(os.times()[:2]) - started) / seconds
    }))
bare = peak()
started = sum(os.times()[:2])
"""

COMMAND = (
    PEAK
    + """
from napari_unet3d.cli import main
began = time.perf_counter()
status = main(sys.argv[1:])
report(began, bare)
raise SystemExit(status)
"""
)

IN_MEMORY = (
    PEAK
    + """
from napari_unet3d.engine import SegmentationConfig, load, segment
from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.io import open_image
keep_freed_memory()
image = open_image(sys.argv[2]).data[...]
began = time.perf_counter()
segment(load(sys.argv[1]), image, SegmentationConfig(device="cpu"))
report(began, bare)
"""
)


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--in-memory-size", type=int, default=256)
    parser.add_argument("--stem", default="filters", choices=["filters", "none"])
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--memory", type=float, default=0, help="GiB; 0: as by default")
    parser.add_argument("--kill", type=int, default=0, metavar="TIMES")
    parser.add_argument("--kill-size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of --kill")
    parser.add_argument("--steps", type=int, default=20, help="to train the network")
    parser.add_argument("--folder", help="where there is room for the volumes")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.in_memory_size = [128, 192], 128
        options.kill, options.kill_size = min(options.kill, 3), 128
    prepare(options.threads)
    facts = machine()
    print(facts)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_model(folder / "model.pt", options.stem, options)
        if options.kill:
            rows.append(kill(folder, options))
            write_json(options.json, facts, rows=rows)
            return
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
        command = [IN_MEMORY, model, image]
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


def kill(folder, options):
    """Segment without and with interruptions, and compare all files."""
    make_image(folder / "image.zarr", options.kill_size)
    memory = ["--memory", str(options.memory or 0.5)]
    arguments = ["segment", "--model", "model.pt", "--image", "image.zarr", *memory]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}

    def start(output):
        command = [sys.executable, "-m", "napari_unet3d.cli", *arguments]
        return subprocess.Popen(
            [*command, "--device", "cpu", "--output", output],
            cwd=folder,
            env=environment,
            stderr=subprocess.DEVNULL,
        )

    began = time.perf_counter()
    if start("whole.ome.zarr").wait():
        raise SystemExit("the uninterrupted run failed")
    seconds = time.perf_counter() - began
    rng, kills = np.random.default_rng(options.seed), 0
    while True:
        process = start("killed.ome.zarr")
        # While libraries are loaded, before the first block is done, after one or two:
        # at random, but so that all kills come before the end.
        record = BlockRecord.read(folder / "killed.ome.zarr")
        done, blocks = (len(record.finished), record.blocks) if record else (0, 0)
        is_near_end = record is not None and blocks - done <= 2
        span = 0 if is_near_end else 2.5 * seconds / (blocks or 16)
        moment = rng.uniform(0, LOADING + span) if kills < options.kill else None
        try:
            status = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            print(f"killed {kills} times, {done} of {blocks} blocks kept", flush=True)
            continue
        if status:
            raise SystemExit(f"the run after {kills} kills ended with {status}")
        break
    whole, killed = (
        files_of(folder / "whole.ome.zarr"),
        files_of(folder / "killed.ome.zarr"),
    )
    row = {
        "size": options.kill_size,
        "method": "killed",
        "kills": kills,
        "files": len(whole),
        "same bytes": whole == killed,
    }
    print(row, flush=True)
    if whole != killed:
        raise SystemExit("the bytes differ")
    return row


def files_of(folder):
    """Return the bytes of all files in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


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
