"""Eigenvalues of many symmetric 3×3 matrices at once, such as Hessians."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST = 1e-18
"""An entry that is none; its square is still a number."""


def symmetric_eigenvalues(
    zz: Tensor, yy: Tensor, xx: Tensor, zy: Tensor, zx: Tensor, yx: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the eigenvalues of symmetric 3×3 matrices, the largest first.

    The closed form with a cosine (Smith 1961, https://doi.org/10.1145/355578.366316).
    Taken from the determinant its angle loses half of the digits where two eigenvalues
    are close, and tiles must agree. Here it is that between two matrices, as vectors:
    the deviatoric part D, scaled to norm √6, and the deviatoric part of D², which then
    has that norm too. From the norms of their difference and sum all digits are kept
    in single precision, which is quicker than double.

    Examples
    --------
    >>> values = torch.tensor([[3.0], [1.0], [2.0], [0.0], [0.0], [0.0]])
    >>> [round(float(value), 5) for value in symmetric_eigenvalues(*values)]
    [3.0, 2.0, 1.0]
    """
    mean = (zz + yy).add_(xx).div_(3)
    a, b, c = zz - mean, yy - mean, xx - mean
    norm = torch.mul(zy, zy).addcmul_(zx, zx).addcmul_(yx, yx).mul_(2)
    norm.addcmul_(a, a).addcmul_(b, b).addcmul_(c, c).div_(6)
    scale = norm.sqrt_().clamp_min_(SMALLEST)
    inverse = 1 / scale
    d, e, f = zy * inverse, zx * inverse, yx * inverse
    a, b, c = a.mul_(inverse), b.mul_(inverse), c.mul_(inverse)
    dd, ee, ff = d * d, e * e, f * f
    pairs = [
        (a, torch.add(dd, ee).addcmul_(a, a).sub_(2)),
        (b, dd.add_(ff).addcmul_(b, b).sub_(2)),
        (c, ee.add_(ff).addcmul_(c, c).sub_(2)),
        (d, torch.add(a, b).mul_(d).addcmul_(e, f)),
        (e, torch.add(a, c).mul_(e).addcmul_(d, f)),
        (f, torch.add(b, c).mul_(f).addcmul_(d, e)),
    ]
    apart = _norm([square - one for one, square in pairs])
    together = _norm([square.add_(one) for one, square in pairs])
    # A third of the angle, which is twice that arctangent
    angle = apart.div_(together.clamp_min_(SMALLEST)).atan_().mul_(2 / 3)
    scale.mul_(2)
    largest = torch.cos(angle).mul_(scale)
    smallest = angle.add_(2 * torch.pi / 3).cos_().mul_(scale)
    middle = (mean - largest).sub_(smallest)
    return largest.add_(mean), middle, smallest.add_(mean)


def _norm(entries: Sequence[Tensor]) -> Tensor:
    """Return the norm of matrices from their diagonal and what is above; overwrites."""
    diagonal, above = ([t.mul_(t) for t in part] for part in (entries[:3], entries[3:]))
    total = diagonal[0].add_(diagonal[1]).add_(diagonal[2])
    return total.add_(above[0].add_(above[1]).add_(above[2]), alpha=2).sqrt_()
