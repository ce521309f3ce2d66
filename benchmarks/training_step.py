"""Training steps a second: dense, label-driven, and the networks of peers.

    python benchmarks/training_step.py [--bases 8 16 32] [--patches 4x16x48x48]
        [--labels slices slice strokes]

All learn from the same patches of a generated volume with one annotated slice per axis,
a single slice across Z, or strokes on three slices: N×Z×Y×X voxels, Z being across the
annotated slice. In the main table every network sees the image alone. A step is
forward, loss over the labelled voxels, backward and optimizer (ours also clips the
gradient and averages the weights); drawing the patches is measured apart. Variants take
turns; the table shows medians.

- ours, dense: logits of all voxels of the patch, with batch normalisation, upsampled
  and convolved one after the other as the paper draws it; "composed" does both at once
  where the engine finds that quicker, as all that follow do.
- ours, label-driven: logits of the region around the annotated slice, as in training
  once it learns with running statistics, and "batch statistics" before that; "with
  filters" adds the filter responses and the shortcut, the default network.
- MONAI UNet (two residual units a level), MONAI DynUNet, pytorch-3dunet UNet3D: the
  same channels a level, their own normalisation, Adam and cross-entropy with an
  ignored index, in the memory layout that is the quicker of two.

Where the device has units for a shorter number format, all are measured in that as
well (under autocast). MONAI's UNet halves the image in its first convolution, hence its
little arithmetic ("GFLOP forward").

With a GPU, "of matrix rate" is the share of the rate of a large matrix product in the
short number format, a step counted as three forward passes.

"labelled steps/s" are steps a second times the share of the labelled voxels in the
patches that the loss takes in; the region may leave out some of crossing slices. The
second table says what a step of ours consists of: "convolutions" is the share of a
step's time in torch's convolution kernels, by its profiler.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import product

import numpy as np
import torch
from reporting import (
    add_options,
    machine,
    prepare,
    print_table,
    side_by_side,
    write_json,
)
from step_variants import (
    BATCHES,
    COUNTED,
    OwnSteps,
    PeerSteps,
    arithmetic,
    convolution_share,
)

from napari_unet3d._sample_data import sparse_annotation, tubules
from napari_unet3d.engine import Annotation, TrainingVolume
from napari_unet3d.engine.device import choose_precision
from napari_unet3d.engine.patch_plan import PatchPlan

PEERS = {
    "MONAI UNet": "monai",
    "MONAI DynUNet": "monai-dynunet",
    "pytorch-3dunet": "pytorch-3dunet",
}
LABELS = ("slices", "slice", "strokes")
COLUMNS = {
    "labels": ("labels", ""),
    "base": ("base", "d"),
    "patches": ("patches", ""),
    "variant": ("variant", ""),
    "labelled steps against dense": ("labelled ratio", ".2f"),
    "steps against dense": ("ratio", ".2f"),
    "steps/s": ("rate", ".2f"),
    "labelled steps/s": ("labelled rate", ".2f"),
    "GFLOP forward": ("gflop", ".1f"),
    "of matrix rate": ("utilisation", ".1%"),
    "million parameters": ("parameters", ".2f"),
}
PARTS = {
    "labels": ("labels", ""),
    "base": ("base", "d"),
    "patches": ("patches", ""),
    "variant": ("variant", ""),
    "drawing": ("drawing", ".0%"),
    "forward": ("forward", ".0%"),
    "loss, backward": ("backward", ".0%"),
    "optimizer": ("optimizer", ".0%"),
    "moving average": ("rest", ".0%"),
    "convolutions": ("convolutions", ".0%"),
}


def main(arguments=None):
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument(
        "--patches",
        nargs="+",
        default=["4x16x48x48", "2x16x48x48", "2x32x64x64"],
        metavar="NxZxYxX",
    )
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=["slices"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.bases, options.patches = [8, 16], ["4x16x48x48"]
    prepare(options.threads)
    facts = machine(options.device)
    if torch.device(options.device).type == "cuda":
        facts["matrix rate, TFLOP/s"] = matrix_rate(options.device) / 1e12
    print(facts)
    options.rate = facts.get("matrix rate, TFLOP/s")
    rows = []
    for base, patches, labels in product(
        options.bases, options.patches, options.labels
    ):
        rows += measure(base, patches, labels, options)
    print_table(rows, COLUMNS)
    print_table([row for row in rows if "drawing" in row], PARTS)
    write_json(options.json, facts, rows=rows)


def annotated(truth, labels):
    """Keep of the truth what a person painted, one of `LABELS`."""
    if labels == "slice":
        kept = np.zeros_like(truth)
        kept[len(truth) // 2] = truth[len(truth) // 2]
        return kept
    kept = sparse_annotation(truth)
    if labels == "strokes":
        # Four voxels wide, through a sixth of every slice
        places = np.indices(truth.shape).sum(axis=0)
        kept[places % 24 >= 4] = 0
    return kept


def measure(base, patches, labels, options):
    """Measure all variants of one size, as rows of the table."""
    image, truth = tubules((96, 112, 112))
    volume = TrainingVolume(image, Annotation.from_labels(annotated(truth, labels)))
    count, z, y, x = (int(n) for n in patches.split("x"))
    plan = PatchPlan(((z, y, x), (y, z, x), (y, x, z)), count)
    short = str(choose_precision(torch.device(options.device))).removeprefix("torch.")
    own = {
        "ours, dense": {"dense": True, "composed": False},
        "ours, dense, composed": {"dense": True},
        "ours, label-driven": {"running": True},
        "ours, label-driven, batch statistics": {},
        "ours, label-driven, with filters": {"stem": "filters", "running": True},
    }
    if short != "float32":
        own |= {
            f"{name}, {short}": settings | {"precision": short}
            for name, settings in own.items()
        }
    variants = {
        name: OwnSteps(volume, plan, base, device=options.device, **settings)
        for name, settings in own.items()
    }
    for name, method in PEERS.items():
        dense = variants["ours, dense"]
        variants[name] = PeerSteps(method, base, dense)
        if short != "float32":
            variants[f"{name}, {short}"] = PeerSteps(method, base, dense, short)
    seconds = side_by_side(
        {name: variant.run for name, variant in variants.items()},
        options.repeats,
        options.device,
    )
    rates = {name: BATCHES / statistics.median(s) for name, s in seconds.items()}
    rows = []
    for name, variant in variants.items():
        row = {
            "labels": labels,
            "base": base,
            "patches": patches,
            "variant": name,
            "rate": rates[name],
            "ratio": rates[name] / rates["ours, dense"],
            "labelled rate": rates[name] * variant.labelled_share,
            "labelled voxels": variant.labelled / COUNTED,
            "gflop": arithmetic(variant),
            "parameters": sum(p.numel() for p in variant.network.parameters()) / 1e6,
            "seconds": seconds[name],
        }
        if options.rate:
            row["utilisation"] = 3e-3 * row["gflop"] * row["rate"] / options.rate
        row["labelled ratio"] = row["labelled rate"] / rates["ours, dense"]
        if isinstance(variant, OwnSteps):
            parts = variant.parts()
            total = sum(parts.values())
            row |= {part: value / total for part, value in parts.items()}
            if torch.device(options.device).type == "cpu":
                row["convolutions"] = convolution_share(variant)
        rows.append(row)
        print(row, flush=True)
    return rows


def matrix_rate(device: str) -> float:
    """Measure the operations a second of a large matrix product."""
    size = 8192
    a, b = torch.randn(
        2, size, size, device=device, dtype=choose_precision(torch.device(device))
    )
    seconds = side_by_side({"product": lambda: a @ b}, 10, device)["product"]
    return 2 * size**3 / statistics.median(seconds)


if __name__ == "__main__":
    main()
