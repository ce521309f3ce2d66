"""The whole way on a generated volume: annotate, train, segment, score."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_unet3d._sample_data import (
    CLASS_NAMES,
    SPACING,
    sparse_annotation,
    tubules,
)
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, read_labels

from .evaluate import print_scores, score
from .pictures import PLANES, save_table, three_planes
from .segment import segment_file
from .settings import build_run
from .train import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument(
        "--out",
        default="napari-unet3d-demo",
        metavar="DIR",
        help="folder for everything that is written [%(default)s]",
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="minutes to train [%(default)s]"
    )
    parser.add_argument("--steps", type=int, help="steps to train instead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")


def run(options: argparse.Namespace) -> None:
    """Run the demonstration."""
    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make the folder {folder}: {error.strerror}; choose another --out"
        ) from error
    image, truth = tubules()
    annotation = sparse_annotation(truth)
    for name, volume, labels in (
        ("image", image, False),
        ("truth", truth, True),
        ("annotation", annotation, True),
    ):
        with create_volume(
            folder / f"{name}.tif",
            volume.shape,
            volume.dtype,
            spacing=SPACING,
            unit="micrometer",
            labels=labels,
        ) as file:
            file[:] = volume
    share = (annotation > 0).mean()
    print(
        f"a generated volume of {' × '.join(map(str, image.shape))} voxels, three "
        f"slices annotated ({share:.1%} of the voxels)"
    )
    schedule = (
        {"steps": options.steps} if options.steps else {"minutes": options.minutes}
    )
    pair = {
        "image": str(folder / "image.tif"),
        "labels": str(folder / "annotation.tif"),
    }
    model = folder / "tubules.pt"
    train(
        build_run(
            {
                "data": {"train": [pair], "class_names": CLASS_NAMES},
                "training": {
                    **schedule,
                    "device": options.device,
                    "seed": options.seed,
                },
                "output": {"model": str(model), "log_dir": str(folder / "log")},
            }
        )
    )
    output = folder / "segmentation.tif"
    segment_file(model, pair["image"], output)
    print("on the voxels that were not annotated:")
    print_scores(score(output, folder / "truth.tif", pair["labels"]), CLASS_NAMES)
    _save_picture(folder / "demo.png", image, annotation, output, truth)
    print(f"everything is in {folder}; look at {folder / 'demo.png'}")


def _save_picture(path, image, annotation, output, truth) -> None:  # type: ignore[no-untyped-def]
    """Show image, annotation, segmentation and truth in three planes."""
    segmentation = read_labels(output).data[:]
    # A quarter of the way in: none of the annotated slices is shown as a plane.
    position = [n // 4 for n in image.shape]
    rows = [
        (caption, three_planes(image, labels, position, SPACING))
        for caption, labels in (
            ("image", None),
            ("annotation (three slices seen edge-on)", annotation),
            ("segmentation", segmentation),
            ("truth", truth),
        )
    ]
    save_table(path, rows, PLANES)
