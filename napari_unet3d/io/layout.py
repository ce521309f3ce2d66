"""What a file that is about to be written shall hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_unet3d.engine.errors import EngineError

from .units import positive_spacing, required_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from .volume import Affine, Spacing

CHUNK = 64
"""Edge of the chunks of an output that has chunks."""


@dataclass(frozen=True)
class Layout:
    """What a file that is about to be written shall hold.

    Attributes
    ----------
    shape : tuple of int
        (Z, Y, X) or (C, Z, Y, X).
    dtype : numpy.dtype
        Native byte order.
    spacing, unit, affine
        As in `Volume`.
    labels : bool
        Whether the numbers are classes instead of grey values.
    class_names : tuple of str
        Names of the classes 1, 2, ...
    class_colors : tuple of tuple of float
        RGBA from 0 to 1 of the classes 1, 2, ...
    inner : str
        Name of the dataset in an HDF5 file.
    compressed : bool
        Whether a NIfTI file ends in ``.gz``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: Spacing | None = None
    unit: str | None = None
    affine: Affine | None = None
    labels: bool = True
    class_names: tuple[str, ...] = ()
    class_colors: tuple[tuple[float, ...], ...] = ()
    inner: str = ""
    compressed: bool = False

    @property
    def axes(self) -> str:
        """One letter per axis."""
        return "ZYX" if len(self.shape) == 3 else "CZYX"

    @property
    def nbytes(self) -> int:
        """Size of the numbers alone, uncompressed."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


def chunks_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the chunks of an output, (Z, Y, X) or (C, Z, Y, X).

    Examples
    --------
    >>> chunks_of((3, 20, 100, 100))
    (1, 20, 64, 64)
    """
    space = tuple(min(CHUNK, length) for length in shape[-3:])
    return (1,) * (len(shape) - 3) + space


class Writer(Protocol):
    """A file that is being written under a temporary name."""

    array: Any

    def finish(self) -> None:
        """Bring everything to the disk and release the file."""

    def close(self) -> None:
        """Release the file, whatever its state; a second call does nothing."""


def layout_of(
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    spacing: Spacing | None = None,
    unit: str | None = None,
    labels: bool = True,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[Sequence[float]] | None = None,
    affine: Affine | None = None,
) -> Layout:
    """Check what the person asked to have written, and put it into one form.

    Raises
    ------
    EngineError
        If a file cannot hold it.
    """
    lengths = tuple(int(length) for length in shape)
    if len(lengths) not in (3, 4) or min(lengths) < 1:
        raise EngineError(
            f"shape {lengths} cannot be written; give (Z, Y, X) or (C, Z, Y, X), each "
            "at least 1."
        )
    kind = np.dtype(dtype)
    if kind.kind == "b":
        kind = np.dtype(np.uint8)
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise EngineError(
            f"numbers of type {kind} cannot be written; convert to integers or "
            "floating point of at most 64 bits."
        )
    if spacing is not None and positive_spacing(spacing) is None:
        raise EngineError(
            f"spacing {spacing} cannot be written; give three positive sizes (Z, Y, X)."
        )
    unit = required_unit(unit)
    for color in class_colors or ():
        if len(color) not in (3, 4) or not all(0 <= part <= 1 for part in color):
            raise EngineError(
                f"class colour {tuple(color)} cannot be written; give red, green, blue "
                "and perhaps opacity, each from 0 to 1."
            )
    return Layout(
        shape=lengths,
        dtype=kind.newbyteorder("="),
        spacing=None if spacing is None else positive_spacing(spacing),
        unit=None if spacing is None else unit,
        labels=labels,
        class_names=tuple(class_names or ()),
        affine=affine,
        class_colors=tuple((*color, 1.0)[:4] for color in class_colors or ()),
    )
