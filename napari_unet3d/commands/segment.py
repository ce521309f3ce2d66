"""Segment a volume from a file into a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet3d.engine import Segmenter, load
from napari_unet3d.engine.device import keep_freed_memory
from napari_unet3d.io import Volume, create_volume, open_image
from napari_unet3d.io.units import converted

from .files import check_outputs, expanded
from .flags import add_flags, given_flags
from .progress import Reporter
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
    add_flags(parser.add_argument_group("segmentation"), "segmentation")
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
) -> None:
    """Segment a volume; the outputs appear only once they are complete.

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

    Raises
    ------
    EngineError
        Where a file cannot be read or written or does not fit the model.
    """
    outputs = [output] if probabilities is None else [output, probabilities]
    check_outputs(outputs, [image, model])
    keep_freed_memory()
    checkpoint = load(expanded(model))
    volume = open_image(image, axes=axes, channels=channels)
    _warn_of_spacing(checkpoint, volume)
    n_classes = checkpoint.model.n_classes or 0
    shape = volume.data.shape[1:]
    with ExitStack() as files:
        labels = files.enter_context(
            create_volume(
                output,
                shape,
                "uint8",
                spacing=volume.spacing,
                unit=volume.unit,
                class_names=checkpoint.class_names,
                class_colors=_colors(checkpoint),
                affine=volume.affine,
            )
        )
        found = None
        if probabilities is not None:
            found = files.enter_context(
                create_volume(
                    probabilities,
                    (n_classes, *shape),
                    "uint8",
                    spacing=volume.spacing,
                    unit=volume.unit,
                    labels=False,
                    affine=volume.affine,
                )
            )
        report = Reporter()
        for event in Segmenter(checkpoint, volume.data, config).run(labels, found):
            report(event)
    print(f"wrote {' and '.join(map(str, outputs))}", file=sys.stderr)


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
