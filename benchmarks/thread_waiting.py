"""Seconds of a training step, by how torch's threads wait for one another.

    python benchmarks/thread_waiting.py

OpenMP settles it when torch is loaded, so each way is measured in a process of its
own: with nothing beside it, and beside a program that keeps one core busy.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time

import datasets
from reporting import add_options, machine, prepare, print_table, write_json

from napari_unet3d._thread_waiting import ENVIRONMENT
from napari_unet3d.engine import Annotation, Trainer, TrainingConfig, TrainingVolume
from napari_unet3d.engine.events import StepDone

COLUMNS = {
    "waiting": ("waiting", ""),
    "quiet": ("quiet", ".3f"),
    "beside a busy program": ("busy", ".3f"),
}
WAYS = {
    "as torch has it": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "as the program has it": ENVIRONMENT,
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
}
SETTLED = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
UNTIMED = 10


def median_step(steps: int) -> float:
    """Return the median seconds of a step in this process."""
    case = datasets.load("nuclei_1135")
    annotation = Annotation.from_labels(datasets.annotate(case.truth))
    volume = TrainingVolume(case.image, annotation, case.spacing)
    training = TrainingConfig(steps=UNTIMED + steps + 1)
    times = [
        time.perf_counter()
        for event in Trainer([volume], training=training).run()
        if isinstance(event, StepDone)
    ][UNTIMED:]
    return statistics.median(b - a for a, b in itertools.pairwise(times))


def in_process(way: dict[str, str], options: argparse.Namespace) -> float:
    """Return the median seconds of a step in a process that waits in one way."""
    others = {name: v for name, v in os.environ.items() if name not in SETTLED}
    command = [sys.executable, __file__, "--one", "--threads", str(options.threads)]
    process = subprocess.run(
        [*command, *(["--quick"] if options.quick else [])],
        env=others | way,
        check=True,
        capture_output=True,
        text=True,
    )
    return float(process.stdout)


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    add_options(parser)
    options = parser.parse_args(arguments)
    prepare(options.threads)
    if options.one:
        print(median_step(10 if options.quick else 35))
        return
    facts = machine()
    print(facts)
    rows = [
        {"waiting": name, "quiet": in_process(way, options)}
        for name, way in WAYS.items()
    ]
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for row, way in zip(rows, WAYS.values(), strict=True):
            row["busy"] = in_process(way, options)
    finally:
        busy.kill()
    print_table(rows, COLUMNS)
    write_json(options.json, facts, rows=rows)


if __name__ == "__main__":
    main()
