"""What pydantic finds wrong, in the words of the person who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from napari_unet3d.engine.config_values import field_names

if TYPE_CHECKING:
    from pydantic import ValidationError

Naming = Callable[[Sequence[str]], str]
"""What to call the field at a path, as ("training", "steps")."""

_SENTENCES = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a number that is not infinite",
    "boolean": "must not be yes or no",
    "bool_parsing": "must be yes or no",
    "bool_type": "must be yes or no",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dataclass_type": "must hold fields with values",
    "missing": "has too few values",
    "too_short": "has too few values, at least {min_length} are needed",
    "too_long": "has too many values, at most {max_length} are taken",
    "unexpected_positional_argument": "has too many values",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
}


def describe(error: ValidationError, kind: type, named: Naming) -> str:
    """Say what is wrong with every field.

    Parameters
    ----------
    error : pydantic.ValidationError
        What was raised while `kind` was made.
    kind : type
        A configuration class.
    named : callable
        What to call a field.
    """
    sentences: dict[str, str] = {}
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            sentences[named(path)] = _unknown(path, kind, named)
            continue
        field = _field_path(path, kind)
        is_position = path[-1].isdigit() and len(path) > len(field)
        place = named(field if is_position or path[-1] == field[-1] else path)
        # That there are too few values follows from a wrong one among them.
        sentences.setdefault(place, f"{place} {_said(problem, is_position)}")
    return "; ".join(sentences.values())


def _unknown(path: Sequence[str], kind: type, named: Naming) -> str:
    known = list(_fields(_kind_at(path[:-1], kind)))
    near = difflib.get_close_matches(path[-1], [*known, *field_names(kind)], 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"{named(path)} is no known field; {hint}"


def _said(problem: Any, is_position: bool) -> str:
    if problem["type"] == "missing" and not is_position:
        return "is missing"
    template = _SENTENCES.get(problem["type"])
    if template is None:
        message = str(problem["msg"])
        sentence = f"is not understood: {message[0].lower()}{message[1:]}"
    else:
        sentence = template.format(**problem.get("ctx", {}))
    return f"{sentence}, got {_shown(problem['input'])}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return ",".join(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields(kind: type) -> dict[str, Any]:
    return dict(getattr(kind, "__pydantic_fields__", {}))


def _kind_at(path: Sequence[str], kind: type) -> type:
    for name in path:
        if name.isdigit():
            # Of the entries of a list
            kind = next(iter(get_args(kind)), kind)
        elif name in _fields(kind):
            kind = _fields(kind)[name].annotation
    return kind


def _field_path(path: Sequence[str], kind: type) -> list[str]:
    """Return the part of a path that names a field, without positions in it."""
    field: list[str] = []
    for name in path:
        info = _fields(kind).get(name)
        if info is None:
            break
        field.append(name)
        kind = info.annotation
    return field or list(path)
