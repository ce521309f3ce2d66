"""The paper's second use: train on sparsely annotated volumes, segment others.

    python benchmarks/fully_automated.py [--minutes 3] [--seed 0]

Four hippocampus volumes with three annotated slices each (one per axis) train one
model, which then segments four volumes that it has never seen.
"""

from __future__ import annotations

import argparse
import statistics
import time

import datasets
import numpy as np
import torch
from accuracy import machine

from napari_unet3d.engine import (
    Annotation,
    Trainer,
    TrainingConfig,
    TrainingVolume,
    segment,
)
from napari_unet3d.engine.allocation import keep_freed_memory

TRAIN = ("001", "003", "004", "006")
TEST = ("007", "008", "011", "014")


def main(arguments=None):
    """Train, segment and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(machine())
    volumes = []
    for patient in TRAIN:
        case = datasets.load(f"hippocampus_{patient}")
        labels = datasets.annotate(case.truth)
        annotation = Annotation.from_labels(labels)
        volumes.append(TrainingVolume(case.image, annotation, case.spacing, case.name))
    training = TrainingConfig(minutes=options.minutes, seed=options.seed)
    trainer = Trainer(volumes, training=training)
    for _ in trainer.run():
        pass
    checkpoint = trainer.checkpoint()
    print(f"{trainer.step} steps in {trainer.seconds:.0f} s")
    print("\n| volume | anterior IoU | posterior IoU | foreground IoU | seconds |")
    print("|---|---|---|---|---|")
    means = []
    for patient in TEST:
        case = datasets.load(f"hippocampus_{patient}")
        began = time.perf_counter()
        found = segment(checkpoint, case.image).labels
        seconds = time.perf_counter() - began
        scores = datasets.score(found, case.truth, np.zeros_like(case.truth))
        _, anterior, posterior = scores["iou"]
        means.append(scores["mean_foreground_iou"])
        print(
            f"| {case.name} | {anterior:.3f} | {posterior:.3f} | {means[-1]:.3f} "
            f"| {seconds:.1f} |"
        )
    print(f"| mean | | | {statistics.mean(means):.3f} | |")


if __name__ == "__main__":
    main()
