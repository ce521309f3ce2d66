"""The network that learns from episodes, and its head in closed form."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from episodes import MOST_CLASSES, SCALES, Batch
from torch import Tensor, nn

from napari_unet3d.engine.closed_form import solve_head
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.unet import UNet3D

SHORTCUT = 32


class EpisodeNorm(nn.Module):
    """Batch normalisation with the statistics of each episode.

    Parameters
    ----------
    norm : BatchNorm3d
        Whose parameters these are.
    """

    episodes = 1
    """How many there are in the batch, one after the other."""

    def __init__(self, norm: nn.BatchNorm3d) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self._epsilon = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (E N, C, Z, Y, X)."""
        last = x.movedim(1, -1)
        rows = last.reshape(self.episodes, -1, x.shape[1])
        normalised: Tensor = Normalised.apply(  # type: ignore[no-untyped-call]
            rows, self.weight, self.bias, self._epsilon
        )
        return normalised.view(last.shape).movedim(-1, 1)


class Normalised(torch.autograd.Function):
    """Normalise rows (E, S, C) over S, in fewer kernels than torch needs for it.

    The voxels stay in their own format; only sums are in single precision.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, epsilon: float
    ) -> Tensor:
        """Return (rows - mean) / deviation * weight + bias, with sums over S."""
        count, exact = rows.shape[1], weight.dtype
        mean = rows.sum(1, keepdim=True, dtype=exact) / count
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=exact)
        inverse = (norm**2 / count - mean**2).clamp_min(0).add(epsilon).rsqrt()
        scale = weight * inverse
        ctx.save_for_backward(rows, mean, inverse, scale)
        shift = bias - mean * scale
        return torch.addcmul(shift.to(rows.dtype), rows, scale.to(rows.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of rows, weight and bias."""
        rows, mean, inverse, scale = ctx.saved_tensors
        count, exact, short = rows.shape[1], mean.dtype, rows.dtype
        of_bias = gradient.sum(1, keepdim=True, dtype=exact)
        product = (gradient * rows).sum(1, keepdim=True, dtype=exact)
        of_weight = (product - mean * of_bias) * inverse
        slope = -scale * inverse * of_weight / count
        level = -scale * of_bias / count - slope * mean
        of_rows = torch.addcmul(level.to(short), rows, slope.to(short))
        of_rows = torch.addcmul(of_rows, gradient, scale.to(short))
        return of_rows, of_weight.sum((0, 1)), of_bias.sum((0, 1)), None


class Learner(nn.Module):
    """The network's body, and what the closed form of the head needs.

    Parameters
    ----------
    base_channels : int
        Width of the network.
    """

    def __init__(self, base_channels: int = 8) -> None:
        super().__init__()
        self.network = _network(((2, 2, 2),) * 3, base_channels)
        self.log_ridge = nn.Parameter(torch.tensor(-4.0))
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self._base_channels = base_channels
        self._variants: dict[object, UNet3D] = {}

    def embed(self, x: Tensor, pooling: tuple[tuple[int, int, int], ...]) -> Tensor:
        """Compute what the head is given, pooling as a volume of some spacing asks.

        Parameters
        ----------
        x : Tensor of shape (E, N, C, Z, Y, X)
        pooling : sequence of (int, int, int)

        Returns
        -------
        Tensor of shape (E, N, F, Z, Y, X)
        """
        network, state = self.network, dict(self.network.named_parameters())
        if pooling != network.pooling:
            if pooling not in self._variants:
                self._variants[pooling] = _network(pooling, self._base_channels)
            network = self._variants[pooling]
            for level, stride in enumerate(pooling):
                name = f"up.{level}.weight"
                for axis, s in enumerate(stride):
                    if s == 1:
                        state[name] = state[name].mean(axis + 2, keepdim=True)
        for module in network.modules():
            if isinstance(module, EpisodeNorm):
                module.episodes = len(x)
        output: Tensor = torch.func.functional_call(network, state, x.flatten(0, 1))
        return output.unflatten(0, (len(x), -1))


def _network(pooling: tuple[tuple[int, int, int], ...], base_channels: int) -> UNet3D:
    channels = FilterStem(1, SCALES).out_channels
    network = UNet3D(channels, 2, base_channels, pooling, shortcut=SHORTCUT)
    network.head = nn.Identity()  # type: ignore[assignment]
    for module in list(network.modules()):
        if isinstance(getattr(module, "norm", None), nn.BatchNorm3d):
            module.norm = EpisodeNorm(module.norm)  # type: ignore[arg-type]
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def told(learner: Learner, features: Tensor, batch: Batch) -> Tensor:
    """Return the logits (E, V, K) of all voxels, by the head of the annotated ones.

    Parameters
    ----------
    learner : Learner
    features : Tensor of shape (E, N, F, Z, Y, X)
    batch : Batch
    """
    vectors = features.movedim(2, -1).flatten(1, -2)
    index = batch.annotated
    known = vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))
    solve = partial(
        solve_head, n_classes=MOST_CLASSES, ridge=torch.exp(learner.log_ridge)
    )
    heads = torch.vmap(solve)(known.double(), batch.target.gather(1, index))
    logits = vectors.float() @ heads[:, :-1] + heads[:, -1:]
    logits = torch.exp(learner.log_scale) * logits
    # The classes that an episode does not have are never told.
    number = torch.arange(MOST_CLASSES, device=logits.device)
    has = number < batch.n_classes[:, None]
    return logits.masked_fill(~has[:, None], -torch.inf)


def loss_of_rest(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of what is not annotated.

    Voxels of a class together weigh as the square root of their number, as they do in
    the head's solution and in a training.
    """
    right = logits.gather(2, batch.target[..., None])[..., 0]
    losses = logits.logsumexp(2) - right
    rest = torch.ones_like(losses).scatter_(1, batch.annotated, 0)
    number = torch.arange(logits.shape[2], device=logits.device)
    counts = ((batch.target[..., None] == number) * rest[..., None]).sum(1)
    weight = rest * counts.clamp_min(1).rsqrt().gather(1, batch.target)
    return ((losses * weight).sum(1) / weight.sum(1)).mean()
