"""What a file holds: an array and the physical size of its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Spacing = tuple[float, float, float]
Affine = tuple[tuple[float, ...], ...]


class ArrayLike(Protocol):
    """Something that is sliced like an ndarray, in memory or not."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along every axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one element."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a block selected by integers, slices and an ellipsis."""


class WritableArrayLike(ArrayLike, Protocol):
    """An `ArrayLike` whose blocks can be assigned."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a block selected by integers, slices and an ellipsis."""


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or labels with the physical size of a voxel.

    Attributes
    ----------
    data : array-like
        Axes (C, Z, Y, X) for an image, (Z, Y, X) for labels. An image is read block by
        block where its format allows that; blocks may be read-only.
    spacing : tuple of three floats, or None
        Physical size of a voxel along Z, Y and X; None where the file does not say.
    unit : str or None
        Unit of `spacing`, such as ``"micrometer"``; None where the file does not say.
    source : str
        The path as the person wrote it.
    affine : tuple of four rows of four floats, or None
        From voxel (x, y, z) to scanner coordinates in millimetres. Only NIfTI knows it.
    class_names, class_colors : tuple of str
        Of the labels 1, 2, ...; colours as "#rrggbb". Sparse annotations know them.
    """

    data: ArrayLike
    spacing: Spacing | None
    unit: str | None
    source: str
    affine: Affine | None = None
    class_names: tuple[str, ...] = ()
    class_colors: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Stored:
    """What a reader of one format hands on: the array as it lies in the file.

    Attributes
    ----------
    array : array-like
        Any number of axes, in the order of the file.
    axes : str or None
        One letter per axis of `array`: T, C, Z, Y, X, S (samples of a colour) or any
        other letter where the file gives no name; None where no axis has a name.
    spacing, unit, affine, class_names, class_colors
        As in `Volume`.
    scale : tuple of two floats, or None
        Factor and offset that turn stored numbers into grey values.
    errors : tuple of exception types
        What reading a block of a damaged file may raise.
    """

    array: ArrayLike
    axes: str | None = None
    spacing: Spacing | None = None
    unit: str | None = None
    affine: Affine | None = None
    class_names: tuple[str, ...] = ()
    class_colors: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    errors: tuple[type[Exception], ...] = (OSError, ValueError)
