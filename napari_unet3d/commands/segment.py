"""Segment a volume from a file into a file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from napari_unet3d.engine import Segmenter, load
from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.device import keep_freed_memory
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import Volume, create_volume, open_image

from .progress import Reporter
from .settings import add_flags, build_run, given_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("--model", required=True, metavar="FILE", help="trained model")
    parser.add_argument(
        "--image", required=True, metavar="FILE", help="volume to segment"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="segmentation, classes 1 to K"
    )
    parser.add_argument(
        "--probabilities",
        metavar="FILE",
        help="also write the probability of each class, 255 for certain",
    )
    add_flags(parser, "segmentation")
    add_flags(parser, "data", only=("channels", "axes"))


def run(options: argparse.Namespace) -> None:
    """Segment one volume."""
    config = build_run(given_flags(options))
    segment_file(
        options.model,
        options.image,
        options.output,
        options.probabilities,
        config=config.segmentation,
        channels=config.data.channels,
        axes=config.data.axes,
    )
    print(f"wrote {options.output}", file=sys.stderr)


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
    keep_freed_memory()
    checkpoint = load(model)
    volume = open_image(image, axes=axes, channels=channels)
    _warn_of_spacing(checkpoint.model.spacing, volume)
    named = [output] + ([probabilities] if probabilities else [])
    if len({Path(name).resolve() for name in [*named, image]}) <= len(named):
        raise EngineError(
            f"input and outputs must be different files, got {image} and "
            f"{', '.join(map(str, named))}; choose another --output"
        )
    with ExitStack() as files:
        shape = volume.data.shape[1:]
        labels = files.enter_context(
            create_volume(
                output,
                shape,
                "uint8",
                spacing=volume.spacing,
                unit=volume.unit,
                class_names=checkpoint.class_names,
                affine=volume.affine,
            )
        )
        found = None
        if probabilities:
            found = files.enter_context(
                create_volume(
                    probabilities,
                    (len(checkpoint.class_names), *shape),
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


def _warn_of_spacing(trained: tuple[float, ...] | None, volume: Volume) -> None:
    """Tell where voxels have another size or shape than those of the training."""
    if trained is None or volume.spacing is None:
        return
    ratios = [a / b for a, b in zip(volume.spacing, trained, strict=True)]
    if max(ratios) > 1.25 or min(ratios) < 0.8:
        print(
            f"warning: {volume.source} has a spacing of {_shown(volume.spacing)} but "
            f"the model was trained at {_shown(trained)}; if the units are the same, "
            "resample the image for a better segmentation",
            file=sys.stderr,
        )


def _shown(spacing: Sequence[float]) -> str:
    return " × ".join(f"{value:g}" for value in spacing)
