"""All levels of an OME-Zarr and what it says about its channels, to be looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zarr

from napari_unet3d.engine.errors import EngineError

from . import ome_zarr
from .axes import resolve_axes
from .chunk_cache import ChunkCache
from .location import existing
from .sentences import unreadable
from .stored_array import locate

if TYPE_CHECKING:
    import os

    from .volume import Spacing

_AXES = set("TCZYX")
_COLOR = re.compile(r"[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Channel:
    """What is said about a channel."""

    name: str = ""
    color: str = ""
    """As "#rrggbb", or empty."""
    limits: tuple[float, float] | None = None
    """Grey values to show as black and white."""


@dataclass(frozen=True, eq=False)
class Pyramid:
    """An OME-Zarr, or a plain zarr array, opened to be looked at.

    Attributes
    ----------
    levels : list of ChunkCache
        The finest first.
    axes : str
        One letter per axis: of T, C, Z, Y and X, or ``-`` for one of length 1.
    spacing, unit
        As in `Volume`.
    channels : list of Channel
        As far as they are described.
    is_labels : bool
        Whether the numbers are classes.
    classes : dict of int to (str, str)
        Name and colour ("#rrggbb", or empty) of each class.
    """

    levels: list[ChunkCache]
    axes: str
    spacing: Spacing | None
    unit: str | None
    channels: list[Channel] = field(default_factory=list)
    is_labels: bool = False
    classes: dict[int, tuple[str, str]] = field(default_factory=dict)


def open_pyramid(path: str | os.PathLike[str], capacity: int) -> Pyramid:
    """Open all levels without reading them.

    Parameters
    ----------
    path : path
        The folder, or one in it.
    capacity : int
        Bytes of chunks that are kept of each level once they were read.

    Raises
    ------
    EngineError
        If there is no such folder, it is damaged, or it holds no image.
    """
    location = existing(path)
    stored = ome_zarr.read(location)
    with unreadable(location.source, ome_zarr.ERRORS, "zarr"):
        group: Any = zarr.open(location.path, mode="r")
        attributes: dict[str, Any] = {}
        if isinstance(group, zarr.Group):
            attributes = dict(group.attrs)
            attributes = attributes.get("ome", attributes)
        arrays: list[Any] = [stored.array]
        for dataset in (attributes.get("multiscales") or [{}])[0].get("datasets", ()):
            array = group[dataset["path"]]
            if _is_coarser(array, arrays[-1]):
                arrays.append(array)
        labels = attributes.get("image-label")
        channels = _channels(attributes.get("omero") or {})
        classes = _classes(labels or {})
    return Pyramid(
        [ChunkCache(array, capacity, locate(array)) for array in arrays],
        _axes(stored.array.shape, stored.axes, location.source),
        stored.spacing,
        stored.unit,
        channels,
        labels is not None,
        classes,
    )


def _is_coarser(array: Any, than: Any) -> bool:
    return bool(
        (array.dtype, array.ndim) == (than.dtype, than.ndim)
        and array.shape != than.shape
        and all(a <= b for a, b in zip(array.shape, than.shape, strict=True))
    )


def _axes(shape: tuple[int, ...], named: str | None, source: str) -> str:
    """Say what each axis is; to be looked at, two to five of any kind will do."""
    if named and len(set(named)) == len(named) and set("YX") <= set(named) <= _AXES:
        return named
    try:
        return resolve_axes(shape, named, None, source)
    except EngineError:
        if not 2 <= len(shape) <= 5:
            raise
        return {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TCZYX"}[len(shape)]


def _channels(omero: dict[str, Any]) -> list[Channel]:
    found = []
    for each in omero.get("channels") or ():
        window = each.get("window") or {}
        limits = None
        if "start" in window and "end" in window and window["start"] < window["end"]:
            limits = float(window["start"]), float(window["end"])
        color = str(each.get("color", ""))
        found.append(
            Channel(
                str(each.get("label", "")),
                f"#{color}" if _COLOR.fullmatch(color) else "",
                limits,
            )
        )
    return found


def _classes(labels: dict[str, Any]) -> dict[int, tuple[str, str]]:
    colors = {
        int(each["label-value"]): "#"
        + "".join(f"{int(c):02x}" for c in each["rgba"][:3])
        for each in labels.get("colors") or ()
        if "rgba" in each
    }
    names = {
        int(each["label-value"]): str(each["class"])
        for each in labels.get("properties") or ()
        if "class" in each
    }
    return {
        label: (names.get(label, ""), colors.get(label, ""))
        for label in sorted({*colors, *names})
    }
