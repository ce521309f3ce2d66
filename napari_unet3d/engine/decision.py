"""Logits turned into what is written: 8-bit classes and probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def as_labels(logits: Tensor) -> NDArray[np.uint8]:
    """Return the likeliest class, 1 to K, of each voxel of logits (K, Z, Y, X)."""
    labels: NDArray[np.uint8] = (logits.argmax(dim=0).to(torch.uint8) + 1).cpu().numpy()
    return labels


def as_shares(logits: Tensor) -> NDArray[np.uint8]:
    """Return the probability of each class, 255 for certain, of logits (K, Z, Y, X)."""
    share = torch.softmax(logits, dim=0).mul_(255).round_().to(torch.uint8)
    shares: NDArray[np.uint8] = share.cpu().numpy()
    return shares
