"""Dense segmentation: speed, memory and seams, beside MONAI's sliding window.

    python benchmarks/inference.py [--sizes 128 160 256] [--stems none filters]

Both apply the same network with the same weights, normalisation folded into the
convolutions, in float32, to cubes of a generated volume; ours in bfloat16 too, where
the device has units for it. Every case runs in a process
of its own; the repeats take turns, and the table shows medians.

- stem "none": the network alone, on the normalised image, as in the paper.
- stem "filters": the network as it is by default. MONAI gets the filter responses
  computed beforehand; neither their time nor their memory counts for it, while ours
  includes both.

"seconds" go from the image (MONAI: from the network's input) to the labels in memory.
"memory" is the highest resident memory while segmenting above that just before, so
input, network and libraries do not count. MONAI takes windows of `--roi` voxels, as
many at once and in that memory layout as a trial before finds quickest. Seams are the
difference from the network applied to the whole volume in one pass, where it fits in
memory: the largest of a logit, and the share of voxels that get another label.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from reporting import add_options, machine, medians, prepare, print_table, write_json

from napari_unet3d._sample_data import sparse_annotation, tubules
from napari_unet3d.engine import (
    Annotation,
    ModelConfig,
    SegmentationConfig,
    Segmenter,
    Trainer,
    TrainingConfig,
    TrainingVolume,
    load,
    save,
)
from napari_unet3d.engine.device import choose_segmentation_precision
from napari_unet3d.engine.memory import available_memory

WINDOWS = ((0.25, "constant"), (0.25, "gaussian"), (0.5, "constant"), (0.5, "gaussian"))
QUICK_WINDOWS = ((0.25, "constant"), (0.5, "gaussian"))
COLUMNS = {
    "stem": ("stem", ""),
    "voxels": ("size", "d"),
    "method": ("method", ""),
    "ours is faster": ("ratio", ".2f"),
    "Mvoxel/s": ("rate", ".2f"),
    "seconds": ("seconds", ".1f"),
    "memory, GiB": ("added", ".2f"),
    "logit difference": ("logit difference", ".1e"),
    "other labels": ("other labels", ".3%"),
}


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 160, 256])
    parser.add_argument("--stems", nargs="+", default=["none", "filters"])
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--roi", type=int, default=96, help="edge of MONAI's windows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=60, help="to train the network")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.repeats = [128, 160], 1
    prepare(options.threads)
    facts = machine(options.device)
    print(facts)
    rows, tuned = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for stem in options.stems:
            model = Path(folder) / f"{stem}.pt"
            make_model(model, stem, options, options.device)
            # Quick: the stem's cost shows in one size.
            is_short = options.quick and stem != options.stems[0]
            for size in options.sizes[:1] if is_short else options.sizes:
                case = make_volume(Path(folder), model, size, options)
                if stem not in tuned:
                    tuned[stem] = run(case | {"method": "tune"})
                    print(f"MONAI, stem {stem}: {tuned[stem]}")
                rows += measure(case | tuned[stem], stem, size, options)
    merged = compared(medians(rows, ("stem", "size", "method")))
    print_table(merged, COLUMNS)
    write_json(options.json, facts, windows=tuned, rows=rows, medians=merged)


def measure(case, stem, size, options):
    """Run all methods on one volume, in turn, as rows of the table."""
    windows = QUICK_WINDOWS if options.quick else WINDOWS
    # About what a pass needs at the finest level: skip, upsampled, both together.
    room = 80 * options.base_channels * size**3
    fits = room < 0.6 * available_memory(torch.device(options.device))
    methods = {"one pass": {}} if fits else {}
    methods |= {"ours": {}}
    device = torch.device(options.device)
    if choose_segmentation_precision(device) == torch.bfloat16:
        methods |= {"ours, bfloat16": {"precision": "bfloat16"}}
    methods |= {
        f"MONAI, overlap {overlap:g}, {mode}": {"overlap": overlap, "mode": mode}
        for overlap, mode in windows
    }
    rows = []
    for repeat in range(options.repeats):
        compare = fits and repeat == 0
        for method, settings in methods.items():
            given = case | settings | {"method": method, "compare": compare}
            row = {"stem": stem, "size": size, "method": method, **run(given)}
            if "seconds" in row:
                row["rate"] = size**3 / row["seconds"] / 1e6
            rows.append(row)
            print(row, flush=True)
    for path in (case["features"], case["reference"], case["image"]):
        Path(path).unlink(missing_ok=True)
    return rows


def compared(rows):
    """Add how many times as long as ours each took."""
    for row in rows:
        same = [r for r in rows if (r["stem"], r["size"]) == (row["stem"], row["size"])]
        mine = next(r for r in same if r["method"] == "ours")
        if "seconds" in row and "seconds" in mine:
            row["ratio"] = row["seconds"] / mine["seconds"]
    return rows


def run(case):
    """Run one case in a process of its own; what fails is a row without figures."""
    script = Path(__file__).with_name("inference_case.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(case)], capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed: out of memory?"])[-1]
        return {"failed": f"{done.returncode}: {reason}"}
    return json.loads(done.stdout.splitlines()[-1])


def make_model(path, stem, options, device="cpu"):
    """Train a network for some steps, so that its logits mean something."""
    image, truth = tubules((96, 96, 96))
    labels = Annotation.from_labels(sparse_annotation(truth))
    trainer = Trainer(
        [TrainingVolume(image, labels)],
        ModelConfig(base_channels=options.base_channels, stem=stem),
        TrainingConfig(steps=options.steps, device=device),
    )
    for _ in trainer.run():
        pass
    save(trainer.checkpoint(), path)


def make_volume(folder, model, size, options):
    """Write a cube, and the network's input for it; return the case for both."""
    case = {
        "model": str(model),
        "image": str(folder / "image.npy"),
        "small image": str(folder / "small.npy"),
        "features": str(folder / "features.npy"),
        "reference": str(folder / "reference.npy"),
        "roi": options.roi,
        "threads": options.threads,
        "device": options.device,
    }
    image, _ = tubules((min(size, 128),) * 3, seed=1)
    np.save(case["small image"], image[:32, :32, :32])
    image = np.pad(image, [(0, size - n) for n in image.shape], mode="symmetric")
    np.save(case["image"], image)
    config = SegmentationConfig(recompute_statistics=False)
    features = Segmenter(load(model), image, config).features
    channels = features.stem.out_channels
    whole = np.lib.format.open_memmap(
        case["features"], "w+", np.float32, (channels, *image.shape)
    )
    for z in range(0, size, 32):
        depth = min(32, size - z)
        whole[:, z : z + depth] = features.compute([z, 0, 0], [depth, size, size]).cpu()
    whole.flush()
    return case


if __name__ == "__main__":
    main()
