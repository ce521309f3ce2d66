"""Datasets in HDF5 files, with the attributes of the tools that made them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .location import listed, nearest
from .mapped import MappedWriter, reserve
from .sentences import extra, reason, unreadable
from .units import converted, known_unit, positive_spacing
from .volume import Stored

if TYPE_CHECKING:
    from pathlib import Path

    from .layout import Layout
    from .location import Location
    from .volume import Spacing

# HDF5 reports damage as OSError, KeyError or RuntimeError; h5py adds the others where
# a type or a size is not one that numpy has.
_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError)
_NO_SIGNATURE = "file signature not found"
_NO_VOLUME = "{} holds no dataset with three to five axes; check the file."
_LABELS = "DIMENSION_LABELS"
_HEADERS = 2**16


def read(location: Location) -> Stored:
    """Open a dataset without reading it; the file stays open as long as the result.

    Its name may be left out where only one has three to five axes. The physical size
    comes from the attributes ``spacing`` and ``unit``, or from ``element_size_um``; the
    names of axes from ilastik's ``axistags`` or the labels of HDF5's dimensions.

    Raises
    ------
    EngineError
        If h5py is missing, the file is damaged or no HDF5, or no dataset can be chosen.
    """
    h5py = extra("h5py", "hdf5", "HDF5")
    with unreadable(location.source, _ERRORS, "HDF5"):
        file = h5py.File(location.path, "r")
        dataset = _chosen(h5py, file, location)
        spacing, unit = _physical_size(dataset)
        return Stored(dataset, _axes(dataset), spacing, unit, errors=_ERRORS)


def volumes(path: Path) -> list[str]:
    """List the datasets of a file that have three to five axes.

    Raises
    ------
    EngineError
        If h5py is missing, the file is damaged or no HDF5, or there are none.
    """
    h5py = extra("h5py", "hdf5", "HDF5")
    with unreadable(str(path), _ERRORS, "HDF5"), h5py.File(path, "r") as file:
        names = _volumes(h5py, file)
    if not names:
        raise EngineError(_NO_VOLUME.format(path))
    return names


def other_datasets(path: Path, inner: str) -> list[str]:
    """List the datasets that would be lost if a file with only `inner` replaced this.

    A file that is not there, or has no signature of HDF5, holds none.

    Raises
    ------
    EngineError
        If h5py is missing, or what the file holds cannot be told.
    """
    h5py = extra("h5py", "hdf5", "HDF5")
    names: list[str] = []

    def collect(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and name != inner:
            names.append(name)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except FileNotFoundError:
        return []
    except _ERRORS as error:
        if _NO_SIGNATURE in str(error):
            return []
        raise EngineError(
            f"{path} exists and cannot be looked into ({reason(error)}); close it "
            "elsewhere, or choose a file of its own"
        ) from error
    return names


def _volumes(h5py: Any, group: Any) -> list[str]:
    found: list[str] = []

    def collect(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and 3 <= len(node.shape or ()) <= 5:
            found.append(name)

    group.visititems(collect)
    return found


def _chosen(h5py: Any, file: Any, location: Location) -> Any:
    path, inner = location.path, location.inner
    node = file.get(inner) if inner else file
    if isinstance(node, h5py.Dataset):
        return node
    names = _volumes(h5py, file if node is None else node)
    if node is not None and len(names) == 1:
        return node[names[0]]
    prefix = f"{inner}/" if node is not None and inner else ""
    names = [prefix + name for name in names]
    if not names:
        raise EngineError(_NO_VOLUME.format(location.source))
    if node is None:
        raise EngineError(
            f"{path} has no dataset {inner!r}, only {listed(names)}"
            f"{nearest(inner, names)}"
        )
    raise EngineError(
        f"{location.source} holds {len(names)} datasets; name one, as "
        f"{path}:{names[0]} (there are {listed(names)})."
    )


def _physical_size(dataset: Any) -> tuple[Spacing | None, str | None]:
    for key in ("spacing", "element_size_um"):
        value = dataset.attrs.get(key)
        spacing = None if value is None else positive_spacing(_flat(value))
        if spacing is not None:
            plain = dataset.attrs.get("unit") if key == "spacing" else "micrometer"
            if isinstance(plain, bytes):
                plain = plain.decode("utf-8", "replace")
            return spacing, known_unit(plain)
    return None, None


def _flat(value: Any) -> list[Any]:
    values: list[Any] = np.atleast_1d(value).ravel().tolist()
    return values


def _axes(dataset: Any) -> str | None:
    tags = dataset.attrs.get("axistags")
    if isinstance(tags, bytes | str):
        try:
            keys = [axis["key"] for axis in json.loads(tags)["axes"]]
        except (ValueError, KeyError, TypeError):
            keys = []
        if len(keys) == dataset.ndim:
            return "".join(str(key)[:1].upper() or "Q" for key in keys)
    # The attribute behind `dataset.dims`, whose C functions crash on damaged files
    labels = [str(label).upper() for label in _flat(dataset.attrs.get(_LABELS, ()))]
    if any(labels) and len(labels) == dataset.ndim:
        return "".join(a if len(a) == 1 else "Q" for a in labels)
    return None


def create(path: Path, layout: Layout) -> MappedWriter:
    """Create an HDF5 file with one dataset, its room on the disk taken, to be filled.

    The numbers lie uncompressed in one piece and are written past HDF5, which cannot
    close a file, and may end the process, once the disk is full.

    Raises
    ------
    EngineError
        If h5py is missing.
    """
    h5py = extra("h5py", "hdf5", "HDF5")
    with path.open("wb") as file:
        reserve(file, 0, layout.nbytes + _HEADERS)
    with h5py.File(path, "w") as file:
        dataset = _empty(h5py, file, layout)
        for dimension, axis in zip(dataset.dims, layout.axes.lower(), strict=True):
            dimension.label = axis
        if layout.spacing is not None:
            dataset.attrs["spacing"] = layout.spacing
            if layout.unit is not None:
                dataset.attrs["unit"] = layout.unit
                dataset.attrs["element_size_um"] = converted(
                    layout.spacing, layout.unit, "micrometer"
                )
        offset = dataset.id.get_offset()
    with path.open("r+b") as file:
        reserve(file, offset, layout.nbytes)
    return MappedWriter(path, layout, offset)


def _empty(h5py: Any, file: Any, layout: Layout) -> Any:
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    linked = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    linked.set_create_intermediate_group(True)
    linked.set_char_encoding(h5py.h5t.CSET_UTF8)
    return h5py.Dataset(
        h5py.h5d.create(
            file.id,
            layout.inner.encode(),
            h5py.h5t.py_create(layout.dtype, logical=True),
            h5py.h5s.create_simple(layout.shape),
            made,
            linked,
        )
    )
