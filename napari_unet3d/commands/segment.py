"""Segment a volume from a file into a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine import Segmenter, load
from napari_unet3d.engine.blockwise import Selection
from napari_unet3d.engine.device import keep_freed_memory
from napari_unet3d.io import Volume, create_volume, open_image
from napari_unet3d.io.location import existing, located
from napari_unet3d.io.unfinished import UnfinishedVolume
from napari_unet3d.io.units import converted

from . import selection
from .blocks import RemainingTime, Task, segment_all, segment_resumably
from .files import check_outputs, expanded
from .flags import add_flags, given_flags
from .origin import origin
from .selection import read_selection
from .settings import build_run, overlay_values, read_run

if TYPE_CHECKING:
    import argparse

    from napari_unet3d.engine.checkpoint import Checkpoint
    from napari_unet3d.engine.config import SegmentationConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.usage = "%(prog)s --model FILE --image FILE --output FILE [options]"
    files = parser.add_argument_group("files")
    files.add_argument("--model", required=True, metavar="FILE", help="Trained model")
    files.add_argument(
        "--image", required=True, metavar="FILE", help="Volume to segment"
    )
    files.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="Segmentation to write, classes 1 to K; its ending decides the format",
    )
    files.add_argument(
        "--probabilities",
        metavar="FILE",
        help="Also write the probability of each class as a channel, 255 for certain",
    )
    files.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file whose sections segmentation and data are used; flags win over "
        "it",
    )
    files.add_argument(
        "--restart",
        action="store_true",
        help="Forget an unfinished earlier run that writes the same output",
    )
    group = parser.add_argument_group("segmentation")
    add_flags(group, "segmentation")
    selection.add_arguments(group)
    add_flags(parser.add_argument_group("data"), "data", only=("channels", "axes"))


def run(options: argparse.Namespace) -> None:
    """Segment one volume."""
    flags = given_flags(options)
    file = read_run(options.config) if options.config else {}
    config = build_run(overlay_values(file, flags))
    segment_file(
        options.model,
        options.image,
        options.output,
        options.probabilities,
        config=config.segmentation,
        channels=config.data.channels,
        axes=config.data.axes,
        region=options.region,
        mask=options.mask,
        skip_below=options.skip_below,
        restart=options.restart,
    )


def segment_file(
    model: str | Path,
    image: str | Path,
    output: str | Path,
    probabilities: str | Path | None = None,
    *,
    config: SegmentationConfig | None = None,
    channels: Sequence[int] | None = None,
    axes: str | None = None,
    region: str | None = None,
    mask: str | Path | None = None,
    skip_below: str | float | None = None,
    restart: bool = False,
) -> None:
    """Segment a volume; the outputs appear only once they are complete.

    OME-Zarrs are written block by block; where that ends early, the next call with the
    same arguments goes on.

    Parameters
    ----------
    model, image, output : path
        Trained model, volume to segment, file to write.
    probabilities : path, optional
        File to write the probability of each class to.
    config : SegmentationConfig, optional
        How to segment.
    channels, axes : optional
        As for `napari_unet3d.io.open_image`.
    region, mask, skip_below : optional
        What to segment, see `selection`.
    restart : bool
        Whether to forget an unfinished earlier run.

    Raises
    ------
    EngineError
        Where a file cannot be read or written or does not fit the model.
    """
    outputs = [output] if probabilities is None else [output, probabilities]
    check_outputs(outputs, [image, model, *([] if mask is None else [mask])])
    keep_freed_memory()
    checkpoint = load(expanded(model))
    volume = open_image(image, axes=axes, channels=channels)
    _warn_of_spacing(checkpoint, volume)
    chosen = read_selection(volume.data.shape[1:], region, mask, skip_below, axes)
    if all(located(path).kind == "OME-Zarr" for path in outputs):
        files = [
            UnfinishedVolume(path, shape, "uint8", **description)
            for path, (shape, description) in zip(
                outputs, _descriptions(checkpoint, volume), strict=False
            )
        ]
        segmenter = Segmenter(checkpoint, volume.data, config, read_ahead=True)
        segment_resumably(
            Task(segmenter, chosen or Selection(), len(outputs) > 1),
            files,
            origin(model, volume, segmenter, outputs[1:], axes, channels)
            | selection.origin(region, mask, skip_below),
            lambda: existing(image),
            restart=restart,
        )
    else:
        _segment_at_once(checkpoint, volume, config, outputs, chosen)
    print(f"wrote {' and '.join(map(str, outputs))}", file=sys.stderr)


def _segment_at_once(
    checkpoint: Checkpoint,
    volume: Volume,
    config: SegmentationConfig | None,
    outputs: Sequence[str | Path],
    chosen: Selection | None,
) -> None:
    """Segment into files that cannot be left unfinished."""
    with ExitStack() as files:
        arrays: list[Any] = [
            files.enter_context(create_volume(path, shape, "uint8", **description))
            for path, (shape, description) in zip(
                outputs, _descriptions(checkpoint, volume), strict=False
            )
        ]
        segmenter = Segmenter(checkpoint, volume.data, config, read_ahead=True)
        if chosen is None:
            report = RemainingTime()
            for event in segmenter.run(*arrays):
                report(event)
        else:
            task = Task(segmenter, chosen, len(outputs) > 1)
            for _ in segment_all(task, task.plan(task.memory()), *arrays):
                pass


def _descriptions(
    checkpoint: Checkpoint, volume: Volume
) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
    """Return shape and description of the files for labels and probabilities."""
    shape = volume.data.shape[1:]
    common: dict[str, Any] = {
        "spacing": volume.spacing,
        "unit": volume.unit,
        "affine": volume.affine,
    }
    classes = {
        "class_names": checkpoint.class_names,
        "class_colors": _colors(checkpoint),
    }
    n_classes = checkpoint.model.n_classes or 0
    return [
        (shape, common | classes),
        ((n_classes, *shape), common | {"labels": False}),
    ]


def _colors(checkpoint: Checkpoint) -> list[list[float]] | None:
    """Return the colours of the classes as numbers from 0 to 1, if it has any."""
    colors = checkpoint.class_colors
    if not colors or not all(re.fullmatch(r"#[0-9a-fA-F]{6}", c) for c in colors):
        return None
    return [[int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)] for c in colors]


def _warn_of_spacing(checkpoint: Checkpoint, volume: Volume) -> None:
    """Tell where voxels have another size or shape than those of the training."""
    trained, spacing = checkpoint.model.spacing, volume.spacing
    if trained is None or spacing is None:
        return
    if checkpoint.unit and volume.unit:
        spacing = converted(spacing, volume.unit, checkpoint.unit)
    if trained == (1, 1, 1) and not checkpoint.unit:
        # Nothing was known but that voxels are cubes.
        z, y, x = (length / min(spacing) for length in spacing)
        spacing = z, y, x
    ratios = [a / b for a, b in zip(spacing, trained, strict=True)]
    if max(ratios) > 1.25 or min(ratios) < 0.8:
        print(
            f"warning: {volume.source} has a spacing of {_shown(spacing)} but the "
            f"model was trained at {_shown(trained)} {checkpoint.unit}".rstrip()
            + "; resample the image for a better segmentation",
            file=sys.stderr,
        )


def _shown(spacing: Sequence[float]) -> str:
    return " × ".join(f"{value:g}" for value in spacing)
