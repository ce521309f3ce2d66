"""What a segmentation is made from: an interrupted run must go on with the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .files import expanded

if TYPE_CHECKING:
    from napari_unet3d.engine.segmentation import Segmenter
    from napari_unet3d.io import Volume


def origin(
    model: str | Path,
    volume: Volume,
    segmenter: Segmenter,
    more_outputs: Sequence[str | Path],
    axes: str | None,
    channels: Sequence[int] | None,
) -> dict[str, str]:
    """Say all that decides the labels but the plan, by what a person calls it.

    Files count by what is in them: they may have moved in between. An image is known
    by its shape and the statistics of its grey values.
    """
    with expanded(model).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    statistics = segmenter.features.statistics
    shape = "×".join(str(n) for n in volume.data.shape)
    config = segmenter.config
    return {
        "model": f"of SHA-256 {digest[:16]}",
        "image": f"of {shape} {volume.data.dtype} with mean "
        f"{_listed(statistics.mean)} and deviation {_listed(statistics.deviation)}",
        "axes": axes or "as the file says",
        "channels": "all" if channels is None else _listed(channels),
        "weights": config.weights,
        "recompute-statistics": "yes" if config.recompute_statistics else "no",
        "device": segmenter.device.type,
        "probabilities": ", ".join(str(expanded(path)) for path in more_outputs)
        or "none",
    }


def _listed(values: Sequence[float]) -> str:
    return ",".join(repr(value) for value in values)
