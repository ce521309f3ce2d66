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
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from episodes import (
    MOST_CLASSES,
    Batch,
    Group,
    Responses,
    SyntheticVolume,
    SyntheticVolumes,
    cut,
    gathered,
)
from learner import Learner, loss_of_rest, told
from torch import Tensor, nn
from torch.utils.data import DataLoader

from napari_unet3d.engine.allocation import keep_freed_memory

POOL = 32
"""As many times what a step takes is drawn from at a time."""
SCORED = 10
"""Of so many steps one is scored."""


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
