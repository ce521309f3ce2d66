"""Keys for what is done again and again; napari and its layers use none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

NEXT = "Shift-N"
FILL = "Shift-B"
ACCEPT = "Shift-Y"
PREVIEW = "Shift-T"
ALL = (NEXT, FILL, ACCEPT, PREVIEW)


def bind(viewer: ViewerModel, actions: dict[str, Callable[[], object]]) -> None:
    """Bind keys in a viewer; a key that somebody else has bound stays theirs."""
    for key, action in actions.items():
        if not _is_bound(viewer, key):
            viewer.bind_key(key, _pressed(action))


def unbind(viewer: ViewerModel, keys: tuple[str, ...]) -> None:
    """Give keys back."""
    for key in keys:
        if getattr(_bound(viewer, key), "of_unet3d", False):
            viewer.bind_key(key, None, overwrite=True)


def _pressed(action: Callable[[], object]) -> Callable[[object], None]:
    def press(viewer: object) -> None:
        action()

    press.of_unet3d = True  # type: ignore[attr-defined]
    return press


def _is_bound(viewer: ViewerModel, key: str) -> bool:
    return _bound(viewer, key) is not None


def _bound(viewer: ViewerModel, key: str) -> object:
    from app_model.types import KeyBinding

    return viewer.keymap.get(KeyBinding.from_str(key.replace("-", "+")))
