"""Score a segmentation against the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.engine import Scores, evaluate
from napari_unet3d.io import read_labels

from .flags import add_flags, given_flags

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument(
        "--segmentation",
        required=True,
        metavar="FILE",
        help="Segmentation with classes 1 to K",
    )
    parser.add_argument(
        "--truth",
        required=True,
        metavar="FILE",
        help="What it should be; voxels with 0 are not scored",
    )
    parser.add_argument(
        "--exclude",
        metavar="FILE",
        help="Labels that were trained on: voxels that are not 0 in it are not scored",
    )
    add_flags(parser, "data", only=("axes",))
    parser.add_argument(
        "--json", action="store_true", help="Print one JSON object instead of a table"
    )


def run(options: argparse.Namespace) -> None:
    """Score one segmentation."""
    axes = given_flags(options).get("data", {}).get("axes")
    scores = score(options.segmentation, options.truth, options.exclude, axes, axes)
    if options.json:
        print(json.dumps(scores.as_dict()))
    else:
        print_scores(scores)


def score(
    segmentation: str | Path,
    truth: str | Path,
    exclude: str | Path | None = None,
    axes: str | None = None,
    truth_axes: str | None = None,
) -> Scores:
    """Score files; see `napari_unet3d.engine.evaluate`.

    Parameters
    ----------
    segmentation, truth, exclude : path
        Label volumes of one shape.
    axes, truth_axes : str, optional
        Meaning of the axes: of `segmentation`, where that file does not say, and of
        `exclude`, and of `truth`.
    """
    return evaluate(
        read_labels(segmentation, axes=axes, override=False).data,
        read_labels(truth, axes=truth_axes).data,
        read_labels(exclude, axes=axes).data if exclude else None,
    )


def print_scores(scores: Scores, names: Sequence[str] = ()) -> None:
    """Print a table of the classes that occur."""
    rows = [
        (f"{k} {names[k - 1]}" if k <= len(names) else str(k), iou, dice, voxels)
        for k, (iou, dice, voxels) in enumerate(
            zip(scores.iou, scores.dice, scores.truth, strict=True), start=1
        )
        if not np.isnan(iou)
    ]
    width = max(14, *(len(name) for name, *_ in rows))
    print(f"{'class':>{width}}  {'IoU':>6}  {'Dice':>6}  {'voxels':>10}")
    for name, iou, dice, voxels in rows:
        print(f"{name:>{width}}  {iou:6.3f}  {dice:6.3f}  {voxels:10,}")
    print(f"{'mean':>{width}}  {scores.mean_iou:6.3f}")
    print(f"{'foreground':>{width}}  {scores.mean_foreground_iou:6.3f}")
