"""OME-Zarr 0.4 and 0.5, and plain zarr arrays."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, cast

import zarr

from napari_unet3d.engine.errors import EngineError

from .layout import chunks_of
from .location import listed
from .pyramid import build, levels_of
from .sentences import reason, unreadable
from .units import in_one_unit, known_unit, positive_spacing
from .volume import Stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .layout import Layout
    from .location import Location
    from .volume import ArrayLike, Spacing

# zarr's own errors are ValueErrors or OSErrors; damaged metadata and chunks bring the
# others from its parsers and from the C code of its codecs.
ERRORS = (
    *(OSError, ValueError, RuntimeError, SystemError, MemoryError, zlib.error),
    *(ArithmeticError, AttributeError, LookupError, TypeError, RecursionError),
)


def read(location: Location) -> Stored:
    """Open the finest level of an image, or a plain array, without reading it.

    Raises
    ------
    EngineError
        If the folder is damaged, no zarr, or holds no image.
    """
    with unreadable(location.source, ERRORS, "zarr"):
        node = zarr.open(location.path, mode="r")
    if isinstance(node, zarr.Array):
        with unreadable(location.source, ERRORS, "zarr"):
            return Stored(cast("ArrayLike", node), _names(node), errors=ERRORS)
    with unreadable(location.source, ERRORS, "OME-Zarr"):
        attributes: dict[str, Any] = dict(node.attrs)
        multiscales = attributes.get("ome", attributes).get("multiscales")
        if multiscales:
            return _finest(node, multiscales[0])
        arrays = dict(node.arrays())
        members = sorted(name for name, _ in node.members())
    if len(arrays) == 1:
        (array,) = arrays.values()
        return Stored(cast("ArrayLike", array), _names(array), errors=ERRORS)
    if not members:
        raise EngineError(
            f"{location.source} is an empty zarr group; name one with an image in it."
        )
    raise EngineError(
        f"{location.source} is a zarr group without an image of its own; name what is "
        f"in it, as {location.source}/{members[0]} (it holds {listed(members)})."
    )


def other_members(path: Path) -> list[str]:
    """Name what a zarr holds beside a single image, which may be replaced.

    Raises
    ------
    EngineError
        If that cannot be told.
    """
    try:
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            return ["an array without a description"]
        attributes: dict[str, Any] = dict(node.attrs)
        multiscales = attributes.get("ome", attributes).get("multiscales") or ()
        own = {dataset["path"] for each in multiscales for dataset in each["datasets"]}
        return sorted(name for name, _ in node.members() if name not in own)
    except ERRORS as error:
        raise EngineError(
            f"{path} exists and cannot be looked into ({reason(error)}); choose "
            "another name, or remove it"
        ) from error


def _finest(group: zarr.Group, multiscale: dict[str, Any]) -> Stored:
    dataset = multiscale["datasets"][0]
    array = group[dataset["path"]]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{dataset['path']} is no array")
    # Version 0.3 lists letters, versions before it have five axes in this order.
    entries: list[Any] = multiscale.get("axes") or list("tczyx"[-array.ndim :])
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in entries]
    names = [str(axis["name"]).lower() for axis in axes]
    if len(names) != array.ndim:
        raise ValueError(f"{len(names)} axes are named, but the array has {array.ndim}")
    spacing, unit = _physical_size(names, axes, (dataset, multiscale))
    letters = "".join(n.upper() if n in "tczyx" else "Q" for n in names)
    return Stored(cast("ArrayLike", array), letters, spacing, unit, errors=ERRORS)


def _physical_size(
    names: list[str], axes: list[dict[str, Any]], levels: tuple[dict[str, Any], ...]
) -> tuple[Spacing | None, str | None]:
    scale: list[float] | None = None
    for level in levels:
        for transformation in level.get("coordinateTransformations") or ():
            if transformation.get("type") == "scale" and "scale" in transformation:
                factors = [float(factor) for factor in transformation["scale"]]
                if len(factors) == len(names):
                    known = scale or [1.0] * len(names)
                    scale = [a * b for a, b in zip(known, factors, strict=True)]
    if scale is None or not set("zyx") <= set(names):
        return None, None
    where = [names.index(a) for a in "zyx"]
    units = [known_unit(axes[i].get("unit")) for i in where]
    sizes = [scale[i] for i in where]
    # The standard wants a scale even where nothing is known.
    if sizes == [1.0, 1.0, 1.0] and units == [None, None, None]:
        return None, None
    return in_one_unit(positive_spacing(sizes), units)


def _names(array: zarr.Array[Any]) -> str | None:
    names: Any = getattr(array.metadata, "dimension_names", None)
    # xarray's way of naming axes in zarr 2
    names = names or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names or len(names) != array.ndim:
        return None
    letters = [str(name).upper() for name in names]
    return "".join(a if len(a) == 1 and a in "TCZYX" else "Q" for a in letters)


def create(path: Path, layout: Layout) -> ZarrWriter:
    """Create an OME-Zarr 0.5 folder, the finest level of which is to be filled.

    Blocks that begin and end at multiples of 64 along every axis are quickest to write.
    """
    attributes: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [_multiscale(layout)],
    }
    if layout.labels:
        attributes["image-label"] = _image_label(layout)
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": attributes})
    for number, level in enumerate(levels_of(layout.shape, layout.spacing)):
        shape = (*layout.shape[:-3], *level.shape)
        group.create_array(
            str(number),
            shape=shape,
            dtype=layout.dtype,
            chunks=chunks_of(shape),
            dimension_names=tuple(layout.axes.lower()),
        )
    return ZarrWriter(path, layout.labels)


def reopen(path: Path, layout: Layout) -> ZarrWriter:
    """Open a folder that `create` made, to be filled further."""
    return ZarrWriter(path, layout.labels)


class ZarrWriter:
    """An OME-Zarr, each chunk of which goes to the disk when it is assigned.

    Parameters
    ----------
    path : Path
        The folder, with the arrays of all levels.
    labels : bool
        Whether the numbers are classes.
    """

    def __init__(self, path: Path, labels: bool) -> None:
        self._path, self._labels = path, labels
        self.array: zarr.Array[Any] | None = zarr.open_array(path / "0", mode="r+")

    def finish(self, written: Callable[[Path], None] = lambda _: None) -> None:
        """Make the coarser levels and release the array: everything is on the disk.

        Parameters
        ----------
        written : callable, optional
            Called with the file of each chunk of them.
        """
        if self.array is not None:
            group = zarr.open_group(self._path, mode="r+")
            build(group, self._path, labels=self._labels, written=written)
        self.close()

    def close(self) -> None:
        """Release the array."""
        self.array = None


def _multiscale(layout: Layout) -> dict[str, Any]:
    axes: list[dict[str, str]] = []
    for name in layout.axes.lower():
        axis = {"name": name, "type": "channel" if name == "c" else "space"}
        if layout.unit is not None and name != "c":
            axis["unit"] = layout.unit
        axes.append(axis)
    spacing = layout.spacing or (1.0, 1.0, 1.0)
    before = len(axes) - 3
    datasets: list[dict[str, Any]] = []
    for number, level in enumerate(levels_of(layout.shape, layout.spacing)):
        pairs = list(zip(spacing, level.factors, strict=True))
        scale = [1.0] * before + [a * f for a, f in pairs]
        transformations = [{"type": "scale", "scale": scale}]
        if number:
            # Where its first voxel's centre lies, from that of the finest level's.
            shift = [0.0] * before + [a * (f - 1) / 2 for a, f in pairs]
            transformations.append({"type": "translation", "translation": shift})
        datasets.append(
            {"path": str(number), "coordinateTransformations": transformations}
        )
    return {"axes": axes, "datasets": datasets}


def _image_label(layout: Layout) -> dict[str, Any]:
    label: dict[str, Any] = {}
    if layout.class_colors:
        label["colors"] = [
            {"label-value": value, "rgba": [round(255 * part) for part in color]}
            for value, color in enumerate(layout.class_colors, start=1)
        ]
    if layout.class_names:
        label["properties"] = [
            {"label-value": value, "class": name}
            for value, name in enumerate(layout.class_names, start=1)
        ]
    return label
