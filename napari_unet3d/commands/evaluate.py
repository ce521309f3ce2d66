"""Score a segmentation against the truth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from napari_unet3d.engine import Scores, evaluate
from napari_unet3d.io import read_labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument(
        "--segmentation", required=True, metavar="FILE", help="classes 1 to K"
    )
    parser.add_argument(
        "--truth", required=True, metavar="FILE", help="classes 1 to K, 0 not scored"
    )
    parser.add_argument(
        "--exclude",
        metavar="FILE",
        help="labels whose voxels are not scored: those that were trained on",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> None:
    """Score one segmentation."""
    scores = score(options.segmentation, options.truth, options.exclude)
    if options.json:
        print(json.dumps(scores.as_dict()))
    else:
        print_scores(scores)


def score(
    segmentation: str | Path, truth: str | Path, exclude: str | Path | None = None
) -> Scores:
    """Score files; see `napari_unet3d.engine.evaluate`."""
    return evaluate(
        read_labels(segmentation).data,
        read_labels(truth).data,
        read_labels(exclude).data if exclude else None,
    )


def print_scores(scores: Scores, names: tuple[str, ...] = ()) -> None:
    """Print a table of the classes."""
    print(f"{'class':>14}  {'IoU':>6}  {'Dice':>6}  {'voxels':>10}")
    rows = zip(scores.iou, scores.dice, scores.truth, strict=True)
    for k, (iou, dice, voxels) in enumerate(rows, start=1):
        name = f"{k} {names[k - 1]}" if k <= len(names) else str(k)
        print(f"{name:>14}  {iou:6.3f}  {dice:6.3f}  {voxels:10,}")
    print(f"{'mean':>14}  {scores.mean_iou:6.3f}")
    print(f"{'foreground':>14}  {scores.mean_foreground_iou:6.3f}")
