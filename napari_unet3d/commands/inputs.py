"""An image and its labels, from files, fit to be trained on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine import Annotation, TrainingVolume
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import Volume, open_image, read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import DataConfig, Pair

MOST_LIKELY_CLASSES = 32
"""Where labels go further they may be grey values."""


def open_pair(pair: Pair, data: DataConfig) -> tuple[TrainingVolume, str]:
    """Open an image and read its labels.

    Returns
    -------
    volume : TrainingVolume
        With the spacing that either file knows.
    unit : str
        Of the spacing; empty where unknown.

    Raises
    ------
    EngineError
        Where one of them cannot be read, or they do not belong together.
    """
    if os.path.realpath(pair.image) == os.path.realpath(pair.labels):
        raise EngineError(
            f"{pair.image} is given as image and as labels; labels are a file of their "
            "own, 0 where nothing is painted"
        )
    image = open_image(pair.image, axes=data.axes, channels=data.channels)
    try:
        labels = read_labels(pair.labels, axes=label_axes(data.axes))
        annotation = Annotation.from_labels(labels.data)
    except EngineError as error:
        if _holds_labels(image.data):
            raise _swapped(pair) from error
        raise
    if annotation.n_classes > MOST_LIKELY_CLASSES and _holds_labels(image.data):
        raise _swapped(pair)
    found, wanted = annotation.shape, tuple(image.data.shape[1:])
    if found != wanted:
        raise EngineError(
            f"{pair.labels} has shape {found} but {pair.image} has {wanted}; labels "
            "and image must have the same grid"
        )
    size = image if image.spacing else labels
    return _volume(image, annotation, size, pair), size.unit or ""


def label_axes(axes: str | None) -> str | None:
    """Return the axes of labels that go with an image of some axes."""
    return None if axes is None else axes.upper().replace("C", "")


def unit_of_first(volumes: Sequence[TrainingVolume], units: Sequence[str]) -> str:
    """Return the unit of the first spacing that is known, which is the network's."""
    pairs = zip(volumes, units, strict=True)
    return next((unit for volume, unit in pairs if volume.spacing), "")


def _volume(
    image: Volume, annotation: Annotation, size: Volume, pair: Pair
) -> TrainingVolume:
    return TrainingVolume(image.data, annotation, size.spacing, name=pair.image)


def _holds_labels(image: Any) -> bool:
    """Tell whether an image holds nothing but a few small numbers."""
    if image.dtype.kind not in "iu" or image.shape[0] > 1:
        return False
    return all(
        plane.min() >= 0 and plane.max() <= MOST_LIKELY_CLASSES
        for plane in (image[0, k] for k in range(image.shape[1]))
    )


def _swapped(pair: Pair) -> EngineError:
    return EngineError(
        f"{pair.image} holds only the numbers of classes and {pair.labels} does not; "
        "swap --image and --labels"
    )
