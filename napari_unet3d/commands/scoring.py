"""Segment and score the test volumes of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import open_image, read_labels
from napari_unet3d.io.location import located

from .evaluate import print_scores, score
from .files import expanded
from .inputs import label_axes
from .segment import segment_file

if TYPE_CHECKING:
    from .settings import RunConfig


def segmentation_targets(config: RunConfig) -> list[Path]:
    """Name the segmentation of every test volume, each by its image.

    Where images have the same name, the folders they lie in are added.
    """
    model = expanded(config.output.model or "")
    folder = expanded(config.output.segmentation_dir or model.parent)
    images = [located(pair.image) for pair in config.data.test]
    parts = []
    for image in images:
        path = image.path.absolute()
        names = [_stem(name) for name in path.parts[1:]]
        parts.append([*names, *image.inner.split("/")] if image.inner else names)
    targets = []
    for own in parts:
        length = 1
        while length < len(own) and _share(parts, own[-length:]):
            length += 1
        targets.append(folder / f"{'_'.join(own[-length:])}_seg.tif")
    return targets


def check_tests(config: RunConfig, in_channels: int) -> None:
    """Refuse test volumes that could not be segmented or scored after the training.

    Raises
    ------
    EngineError
        Naming the file.
    """
    for pair in config.data.test:
        image = open_image(
            pair.image, axes=config.data.axes, channels=config.data.channels
        )
        labels = read_labels(pair.labels, axes=label_axes(config.data.axes))
        truth = np.asarray(labels.data)
        channels, *shape = image.data.shape
        if channels != in_channels:
            raise EngineError(
                f"the test volume {pair.image} has {channels} channels but the model "
                f"takes {in_channels}; give one with the same channels"
            )
        if tuple(shape) != truth.shape:
            raise EngineError(
                f"{pair.labels} has shape {truth.shape} but {pair.image} has "
                f"{tuple(shape)}; labels and image must have the same grid"
            )
        if not (truth > 0).any():
            raise EngineError(
                f"{pair.labels} is 0 everywhere, so nothing can be scored with it; "
                "give labels 1, 2, ..."
            )


def segment_and_score(config: RunConfig, class_names: Sequence[str]) -> None:
    """Segment the test volumes with the model and print their scores."""
    segmentation = config.segmentation
    if segmentation.device == "auto":
        segmentation = replace(segmentation, device=config.training.device)
    found = []
    for pair, target in zip(
        config.data.test, segmentation_targets(config), strict=True
    ):
        assert config.output.model
        segment_file(
            config.output.model,
            pair.image,
            target,
            config=segmentation,
            channels=config.data.channels,
            axes=config.data.axes,
        )
        scores = score(target, pair.labels, truth_axes=label_axes(config.data.axes))
        print(f"{target}, scored by {pair.labels}:")
        print_scores(scores, class_names)
        found.append(scores.mean_foreground_iou)
    if len(found) > 1:
        mean = sum(found) / len(found)
        print(f"mean foreground IoU of {len(found)} volumes: {mean:.3f}")


def _share(parts: Sequence[Sequence[str]], end: Sequence[str]) -> bool:
    """Tell whether several end in the same way."""
    return sum(part[-len(end) :] == end for part in parts) > 1


def _stem(name: str) -> str:
    return name.split(".")[0] or name
