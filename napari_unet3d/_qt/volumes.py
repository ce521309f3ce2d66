"""Which volume an image layer stands for, and its voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import NDArray

Shape = tuple[int, int, int]

_AXES = {
    2: ("YX",),
    3: ("ZYX",),
    4: ("CZYX", "TZYX"),
    5: ("TCZYX", "CTZYX"),
}

_KEPT_DTYPES = (
    *("|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8"),
    *("<f4", "<f8"),
)
"""Number formats that are handed on as they are; others become float32.

What float32 does not hold, as a large offset, must not be lost, nor seen other than by
the command line.
"""


@dataclass(frozen=True, eq=False)
class VolumeChoice:
    """A volume to train on or to segment.

    Parameters
    ----------
    layer : Image
        The image layer.
    axes : str
        What the layer's axes are: of TCZYX, the last three always ZYX.
    time : int
        Time point, where there is a T axis.
    others : tuple of Image
        Layers that are further channels of the same volume.
    """

    layer: Image
    axes: str = "ZYX"
    time: int = 0
    others: tuple[Image, ...] = field(default=())

    @property
    def shape(self) -> Shape:
        """Voxels ZYX."""
        z, y, x = spatial_shape(self.layer)
        return z, y, x

    @property
    def at_time(self) -> str:
        """What tells the times of a movie apart in a name; else nothing."""
        return f" (time {self.time})" if "T" in self.axes else ""

    @property
    def n_channels(self) -> int:
        """Channels that the network sees."""
        return _channels_of(self.layer, self.axes) + sum(
            _channels_of(other, "ZYX") for other in self.others
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number format in which all channels are handed on."""
        kinds = set()
        for data, _ in self.parts():
            # tensorstore has types of its own
            kinds.add(np.dtype(getattr(data.dtype, "numpy_dtype", data.dtype)).str)
        if kinds == {"|b1"}:
            return np.dtype(np.uint8)
        only = kinds.pop()
        return np.dtype(only if not kinds and only in _KEPT_DTYPES else np.float32)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel along Z, Y, X."""
        # A picture without slices, which is refused, has two.
        z, y, x = (abs(float(s)) or 1.0 for s in (1.0, *self.layer.scale)[-3:])
        return z, y, x

    @property
    def unit(self) -> str:
        """Unit of the spacing, or nothing."""
        unit = str(self.layer.units[-1])
        return "" if unit in ("pixel", "dimensionless") else unit

    @property
    def nbytes(self) -> int:
        """Size of all voxels as they are handed on."""
        return self.n_channels * math.prod(self.shape) * self.dtype.itemsize

    def read(self, box: tuple[slice, slice, slice]) -> NDArray[Any]:
        """Read a box of the volume, from the layer's file where it is lazy.

        Returns
        -------
        (C, Z, Y, X) ndarray
        """
        parts = [_read(data, axes, self.time, box) for data, axes in self.parts()]
        block: NDArray[Any] = np.concatenate(parts).astype(self.dtype, copy=False)
        return block

    def parts(self) -> list[tuple[Any, str]]:
        """Return the arrays that the channels come from, each with its axes."""
        return [
            (full_resolution(self.layer), self.axes + "C" * self.layer.rgb),
            *((full_resolution(o), "ZYX" + "C" * o.rgb) for o in self.others),
        ]

    def is_at(self, other: VolumeChoice) -> bool:
        """Whether both are of the same layer and time, whatever their channels."""
        return self.layer == other.layer and self.time == other.time

    def same_as(self, other: VolumeChoice | None) -> bool:
        """Whether both stand for the same voxels."""
        return (
            other is not None
            # Plugins get layers in proxies: equal, but not identical.
            and self.layer == other.layer
            and (self.axes, self.time) == (other.axes, other.time)
            and self.others == other.others
        )


def full_resolution(layer: Image) -> Any:
    """Return the data of a layer, of a multiscale one the finest."""
    return layer.data[0] if layer.multiscale else layer.data


def spatial_shape(layer: Image) -> tuple[int, ...]:
    """Return the size along the last axes of a layer that are not its colours."""
    shape = tuple(full_resolution(layer).shape)
    return shape[:-1][-3:] if getattr(layer, "rgb", False) else shape[-3:]


def possible_axes(layer: Image) -> tuple[str, ...]:
    """Return what the axes of a layer may mean, the likeliest first.

    Axis labels decide where the layer has them; else a short axis counts as channels.
    """
    options = _AXES.get(layer.ndim, ())
    if layer.rgb:
        options = tuple(o for o in options if "C" not in o)
    if len(options) < 2:
        return options
    labels = [str(label).lower()[:1] for label in layer.axis_labels]
    said = next((o for o in options if labels == list(o.lower())), None)
    if said is None and layer.ndim == 4:
        said = "CZYX" if full_resolution(layer).shape[0] <= 4 else "TZYX"
    return tuple(sorted(options, key=lambda option: option != said))


def time_points(layer: Image, axes: str) -> int:
    """Return how many time points there are."""
    return int(full_resolution(layer).shape[axes.index("T")]) if "T" in axes else 1


def problem_of(choice: VolumeChoice | None) -> str | None:
    """Say why a layer cannot be used, and what to do; `None` where it can."""
    if choice is None:
        return (
            "There is no image: open one, or File → Open Sample → 3D tubules with a "
            "sparse annotation."
        )
    name = choice.layer.name
    if choice.layer.ndim < 3:
        return (
            f"“{name}” has {choice.layer.ndim} axes, and a volume has three: open its "
            "slices as one stack."
        )
    if choice.layer.ndim > 5:
        return (
            f"“{name}” has {choice.layer.ndim} axes, and at most time, channel, Z, Y "
            "and X are understood: open a part of it."
        )
    if 0 in full_resolution(choice.layer).shape:
        return (
            f"“{name}” has no voxels, its shape is "
            f"{_times(full_resolution(choice.layer).shape)}: open another image."
        )
    for other in choice.others:
        if spatial_shape(other) != choice.shape or other.ndim != 3:
            return (
                f"“{other.name}” has {_times(spatial_shape(other))} voxels and "
                f"“{name}” {_times(choice.shape)}: channels must be of the same size."
            )
    return None


def _channels_of(layer: Image, axes: str) -> int:
    shape = full_resolution(layer).shape
    if layer.rgb:
        return 3
    return int(shape[axes.index("C")]) if "C" in axes else 1


def _read(
    data: Any, axes: str, time: int, box: tuple[slice, slice, slice]
) -> NDArray[Any]:
    """Read (C, Z, Y, X) of an array."""
    wanted: dict[str, Any] = dict(zip("ZYX", box, strict=True))
    wanted |= {"T": time, "C": slice(None)}
    if axes.endswith("C"):
        # Of colours; how opaque they are is not part of the picture.
        wanted["C"] = slice(3)
    block = np.asarray(data[tuple(wanted[axis] for axis in axes)])
    if "C" not in axes:
        return block[None]
    return np.moveaxis(block, axes.replace("T", "").index("C"), 0)


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
