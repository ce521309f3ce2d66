"""Flags of the command line, made from the fields of the configuration classes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from napari_unet3d.engine.errors import EngineError

from .settings import SECTIONS, Pair, Values, build_run

METAVARS = {
    "axes": "AXES",
    "class_names": "NAME,...",
    "device": "DEVICE",
    "log_dir": "DIR",
    "model": "FILE",
    "pooling": "Z,Y,X/...",
    "segmentation_dir": "DIR",
}
"""Where the type of a field does not tell what to show for its value."""

PAIRS = {
    "train": (
        "",
        "Volume to train on",
        "Its sparse labels: 0 unlabelled, 1, 2, ... the classes",
    ),
    "validation": (
        "validation-",
        "Volume to measure on while training, in place of labels that are held out",
        "Its labels",
    ),
    "test": (
        "test-",
        "Volume to segment and score after the training",
        "Its labels to score by",
    ),
}
"""Prefix and help of the two flags of a list of volumes with labels."""

# argparse's groups and parsers have no public base class.
Group = argparse._ActionsContainer


def add_flags(
    group: Group, section: str, only: Sequence[str] = (), without: Sequence[str] = ()
) -> None:
    """Add a flag for every field of a section.

    Parameters
    ----------
    group : argparse's group or parser
        Where to add them.
    section : str
        Which section, or a part of one, as "training.augmentation".
    only, without : sequence of str
        Fields to add alone, or to leave out.
    """
    first, *deeper = section.split(".")
    kind: Any = SECTIONS[first]
    for name in deeper:
        kind = kind.__pydantic_fields__[name].annotation
    for name, info in _fields(kind):
        if (only and name not in only) or name in without:
            continue
        dest = f"{section}.{name}"
        if Pair in get_args(info.annotation):
            _add_pair(group, name, dest)
        elif isinstance(info.default, bool):
            group.add_argument(
                flag_of([name]),
                action=argparse.BooleanOptionalAction,
                default=None,
                dest=dest,
                help=_help(info),
            )
        else:
            choices = _choices(info.annotation)
            group.add_argument(
                flag_of([name]),
                dest=dest,
                choices=choices,
                metavar=None if choices else _metavar(name, info.annotation),
                help=_help(info),
            )


def given_flags(options: argparse.Namespace) -> Values:
    """Collect the flags that were given.

    Raises
    ------
    EngineError
        Naming each flag whose value is wrong.
    """
    values: Values = {}
    for dotted, given in vars(options).items():
        path = dotted.split(".")
        if given is None or len(path) < 2:
            continue
        place = values
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = _parsed(given, path)
    for name, files in values.get("data", {}).items():
        if isinstance(files, dict):
            values["data"][name] = _paired(name, files)
    build_run(values, flag_of)
    return values


def flag_of(field: Sequence[str]) -> str:
    """Return the flag of a field."""
    return "--" + field[-1].replace("_", "-")


def _add_pair(group: Group, name: str, dest: str) -> None:
    """Add two flags; each may be given several times."""
    prefix, image, labels = PAIRS[name]
    for kind, text in (
        ("image", f"{image}; may be given several times"),
        ("labels", f"{labels}; one for each --{prefix}image, in the same order"),
    ):
        group.add_argument(
            f"--{prefix}{kind}",
            action="append",
            metavar="FILE",
            dest=f"{dest}.{kind}",
            help=text,
        )


def _paired(name: str, files: dict[str, list[str]]) -> list[dict[str, str]]:
    prefix = PAIRS[name][0]
    images, labels = files.get("image", []), files.get("labels", [])
    if len(images) != len(labels):
        raise EngineError(
            f"got {len(images)} --{prefix}image and {len(labels)} --{prefix}labels; "
            f"give one --{prefix}labels for each --{prefix}image, in the same order"
        )
    return [
        {"image": image, "labels": label}
        for image, label in zip(images, labels, strict=True)
    ]


def _fields(kind: Any) -> Iterator[tuple[str, Any]]:
    for name, info in kind.__pydantic_fields__.items():
        # A section of its own
        if not hasattr(info.annotation, "__pydantic_fields__"):
            yield name, info


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not NoneType]
    return [annotation]


def _choices(annotation: Any) -> list[str] | None:
    for kind in _alternatives(annotation):
        if get_origin(kind) is Literal:
            return list(get_args(kind))
    return None


def _metavar(name: str, annotation: Any) -> str:
    if name in METAVARS:
        return METAVARS[name]
    kind = _alternatives(annotation)[0]
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return f"{_letter(parts[0])},..." if parts[-1] is Ellipsis else "Z,Y,X"
    return _letter(kind)


def _letter(kind: Any) -> str:
    plain = get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    return {int: "N", float: "X"}.get(plain, "TEXT")


def _help(info: Any) -> str:
    text = str(info.description)
    if "(default:" not in text and info.default is not None:
        text += f" (default: {_shown(info.default)})"
    return text.replace("%", "%%")


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(_shown, default))
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _parsed(given: Any, path: Sequence[str]) -> Any:
    """Split what stands for several values; pydantic converts the parts."""
    if not isinstance(given, str):
        return given
    kind: Any = SECTIONS[path[0]]
    for name in path[1:]:
        kind = kind.__pydantic_fields__[name].annotation
    for alternative in _alternatives(kind):
        if get_origin(alternative) is tuple:
            if get_origin(get_args(alternative)[0]) is tuple:
                return [_split(part) for part in given.split("/")]
            return _split(given)
    return given


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
