"""One description of a whole run: files, model, training, output.

The same fields are read from a YAML file and from flags; flags win.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from napari_unet3d.engine.config import (
    ModelConfig,
    SegmentationConfig,
    TrainingConfig,
)
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import read_configuration

from .problems import Naming, describe

_STRICT = ConfigDict(extra="forbid")

Values = dict[str, Any]
"""Sections with plain values of their fields, only those that were given."""


@dataclass(frozen=True, config=_STRICT)
class Pair:
    """An image and its labels."""

    image: str
    labels: str


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which files to use; relative paths are relative to the YAML file."""

    train: tuple[Pair, ...] = Field(default=(), description="Volumes to train on")
    validation: tuple[Pair, ...] = Field(
        default=(), description="Volumes to measure on while training"
    )
    test: tuple[Pair, ...] = Field(
        default=(), description="Volumes to segment and score after the training"
    )
    channels: tuple[int, ...] | None = Field(
        default=None,
        description="Channels of the images to use, counted from 0 (default: all)",
    )
    axes: str | None = Field(
        default=None,
        description="Meaning of the axes of images, as CZYX; labels have the same "
        "without C (default: as the file says)",
    )
    class_names: tuple[str, ...] = Field(
        default=(),
        description="Names of the classes 1, 2, ... "
        "(default: background, class 2, ...)",
    )


@dataclass(frozen=True, config=_STRICT)
class OutputConfig:
    """What to write."""

    model: str | None = Field(default=None, description="Model file to write")
    log_dir: str | None = Field(
        default=None,
        description="Folder for the history as CSV and JSON (default: none is written)",
    )
    tensorboard: bool = Field(
        default=False,
        description="Write the history for TensorBoard too, in the log folder",
    )
    segmentation_dir: str | None = Field(
        default=None,
        description="Folder for the segmentations of the test volumes (default: that "
        "of the model)",
    )


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """Everything about one training run."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    segmentation: SegmentationConfig = Field(default_factory=SegmentationConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "segmentation": SegmentationConfig,
    "output": OutputConfig,
}


def read_run(path: str | Path) -> Values:
    """Read a YAML file, its relative paths made absolute.

    Only what the file says is returned, because defaults must not hide the settings of
    a model that is trained on.

    Raises
    ------
    EngineError
        Naming each field that is unknown or wrong.
    """
    # A section whose fields are all commented out has no value.
    values = {
        name: {} if section is None and name in SECTIONS else section
        for name, section in read_configuration(path).items()
    }
    config = build_run(values, lambda field: f"{path}: {'.'.join(field)}")
    given = _only(as_plain(config), values)
    folder = Path(os.path.expanduser(path)).parent
    for kind in ("train", "validation", "test"):
        for pair in given.get("data", {}).get(kind, []):
            for name in ("image", "labels"):
                pair[name] = _beside(folder, pair[name])
    for name in ("model", "log_dir", "segmentation_dir"):
        if given.get("output", {}).get(name):
            given["output"][name] = _beside(folder, given["output"][name])
    return given


def build_run(values: Mapping[str, Any], named: Naming | None = None) -> RunConfig:
    """Validate values.

    Parameters
    ----------
    values : mapping
        Sections with values of their fields.
    named : callable, optional
        What to call a field in messages.

    Raises
    ------
    EngineError
        Naming each field that is unknown or wrong.
    """
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise EngineError(describe(error, RunConfig, named or _dotted)) from error


def as_plain(config: Any) -> Values:
    """Return a configuration as values that YAML and JSON can hold."""
    plain: Values = TypeAdapter(type(config)).dump_python(config, mode="json")
    return plain


def overlay_values(*layers: Mapping[str, Any]) -> Values:
    """Lay values over each other; later ones win.

    Minutes and steps exclude each other, so either takes the place of both.

    Raises
    ------
    EngineError
        Where one layer gives minutes and steps.
    """
    merged: Values = {}
    for layer in layers:
        training = layer.get("training", {})
        given = [name for name in ("minutes", "steps") if training.get(name)]
        if len(given) > 1:
            raise EngineError(
                f"minutes and steps exclude each other, got {training['minutes']} "
                f"minutes and {training['steps']} steps; give one of them"
            )
        if given and "training" in merged:
            merged["training"] |= {"minutes": None, "steps": None}
        merged = _merge(merged, layer)
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    merged = dict(below)
    for name, value in above.items():
        if isinstance(value, Mapping):
            merged[name] = _merge(merged.get(name) or {}, value)
        else:
            merged[name] = value
    return merged


def _only(plain: Values, given: Mapping[str, Any]) -> Values:
    return {
        name: _only(plain[name], value) if isinstance(value, Mapping) else plain[name]
        for name, value in given.items()
    }


def _beside(folder: Path, path: str) -> str:
    expanded = os.path.expanduser(path)
    return expanded if Path(expanded).is_absolute() else str(folder / path)


def _dotted(field: Sequence[str]) -> str:
    return ".".join(field)
