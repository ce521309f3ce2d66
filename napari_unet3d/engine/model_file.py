"""One self-describing model file, safe to open whoever sent it."""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from napari_unet3d import __version__

from .checkpoint import (
    Checkpoint,
    build_network,
    build_stem,
    check_fit,
    check_numbers,
)
from .config import ModelConfig, TrainingConfig
from .config_values import as_plain, build
from .errors import EngineError, SaveError

FORMAT = "napari-unet3d model"

FORMAT_VERSION = 2
"""Files of version 1 have another setting for the statistics of a training."""


def save(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a model file under a temporary name, then rename it.

    A file of that name stays whole until the new one is complete.

    Raises
    ------
    SaveError
        Where the folder cannot be written to or is full, or a device has the name.
    EngineError
        Where the model is useless, so that another place would be no remedy.
    """
    path = Path(path)
    try:
        check_numbers(checkpoint)
    except EngineError as error:
        raise EngineError(
            f"the model is not written after {checkpoint.step} steps, and {path} stays "
            f"as it was: {error}; train again with a lower learning rate (now "
            f"{checkpoint.training.learning_rate:g}) or precision float32"
        ) from error
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **{name: getattr(checkpoint, name) for name in _FIELDS},
        "model": as_plain(checkpoint.model),
        "training": as_plain(checkpoint.training),
        "class_names": list(checkpoint.class_names),
        "class_colors": list(checkpoint.class_colors),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file():
            # It would be replaced, which an administrator is allowed to do.
            what = "folder" if path.is_dir() else "device"
            raise SaveError(
                f"cannot write the model {path}: it is a {what}; choose another name"
            )
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch does not say why its archive could not be written.
        reason = getattr(error, "strerror", None) or "the disk is full or gone"
        raise SaveError(
            f"cannot write the model {path}: {reason}; choose a folder that exists, "
            "may be written to and has room"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError),
    *(LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
)
"""What torch raises for files that are truncated, changed or of other programs."""


def load(path: str | Path) -> Checkpoint:
    """Read a model file; nothing in it is executed.

    Raises
    ------
    EngineError
        Where the file is missing, truncated or no model of this program.
    """
    path = Path(path)
    with _readable(path):
        content = _unpickled(path)
    return _checked(content, path)


def load_with_digest(path: str | Path) -> tuple[Checkpoint, str]:
    """Read a model file once, for the model and for the SHA-256 of the file.

    A training may save another model under the name at any moment.

    Raises
    ------
    EngineError
        As `load`.
    """
    path = Path(path)
    with _readable(path):
        file = path.read_bytes()
        content = _unpickled(io.BytesIO(file))
    return _checked(content, path), hashlib.sha256(file).hexdigest()


def _unpickled(file: Path | io.BytesIO) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in a sentence what is wrong with a file that cannot be read."""
    if path.is_dir():
        raise EngineError(f"{path} is a folder, not a model file; choose a file")
    if not path.is_file():
        raise EngineError(f"there is no model file {path}; check the name")
    try:
        yield
    except DAMAGE as e:
        raise EngineError(
            f"{path} cannot be read as a model ({type(e).__name__}): it is truncated, "
            "of another program, or not safe to open; use a file saved by "
            "napari-unet3d"
        ) from e


def _checked(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise EngineError(
            f"{path} is not a model of napari-unet3d; use a file that it has saved"
        )
    version = content.get("format_version")
    if not isinstance(version, int):
        raise EngineError(f"{path} is damaged: its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise EngineError(
            f"{path} was written by napari-unet3d {content.get('version')}, which is "
            f"newer than this one ({__version__}); update with pip install -U "
            "napari-unet3d"
        )
    return _validated(content, path)


_FIELDS = {
    "weights": dict,
    "stem": dict,
    "unit": str,
    "step": int,
    "seconds": float,
    "schedule": dict,
    "best": dict,
    "optimizer": dict,
    "history": list,
    "version": str,
}


def _validated(content: Mapping[str, Any], path: Path) -> Checkpoint:
    """Check the content field by field."""
    expected = {
        **_FIELDS,
        "model": dict,
        "training": dict,
        "class_names": list,
        "class_colors": list,
    }
    for name, kind in expected.items():
        if not isinstance(content.get(name), kind):
            raise EngineError(
                f"{path} is damaged: its field {name!r} is "
                f"{type(content.get(name)).__name__}, not {kind.__name__}"
            )
    try:
        return _built(content)
    except EngineError as error:
        raise EngineError(f"{path} is damaged: {error}") from error


def _converted(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a training as this version knows them."""
    training = dict(content["training"])
    if content["format_version"] < 2:
        # The share of a training after which statistics stayed as they were
        training.pop("freeze_statistics", None)
    return training


def _built(content: Mapping[str, Any]) -> Checkpoint:
    for name, weights in content["weights"].items():
        if not isinstance(weights, dict):
            raise EngineError(f"its {name} weights are {type(weights).__name__}")
    model = build(ModelConfig, content["model"], "model")
    training = build(TrainingConfig, _converted(content), "training")
    missing = [
        name
        for name in ("in_channels", "n_classes", "base_channels", "pooling", "spacing")
        if getattr(model, name) is None
    ]
    if missing or not content["weights"].get("average"):
        raise EngineError(f"it lacks {', '.join(missing or ['weights'])}")
    for name in ("schedule", "best"):
        for key, value in content[name].items():
            if not isinstance(value, float | int) or not abs(value) < math.inf:
                raise EngineError(f"{key} in its field {name!r} is {value!r}")
    if content["step"] < 0:
        raise EngineError(f"its step is {content['step']}")
    if not 0 <= content["seconds"] < math.inf:
        raise EngineError(f"it was trained for {content['seconds']} seconds")
    if len(content["class_names"]) != model.n_classes:
        raise EngineError(
            f"it names {len(content['class_names'])} of {model.n_classes} classes"
        )
    if not all(isinstance(entry, dict) for entry in content["history"]):
        raise EngineError("its history holds more than dictionaries")
    checkpoint = Checkpoint(
        model=model,
        training=training,
        class_names=tuple(map(str, content["class_names"])),
        class_colors=tuple(map(str, content["class_colors"])),
        **{name: content[name] for name in _FIELDS},
    )
    # Compared without room for them: a file may claim a network of any size.
    try:
        with torch.device("meta"):
            network, stem = build_network(model), build_stem(model)
    except (OverflowError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(f"there is no such network: {reason}") from error
    for weights in checkpoint.weights.values():
        if weights:
            check_fit(weights, network, "weights")
    check_fit(checkpoint.stem, stem, "filter statistics")
    check_numbers(checkpoint)
    return checkpoint
