"""Train a model from files."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet3d.engine import Trainer, load, save
from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.config import ParallelConfig
from napari_unet3d.engine.errors import EngineError, SaveError
from napari_unet3d.engine.events import Trained
from napari_unet3d.engine.ranks import ALONE, Ranks
from napari_unet3d.io.replacing import remove, temporary_beside

from .devices import train_on_devices
from .doubts import warn_of_labels, warn_of_spacing
from .files import check_outputs, check_writable, expanded, make_folder
from .flags import add_flags, given_flags
from .history import History
from .inputs import classes_of_first, open_pair, unit_of_first
from .interruption import stopped_by_signals
from .progress import Reporter
from .resuming import check_same_network, settings_of
from .scoring import check_tests, segment_and_score, segmentation_targets
from .settings import RunConfig, build_run, overlay_values, read_run

STOPPING = (
    b"stopping after this step and saving; a second time loses what was learned since "
    b"the last save\n"
)

RESAMPLE = "resample it, or correct what the file says"

if TYPE_CHECKING:
    import argparse

    from napari_unet3d.engine.checkpoint import Checkpoint

OFTEN = {
    "data": ("train",),
    "output": ("model", "log_dir"),
    "training": ("minutes", "steps", "seed", "device"),
    "model": ("base_channels",),
}
"""Fields whose flags come first in the help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.usage = (
        "%(prog)s --image FILE --labels FILE --model FILE [--minutes X | --steps N] "
        "[options]\n       %(prog)s --config FILE [options]"
    )
    often = parser.add_argument_group("often used")
    for section, fields in OFTEN.items():
        add_flags(often, section, only=fields)
    often.add_argument(
        "--resume", metavar="FILE", help="Model to go on from, exactly where it stood"
    )
    often.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        help="End after N steps of this call; the schedule of --steps is kept for "
        "--resume",
    )
    devices = ParallelConfig.__pydantic_fields__["devices"]  # type: ignore[attr-defined]
    often.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help=f"{devices.description} (default: 1)",
    )
    often.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file with sections data, model, training, segmentation and output; "
        "flags win over it",
    )
    for title, section in (
        ("data", "data"),
        ("network", "model"),
        ("training", "training"),
        ("variation of the training patches", "training.augmentation"),
        ("output", "output"),
    ):
        group = parser.add_argument_group(title)
        add_flags(group, section, without=OFTEN.get(section, ()))
    group = parser.add_argument_group("segmentation of the test volumes")
    add_flags(group, "segmentation", without=("device", "precision"))


def run(options: argparse.Namespace) -> None:
    """Train, and score on the test volumes where there are any."""
    flags = given_flags(options)
    file = read_run(options.config) if options.config else {}
    checkpoint = load(expanded(options.resume)) if options.resume else None
    config = build_run(overlay_values(settings_of(checkpoint), file, flags))
    ranks: Ranks = options.ranks or ALONE
    if not options.ranks and options.devices != 1:
        from napari_unet3d.distributed.devices import check_devices

        check_devices(options.devices, config.training)
        # Rather than in every process, once it has started.
        _checked(config, checkpoint, options.stop_after, ranks)
        train_on_devices(options.words, options.devices)
    train(config, checkpoint, options.stop_after, ranks, options.resume)


def train(
    config: RunConfig,
    checkpoint: Checkpoint | None = None,
    stop_after: int | None = None,
    ranks: Ranks = ALONE,
    resumed: str | None = None,
) -> None:
    """Train as configured, reporting on the terminal.

    Parameters
    ----------
    config : RunConfig
        What to train on, how, and where to write the model.
    checkpoint : Checkpoint, optional
        Model to go on from.
    stop_after : int, optional
        End after this many steps, keeping the schedule.
    ranks : Ranks
        Those that train the model together; the first one writes it and scores.
    resumed : str, optional
        The file that `checkpoint` comes from. Another model that has the name of the
        new one is kept under another name.

    Raises
    ------
    EngineError
        Where something is missing or wrong; before any training if possible.
    """
    model = _checked(config, checkpoint, stop_after, ranks)
    keep_freed_memory()
    training = [open_pair(pair, config.data) for pair in config.data.train]
    validation = [open_pair(pair, config.data) for pair in config.data.validation]
    names, colors = classes_of_first(training)
    if config.data.class_names or checkpoint:
        names, colors = config.data.class_names, ()
    trainer = Trainer(
        [pair.volume for pair in training],
        config.model,
        config.training,
        checkpoint=checkpoint,
        validation=[pair.volume for pair in validation],
        class_names=names,
        class_colors=colors,
        unit="" if checkpoint else unit_of_first(training),
        save_to=model,
        ranks=ranks,
    )
    n_classes = trainer.model.n_classes or 0
    _check_class_names(config, n_classes)
    warn_of_labels(trainer.data.volumes)
    if checkpoint or config.model.spacing is None:
        network = trainer.model.spacing, trainer.unit
        for pair in training:
            size = pair.volume.spacing, pair.unit
            warn_of_spacing(pair.volume.name, *size, *network, RESAMPLE)
    check_tests(config, trainer.model.in_channels or 1)
    history = None
    if config.output.log_dir and ranks.rank == 0:
        history = History(
            config.output.log_dir,
            n_classes,
            trainer.history,
            config.output.tensorboard,
        )
    if ranks.rank == 0:
        _keep_former(model, resumed)
    report, stopped = Reporter(), False
    try:
        with stopped_by_signals(b"" if ranks.rank else STOPPING) as stop:
            for event in trainer.run(stop, stop_after):
                report(event)
                if history:
                    history(event)
                stopped = isinstance(event, Trained) and event.reason == "stopped"
            if trainer.schedule.progress < 1:
                print(f"go on with --resume {model}", file=sys.stderr)
    except SaveError as error:
        raise _rescued(trainer, model, error) from error
    finally:
        if history:
            history.close()
    # Another rank may have been asked to stop.
    if ranks.rank == 0 and not stopped:
        segment_and_score(config, trainer.class_names)


def _checked(
    config: RunConfig,
    checkpoint: Checkpoint | None,
    stop_after: int | None,
    ranks: Ranks,
) -> Path:
    """Find out before the work what would end it; return the model's path."""
    if not config.data.train:
        raise EngineError(
            "nothing to train on; give --image and --labels, or data: train: in the "
            "file of --config"
        )
    if not config.output.model:
        raise EngineError("no model file named; give --model, as --model cells.pt")
    if config.output.tensorboard and not config.output.log_dir:
        raise EngineError("--tensorboard needs a folder; give one with --log-dir")
    if stop_after is not None and stop_after < 1:
        raise EngineError(f"--stop-after must be at least 1, got {stop_after}")
    if checkpoint:
        check_same_network(config, checkpoint)
    if ranks.rank:
        return expanded(config.output.model)
    check_writable(config.output.model)
    inputs = [
        name
        for pairs in (config.data.train, config.data.validation, config.data.test)
        for pair in pairs
        for name in (pair.image, pair.labels)
    ]
    targets = segmentation_targets(config)
    check_outputs([config.output.model, *targets], inputs)
    if expanded(config.output.model).exists():
        try:
            load(expanded(config.output.model))
        except EngineError as error:
            raise EngineError(
                f"--model {config.output.model} exists and is no model; choose another "
                "name, or remove it"
            ) from error
    if targets and config.output.segmentation_dir:
        make_folder(config.output.segmentation_dir, "--segmentation-dir")
    return expanded(config.output.model)


def _keep_former(model: Path, resumed: str | None) -> None:
    """Give a name that is free to a model that another one is to replace."""
    if not model.exists() or (resumed and model.samefile(expanded(resumed))):
        return
    kept = _free_name(model)
    temporary = temporary_beside(kept)
    try:
        shutil.copyfile(model, temporary)
        temporary.replace(kept)
    except OSError as error:
        remove(temporary)
        raise EngineError(
            f"{model} exists and cannot be kept as {kept} ({error.strerror}); choose "
            "another --model, or go on from it with --resume"
        ) from error
    print(f"the model that was in {model} is kept as {kept}", file=sys.stderr)


def _free_name(model: Path) -> Path:
    """Return a name beside a model that no file has."""
    kept = model.with_stem(f"{model.stem}-previous")
    numbers = count(2)
    while os.path.lexists(kept):
        kept = model.with_stem(f"{model.stem}-previous-{next(numbers)}")
    return kept


def _check_class_names(config: RunConfig, n_classes: int) -> None:
    names = config.data.class_names
    if len(names) > n_classes:
        raise EngineError(
            f"{len(names)} --class-names are given ({', '.join(names)}), but the "
            f"labels have {n_classes} classes; leave out some, or give --n-classes "
            f"{len(names)}"
        )


def _rescued(trainer: Trainer, model: Path, error: SaveError) -> EngineError:
    """Save the model elsewhere, where its own place does not take it."""
    with suppress(OSError, SaveError):
        folder = Path(tempfile.mkdtemp(prefix="napari-unet3d-"))
        save(trainer.checkpoint(), folder / model.name)
        return EngineError(
            f"{error}; the trained model was saved as {folder / model.name} instead: "
            "move it from there"
        )
    return error
