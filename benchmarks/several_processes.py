"""Segmentation by several processes: throughput against one, and what a task costs.

    python benchmarks/several_processes.py [--size 256] [--blocks-memory 0.25]

Segments a cube of uint8, an OME-Zarr, with the command line: in one process, with
``--dask-local`` and with two "devices" of one process, all with one thread of torch for
a block, so that the bytes of all results must be the same ("same"). "start" are the
seconds of the same command for a cube of one chunk: loading libraries, model and
workers. "rate" leaves them out; "speed-up" compares it to one process.

The second table says what dask costs for each task: tasks that do nothing but carry
what a block carries, and tell one event as a layer of chunks does.
"""

from __future__ import annotations

import argparse
import filecmp
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inference import make_model
from out_of_core import make_image
from reporting import add_options, machine, prepare, print_table, write_json

COLUMNS = {
    "method": ("method", ""),
    "seconds": ("seconds", ".1f"),
    "start": ("start", ".1f"),
    "Mvoxel/s": ("rate", ".3f"),
    "speed-up": ("speed-up", ".2f"),
    "same": ("same", ""),
}
TASK_COLUMNS = {
    "tasks": ("tasks", "d"),
    "workers": ("workers", "d"),
    "ms a task": ("milliseconds", ".2f"),
    "bytes a task": ("bytes", "d"),
}
METHODS = {
    "one process": ["--device", "cpu"],
    "--device cpu,cpu": ["--device", "cpu,cpu"],
    "--dask-local 1": ["--device", "cpu", "--dask-local", "1"],
    "--dask-local 2": ["--device", "cpu", "--dask-local", "2"],
}


def main(arguments=None):
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--blocks-memory", type=float, default=0.25, help="GiB")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--stem", default="filters", choices=["filters", "none"])
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="to train the network")
    parser.add_argument("--folder", help="where there is room for the volumes")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.blocks_memory, options.tasks = 128, 0.02, 200
    prepare(options.threads)
    facts = machine()
    print(facts)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_model(folder / "model.pt", options.stem, options)
        make_image(folder / "small.zarr", 64)
        make_image(folder / "image.zarr", options.size)
        for method, flags in METHODS.items():
            rows.append(measure(folder, method, flags, options))
            rows[-1]["speed-up"] = rows[-1]["rate"] / rows[0]["rate"]
            print(rows[-1], flush=True)
    print_table(rows, COLUMNS)
    tasks = [measure_tasks(options.tasks, workers) for workers in (1, 2)]
    print_table(tasks, TASK_COLUMNS)
    write_json(options.json, facts, rows=rows, tasks=tasks)


def measure(folder, method, flags, options):
    """Segment the cube, and a small one, and compare to the first result."""
    start = seconds_of(folder, "small.zarr", flags, options)
    seconds = seconds_of(folder, "image.zarr", flags, options)
    found, first = folder / "segmentation.zarr", folder / "first.zarr"
    if not first.exists():
        shutil.move(found, first)
        found = first
    rate = options.size**3 / max(1e-9, seconds - start) / 1e6
    return {
        "method": method,
        "seconds": seconds,
        "start": start,
        "rate": rate,
        "same": "yes" if same(first, found) else "NO",
    }


def seconds_of(folder, image, flags, options):
    """Run the command in a process of its own."""
    output = folder / "segmentation.zarr"
    shutil.rmtree(output, ignore_errors=True)
    files = ["--model", folder / "model.pt", "--image", folder / image]
    memory = ["--output", output, "--memory", str(options.blocks_memory)]
    program = [sys.executable, "-m", "napari_unet3d.cli", "segment"]
    began = time.perf_counter()
    subprocess.run(
        [*program, *files, *memory, *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def same(one, other):
    """Tell whether two folders hold the same files with the same bytes."""
    names = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        for folder in (one, other)
    ]
    files = [name for name in names[0] if (one / name).is_file()]
    return names[0] == names[1] and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in files
    )


def measure_tasks(count, workers):
    """Measure tasks that carry what a block carries and compute nothing."""
    import pickle

    from distributed import Client, LocalCluster, wait

    from napari_unet3d.distributed.block_task import Job
    from napari_unet3d.engine.config import SegmentationConfig
    from napari_unet3d.engine.normalize import IntensityStatistics

    folder = "/a/folder/with/a/name/of/some/length"
    job = Job(
        name="0" * 32,
        model=f"{folder}/model.pt",
        digest="0" * 64,
        image=f"{folder}/image.zarr",
        shape=(1, 4096, 4096, 4096),
        axes=None,
        channels=None,
        statistics=IntensityStatistics((1.0,), (1.0,)),
        outputs=((f"{folder}/segmentation.zarr", (4096, 4096, 4096)),),
        begun=(time.time_ns(),),
        config=SegmentationConfig(),
        devices=("cpu",),
        threads=1,
    )
    block = ((0, 512), (0, 512), (0, 512))
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        wait(client.map(do_nothing, range(10), [block] * 10, job=job, pure=False))
        began = time.perf_counter()
        wait(client.map(do_nothing, range(count), [block] * count, job=job, pure=False))
        seconds = time.perf_counter() - began
    return {
        "tasks": count,
        "workers": workers,
        "milliseconds": 1000 * seconds / count,
        "bytes": len(pickle.dumps((0, block, job))),
    }


def do_nothing(number, block, job):
    """Tell that a block is done."""
    from distributed import get_worker

    get_worker().log_event(job.name, {"block": number, "share": 1.0})


if __name__ == "__main__":
    main()
