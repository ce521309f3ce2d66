"""What a segmentation is made from: an interrupted run must go on with the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet3d import __version__

from .files import expanded

if TYPE_CHECKING:
    from napari_unet3d.engine.config import SegmentationConfig
    from napari_unet3d.engine.normalize import IntensityStatistics
    from napari_unet3d.io import Volume


def origin(
    digest: str,
    volume: Volume,
    statistics: IntensityStatistics,
    config: SegmentationConfig,
) -> dict[str, str]:
    """Say what decides the labels beside plan and device, as a person calls it.

    Files count by what is in them: they may have moved in between. A model is known by
    the SHA-256 of its file, an image by its shape, and by statistics and a digest of
    some of its grey values. Another version may compute otherwise.
    """
    shape = "×".join(str(n) for n in volume.data.shape)
    return {
        "napari-unet3d": __version__,
        "model": f"of SHA-256 {digest[:16]}",
        "image": f"of {shape} {volume.data.dtype} with {statistics}",
        "weights": config.weights,
        "precision": config.precision,
        "recompute-statistics": "yes" if config.recompute_statistics else "no",
    }


def read_from(
    axes: str | None,
    channels: Sequence[int] | None,
    more_outputs: Sequence[str | Path],
) -> dict[str, str]:
    """Say what of the image is read, and what is written beside the labels."""
    return {
        "axes": axes or "as the file says",
        "channels": "all" if channels is None else _listed(channels),
        "probabilities": ", ".join(str(expanded(path)) for path in more_outputs)
        or "none",
    }


def _listed(values: Sequence[float]) -> str:
    return ",".join(repr(value) for value in values)
