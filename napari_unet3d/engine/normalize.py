"""Robust intensity statistics of a whole volume, and checks of its values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError

WHOLE_VOXELS = 2**24
"""Voxels of the largest volume whose statistics are taken from all of it."""

SAMPLE_SLICES = 32
"""Slices of a larger volume in which it is sampled, unless they are all alike."""

SAMPLE_BOXES = 32
"""Boxes in each of them."""

SAMPLE_EDGE = 64
"""Edge of these boxes, which lie at multiples of it: where chunks usually begin. A few
slices with many boxes are quick to read whether slices or cubes are stored together.
Of a volume that is read whole it is the number of slices that are read at once."""


@dataclass(frozen=True)
class IntensityStatistics:
    """Centre and scale of the grey values of each channel.

    Both belong to the whole volume: statistics of a patch would change the meaning of
    a grey value from patch to patch.

    Examples
    --------
    >>> image = np.arange(1000.0).reshape(1, 10, 10, 10)
    >>> statistics = IntensityStatistics.from_image(image)
    >>> normalized = statistics.apply(image)
    >>> bool(abs(normalized.mean()) < 0.01)
    True
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    digest: str = field(default="", compare=False)
    """Of the values that were looked at, in their order: what tells images apart."""

    @classmethod
    def from_image(cls, image: Any) -> IntensityStatistics:
        """Measure an image (C, Z, Y, X), between its 0.5th and 99.5th percentiles.

        Large volumes are sampled in small boxes of some slices, always the same ones
        whatever the image is stored in; where these show nothing, in the boxes of all
        slices that show something. NaN means that there are no data.

        Raises
        ------
        EngineError
            Where the image is constant, has infinite values or none at all.
        """
        means, deviations, digest = [], [], hashlib.sha256()
        whole = np.prod(image.shape[1:], dtype=float) <= WHOLE_VOXELS
        where = "everywhere" if whole else "wherever it was looked at in its slices"
        for channel in range(image.shape[0]):
            values = _sample(image, channel)
            digest.update(values.tobytes())
            try:
                mean, deviation = _centre_and_scale(values, where)
            except EngineError as error:
                raise EngineError(f"channel {channel} of the image {error}") from None
            means.append(mean)
            deviations.append(deviation)
        return cls(tuple(means), tuple(deviations), digest.hexdigest()[:16])

    def __str__(self) -> str:
        """Say all that tells one image from another."""
        mean, deviation = (
            ",".join(map(repr, values)) for values in (self.mean, self.deviation)
        )
        return f"mean {mean}, deviation {deviation} and sample {self.digest}"

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return the image (C, ...) as float32 with mean about 0 and deviation 1.

        Where there are no data, NaN, it gets the mean, which stands out least.
        """
        shape = (-1,) + (1,) * (image.ndim - 1)
        # What float32 does not hold may be all there is beside a large offset.
        exact = np.can_cast(image.dtype, np.float32)
        values: NDArray[Any] = image.astype(np.float32 if exact else np.float64)
        mean = np.asarray(self.mean, values.dtype).reshape(shape)
        scale = np.asarray(self.deviation, values.dtype).reshape(shape)
        with np.errstate(over="ignore"):
            values = (values - mean) / scale
            normalized: NDArray[np.float32] = values.astype(np.float32, copy=False)
        if image.dtype.kind == "f":
            normalized[np.isnan(normalized)] = 0
        return normalized


def _centre_and_scale(values: NDArray[Any], where: str) -> tuple[float, float]:
    """Return mean and deviation of values without outliers.

    Raises
    ------
    EngineError
        The end of a sentence that begins with what the values are of.
    """
    if not values.size:
        raise EngineError(
            f"is NaN {where}, so there are no data; choose another image or channel"
        )
    if _is_flat(values):
        raise EngineError(
            f"has the same value {values.flat[0]:g} {where}; choose another image or "
            "channel"
        )
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    low, high = np.percentile(values, [0.5, 99.5], method="nearest")
    inner = values[(values >= low) & (values <= high)].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(inner.mean())
        deviation = float(inner.std()) or float(values.std(dtype=np.float64))
    if not 0 < deviation < np.inf:
        raise EngineError(
            f"has values from {low:g} to {high:g}, whose squares are too small or too "
            "large to compute with; multiply or divide them first"
        )
    return mean, deviation


def _is_flat(values: NDArray[Any]) -> bool:
    return not values.size or bool(values.min() == values.max())


def _sample(image: Any, channel: int) -> NDArray[Any]:
    """Return values of the same voxels always, without NaN."""
    z, y, x = (int(n) for n in image.shape[1:])
    boxes = _sampled_boxes((z, y, x), SAMPLE_SLICES)
    values = np.concatenate([_read(image, channel, box) for box in boxes])
    if z * y * x <= WHOLE_VOXELS or not _is_flat(values):
        return values
    # What there is may be small, or lie in a few slices.
    found = [
        box
        for box in _sampled_boxes((z, y, x), z)
        if _shows_more(_read(image, channel, box), values)
    ]
    if not found:
        return values
    # They may be many, as where the image is nearly all background.
    step = -(-len(found) // (SAMPLE_SLICES * SAMPLE_BOXES))
    return np.concatenate([_read(image, channel, box) for box in found[::step]])


def _shows_more(part: NDArray[Any], flat: NDArray[Any]) -> bool:
    """Tell whether a part has another value than those that are all the same."""
    return bool((part != flat[0]).any() if flat.size else part.size)


def _read(image: Any, channel: int, box: tuple[slice, slice, slice]) -> NDArray[Any]:
    part = np.asarray(image[(slice(channel, channel + 1), *box)])
    refuse_infinite(part, box[0].start)
    return part[~np.isnan(part)] if part.dtype.kind == "f" else part.ravel()


def _sampled_boxes(
    shape: tuple[int, int, int], slices: int
) -> list[tuple[slice, slice, slice]]:
    """Return slabs of a small volume, of a larger one boxes of some of its slices.

    The latter lie evenly; those of neighbouring slices lie apart.
    """
    z, y, x = shape
    if z * y * x <= WHOLE_VOXELS:
        slabs = ((k, min(k + SAMPLE_EDGE, z)) for k in range(0, z, SAMPLE_EDGE))
        return [(slice(a, b), slice(0, y), slice(0, x)) for a, b in slabs]
    rows, columns = -(-y // SAMPLE_EDGE), -(-x // SAMPLE_EDGE)
    cells, count = rows * columns, min(slices, z)
    boxes = []
    for number in range(count):
        k = (2 * number + 1) * z // (2 * count)
        # The golden ratio shifts each slice's places to where there was none.
        shift = (number * 0.6180339887) % 1.0
        places = {
            int((j + shift) * cells / SAMPLE_BOXES) % cells for j in range(SAMPLE_BOXES)
        }
        for place in sorted(places):
            a, b = (SAMPLE_EDGE * n for n in divmod(place, columns))
            inside = (
                slice(a, min(a + SAMPLE_EDGE, y)),
                slice(b, min(b + SAMPLE_EDGE, x)),
            )
            boxes.append((slice(k, k + 1), *inside))
    return boxes


def refuse_infinite(values: NDArray[Any], first: int) -> None:
    """Refuse infinite values (C, Z, Y, X), of slices from `first` on.

    Raises
    ------
    EngineError
        Naming the first such slice.
    """
    if values.dtype.kind != "f" or not np.isinf(values).any():
        return
    bad = np.isinf(values).sum(axis=(0, 2, 3))
    k = int(np.flatnonzero(bad)[0])
    raise EngineError(
        f"slice {first + k} of the image has {bad[k]} values that are infinite or "
        "beyond the largest float32; replace them, for instance by NaN, which means "
        "that there are no data"
    )


def as_channels_first(image: Any) -> Any:
    """Return an image (Z, Y, X) or (C, Z, Y, X), array or array-like, as CZYX.

    Raises
    ------
    EngineError
        Where it has another number of axes, or values that are not numbers.
    """
    if not hasattr(image, "shape"):
        image = np.asarray(image)
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in (3, 4):
        raise EngineError(
            f"image must be a volume, ZYX or CZYX, got {len(shape)} axes of shape "
            f"{shape}; choose one volume"
        )
    if any(n == 0 for n in shape):
        raise EngineError(f"image is empty, its shape is {shape}; choose another")
    if np.dtype(image.dtype).kind not in "biuf":
        raise EngineError(
            f"image must hold real numbers, got {image.dtype}; convert it first"
        )
    return image if len(shape) == 4 else _OneChannel.wrap(image)


class _OneChannel:
    """Show a lazily read (Z, Y, X) array-like as (1, Z, Y, X)."""

    def __init__(self, image: Any) -> None:
        self._image = image
        self.shape = (1, *(int(n) for n in image.shape))
        self.dtype = image.dtype
        self.ndim = 4

    @classmethod
    def wrap(cls, image: Any) -> Any:
        """Add the channel axis, without a copy."""
        return image[None] if isinstance(image, np.ndarray) else cls(image)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        box: NDArray[Any] = np.asarray(self._image[key[1:]])[None][key[0]]
        return box
