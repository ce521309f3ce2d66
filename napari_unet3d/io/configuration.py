"""Settings in YAML files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from napari_unet3d.engine.errors import EngineError

from .location import missing
from .replacing import remove, temporary_beside
from .sentences import unwritable

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


class _Loader(yaml.SafeLoader):
    """Plain data only; a key that is given twice is an error instead of lost."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would take for a number."""


# PyYAML reads 1e-3 as text, because YAML 1.1 wants a dot in it.
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def read_configuration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read settings from a YAML file.

    Returns
    -------
    dict
        Names and plain values, unchecked; the engine's configurations check them.

    Raises
    ------
    EngineError
        If the file is missing, no YAML, gives a name twice, or is not a list of names
        with values.
    """
    source = os.fspath(path)
    file = Path(os.path.expanduser(source))
    if not file.exists():
        raise EngineError(missing(source, file))
    try:
        loaded = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise EngineError(
            f"{source} is no valid configuration: {error.problem}{where}; correct it."
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise EngineError(
            f"{source} cannot be read as YAML ({reason}); check that it is a text file."
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        kind = "nothing" if loaded is None else type(loaded).__name__
        if isinstance(loaded, dict):
            kind = "names that are no text"
        raise EngineError(
            f"{source} holds {kind}; write one setting per line, as in "
            "'training: {steps: 500}'."
        )
    return loaded


def write_configuration(
    path: str | os.PathLike[str], mapping: Mapping[str, Any]
) -> None:
    """Write settings to a YAML file, in their order, replacing it in one step.

    Raises
    ------
    EngineError
        If a value is not plain data, or the file cannot be written.
    """
    source = os.fspath(path)
    target = Path(os.path.realpath(os.path.expanduser(source)))
    try:
        text = yaml.dump(
            dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True
        )
    except yaml.YAMLError as error:
        raise EngineError(
            f"{source} cannot be written: {error}; give numbers, text, lists and "
            "mappings."
        ) from error
    if not target.parent.is_dir():
        raise EngineError(
            f"{source} cannot be written: there is no folder {target.parent}; create "
            "it or choose another one."
        )
    temporary = temporary_beside(target)
    with unwritable(source, target.parent, len(text)):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            remove(temporary)
