"""The classes a person tells apart: names and colours, kept in the layer itself."""

from __future__ import annotations

import colorsys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

METADATA = "napari-unet3d"
"""Key of what the plugin keeps in the metadata of a layer."""

PALETTE = (
    "#4477aa",
    "#ee6677",
    "#ccbb44",
    "#228833",
    "#66ccee",
    "#aa3377",
    "#ee7733",
    "#bbbbbb",
)
"""Colours of the first classes, told apart by colour-blind eyes too."""

GOLDEN = 0.381966
"""Step around the circle of hues that comes close to no earlier one for long."""


@dataclass(frozen=True)
class LabelClass:
    """One of the things that are told apart."""

    name: str
    color: str
    """As "#rrggbb"."""


Classes = tuple[LabelClass, ...]

DEFAULT_CLASSES: Classes = (
    LabelClass("background", PALETTE[0]),
    LabelClass("structure", PALETTE[1]),
)


def make_classes(names: Sequence[str], colors: Sequence[str] = ()) -> Classes:
    """Pair names with colours; those that have none get one of the palette.

    Examples
    --------
    >>> make_classes(["background", "cell"])[1]
    LabelClass(name='cell', color='#ee6677')
    """
    given = list(colors) + [""] * len(names)
    return tuple(
        LabelClass(name, given[i] or color_of(i)) for i, name in enumerate(names)
    )


def color_of(index: int) -> str:
    """Return the colour of a class that was given none, unlike those before it.

    Examples
    --------
    >>> color_of(0), color_of(8)
    ('#4477aa', '#d93f3f')
    """
    if index < len(PALETTE):
        return PALETTE[index]
    turn = index - len(PALETTE)
    red, green, blue = colorsys.hls_to_rgb(
        turn * GOLDEN % 1, (0.55, 0.35, 0.75)[turn % 3], (0.67, 0.9)[turn % 2]
    )
    return "#" + "".join(f"{round(255 * each):02x}" for each in (red, green, blue))


def extended(classes: Classes, count: int) -> Classes:
    """Return at least `count` classes, new ones named after their label."""
    names = [c.name for c in classes]
    names += [f"class {label}" for label in range(len(classes) + 1, count + 1)]
    return make_classes(names, [c.color for c in classes])


def classes_of(layer: Labels, otherwise: Classes = DEFAULT_CLASSES) -> Classes:
    """Read the classes that a layer was given; one without has others."""
    kept = layer.metadata.get(METADATA, {})
    names, colors = kept.get("class_names"), kept.get("class_colors", ())
    if names:
        return make_classes([str(n) for n in names], [str(c) for c in colors])
    return otherwise or DEFAULT_CLASSES


def set_classes(layer: Labels, classes: Classes, hide_background: bool = False) -> None:
    """Give a layer its classes and their colours."""
    kept = dict(layer.metadata.get(METADATA, {}))
    kept.update(class_metadata(classes))
    layer.metadata = {**layer.metadata, METADATA: kept}
    layer.colormap = colormap_of(classes, hide_background)


def class_metadata(classes: Iterable[LabelClass]) -> dict[str, list[str]]:
    """Return names and colours as a layer's metadata and files hold them."""
    classes = tuple(classes)
    return {
        "class_names": [c.name for c in classes],
        "class_colors": [c.color for c in classes],
    }


def colormap_of(classes: Classes, hide_background: bool = False) -> DirectLabelColormap:
    """Return the colours as napari wants them.

    Parameters
    ----------
    classes : tuple of LabelClass
        Label 1 first.
    hide_background : bool
        Whether label 1 is transparent, so that a dense segmentation does not veil the
        image.
    """
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Any] = {0: np.zeros(4), None: np.array([1, 1, 1, 0.8])}
    for label, each in enumerate(classes, start=1):
        colors[label] = each.color
    if hide_background and classes:
        colors[1] = np.zeros(4)
    return DirectLabelColormap(color_dict=defaultdict(_transparent, colors))


def without(classes: Classes, label: int) -> Classes:
    """Return the classes after one was removed; those behind it move up."""
    return classes[: label - 1] + classes[label:]


def with_class(classes: Classes, label: int, added: LabelClass) -> Classes:
    """Return the classes after one was put in; those from there on move down."""
    return (*classes[: label - 1], added, *classes[label - 1 :])


def _transparent() -> np.ndarray:
    return np.zeros(4)
