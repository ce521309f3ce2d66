"""One self-describing model file, safe to open whoever sent it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_unet3d import __version__

from .config import ModelConfig, TrainingConfig, as_plain, build
from .errors import EngineError, SaveError
from .stem import FilterStem
from .unet import UNet3D

FORMAT = "napari-unet3d model"
FORMAT_VERSION = 1

Weights = dict[str, Tensor]


@dataclass
class Checkpoint:
    """A model with all that is needed to segment with it or to train it on.

    Parameters
    ----------
    model : ModelConfig
        With nothing left open.
    training : TrainingConfig
        As it was given.
    weights : dict
        State dicts of the network: "latest", "average" and "best".
    stem : dict
        State dict of the filter stem.
    class_names : tuple of str
        One per class.
    class_colors : tuple of str
        As "#rrggbb", one per class, or empty.
    unit : str
        Unit of the spacing; empty where unknown.
    step : int
        Steps trained.
    seconds : float
        Seconds trained.
    schedule : dict
        Where the learning rate's schedule stands.
    best : dict
        "iou" and "step" of the best weights; empty where nothing was held out.
    optimizer : dict
        State of the optimizer; empty in a model that is only meant to segment.
    history : list of dict
        What was logged: step, seconds, loss, learning_rate, iou, mean_iou.
    version : str
        Of the program that wrote the file.
    """

    model: ModelConfig
    training: TrainingConfig
    weights: dict[str, Weights]
    stem: Weights
    class_names: tuple[str, ...]
    class_colors: tuple[str, ...] = ()
    unit: str = ""
    step: int = 0
    seconds: float = 0.0
    schedule: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    version: str = __version__

    def network(self, weights: str = "best") -> UNet3D:
        """Build the network with some of its weights, in evaluation mode.

        "best" falls back to "average" where nothing was held out.

        Raises
        ------
        EngineError
            Where the weights do not fit the configuration.
        """
        chosen = self.weights.get(weights) or self.weights["average"]
        network = build_network(self.model)
        _check_fit(chosen, network, "weights")
        network.load_state_dict(chosen)
        return network.eval()

    def filter_stem(self) -> FilterStem:
        """Build the stem with its statistics.

        Raises
        ------
        EngineError
            Where the statistics do not fit the configuration.
        """
        stem = build_stem(self.model)
        _check_fit(self.stem, stem, "filter statistics")
        stem.load_state_dict(self.stem)
        return stem


def _check_fit(state: Mapping[str, Any], module: nn.Module, what: str) -> None:
    """Refuse a state dict of other names, shapes or types than the module's."""
    expected = module.state_dict()
    for name in sorted(expected.keys() ^ state.keys(), key=str):
        problem = "lack" if name in expected else "have an unexpected"
        raise EngineError(
            f"the {what} do not fit the model's configuration: they {problem} {name}"
        )
    for name, tensor in expected.items():
        found = state[name]
        if not isinstance(found, Tensor) or found.shape != tensor.shape:
            got = str(tuple(found.shape)) if isinstance(found, Tensor) else repr(found)
            raise EngineError(
                f"the {what} do not fit the model's configuration: {name} is "
                f"{got:.80}, not {tuple(tensor.shape)}"
            )


def build_stem(model: ModelConfig) -> FilterStem:
    """Make the filter stem of a configuration with nothing left open."""
    assert model.in_channels
    assert model.spacing
    scales = model.filter_scales if model.stem == "filters" else ()
    return FilterStem(model.in_channels, scales, model.spacing)


def build_network(model: ModelConfig) -> UNet3D:
    """Make the network of a configuration with nothing left open, untrained."""
    assert model.n_classes
    assert model.base_channels
    assert model.pooling is not None
    return UNet3D(
        in_channels=build_stem(model).out_channels,
        n_classes=model.n_classes,
        base_channels=model.base_channels,
        pooling=model.pooling,
        padding=model.padding,
        normalization=model.normalization,
        shortcut=model.shortcut if model.stem == "filters" else 0,
    )


def save(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a model file under a temporary name, then rename it.

    A file of that name stays whole until the new one is complete.

    Raises
    ------
    SaveError
        Where the folder cannot be written to or is full.
    """
    path = Path(path)
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


def load(path: str | Path) -> Checkpoint:
    """Read a model file; nothing in it is executed.

    Raises
    ------
    EngineError
        Where the file is missing, truncated or no model of this program.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(f"there is no model file {path}; check the name")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # whatever a damaged or foreign file may bring about
        raise EngineError(
            f"{path} cannot be read as a model ({type(e).__name__}): it is truncated, "
            "of another program, or not safe to open; use a file saved by "
            "napari-unet3d"
        ) from e
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


def _built(content: Mapping[str, Any]) -> Checkpoint:
    for name, weights in content["weights"].items():
        if not isinstance(weights, dict):
            raise EngineError(f"its {name} weights are {type(weights).__name__}")
    model = build(ModelConfig, content["model"], "model")
    training = build(TrainingConfig, content["training"], "training")
    missing = [
        name
        for name in ("in_channels", "n_classes", "base_channels", "pooling", "spacing")
        if getattr(model, name) is None
    ]
    if missing or not content["weights"].get("average"):
        raise EngineError(f"it lacks {', '.join(missing or ['weights'])}")
    for name in ("schedule", "best"):
        for key, value in content[name].items():
            if not isinstance(value, float | int):
                raise EngineError(f"{key} in its field {name!r} is {value!r}")
    if content["step"] < 0:
        raise EngineError(f"its step is {content['step']}")
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
            _check_fit(weights, network, "weights")
    _check_fit(checkpoint.stem, stem, "filter statistics")
    return checkpoint
