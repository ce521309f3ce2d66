"""Train a model from files."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from napari_unet3d.engine import Annotation, Trainer, TrainingVolume, load
from napari_unet3d.engine.checkpoint import Checkpoint
from napari_unet3d.engine.device import keep_freed_memory
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.events import Trained
from napari_unet3d.io import open_image, read_labels

from .evaluate import print_scores, score
from .progress import History, Reporter
from .segment import segment_file
from .settings import (
    DataConfig,
    Pair,
    RunConfig,
    add_flags,
    build_run,
    given_flags,
    merge,
    read_run,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE",
        help="image to train on; may be given several times",
    )
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="FILE",
        help="its sparse labels: 0 unlabelled, 1 and up the classes",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any settings")
    parser.add_argument(
        "--resume", metavar="MODEL", help="model to go on from, exactly where it stood"
    )
    parser.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        help="end after N steps of this call, keeping the schedule for --resume",
    )
    for section in ("data", "model", "training", "output"):
        add_flags(parser, section)


def run(options: argparse.Namespace) -> None:
    """Train, and score on the test volumes where there are any."""
    flags = given_flags(options)
    pairs = _pairs(options)
    if pairs:
        flags.setdefault("data", {})["train"] = pairs
    file = read_run(options.config) if options.config else {}
    checkpoint = load(options.resume) if options.resume else None
    config = build_run(merge(_of_checkpoint(checkpoint, flags, file), file, flags))
    train(config, checkpoint, options.stop_after)


def train(
    config: RunConfig,
    checkpoint: Checkpoint | None = None,
    stop_after: int | None = None,
) -> Trainer:
    """Train as configured, reporting on the terminal.

    Raises
    ------
    EngineError
        Where something is missing or wrong; before any training if possible.
    """
    if not config.data.train:
        raise EngineError(
            "nothing to train on; give --image and --labels, or data: train: in --config"
        )
    if not config.output.model:
        raise EngineError("no model file named; give --model, as --model cells.pt")
    if stop_after is not None and stop_after < 1:
        raise EngineError(f"--stop-after must be at least 1, got {stop_after}")
    check_writable(config.output.model)
    keep_freed_memory()
    volumes = [_volume(pair, config.data) for pair in config.data.train]
    trainer = Trainer(
        volumes,
        config.model,
        config.training,
        checkpoint=checkpoint,
        validation=[_volume(pair, config.data) for pair in config.data.validation],
        class_names=config.data.class_names,
        unit=_unit(config.data),
        save_to=config.output.model,
    )
    report = Reporter()
    history = None
    if config.output.log_dir:
        history = History(config.output.log_dir, config.output.tensorboard)
    try:
        with _stopped_by_interrupt() as stop:
            for event in trainer.run(stop, stop_after):
                report(event)
                if history:
                    history(event)
                if isinstance(event, Trained) and event.reason == "stopped":
                    return trainer
    finally:
        if history:
            history.close()
    _test(config)
    return trainer


def check_writable(path: str | Path) -> None:
    """Find out before the work whether its result can be written.

    Raises
    ------
    EngineError
        Where the folder does not exist or is read-only.
    """
    path = Path(path)
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        probe.touch()
    except OSError as error:
        raise EngineError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and "
            "may be written to"
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink()


def _pairs(options: argparse.Namespace) -> list[dict[str, str]]:
    if len(options.image) != len(options.labels):
        raise EngineError(
            f"got {len(options.image)} --image and {len(options.labels)} --labels; "
            "give one --labels for each --image, in the same order"
        )
    return [
        {"image": image, "labels": labels}
        for image, labels in zip(options.image, options.labels, strict=True)
    ]


def _of_checkpoint(
    checkpoint: Checkpoint | None, *later: dict[str, dict[str, object]]
) -> dict[str, object]:
    """Start from the settings that the model was trained with."""
    if checkpoint is None:
        return {}
    training = asdict(checkpoint.training)
    for layer in later:
        given = layer.get("training", {})
        # Minutes and steps exclude each other: the newer one counts.
        if "minutes" in given or "steps" in given:
            training["minutes"] = training["steps"] = None
    return {"training": training}


def _volume(pair: Pair, data: DataConfig) -> TrainingVolume:
    image = open_image(pair.image, axes=data.axes, channels=data.channels)
    labels = read_labels(pair.labels)
    return TrainingVolume(
        image.data,
        Annotation.from_labels(labels.data),
        image.spacing or labels.spacing,
        name=pair.image,
    )


def _unit(data: DataConfig) -> str:
    first = open_image(data.train[0].image, axes=data.axes, channels=data.channels)
    return first.unit or ""


@contextmanager
def _stopped_by_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a stop that keeps the model."""
    stop = threading.Event()

    def interrupt(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


def _test(config: RunConfig) -> None:
    assert config.output.model
    folder = config.output.segmentation_dir
    for pair in config.data.test:
        stem = Path(pair.image.split(".zarr")[0].split(":")[0]).name.split(".")[0]
        target = Path(folder or Path(config.output.model).parent) / f"{stem}_seg.tif"
        target.parent.mkdir(parents=True, exist_ok=True)
        segment_file(
            config.output.model,
            pair.image,
            target,
            config=config.segmentation,
            channels=config.data.channels,
            axes=config.data.axes,
        )
        print(f"{pair.image}:")
        print_scores(score(target, pair.labels))
