"""What an unfinished segmentation is made from."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import torch

from napari_unet3d import __version__
from napari_unet3d.engine.device import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet3d.engine.segmentation import Segmenter


def describe_origin(
    segmenter: Segmenter, more_targets: Sequence[str]
) -> dict[str, str]:
    """Say all that decides the labels but the plan, by what a person calls it.

    The model counts by its weights, as it may come from a file or from a training; the
    image by its shape, and by statistics and a digest of some of its grey values.
    Another version may compute otherwise.
    """
    digest = hashlib.sha256()
    for module in (segmenter.network, segmenter.features.stem):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            # As bytes: NumPy has no bfloat16.
            plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(plain.numpy().tobytes())
    statistics = segmenter.features.statistics
    shape = "×".join(map(str, segmenter.features.image.shape))
    return {
        "napari-unet3d": __version__,
        "model": f"of weights {digest.hexdigest()[:16]}",
        "image": f"of {shape} with {statistics}",
        "device": segmenter.device.type,
        "precision": name_of(segmenter.dtype),
        "probabilities": ", ".join(map(os.path.abspath, more_targets)) or "none",
    }
