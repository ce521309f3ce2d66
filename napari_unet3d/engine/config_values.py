"""Configurations from plain values and back, with sentences for what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import ValidationError

from .config import AugmentationConfig, ModelConfig, SegmentationConfig, TrainingConfig
from .errors import EngineError

Config = TypeVar(
    "Config", ModelConfig, AugmentationConfig, TrainingConfig, SegmentationConfig
)


def build(kind: type[Config], values: Mapping[str, Any], where: str = "") -> Config:
    """Make a configuration from plain values, as YAML or a checkpoint hold them.

    Parameters
    ----------
    kind : type
        One of the configuration classes of this module.
    values : mapping
        Fields by name; those left out keep their default.
    where : str
        What to call the place of the fields in messages, as "training".

    Raises
    ------
    EngineError
        Naming every field that is unknown or has a value out of its limits.

    Examples
    --------
    >>> build(TrainingConfig, {"steps": 100}).steps
    100
    """
    try:
        return kind(**values)
    except (ValidationError, TypeError) as error:
        raise EngineError(describe_problems(error, kind, where)) from error


def describe_problems(
    error: ValidationError | TypeError, kind: type, where: str = ""
) -> str:
    """Say in one sentence a field which fields are wrong and what they may be."""
    if isinstance(error, TypeError):
        return f"{where or kind.__name__}: {error}"
    sentences = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        name = ".".join([where, *path] if where else path)
        if problem["type"] == "unexpected_keyword_argument":
            known = field_names(kind)
            near = difflib.get_close_matches(path[-1], known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            sentences.append(f"unknown field {name}; {hint}")
        else:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            sentences.append(f"{name}: {message}, got {problem['input']!r}")
    return "; ".join(dict.fromkeys(sentences))


def field_names(kind: type) -> list[str]:
    """Names of the fields of a configuration class, nested ones included."""
    names = []
    for name, info in kind.__pydantic_fields__.items():  # type: ignore[attr-defined]
        names.append(name)
        if hasattr(info.annotation, "__pydantic_fields__"):
            names += field_names(info.annotation)
    return names


def as_plain(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dictionaries of plain values."""
    return asdict(config)
