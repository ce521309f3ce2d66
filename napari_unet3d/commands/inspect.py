"""Look at a model, a configuration or training data before trusting them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from napari_unet3d.engine import Annotation, load
from napari_unet3d.engine.annotation import check_annotations
from napari_unet3d.engine.augment import sample_patch
from napari_unet3d.engine.batches import choose_region
from napari_unet3d.engine.checkpoint import Checkpoint, build_stem
from napari_unet3d.engine.config import AugmentationConfig, ModelConfig, TrainingConfig
from napari_unet3d.engine.device import choose_device
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.patches import PatchSampler
from napari_unet3d.engine.planning import plan_patches, resolve_model
from napari_unet3d.engine.validation import UNVARIED
from napari_unet3d.engine.volume import FeatureVolume
from napari_unet3d.io import Volume, open_image, read_labels

from .pictures import PLANES, save_table, three_planes
from .settings import add_flags, as_plain, build_run, given_flags, merge, read_run

ROWS = 6
"""Patches in a gallery."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument(
        "file", nargs="?", help="model (.pt) or configuration (.yaml) to print"
    )
    parser.add_argument("--image", metavar="FILE", help="image to look at")
    parser.add_argument("--labels", metavar="FILE", help="its sparse labels")
    parser.add_argument(
        "--output", metavar="PNG", help="gallery of training patches to write"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any settings")
    for section in ("data", "training", "model"):
        add_flags(parser, section)


def run(options: argparse.Namespace) -> None:
    """Print what the file holds, or write a gallery of the data."""
    if options.file and Path(options.file).suffix in (".yaml", ".yml"):
        print(_yaml(as_plain(build_run(read_run(options.file), options.file))), end="")
    elif options.file:
        print(describe_model(load(options.file)), end="")
    elif options.image and options.labels:
        _inspect_data(options)
    else:
        raise EngineError(
            "nothing to inspect; give a model or YAML file, or --image and --labels"
        )


def describe_model(checkpoint: Checkpoint) -> str:
    """Return what a model is and how it came about, as YAML."""
    return _yaml(
        {
            "classes": dict(enumerate(checkpoint.class_names, start=1)),
            "trained": {
                "steps": checkpoint.step,
                "seconds": round(checkpoint.seconds, 1),
                "held_out_iou": round(checkpoint.best.get("iou", float("nan")), 4)
                if checkpoint.best
                else None,
                "best_step": int(checkpoint.best.get("step", 0)) or None,
                "parameters": sum(p.numel() for p in checkpoint.network().parameters()),
                "unit": checkpoint.unit or None,
                "version": checkpoint.version,
            },
            "model": as_plain(checkpoint.model),
            "training": as_plain(checkpoint.training),
        }
    )


def describe_annotation(annotation: Annotation) -> str:
    """Return the labelled voxels per class and per slice, as a table."""
    n_classes = annotation.n_classes
    total = np.prod(annotation.shape, dtype=float)
    lines = [
        f"labelled: {len(annotation):,} of {int(total):,} voxels "
        f"({100 * len(annotation) / total:.2f} %)",
        "  ".join(
            ["slice   ", *(f"{f'class {k}':>10}" for k in range(1, n_classes + 1))]
        ),
    ]
    normals, coordinates = annotation.normals, annotation.coordinates
    for axis, position, _ in annotation.slices():
        mine = (normals == axis) & (coordinates[:, axis] == position)
        counts = np.bincount(annotation.labels[mine], minlength=n_classes + 1)[1:]
        cells = [f"{count:10,}" for count in counts]
        lines.append("  ".join([f"{'ZYX'[axis]} = {position:<4}", *cells]))
    cells = [f"{count:10,}" for count in annotation.counts]
    lines.append("  ".join(["all     ", *cells]))
    return "\n".join(lines)


def save_gallery(
    path: str | Path,
    volume: Volume,
    annotation: Annotation,
    model: ModelConfig,
    training: TrainingConfig,
) -> None:
    """Write training patches before and after augmentation, with their labels."""
    device = choose_device("cpu")
    n_classes = check_annotations([annotation])
    model = resolve_model(
        model, [volume.data.shape], [volume.spacing], n_classes, device
    )
    assert model.spacing
    features = FeatureVolume(
        volume.data, IntensityStatistics.from_image(volume.data), build_stem(model)
    )
    plan = plan_patches(training, model, [volume.data.shape], device)
    sampler = PatchSampler([annotation])
    rows = []
    for k in range(ROWS):
        rng = np.random.default_rng((training.seed, k))
        location = sampler.draw(1, rng)[0]
        size = plan.sizes[location.normal]
        z, y, x = (n // 2 for n in size)
        pictures = []
        for config in (UNVARIED, _warping(training.augmentation)):
            patch, labels, centre = sample_patch(
                features, annotation, location.anchor, size, (z, y, x), config, rng
            )
            pictures += three_planes(
                patch[0].numpy(), labels.numpy(), centre, model.spacing
            )
        where = ", ".join(map(str, location.anchor))
        evaluated = choose_region(
            labels[None], location.normal, [centre[location.normal]]
        )
        rows.append(
            (
                f"around voxel ({where}) of the slice across "
                f"{'ZYX'[location.normal]}; loss in {_shown(evaluated)}",
                pictures,
            )
        )
    save_table(
        path,
        rows,
        [f"{name} as it is" for name in PLANES] + [f"{name} varied" for name in PLANES],
    )


def _inspect_data(options: argparse.Namespace) -> None:
    file = read_run(options.config) if options.config else {}
    config = build_run(merge(file, given_flags(options)))
    volume = open_image(
        options.image, axes=config.data.axes, channels=config.data.channels
    )
    annotation = Annotation.from_labels(read_labels(options.labels).data)
    if annotation.shape != tuple(volume.data.shape[1:]):
        raise EngineError(
            f"{options.labels} has shape {annotation.shape} but {options.image} has "
            f"{tuple(volume.data.shape[1:])}; labels and image must have the same grid"
        )
    print(f"image: {volume.data.shape} {volume.data.dtype}, spacing {volume.spacing}")
    print(describe_annotation(annotation))
    if options.output:
        save_gallery(options.output, volume, annotation, config.model, config.training)
        print(f"wrote {options.output}")


def _warping(augmentation: AugmentationConfig) -> AugmentationConfig:
    """Have every patch of the gallery deformed, to show what may happen."""
    return AugmentationConfig(**{**asdict(augmentation), "warp_probability": 1.0})


def _shown(region: Any) -> str:
    return " x ".join(f"{low}-{high}" for low, high in region)


def _yaml(values: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
    return text
