"""One description of a whole run: files, model, training, output.

The same fields are read from a YAML file and from flags; flags win.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from napari_unet3d.engine.config import (
    ModelConfig,
    SegmentationConfig,
    TrainingConfig,
    describe_problems,
)
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import read_configuration

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class Pair:
    """An image and its labels."""

    image: str
    labels: str


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Which files to use; relative paths are relative to the YAML file."""

    train: tuple[Pair, ...] = Field((), description="Sparsely annotated volumes")
    validation: tuple[Pair, ...] = Field(
        (),
        description="Volumes to measure on while training, instead of held-out labels",
    )
    test: tuple[Pair, ...] = Field(
        (), description="Volumes to segment and score after the training"
    )
    channels: tuple[int, ...] | None = Field(
        None, description="Channels of the images to use, from 0 (default: all)"
    )
    axes: str | None = Field(
        None,
        description="Meaning of the images' axes, as CZYX (default: as in the file)",
    )
    class_names: tuple[str, ...] = Field(
        (), description="Names of the classes 1, 2, ..., separated by commas"
    )


@dataclass(frozen=True, config=_STRICT)
class OutputConfig:
    """What to write."""

    model: str | None = Field(None, description="Model file to write")
    log_dir: str | None = Field(
        None, description="Folder for the history as CSV and JSON"
    )
    tensorboard: bool = Field(
        False, description="Write the history for TensorBoard too, in log_dir"
    )
    segmentation_dir: str | None = Field(
        None, description="Folder for the segmentations of the test volumes"
    )


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """Everything about one training run."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    segmentation: SegmentationConfig = Field(default_factory=SegmentationConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)


SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "segmentation": SegmentationConfig,
    "output": OutputConfig,
}


def read_run(path: str | Path) -> dict[str, Any]:
    """Read a YAML file as nested dictionaries, its relative paths made absolute.

    Raises
    ------
    EngineError
        Naming each field that is unknown or wrong.
    """
    values = read_configuration(path)
    config = build_run(values, str(path))
    folder = Path(path).parent
    plain = as_plain(config)
    # Only what the file says: defaults must not hide those of a resumed model.
    given = _only(plain, values)
    for kind in ("train", "validation", "test"):
        for pair in given.get("data", {}).get(kind, []):
            for name in ("image", "labels"):
                pair[name] = _beside(folder, pair[name])
    for name in ("model", "log_dir", "segmentation_dir"):
        if given.get("output", {}).get(name):
            given["output"][name] = _beside(folder, given["output"][name])
    return given


def build_run(values: Mapping[str, Any], where: str = "") -> RunConfig:
    """Validate nested values.

    Raises
    ------
    EngineError
        Naming each field that is unknown or wrong.
    """
    try:
        return RunConfig(**values)
    except (ValidationError, TypeError) as error:
        prefix = f"{where}: " if where else ""
        raise EngineError(prefix + describe_problems(error, RunConfig)) from error


def as_plain(config: Any) -> dict[str, Any]:
    """Return a configuration as values that YAML and JSON can hold."""
    plain: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return plain


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested values over each other; later ones win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
                merged[name] = merge(merged[name], value)
            else:
                merged[name] = value
    return merged


def add_flags(
    parser: argparse.ArgumentParser, section: str, only: Sequence[str] = ()
) -> None:
    """Add a flag for every field of a section, or only for some."""
    group = parser.add_argument_group(section)
    for path, name, info in _fields(SECTIONS[section], (section,)):
        if (only and name not in only) or Pair in get_args(info.annotation):
            continue
        choices = _choices(info.annotation)
        default = "" if info.default is None else f" [{_shown(info.default)}]"
        if isinstance(info.default, bool):
            group.add_argument(
                _flag(name),
                action=argparse.BooleanOptionalAction,
                default=None,
                dest=".".join(path),
                help=f"{info.description}{default}",
            )
            continue
        group.add_argument(
            _flag(name),
            dest=".".join(path),
            choices=choices,
            metavar=None if choices else name.upper(),
            help=f"{info.description}{default}".replace("%", "%%"),
        )


def given_flags(options: argparse.Namespace) -> dict[str, Any]:
    """Collect the flags that were given, as nested values."""
    values: dict[str, Any] = {}
    for dotted, text in vars(options).items():
        path = dotted.split(".")
        if text is None or len(path) < 2:
            continue
        place = values
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = _parsed(text, _annotation(path))
    return values


def _fields(kind: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, str, Any]]:
    for name, info in kind.__pydantic_fields__.items():
        if hasattr(info.annotation, "__pydantic_fields__"):
            yield from _fields(info.annotation, (*path, name))
        else:
            yield (*path, name), name, info


def _annotation(path: Sequence[str]) -> Any:
    kind: Any = SECTIONS[path[0]]
    for name in path[1:]:
        kind = kind.__pydantic_fields__[name].annotation
    return kind


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not NoneType]
    return [annotation]


def _choices(annotation: Any) -> list[str] | None:
    for kind in _alternatives(annotation):
        if get_origin(kind) is Literal:
            return list(get_args(kind))
    return None


def _parsed(text: Any, annotation: Any) -> Any:
    """Split what stands for several values; pydantic converts the parts."""
    if not isinstance(text, str):
        return text
    for kind in _alternatives(annotation):
        if get_origin(kind) is tuple:
            nested = get_origin(get_args(kind)[0]) is tuple
            if nested:
                return [part.split(",") for part in text.split("/")]
            return [part.strip() for part in text.split(",")]
    return text


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(str(value) for value in default)
    return str(default)


def _only(plain: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _only(plain[name], value) if isinstance(value, Mapping) else plain[name]
        for name, value in given.items()
    }


def _beside(folder: Path, path: str) -> str:
    return path if Path(path).is_absolute() else str(folder / path)
