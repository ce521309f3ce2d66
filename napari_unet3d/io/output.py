"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .formats import format_of
from .layout import layout_of
from .location import endings, is_zarr, listed, located
from .replacing import move, remove, temporary_beside
from .sentences import unwritable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    from .layout import Layout, Writer
    from .location import Location
    from .volume import Affine, Spacing


class WritableArray:
    """The array of a file that is being written.

    Blocks selected by integers, slices and an ellipsis are assigned in any order, from
    one thread; what is never assigned is 0.
    """

    def __init__(self, writer: Writer, location: Location, folder: Path, size: int):
        self._writer = writer
        self._place = (location.source, folder, size)
        self.shape: tuple[int, ...] = writer.array.shape
        self.dtype: np.dtype[Any] = writer.array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read back a block, as a copy."""
        with unwritable(*self._place):
            return np.array(self._array()[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a block.

        Raises
        ------
        EngineError
            If the disk is full or gone.
        ValueError
            If the block has another shape than what is selected.
        """
        # zarr would write as much of a wrong block as fits.
        selected = np.broadcast_to(np.uint8(0), self.shape)[key].shape
        block = np.broadcast_to(value, selected)
        with unwritable(*self._place):
            self._array()[key] = block

    def _array(self) -> Any:
        if self._writer.array is None:
            raise EngineError(f"{self._place[0]} is closed; create it again to write.")
        return self._writer.array


@contextmanager
def create_volume(
    path: str | os.PathLike[str],
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    spacing: Spacing | None = None,
    unit: str | None = None,
    labels: bool = True,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[Sequence[float]] | None = None,
    affine: Affine | None = None,
) -> Iterator[WritableArray]:
    """Create a file for a volume, to be filled within a ``with`` block.

    Everything goes to a temporary name in the same folder. A clean end of the block
    renames it; after an exception it is removed and an existing file is as it was.

    Parameters
    ----------
    path : str or path-like
        Where to write; the ending says the format, see `SUPPORTED`. A dataset in an
        HDF5 file is named as ``file.h5:dataset``.
    shape : sequence of int
        (Z, Y, X) or (C, Z, Y, X).
    dtype : dtype-like
        Integers, or floating point of up to 64 bits; bool becomes uint8.
    spacing : tuple of three floats, optional
        Physical size of a voxel along Z, Y and X. A .npy file does not keep it.
    unit : str, optional
        Unit of `spacing`, such as ``"micrometer"``, "um" or "nm"; nothing without it.
    labels : bool
        Whether the numbers are classes instead of grey values.
    class_names : sequence of str, optional
        Names of the classes 1, 2, ...; kept by OME-Zarr.
    class_colors : sequence of sequences of float, optional
        RGB or RGBA from 0 to 1 of the classes 1, 2, ...; kept by OME-Zarr.
    affine : four rows of four floats, optional
        `Volume.affine` of the image that this belongs to; kept by NIfTI.

    Yields
    ------
    WritableArray
        Takes blocks as ``array[z0:z1] = block``.

    Raises
    ------
    EngineError
        If the type of file is unknown, the folder does not exist or is read-only,
        something else is in the way, or the disk is full.

    Examples
    --------
    >>> with create_volume("cells.tif", (8, 64, 64), "uint8") as array:
    ...     array[0:4] = 1  # doctest: +SKIP
    """
    location, target, layout = planned(
        path,
        shape,
        dtype,
        spacing=spacing,
        unit=unit,
        labels=labels,
        class_names=class_names,
        class_colors=class_colors,
        affine=affine,
    )
    place = (location.source, target.parent, layout.nbytes)
    temporary = temporary_beside(target)
    try:
        with unwritable(*place):
            writer = format_of(location.kind).create(temporary, layout)
        try:
            yield WritableArray(writer, location, target.parent, layout.nbytes)
            with unwritable(*place):
                writer.finish()
        finally:
            writer.close()
        # Another run may have put something there meanwhile.
        _require_free(location, target, layout.inner)
        with unwritable(*place):
            move(temporary, target)
    finally:
        remove(temporary)


def planned(
    path: str | os.PathLike[str],
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    labels: bool = True,
    **description: Any,
) -> tuple[Location, Path, Layout]:
    """Say what is to be written where, or refuse; arguments as for `create_volume`."""
    location = located(path)
    if location.kind == "annotation":
        raise EngineError(
            f"{location.source} cannot be written: .npz is for sparse annotations; use "
            f"{endings()}."
        )
    target = Path(os.path.realpath(location.path))
    layout = replace(
        layout_of(shape, dtype, labels=labels, **description),
        inner=location.inner or ("segmentation" if labels else "image"),
        compressed=target.suffix.lower() == ".gz",
    )
    _require_free(location, target, layout.inner)
    return location, target, layout


def _require_free(location: Location, target: Path, inner: str) -> None:
    """Refuse to write where something would be lost that is not this output."""
    source, folder = location.source, target.parent
    if not folder.is_dir():
        raise EngineError(
            f"{source} cannot be written: there is no folder {folder}; create it or "
            "choose another one."
        )
    if location.kind == "OME-Zarr":
        if target.suffix.lower() != ".zarr":
            raise EngineError(
                f"{source} cannot be written: it lies within another zarr; choose a "
                "name of its own that ends in .zarr."
            )
        if target.exists() and not (
            is_zarr(target) or (target.is_dir() and not any(target.iterdir()))
        ):
            raise EngineError(
                f"{source} cannot be written: something that is no zarr has this name; "
                "choose another one."
            )
        if is_zarr(target):
            from .ome_zarr import other_members

            if lost := other_members(target):
                raise EngineError(
                    f"{source} cannot be written: it exists and holds {listed(lost)}, "
                    "which would be lost; choose a name of its own."
                )
    elif target.is_dir():
        raise EngineError(
            f"{source} cannot be written: it is a folder; choose another name."
        )
    elif location.kind == "HDF5":
        if any(part in ("", ".", "..") for part in inner.split("/")):
            raise EngineError(
                f"{source} cannot be written: {inner!r} is no name of a dataset; give "
                "one, as in file.h5:segmentation."
            )
        from .hdf5 import other_datasets

        if lost := other_datasets(target, inner):
            raise EngineError(
                f"{source} cannot be written: the file exists and holds other datasets "
                f"({listed(lost)}); choose a file of its own."
            )
