"""Training steps a second with several processes.

    python benchmarks/training_ranks.py [--counts 1 2] [--base 8] [--patch 16x48x48]

Processes of this machine train a generated volume with one annotated slice per axis,
with the same batch for any number of them ("same batch") and with a batch that grows
with their number ("same share"). Together they have as many threads as one alone, or
each has a GPU (`--device cuda`). Every number of processes is measured in fresh ones,
`--repeats` times in turn; the table shows medians of the rate after the first steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from reporting import add_options, machine, prepare, print_table, write_json
from torch import distributed, multiprocessing

from napari_unet3d._sample_data import sparse_annotation, tubules
from napari_unet3d.distributed.ranks import ProcessRanks
from napari_unet3d.engine import (
    Annotation,
    ModelConfig,
    Trainer,
    TrainingConfig,
    TrainingVolume,
)
from napari_unet3d.engine.ranks import ALONE

UNCOUNTED = 5
"""Steps before the clock starts: what is read and chosen once is done then."""

COLUMNS = {
    "batch": ("batch", ""),
    "processes": ("count", "d"),
    "patches a step": ("patches", "d"),
    "steps against one": ("ratio", ".2f"),
    "patches against one": ("patch ratio", ".2f"),
    "steps/s": ("rate", ".2f"),
}


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--base", type=int, default=8)
    parser.add_argument("--patch", default="16x48x48", metavar="ZxYxX")
    parser.add_argument("--patches", type=int, default=4, help="of one process")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.repeats = 10, 1
    prepare(options.threads)
    options.threads = torch.get_num_threads()
    facts = machine(options.device)
    print(facts)
    cases = [(kind, n) for kind in ("same batch", "same share") for n in options.counts]
    measured = {case: [] for case in cases}
    for _ in range(options.repeats):
        for kind, count in cases:
            patches = options.patches * (count if kind == "same share" else 1)
            measured[kind, count].append(run(count, patches, options))
    rows = []
    for (kind, count), found in measured.items():
        rate = statistics.median(found)
        row = {
            "batch": kind,
            "count": count,
            "patches": options.patches * (count if kind == "same share" else 1),
            "rate": rate,
        }
        first = next((other for other in rows if other["batch"] == kind), row)
        row["ratio"] = rate / first["rate"]
        row["patch ratio"] = row["ratio"] * row["patches"] / first["patches"]
        rows.append(row)
    print_table(rows, COLUMNS)
    write_json(options.json, facts, rows=rows)


def run(count, patches, options):
    """Return the steps a second of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        settings = (count, patches, options, folder)
        multiprocessing.start_processes(train, settings, count, start_method="spawn")
        return float(Path(folder, "rate").read_text())


def train(rank, count, patches, options, folder):
    """Train in one of the processes; the first writes down what it took."""
    torch.set_num_threads(max(1, options.threads // count))
    ranks = ALONE
    if count > 1:
        backend = "gloo"
        if options.device == "cuda":
            torch.cuda.set_device(rank)
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(
            backend, init_method=f"file://{folder}/store", rank=rank, world_size=count
        )
        ranks = ProcessRanks()
    image, truth = tubules((64, 112, 112))
    labels = Annotation.from_labels(sparse_annotation(truth))
    trainer = Trainer(
        [TrainingVolume(image, labels)],
        ModelConfig(base_channels=options.base),
        TrainingConfig(
            steps=10**6,
            batch_size=patches,
            patch_size=tuple(int(n) for n in options.patch.split("x")),
            device=options.device,
            validate_every=10**6,
        ),
        ranks=ranks,
    )
    list(trainer.run(stop_after=UNCOUNTED))
    began = time.perf_counter()
    list(trainer.run(stop_after=options.steps))
    if options.device == "cuda":
        torch.cuda.synchronize()
    rate = options.steps / (time.perf_counter() - began)
    if rank == 0:
        Path(folder, "rate").write_text(str(rate))
    if count > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
