"""Elastic and affine deformation of patches, beside peers.

    python benchmarks/augmentation.py [--sizes 64 96 128]

One patch of a grey-value image in float32 and its sparse labels in 8 bits is turned by
up to 15°, scaled by up to 10 % and deformed, linearly interpolated (labels: nearest),
on the CPU. Ours cuts the patch out of a larger volume and warps it at once, so the
corners are real data; peers get the patch already cut out, with their own kind of
smooth displacement:

- torchio: `RandomAffineElasticDeformation`, B-spline, control points 32 voxels apart.
- MONAI: `Rand3DElasticd` with rotation and scaling, sigma 5 to 7 as in its tutorials,
  which is less smooth, and cheaper, than the others.
- elasticdeform: `deform_grid` with an affine matrix, control points 32 voxels apart.
- batchgeneratorsv2: `SpatialTransform` with nearest-neighbour labels.

"ours, with filters" warps image and filter responses together, as in training. "share
of a step" is what two such patches take of drawing them and learning from them with the
default network. Peers that are not installed or do not run with the installed NumPy are
left out; for elasticdeform this may help:
``pip install --force-reinstall --no-deps --no-binary elasticdeform elasticdeform``.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from augmentation_peers import DEGREES, DEVIATION, PEERS, SCALING, SPACING
from reporting import (
    add_options,
    machine,
    prepare,
    print_table,
    seconds_of,
    side_by_side,
    write_json,
)
from step_variants import OwnSteps

from napari_unet3d._sample_data import sparse_annotation, tubules
from napari_unet3d.engine import (
    Annotation,
    AugmentationConfig,
    ModelConfig,
    TrainingVolume,
)
from napari_unet3d.engine.augment import sample_patch
from napari_unet3d.engine.checkpoint import build_stem
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.patch_plan import PatchPlan
from napari_unet3d.engine.volume import FeatureVolume

PATCHES = 2
WARP_ONLY = AugmentationConfig(
    warp_probability=1,
    rotation=DEGREES,
    scaling=SCALING,
    elastic_sd=DEVIATION,
    elastic_spacing=SPACING,
    flip=(False, False, False),
    contrast=0,
    brightness=0,
    gamma=0,
    noise=0,
)
COLUMNS = {
    "size": ("size", "d"),
    "method": ("method", ""),
    "ours is faster": ("ratio", ".1f"),
    "milliseconds a patch": ("milliseconds", ".1f"),
    "share of a step": ("share", ".0%"),
}


def ours(image, labels, size, stem):
    """Warp a patch around a labelled voxel of the volume."""
    model = ModelConfig(in_channels=1, stem=stem, spacing=(1.0, 1.0, 1.0))
    volume = FeatureVolume(
        image[None], IntensityStatistics.from_image(image[None]), build_stem(model)
    )
    annotation = Annotation.from_labels(labels)
    anchor = tuple(n // 2 for n in image.shape)
    rng = np.random.default_rng(0)
    # In a training the blocks of responses around the labels are soon computed.
    reach = size // 2 + SPACING
    volume.crop([a - reach for a in anchor], (2 * reach,) * 3)

    def work():
        centre = (size // 2,) * 3
        return sample_patch(
            volume, annotation, anchor, (size,) * 3, centre, WARP_ONLY, rng
        )[:2]

    return work


def main(arguments=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--base-channels", type=int, default=8)
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes, options.repeats = [64, 96], 3
    prepare(options.threads)
    facts = machine()
    print(facts)
    image, truth = tubules((128, 128, 128))
    wider = [(32, 32)] * 3
    image, truth = (np.pad(part, wider, mode="symmetric") for part in (image, truth))
    labels = sparse_annotation(truth)
    rows = []
    for size in options.sizes:
        rows += measure(image, labels, size, options)
    print_table(rows, COLUMNS)
    write_json(options.json, facts, rows=rows)


def measure(image, labels, size, options):
    """Measure all methods on patches of one size, as rows of the table."""
    low = [(n - size) // 2 for n in image.shape]
    box = tuple(slice(a, a + size) for a in low)
    patch = image[box].astype(np.float32)
    patch = (patch - patch.mean()) / patch.std()
    works = {
        "ours": ours(image, labels, size, "none"),
        "ours, with filters": ours(image, labels, size, "filters"),
    }
    for name, peer in PEERS.items():
        try:
            works[name] = peer(patch, np.ascontiguousarray(labels[box]))
        except ImportError as error:
            print(f"{name} is left out: {error}")
    check(works, size)
    seconds = side_by_side(works, options.repeats)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    step = step_seconds(image, labels, size, options.base_channels)
    rows = []
    for name, median in medians.items():
        row = {
            "size": size,
            "method": name,
            "milliseconds": 1000 * median,
            "share": PATCHES * median / (PATCHES * median + step),
            "seconds": seconds[name],
            "step seconds": step,
        }
        if name != "ours, with filters":
            row["ratio"] = median / medians["ours"]
        rows.append(row)
        print(row, flush=True)
    return rows


def check(works, size):
    """Refuse results of another shape than the patch, or without labels."""
    for name, work in works.items():
        image, labels = (np.asarray(part) for part in work())
        if image.shape[-3:] != (size,) * 3 or labels.shape[-3:] != (size,) * 3:
            raise RuntimeError(f"{name} gave {image.shape} and {labels.shape}")
        if not labels.any() or not np.isfinite(image).all():
            raise RuntimeError(f"{name} gave no labels or no image")


def step_seconds(image, labels, size, base):
    """Time a training step of the default network with such patches, drawn before."""
    volume = TrainingVolume(image, Annotation.from_labels(labels))
    plan = PatchPlan(((size,) * 3,) * 3, PATCHES)
    settings = {"stem": "filters", "precision": "auto", "running": True}
    steps = OwnSteps(volume, plan, base, **settings)
    return min(seconds_of(lambda: steps.step(steps.batches[0])) for _ in range(3))


if __name__ == "__main__":
    main()
