"""Losses over the labelled voxels only.

Unlabelled voxels are left out after the softmax, of the sums and of the denominators:
their gradient is exactly zero, and the loss does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .annotation import UNLABELLED
from .ranks import ALONE, Ranks


def sparse_loss(
    logits: Tensor,
    target: Tensor,
    kind: str = "cross_entropy",
    class_weights: Tensor | None = None,
    focal_gamma: float = 2.0,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Return the loss of the labelled voxels of a batch.

    Parameters
    ----------
    logits : Tensor of shape (N, K, Z, Y, X)
        Output of the network.
    target : Tensor of shape (N, Z, Y, X), int64
        Class 0 to K-1, or `UNLABELLED`.
    kind : {"cross_entropy", "focal", "dice_cross_entropy"}
        Weighted softmax cross-entropy (section 3 of the paper), focal loss
        (https://arxiv.org/abs/1708.02002), or the sum of cross-entropy and soft Dice
        loss (https://arxiv.org/abs/1606.04797).
    class_weights : Tensor of shape (K,), optional
        Weight of each class.
    focal_gamma : float
        Focusing exponent of the focal loss.
    ranks : Ranks
        Those that have the rest of the batch.

    Returns
    -------
    Tensor
        A scalar: the weighted mean over labelled voxels; 0 where there are none. With
        several ranks it is that of the whole batch, its gradient that of this part.

    Examples
    --------
    >>> logits = torch.zeros(1, 2, 1, 1, 3)
    >>> target = torch.tensor([0, 1, UNLABELLED]).view(1, 1, 1, 3)
    >>> round(sparse_loss(logits, target).item(), 4)
    0.6931
    """
    labelled = target != UNLABELLED
    chosen = logits.movedim(1, -1)[labelled]
    chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
    truth = target[labelled]
    if class_weights is None:
        class_weights = torch.ones(logits.shape[1], device=logits.device)
    weight = class_weights.to(chosen)[truth]
    log_probabilities = functional.log_softmax(chosen, dim=1)
    likelihood = log_probabilities.gather(1, truth[:, None])[:, 0]
    losses = -likelihood
    if kind == "focal":
        # Above 0: the power's slope is infinite there for exponents below 1.
        losses = losses * (1 - likelihood.exp()).clamp_min(1e-6) ** focal_gamma
    sums = ranks.total(torch.stack([(losses * weight).sum(), weight.sum()]))
    mean: Tensor = sums[0] / sums[1].clamp_min(1e-8)
    if kind == "dice_cross_entropy":
        mean = mean + _dice_loss(log_probabilities.exp(), truth, ranks)
    return mean


def _dice_loss(probabilities: Tensor, truth: Tensor, ranks: Ranks) -> Tensor:
    """One minus the mean soft Dice of the classes among (n, K) labelled voxels."""
    one_hot = functional.one_hot(truth, probabilities.shape[1]).to(probabilities)
    sums = [probabilities * one_hot, probabilities, one_hot]
    overlap, predicted, true = ranks.total(
        torch.stack([values.sum(dim=0) for values in sums])
    )
    present = true > 0
    dice = 2 * overlap / (predicted + true).clamp_min(1e-8)
    mean: Tensor = (1 - dice[present]).sum() / present.sum().clamp_min(1)
    return mean


def automatic_class_weights(counts: Sequence[int], balance: float) -> Tensor:
    """Weigh classes by a power of their inverse frequency among the labelled voxels.

    Parameters
    ----------
    counts : sequence of int
        Labelled voxels of each class.
    balance : float
        Exponent: 0 weighs all voxels alike, 1 gives every class the same total.

    Returns
    -------
    Tensor of shape (K,)
        Weights whose mean over the labelled voxels is 1.

    Examples
    --------
    >>> automatic_class_weights([300, 100], 1.0).tolist()
    [0.6666666865348816, 2.0]
    """
    frequency = torch.tensor(counts, dtype=torch.float64)
    weights = frequency.clamp_min(1) ** -balance
    weights = weights * (frequency.sum() / (weights * frequency).sum())
    return weights.float()
