"""A form made from a configuration class: nothing about a setting stands here."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QWidget,
)

from napari_unet3d.engine.config_values import describe_problems

AUTOMATIC = "automatic"


class Form(QWidget):
    """Fields of one configuration class.

    An empty field keeps its default, which it shows in grey. `values` holds only what
    differs from the defaults; nested classes make nested dictionaries.

    Parameters
    ----------
    kind : type
        A pydantic dataclass.
    hidden : tuple of str
        Fields that are decided elsewhere.
    """

    changed = Signal()

    def __init__(
        self, kind: type, hidden: tuple[str, ...] = (), parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._kind = kind
        self._fields: dict[str, _Field | Form] = {}
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        hints = get_type_hints(kind, include_extras=False)
        for name, info in kind.__pydantic_fields__.items():  # type: ignore[attr-defined]
            if name in hidden:
                continue
            if hasattr(hints[name], "__pydantic_fields__"):
                nested = Form(hints[name], parent=self)
                nested.changed.connect(self.changed)
                layout.addRow(QLabel(f"<b>{_title(name)}</b>"))
                layout.addRow(nested)
                self._fields[name] = nested
                continue
            default = info.get_default(call_default_factory=True)
            field = _Field(hints[name], default)
            label = QLabel(_title(name))
            label.setMinimumWidth(130)
            for part in (label, field.widget):
                part.setToolTip(info.description or "")
            field.widget.setAccessibleName(_title(name))
            field.connect(self._on_change)
            layout.addRow(label, field.widget)
            self._fields[name] = field

    def values(self) -> dict[str, Any]:
        """Return the fields that differ from their default."""
        given = {}
        for name, field in self._fields.items():
            value = field.values() if isinstance(field, Form) else field.value()
            if isinstance(field, Form):
                if value:
                    given[name] = value
            elif value != field.default:
                given[name] = value
        return given

    def problem(self) -> str | None:
        """Say which fields are wrong and what they may be; `None` if all are right."""
        try:
            self._kind(**self.values())
        except (ValidationError, TypeError) as error:
            return describe_problems(error, self._kind)
        return None

    def set_values(self, values: dict[str, Any]) -> None:
        """Show values; fields that are not given get their default."""
        for name, field in self._fields.items():
            if isinstance(field, Form):
                field.set_values(values.get(name, {}))
            else:
                field.set_value(values.get(name, field.default))

    def reset(self) -> None:
        """Show the defaults."""
        self.set_values({})

    def field(self, name: str) -> QWidget:
        """Return the editor of a field."""
        field = self._fields[name]
        return field if isinstance(field, Form) else field.widget

    def _on_change(self) -> None:
        for name, field in self._fields.items():
            if isinstance(field, _Field):
                field.mark(self._is_right(name, field))
        self.changed.emit()

    def _is_right(self, name: str, field: _Field) -> bool:
        try:
            self._kind(**{name: field.value()})
        except (ValidationError, TypeError):
            return False
        return True


class _Field:
    """The editor of one field."""

    def __init__(self, annotation: Any, default: Any) -> None:
        self.default = default
        self._annotation = annotation
        self.widget: QCheckBox | QComboBox | QLineEdit
        choices = _choices(annotation)
        if annotation is bool:
            self.widget = QCheckBox()
        elif choices:
            self.widget = QComboBox()
            for choice in choices:
                self.widget.addItem(str(choice).replace("_", " "), choice)
        else:
            self.widget = QLineEdit()
            self.widget.setPlaceholderText(_text(default) or AUTOMATIC)
        self.set_value(default)

    def connect(self, slot: Any) -> None:
        if isinstance(self.widget, QCheckBox):
            self.widget.toggled.connect(slot)
        elif isinstance(self.widget, QComboBox):
            self.widget.currentIndexChanged.connect(slot)
        else:
            self.widget.textChanged.connect(slot)

    def value(self) -> Any:
        if isinstance(self.widget, QCheckBox):
            return self.widget.isChecked()
        if isinstance(self.widget, QComboBox):
            return self.widget.currentData()
        text = self.widget.text().strip()
        return _parsed(text, self._annotation) if text else self.default

    def set_value(self, value: Any) -> None:
        if isinstance(self.widget, QCheckBox):
            self.widget.setChecked(value)
        elif isinstance(self.widget, QComboBox):
            self.widget.setCurrentIndex(self.widget.findData(value))
        else:
            self.widget.setText("" if value == self.default else _text(value))

    def mark(self, right: bool) -> None:
        if isinstance(self.widget, QLineEdit):
            self.widget.setStyleSheet("" if right else "border: 1px solid #ee6677;")


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union without None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(a for a in get_args(annotation) if a is not type(None))
    return (annotation,)


def _text(value: Any) -> str:
    """Write a value as it can be typed in: rows of numbers, as 1,2,2/2,2,2."""
    if value is None:
        return ""
    if isinstance(value, (tuple, list)):
        nested = any(isinstance(part, (tuple, list)) for part in value)
        return ("/" if nested else ",").join(_text(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parsed(text: str, annotation: Any) -> Any:
    """Read what was typed in; what cannot be read stays text and is refused later."""
    (kind, *_) = _members(annotation)
    if get_origin(kind) is not tuple:
        return _scalar(text, kind)
    inner = get_args(kind)[0]
    if get_origin(inner) is tuple:
        return tuple(_parsed(part, inner) for part in text.split("/"))
    return tuple(_scalar(part.strip(), inner) for part in text.split(","))


def _scalar(text: str, kind: Any) -> Any:
    if kind is str:
        return text
    if kind is bool:
        return {"yes": True, "no": False}.get(text.lower(), text)
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
