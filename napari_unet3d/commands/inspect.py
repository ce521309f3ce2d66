"""Look at a model, a configuration or training data before trusting them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from napari_unet3d.engine import Annotation, TrainingVolume, load
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.location import located

from .files import check_outputs, check_writable, expanded
from .flags import add_flags, given_flags
from .gallery import save_gallery
from .inputs import open_pair
from .settings import Pair, as_plain, build_run, overlay_values, read_run

if TYPE_CHECKING:
    import argparse

    from napari_unet3d.engine.checkpoint import Checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.usage = (
        "%(prog)s FILE\n       %(prog)s --image FILE --labels FILE [--output PNG] "
        "[options]"
    )
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="Model (.pt) or configuration (.yaml) to print",
    )
    data = parser.add_argument_group("training data to look at")
    add_flags(data, "data", only=("train", "channels", "axes"))
    data.add_argument(
        "--output", metavar="PNG", help="Gallery of training patches to write"
    )
    data.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file with any settings; flags win over it",
    )
    for title, section in (
        ("network", "model"),
        ("training", "training"),
        ("variation of the training patches", "training.augmentation"),
    ):
        add_flags(parser.add_argument_group(title), section)


def run(options: argparse.Namespace) -> None:
    """Print what the file holds, or write a gallery of the data."""
    flags = given_flags(options)
    if options.file and (flags or options.config or options.output):
        raise EngineError(
            f"got {options.file} and further flags; give either a model or YAML file "
            "alone, or --image and --labels"
        )
    if options.file:
        print(_describe_file(options.file), end="")
        return
    file = read_run(options.config) if options.config else {}
    config = build_run(overlay_values(file, flags))
    if not config.data.train:
        raise EngineError(
            "nothing to inspect; give a model or YAML file, or --image and --labels"
        )
    if options.output:
        _check_output(options.output, config.data.train)
    volumes = []
    for pair in config.data.train:
        opened = open_pair(pair, config.data)
        print(describe_volume(opened.volume, opened.unit))
        volumes.append(opened.volume)
    if options.output:
        save_gallery(expanded(options.output), volumes, config.model, config.training)
        print(f"wrote {options.output}")


def describe_model(checkpoint: Checkpoint) -> str:
    """Return what a model is and how it came about, as YAML."""
    best = checkpoint.best
    return _yaml(
        {
            "classes": dict(enumerate(checkpoint.class_names, start=1)),
            "trained": {
                "steps": checkpoint.step,
                "seconds": round(checkpoint.seconds, 1),
                "held_out_iou": round(best["iou"], 4) if "iou" in best else None,
                "best_step": round(best["step"]) if "step" in best else None,
                "parameters": sum(p.numel() for p in checkpoint.network().parameters()),
                "unit": checkpoint.unit or None,
                "version": checkpoint.version,
            },
            "model": as_plain(checkpoint.model),
            "training": as_plain(checkpoint.training),
        }
    )


def describe_volume(volume: TrainingVolume, unit: str = "") -> str:
    """Return what an image is and which of its voxels are labelled."""
    channels, *shape = volume.image.shape
    spacing = "not known"
    if volume.spacing:
        spacing = f"{' × '.join(f'{n:g}' for n in volume.spacing)} {unit}".rstrip()
    return (
        f"{volume.name}: {' × '.join(map(str, shape))} voxels ZYX, "
        f"{channels} channel{'s' * (channels > 1)} of {volume.image.dtype}, spacing "
        f"{spacing}\n{describe_annotation(volume.annotation)}"
    )


def describe_annotation(annotation: Annotation) -> str:
    """Return the labelled voxels per class and per slice, as a table."""
    total = math.prod(annotation.shape)
    first = f"labelled: {len(annotation):,} of {total:,} voxels"
    if not len(annotation):
        return first
    classes = range(1, annotation.n_classes + 1)
    lines = [
        f"{first} ({100 * len(annotation) / total:.2f} %)",
        "  ".join(["slice   ", *(f"{f'class {k}':>10}" for k in classes)]),
    ]
    normals, coordinates = annotation.normals, annotation.coordinates
    for axis, position, _ in annotation.slices():
        mine = (normals == axis) & (coordinates[:, axis] == position)
        counts = np.bincount(annotation.labels[mine], minlength=len(classes) + 1)[1:]
        cells = [f"{count:10,}" for count in counts]
        lines.append("  ".join([f"{'ZYX'[axis]} = {position:<4}", *cells]))
    cells = [f"{count:10,}" for count in annotation.counts]
    lines.append("  ".join(["all     ", *cells]))
    return "\n".join(lines)


def _describe_file(path: str) -> str:
    if Path(path).suffix.lower() in (".yaml", ".yml"):
        return _yaml(as_plain(build_run(overlay_values(read_run(path)))))
    try:
        kind = located(path).kind
    except EngineError:
        return describe_model(load(expanded(path)))
    if kind == "annotation":
        raise EngineError(
            f"{path} holds labels; to look at them give --image FILE --labels {path}"
        )
    raise EngineError(
        f"{path} is neither a model nor a configuration; to look at training data give "
        f"--image {path} --labels FILE"
    )


def _check_output(output: str, pairs: tuple[Pair, ...]) -> None:
    if not output.lower().endswith(".png"):
        raise EngineError(f"the gallery is a PNG file; name {output} as {output}.png")
    check_outputs([output], [name for p in pairs for name in (p.image, p.labels)])
    check_writable(output)


def _yaml(values: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
    return text
