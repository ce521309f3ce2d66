"""The whole way on a generated volume: annotate, train, segment, score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from napari_unet3d._sample_data import (
    CLASS_NAMES,
    SPACING,
    sparse_annotation,
    tubules,
)
from napari_unet3d.engine.device import choose_device
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, read_labels

from .evaluate import print_scores, score
from .files import make_folder
from .flags import add_flags, given_flags
from .pictures import PLANES, save_table, three_planes
from .segment import segment_file
from .settings import RunConfig, build_run, overlay_values
from .train import train

if TYPE_CHECKING:
    import argparse

    import numpy as np

MINUTES = 1.0

ABOUT = """Written by napari-unet3d demo, which may replace these files.

image.tif         a generated volume of branching tubules
annotation.tif    three annotated slices of it: 1 background, 2 wall, 3 lumen
truth.tif         the classes of all voxels
tubules.pt        the model that was trained on image.tif and annotation.tif
log/              how the training went
segmentation.tif  what the model makes of image.tif
demo.png          all of them in three planes
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.usage = "%(prog)s [--out DIR] [--minutes X | --steps N] [options]"
    parser.add_argument(
        "--out",
        default="napari-unet3d-demo",
        metavar="DIR",
        help="Folder for everything that is written (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        dest="training.minutes",
        metavar="X",
        help=f"Minutes to train (default: {MINUTES:g})",
    )
    add_flags(parser, "training", only=("steps", "device", "seed"))


def run(options: argparse.Namespace) -> None:
    """Run the demonstration."""
    settings = overlay_values({"training": {"minutes": MINUTES}}, given_flags(options))
    choose_device(settings["training"].get("device", "auto"))
    folder = _folder(options.out)
    image, truth = tubules()
    annotation = sparse_annotation(truth)
    _save(folder / "image.tif", image, labels=False)
    _save(folder / "truth.tif", truth)
    _save(folder / "annotation.tif", annotation)
    print(
        f"a generated volume of {' × '.join(map(str, image.shape))} voxels, three "
        f"slices annotated ({(annotation > 0).mean():.1%} of the voxels)"
    )
    train(_configuration(folder, settings))
    output = folder / "segmentation.tif"
    segment_file(folder / "tubules.pt", folder / "image.tif", output)
    print("on the voxels that were not annotated:")
    scores = score(output, folder / "truth.tif", folder / "annotation.tif")
    print_scores(scores, CLASS_NAMES)
    _save_picture(folder / "demo.png", image, annotation, output, truth)
    print(f"everything is in {folder}; look at {folder / 'demo.png'}")


def _folder(name: str) -> Path:
    """Make the folder, unless something of the person's would be replaced in it."""
    folder = make_folder(name, "--out")
    about = folder / "README.txt"
    own = about.is_file() and about.read_bytes() == ABOUT.encode()
    names = [line.split()[0].rstrip("/") for line in ABOUT.splitlines()[2:]]
    taken = [name for name in [*names, about.name] if (folder / name).exists()]
    if taken and not own:
        raise EngineError(
            f"{folder} holds {taken[0]}, which this program did not write; choose "
            "another folder with --out"
        )
    about.write_bytes(ABOUT.encode())
    return folder


def _save(path: Path, volume: NDArray[np.uint8], labels: bool = True) -> None:
    with create_volume(
        path,
        volume.shape,
        volume.dtype,
        spacing=SPACING,
        unit="micrometer",
        labels=labels,
    ) as file:
        file[:] = volume


def _configuration(folder: Path, settings: dict[str, object]) -> RunConfig:
    pair = {
        "image": str(folder / "image.tif"),
        "labels": str(folder / "annotation.tif"),
    }
    files = {
        "data": {"train": [pair], "class_names": CLASS_NAMES},
        "output": {
            "model": str(folder / "tubules.pt"),
            "log_dir": str(folder / "log"),
        },
    }
    return build_run(overlay_values(files, settings))


def _save_picture(
    path: Path,
    image: NDArray[np.uint8],
    annotation: NDArray[np.uint8],
    output: Path,
    truth: NDArray[np.uint8],
) -> None:
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
