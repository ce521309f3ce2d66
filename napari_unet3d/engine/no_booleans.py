"""Yes and no, which Python takes for 1 and 0, are no numbers in a configuration."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


def _refuse_boolean(kind: type, value: object, field: ValidationInfo) -> object:
    """Refuse yes and no where a number is asked for."""
    wanted = str(kind.__pydantic_fields__[field.field_name].annotation)  # type: ignore[attr-defined]
    is_number = not any(name in wanted for name in ("bool", "Literal"))
    if is_number and _holds_boolean(value):
        raise PydanticCustomError("boolean", "Input should not be yes or no")
    return value


def _holds_boolean(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_boolean, value))
    return isinstance(value, bool)


NO_BOOLEANS: Any = field_validator("*", mode="before")(classmethod(_refuse_boolean))
"""A validator for all fields, as an attribute of a configuration class."""
