"""Images and labels from files of any supported type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .axes import described, names_one_channel, resolve_axes
from .formats import format_of
from .location import endings, existing
from .view import View
from .volume import Volume

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .location import Location
    from .volume import Stored

_MOST_CLASSES = 65535


def open_image(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    override: bool = True,
) -> Volume:
    """Open an image, lazily where its format allows that.

    Parameters
    ----------
    path : str or path-like
        The file, or the folder of an OME-Zarr; see `SUPPORTED`. A part of it is named
        as ``file.h5:dataset`` or ``name.zarr/sub/group``.
    axes : str, optional
        What each axis of the array in the file is, as ``"ZYX"`` or ``"TZYXC"``; needed
        where the file does not say and it cannot be seen from the shape. For NIfTI x
        comes first (``"XYZ"``), as in nibabel. Axes of length 1 may be left out.
    channels : sequence of int, optional
        Channels to take, in this order; all by default.
    override : bool
        Whether `axes` count even for a file of one channel that says itself which of
        its axes are Z, Y and X.

    Returns
    -------
    Volume
        Its data has axes (C, Z, Y, X), native byte order and integers or floats.

    Raises
    ------
    EngineError
        If there is no such file, it is damaged, or it does not hold one volume.

    Examples
    --------
    >>> image = open_image("brain.h5:raw", channels=[0])  # doctest: +SKIP
    >>> block = image.data[:, 10:20]  # doctest: +SKIP
    """
    location = existing(path)
    if location.kind == "annotation":
        raise EngineError(
            f"{location.source} is no image: .npz is for sparse annotations; use "
            f"{endings()}."
        )
    stored = format_of(location.kind).read(location)
    view = _view(stored, location, axes, channels, override)
    return Volume(
        view, stored.spacing, stored.unit, location.source, affine=stored.affine
    )


def read_labels(
    path: str | os.PathLike[str], *, axes: str | None = None, override: bool = True
) -> Volume:
    """Read labels: painted ones, 0 where nothing is, or a dense ground truth.

    Parameters
    ----------
    path : str or path-like
        As for `open_image`, or a sparse annotation saved in napari (.npz).
    axes, override : optional
        As for `open_image`.

    Returns
    -------
    Volume
        Its data is an ndarray (Z, Y, X) of the integer type of the file.

    Raises
    ------
    EngineError
        As `open_image`, or if the numbers are not integers from 0 to 65535.
    """
    location = existing(path)
    stored = format_of(location.kind).read(location)
    view = _view(stored, location, axes, None, override)
    if view.dtype.kind not in "iu":
        raise EngineError(
            f"labels must be integers, got {view.dtype} in {location.source}; save "
            "them as integers, for example uint8."
        )
    if view.shape[0] > 1:
        raise EngineError(
            f"labels must have one channel, got {view.shape[0]} in {location.source} "
            f"({described(stored.array.shape, stored.axes)}); save one channel with a "
            "number for each class."
        )
    labels = _owned(view)
    _require_classes(labels, location.source)
    return Volume(
        labels,
        stored.spacing,
        stored.unit,
        location.source,
        stored.affine,
        stored.class_names,
        stored.class_colors,
    )


def _owned(view: View) -> NDArray[Any]:
    # A block of a memory-mapped file is read-only and reads from the disk at every use.
    return np.require(view[0], requirements=["C", "W"])


def _require_classes(labels: NDArray[Any], source: str) -> None:
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0:
        raise EngineError(
            f"labels must not be negative, got {smallest} in {source}; use 0 for "
            "voxels without a label and 1, 2, ... for classes."
        )
    if largest > _MOST_CLASSES:
        raise EngineError(
            f"labels must be at most {_MOST_CLASSES}, got {largest} in {source}; are "
            "these numbers of single objects? Save classes instead."
        )


def _view(
    stored: Stored,
    location: Location,
    axes: str | None,
    channels: Sequence[int] | None,
    override: bool,
) -> View:
    shape = tuple(stored.array.shape)
    if 0 in shape:
        raise EngineError(
            f"{location.source} is empty ({described(shape, stored.axes)}); check the "
            "program that wrote it."
        )
    if not override and names_one_channel(shape, stored.axes):
        axes = None
    letters = resolve_axes(shape, stored.axes, axes, location.source)
    return View(stored, letters, location.source, channels)
