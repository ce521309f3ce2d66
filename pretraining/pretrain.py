"""Learn features from random volumes, for the first minutes of a training.

    python pretraining/pretrain.py --steps 9000 --output warm_start.pt
    python pretraining/pretrain.py --device cuda --volumes 32 --episodes 24 --workers 15
        --learning-rate 7e-3 --steps 1000000 --seconds 530

An episode is what a person does: of a volume never seen before a few slices are
annotated, and all the rest is to be told. The head is not learned but solved for in
closed form from the annotated voxels (ridge regression, Bertinetto et al. 2019,
https://arxiv.org/abs/1805.08136); the loss is that of all other voxels, and its
gradient goes through the solution. So the network learns features with which few
labels suffice. A step plays an episode on each of some volumes; the batch
normalisation keeps them apart, as a network sees one volume when it is used.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from episodes import (
    MOST_CLASSES,
    SCALES,
    Batch,
    Group,
    Responses,
    SyntheticVolume,
    SyntheticVolumes,
    cut,
    gathered,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.closed_form import solve_head
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.unet import UNet3D

SHORTCUT = 32
POOL = 32
"""As many times what a step takes is drawn from at a time."""
SCORED = 10
"""Of so many steps one is scored."""


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


def pretrain(options: argparse.Namespace) -> None:
    """Learn, printing what is reached, and write the weights every 500 steps."""
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    learner = Learner(options.base_channels).to(device)
    average = torch.optim.swa_utils.AveragedModel(
        learner.network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(options.average),
    )
    optimizer = torch.optim.AdamW(
        learner.parameters(), options.learning_rate, fused=True
    )
    groups = _groups(options)
    responses = Responses(device)

    def fresh() -> tuple[Group, Iterator[int]]:
        return responses.of(next(groups)), cycle(range(options.episodes))

    pool = deque([fresh() for _ in range(POOL // 4)], maxlen=POOL)
    losses: list[float] = []
    scores: list[float] = []
    began = time.monotonic()
    for step in range(options.steps):
        progress = step / options.steps
        if options.seconds:
            progress = (time.monotonic() - began) / options.seconds
            if progress >= 1:
                break
        # Every volume is met as often as it has episodes, on average.
        if step % options.episodes == 0:
            pool.append(fresh())
        rng = np.random.default_rng((options.seed, step))
        group, numbers = pool[rng.integers(len(pool))]
        batch = cut(group, next(numbers))
        rate = min(1.0, (step + 1) / 100, max(0.01, 2 * (1 - progress)))
        for settings in optimizer.param_groups:
            settings["lr"] = options.learning_rate * rate
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = learner.embed(batch.features, batch.grid.pooling)
        logits = told(learner, features, batch)
        loss = loss_of_rest(logits, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(learner.network)
        if step % SCORED == 0:
            losses.append(loss.item())
            scores.append(_iou(logits, batch))
        if (step + 1) % 100 == 0:
            recent = 100 // SCORED
            print(
                f"{step + 1} loss {np.mean(losses[-recent:]):.4f} "
                f"IoU {np.mean(scores[-5 * recent :]):.4f} "
                f"{time.monotonic() - began:.0f} s "
                f"ridge {learner.log_ridge.item():.2f} "
                f"scale {learner.log_scale.item():.2f}",
                flush=True,
            )
        if (step + 1) % 500 == 0:
            write(average.module, learner, options.output)
    write(average.module, learner, options.output)


def _groups(options: argparse.Namespace) -> Iterator[list[SyntheticVolume]]:
    """Make volumes in other processes, as many at a time as a step takes."""
    count = 2 * options.volumes * (POOL + options.steps // options.episodes)
    dataset = SyntheticVolumes(10**6 * options.seed, count, options.episodes)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=options.workers, prefetch_factor=8
    )
    return gathered(loader, options.volumes)


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


def write(network: nn.Module, learner: Learner, output: Path) -> None:
    """Write the weights in half precision, without the batch statistics."""
    state = {
        name: parameter.detach().half().cpu().contiguous()
        for name, parameter in network.named_parameters()
    }
    state["log_ridge"] = learner.log_ridge.detach().cpu()
    state["log_scale"] = learner.log_scale.detach().cpu()
    temporary = output.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(output)


def _iou(logits: Tensor, batch: Batch) -> float:
    """Return the foreground IoU of the first episode, annotated voxels included."""
    target, found = batch.target[0], logits[0].argmax(1)
    table = torch.bincount(target * MOST_CLASSES + found, minlength=MOST_CLASSES**2)
    table = table.view(MOST_CLASSES, MOST_CLASSES).double()
    hit = table.diagonal()
    union = table.sum(0) + table.sum(1) - hit
    scores = (hit / union.clamp_min(1))[1 : int(batch.n_classes[0])]
    return float(scores.mean())


def main() -> None:
    """Read the options and learn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seconds", type=float, help="instead of steps")
    parser.add_argument("--volumes", type=int, default=1, help="of a step")
    parser.add_argument("--episodes", type=int, default=6, help="of a volume")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--average", type=float, default=0.998, help="of the weights")
    parser.add_argument("--base-channels", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="that make volumes")
    parser.add_argument("--output", type=Path, default=Path("warm_start.pt"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # Enough for the logits; what the heads are solved from is in double precision.
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()
    pretrain(options)


if __name__ == "__main__":
    main()
