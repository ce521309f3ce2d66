"""What is shown of a predicted slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet3d.engine.errors import EngineError

from .answers import PreviewReady

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .requests import RequestPreview


def render(logits: Tensor, request: RequestPreview, step: int) -> PreviewReady:
    """Turn the logits (K, H, W) of a slice into what is shown.

    Raises
    ------
    EngineError
        Where the class whose probability is wanted does not exist.
    """
    count = logits.shape[0]
    wanted = request.probability_of
    if wanted is not None and not 1 <= wanted <= count:
        raise EngineError(f"the model has no class {wanted}; it has {count} classes")
    probability = entropy = None
    if wanted is not None or request.entropy:
        shares = torch.softmax(logits, dim=0)
        if wanted is not None:
            probability = _as_bytes(shares[wanted - 1])
        if request.entropy:
            entropy = _as_bytes(torch.special.entr(shares).sum(dim=0) / np.log(count))
    return PreviewReady(
        request.generation,
        request.volume,
        request.axis,
        request.position,
        (logits.argmax(dim=0) + 1).to(torch.uint8).cpu().numpy(),
        probability,
        entropy,
        step,
    )


def _as_bytes(values: Tensor) -> NDArray[np.uint8]:
    scaled = values.clamp(0, 1).mul(255).round()
    found: NDArray[np.uint8] = scaled.to(torch.uint8).cpu().numpy()
    return found
