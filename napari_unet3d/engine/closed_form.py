"""The linear head that tells labelled voxels best, solved for instead of learned."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BALANCE = 0.5
"""Exponent of a class's inverse number of voxels in the weight of each."""


def solve_head(
    vectors: Tensor, classes: Tensor, n_classes: int, ridge: Tensor | float
) -> Tensor:
    """Solve for the head by ridge regression.

    Every class is told from all others, +1 from -1. Voxels of a class together weigh
    as the square root of their number: rare classes count more than their voxels do.
    Differentiable, as in Bertinetto et al. 2019 (https://arxiv.org/abs/1805.08136).

    Parameters
    ----------
    vectors : Tensor of shape (M, C)
        What the head is given, one row for each labelled voxel.
    classes : Tensor of shape (M,), int64
        From 0.
    n_classes : int
        Classes without a voxel are told to be nowhere.
    ridge : float or scalar Tensor
        Penalty on the squared weights, relative to the mean square of the features.

    Returns
    -------
    Tensor of shape (C + 1, n_classes)
        Weights, and the bias as the last row.

    Examples
    --------
    >>> vectors = torch.tensor([[0.0], [1.0], [2.0]])
    >>> head = solve_head(vectors, torch.tensor([0, 0, 1]), 2, 1e-6)
    >>> (vectors @ head[:-1] + head[-1]).argmax(1).tolist()
    [0, 0, 1]
    """
    wanted = functional.one_hot(classes, n_classes).to(vectors.dtype)
    counts = wanted.sum(0)
    weight = (wanted / counts.clamp_min(1) ** BALANCE).sum(1, keepdim=True)
    weight = weight / weight.sum()
    design = functional.pad(vectors, (0, 1), value=1.0)
    gram = (design * weight).T @ design
    moments = (design * weight).T @ (2 * wanted - 1)
    penalty = torch.eye(len(gram), device=gram.device)
    penalty[-1, -1] = 0  # the bias is free
    penalty = penalty * (ridge * gram.diagonal().mean())
    # Single precision does not suffice where features nearly repeat one another.
    solution: Tensor = torch.linalg.solve((gram + penalty).double(), moments.double())
    return solution.float()
