"""An image and its labels, from files, fit to be trained on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine import Annotation, TrainingVolume
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import open_image, read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .settings import DataConfig, Pair

MOST_LIKELY_CLASSES = 32
"""Where labels go further they may be grey values."""


@dataclass(frozen=True)
class OpenedPair:
    """A volume to train on, and what else its files say.

    Attributes
    ----------
    volume : TrainingVolume
        With the spacing that either file knows.
    unit : str
        Of the spacing; empty where unknown.
    class_names, class_colors : tuple of str
        Of the classes, where the file of the labels knows them.
    """

    volume: TrainingVolume
    unit: str
    class_names: tuple[str, ...]
    class_colors: tuple[str, ...]


def open_pair(pair: Pair, data: DataConfig) -> OpenedPair:
    """Open an image and read its labels.

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
    volume = TrainingVolume(image.data, annotation, size.spacing, name=pair.image)
    return OpenedPair(volume, size.unit or "", labels.class_names, labels.class_colors)


def label_axes(axes: str | None) -> str | None:
    """Return the axes of labels that go with an image of some axes."""
    return None if axes is None else axes.upper().replace("C", "")


def unit_of_first(pairs: Sequence[OpenedPair]) -> str:
    """Return the unit of the first spacing that is known, which is the network's."""
    return next((pair.unit for pair in pairs if pair.volume.spacing), "")


def classes_of_first(
    pairs: Sequence[OpenedPair],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and colours of the classes by the first labels that know them."""
    known = (pair for pair in pairs if pair.class_names)
    return next(((pair.class_names, pair.class_colors) for pair in known), ((), ()))


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
