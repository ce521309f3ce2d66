"""Learn features from random volumes, for the first minutes of a training.

    python pretraining/pretrain.py --steps 9000 --output warm_start.pt

An episode is what a person does: of a volume never seen before a few slices are
annotated, and all the rest is to be told. The head is not learned but solved for in
closed form from the annotated voxels (ridge regression, Bertinetto et al. 2019,
https://arxiv.org/abs/1805.08136); the loss is that of all other voxels, and its
gradient goes through the solution. So the network learns features with which few
labels suffice.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
from episodes import SCALES, Episode, SyntheticVolumes, draw_episode
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.closed_form import solve_head
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.unet import UNet3D

BASE_CHANNELS = 8
SHORTCUT = 32
POOL = 64
"""Volumes that are drawn from at a time."""
REUSE = 6
"""Steps for each new volume."""


class Learner(nn.Module):
    """The network's body, and what the closed form of the head needs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _network(((2, 2, 2),) * 3)
        self.log_ridge = nn.Parameter(torch.tensor(-4.0))
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self._variants: dict[object, UNet3D] = {}

    def embed(self, x: Tensor, pooling: tuple[tuple[int, int, int], ...]) -> Tensor:
        """Compute what the head is given, pooling as a volume of some spacing asks."""
        if pooling == self.network.pooling:
            return self.network.decode(x)
        if pooling not in self._variants:
            self._variants[pooling] = _network(pooling)
        state = dict(self.network.named_parameters())
        for level, stride in enumerate(pooling):
            name = f"up.{level}.weight"
            for axis, s in enumerate(stride):
                if s == 1:
                    state[name] = state[name].mean(axis + 2, keepdim=True)
        output: Tensor = torch.func.functional_call(self._variants[pooling], state, x)
        return output


def _network(pooling: tuple[tuple[int, int, int], ...]) -> UNet3D:
    channels = FilterStem(1, SCALES).out_channels
    network = UNet3D(channels, 2, BASE_CHANNELS, pooling, shortcut=SHORTCUT)
    network.head = nn.Identity()  # type: ignore[assignment]
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def pretrain(steps: int, learning_rate: float, seed: int, output: Path) -> None:
    """Learn, printing what is reached, and write the weights every 500 steps."""
    torch.manual_seed(seed)
    learner = Learner()
    average = torch.optim.swa_utils.AveragedModel(
        learner.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    optimizer = torch.optim.AdamW(learner.parameters(), learning_rate, fused=True)
    dataset = SyntheticVolumes(10**6 * seed, POOL // 4 + steps // REUSE + 1)
    volumes = iter(
        DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=8)
    )
    pool = deque([next(volumes) for _ in range(POOL // 4)], maxlen=POOL)
    losses: list[float] = []
    scores: list[float] = []
    began = time.monotonic()
    for step in range(steps):
        if step % REUSE == 0:
            pool.append(next(volumes))
        rng = np.random.default_rng((seed, step))
        episode = draw_episode(pool[rng.integers(len(pool))], rng)
        rate = min(1.0, (step + 1) / 100, max(0.01, 2 * (1 - step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = learner.embed(episode.features, episode.grid.pooling)
        logits = told(learner, features.float(), episode)
        target = episode.target[~episode.annotated]
        loss = functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(learner.network)
        losses.append(loss.item())
        scores.append(_iou(logits.argmax(1), target, episode.n_classes))
        if (step + 1) % 100 == 0:
            print(
                f"{step + 1} loss {np.mean(losses[-100:]):.4f} "
                f"IoU {np.mean(scores[-100:]):.4f} "
                f"{time.monotonic() - began:.0f} s "
                f"ridge {learner.log_ridge.item():.2f} "
                f"scale {learner.log_scale.item():.2f}",
                flush=True,
            )
        if (step + 1) % 500 == 0 or step + 1 == steps:
            write(average.module, learner, output)


def told(learner: Learner, features: Tensor, episode: Episode) -> Tensor:
    """Return the logits (M, K) of what is not annotated, by the head of the rest."""
    vectors, known = features.movedim(1, -1), episode.annotated
    head = solve_head(
        vectors[known],
        episode.target[known],
        episode.n_classes,
        torch.exp(learner.log_ridge),
    )
    logits: Tensor = vectors[~known] @ head[:-1] + head[-1]
    return torch.exp(learner.log_scale) * logits


def write(network: nn.Module, learner: Learner, output: Path) -> None:
    """Write the weights in half precision, without the batch statistics."""
    state = {
        name: parameter.detach().half().contiguous()
        for name, parameter in network.named_parameters()
    }
    state["log_ridge"] = learner.log_ridge.detach()
    state["log_scale"] = learner.log_scale.detach()
    temporary = output.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(output)


def _iou(found: Tensor, target: Tensor, n_classes: int) -> float:
    table = torch.bincount(target * n_classes + found, minlength=n_classes**2)
    table = table.view(n_classes, n_classes).double()
    hit = table.diagonal()[1:]
    union = (table.sum(0) + table.sum(1)).narrow(0, 1, n_classes - 1) - hit
    return float((hit / union.clamp_min(1)).mean())


def main() -> None:
    """Read the options and learn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("warm_start.pt"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    pretrain(options.steps, options.learning_rate, options.seed, options.output)


if __name__ == "__main__":
    main()
