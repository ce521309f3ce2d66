"""Batch normalisation over a batch that several processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx


class SharedBatchNorm3d(nn.BatchNorm3d):
    """Normalise with the statistics of all processes' patches, on any device.

    torch's own `SyncBatchNorm` is for GPUs only. Every process may have another number
    of patches, but has at least one.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm3d) -> SharedBatchNorm3d:
        """Make one with the parameters and statistics of another."""
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        for name, tensor in (*norm._parameters.items(), *norm._buffers.items()):
            setattr(shared, name, tensor)
        return shared.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise `input` (N, C, Z, Y, X)."""
        if not self.training:
            return super().forward(input)
        with torch.no_grad():
            count, mean, variance = _statistics(input.detach())
            self._follow(mean, variance * count / (count - 1).clamp_min(1))
        normalized: Tensor = _Normalize.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, mean, variance, count, self.eps
        )
        return normalized

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def share_batch_norm(network: nn.Module) -> None:
    """Replace the batch normalisation of a network by one over all processes."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm3d:
                setattr(module, name, SharedBatchNorm3d.of(child))


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return number of voxels, mean and variance of the channels of all processes.

    At least float32; the variance is that of the voxels themselves, not an estimate.
    """
    channels = x.shape[1]
    precision = torch.promote_types(x.dtype, torch.float32)
    # Statistics that are given settle the number format of the result.
    unused = x.new_zeros(2, channels, dtype=precision)
    mean, variance = torch.batch_norm_update_stats(x, unused[0], unused[1], 0.0)
    count = x.new_full((1,), x.numel() // channels, dtype=torch.float64)
    mean, variance = mean.double(), variance.double()
    sums = torch.cat([count, count * mean, count * (variance + mean**2)])
    distributed.all_reduce(sums)
    count = sums[:1]
    mean, square = (sums[1:] / count).chunk(2)
    variance = (square - mean**2).clamp_min(0)
    return count.to(precision), mean.to(precision), variance.to(precision)


class _Normalize(torch.autograd.Function):
    """Normalise with statistics that depend on the input of all processes."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps  # type: ignore[attr-defined]
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        # As if the statistics were constant ...
        gradient, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            *(gradients[0], x, weight, mean, variance, mean, inverse),
            *(False, ctx.eps, [True, True, True]),
        )
        # ... and what comes through them: every voxel of every process had a part.
        sums = torch.stack([for_weight, for_bias])
        distributed.all_reduce(sums)
        slope, shift = -weight * inverse * sums / count
        gradient += functional.batch_norm(
            x, mean, variance, slope, shift, False, 0.0, ctx.eps
        )
        return gradient, for_weight, for_bias, None, None, None, None
