"""IoU against the time a person waits: this project beside a random forest.

    python benchmarks/accuracy.py [SET ...] [--minutes 1 3] [--slices 1] [--seeds 0 1 2]

Each set is annotated with whole slices across every axis, both methods learn from
them, and what was not annotated is scored. Seconds are wall-clock time from raw volume
to segmentation; the table's "train" is what a person waits before the first result.
With `--folder` any folder of NAME_image.tif / NAME_labels.tif pairs is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import datasets
import torch
from random_forest import forest_segmentation

from napari_unet3d import __version__
from napari_unet3d.engine import (
    Annotation,
    ModelConfig,
    SegmentationConfig,
    Trainer,
    TrainingConfig,
    TrainingVolume,
    segment,
)
from napari_unet3d.engine.device import has_matrix_units, keep_freed_memory

DEFAULT_SETS = ("embryo_8cell", "nuclei_1135", "medulla")


def network_segmentation(case, labels, minutes, seed, model, precision="auto"):
    """Train and segment as the command line does; return also steps and seconds."""
    began = time.perf_counter()
    volume = TrainingVolume(case.image, Annotation.from_labels(labels), case.spacing)
    training = TrainingConfig(minutes=minutes, seed=seed, precision=precision)
    trainer = Trainer([volume], model, training)
    for _ in trainer.run():
        pass
    trained = time.perf_counter() - began
    found = segment(trainer.checkpoint(), case.image, SegmentationConfig())
    total = time.perf_counter() - began
    return found.labels, {
        "steps": trainer.step,
        "train_seconds": trained,
        "seconds": total,
        "base_channels": trainer.model.base_channels,
        "precision": str(trainer.dtype),
    }


def measure(case, slices, minutes, seeds, model, precision):
    """Measure one set with all methods, as rows of the table."""
    labels = datasets.annotate(case.truth, slices)
    share = float((labels > 0).mean())
    rows = []
    for seed in seeds:
        found, seconds = forest_segmentation(case.image, labels, seed=seed)
        row = {"method": "random forest", "minutes": None, "seconds": seconds}
        rows.append(row | datasets.score(found, case.truth, labels) | {"seed": seed})
        for budget in minutes:
            found, facts = network_segmentation(
                case, labels, budget, seed, model, precision
            )
            row = {"method": "3D U-Net", "minutes": budget, "seed": seed, **facts}
            rows.append(row | datasets.score(found, case.truth, labels))
            print_row(case.name, rows[-1])
        print_row(case.name, rows[-len(minutes) - 1])
    for row in rows:
        row |= {"set": case.name, "slices_per_axis": slices, "labelled": share}
    return rows


def print_row(name, row):
    """Print one measurement."""
    budget = f"{row['minutes']:g} min" if row["minutes"] else ""
    print(
        f"{name:<16} {row['method']:<14} {budget:>8}  IoU "
        f"{row['mean_foreground_iou']:.3f}  {row['seconds']:6.1f} s  "
        f"{row.get('steps', '')}",
        flush=True,
    )


def print_table(rows):
    """Print medians over seeds as Markdown."""
    print("\n| set | method | foreground IoU | seconds | against the forest |")
    print("|---|---|---|---|---|")
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        forest = _median(mine, "random forest", None, "mean_foreground_iou")
        for method, budget in dict.fromkeys(
            (row["method"], row["minutes"]) for row in mine
        ):
            iou = _median(mine, method, budget, "mean_foreground_iou")
            seconds = _median(mine, method, budget, "seconds")
            title = method + (f", {budget:g} min" if budget else "")
            gain = f"{iou - forest:+.3f}"
            print(f"| {name} | {title} | {iou:.3f} | {seconds:.0f} | {gain} |")


def machine():
    """Say what was measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "matrix units": has_matrix_units(),
        "torch": torch.__version__,
        "napari-unet3d": __version__,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--folder", type=Path, help="folder of image and label pairs")
    parser.add_argument("--slices", type=int, default=1, help="slices per axis")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base-channels", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    keep_freed_memory()
    cases = [datasets.load(name) for name in options.sets]
    if options.folder:
        cases += datasets.folder_cases(options.folder)
    if not cases:
        cases = [datasets.load(name) for name in DEFAULT_SETS]
    model = ModelConfig(base_channels=options.base_channels)
    facts = machine()
    print(facts)
    rows = []
    for case in cases:
        rows += measure(
            case,
            options.slices,
            options.minutes,
            options.seeds,
            model,
            options.precision,
        )
    print_table(rows)
    if options.json:
        content = {"machine": facts, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1).replace("NaN", "null"))


def _median(rows, method, minutes, name):
    values = [
        row[name]
        for row in rows
        if row["method"] == method and row["minutes"] == minutes
    ]
    return statistics.median(values)


if __name__ == "__main__":
    main()
