"""Begin with features learned beforehand from volumes of random structures.

The weights were learned by `pretraining/pretrain.py` from generated volumes only. The
head, which depends on what the person means, is solved for from the labels.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .ahead import ahead
from .checkpoint import build_network
from .closed_form import solve_head
from .config import ModelConfig

if TYPE_CHECKING:
    from .batches import BatchSource
    from .config import TrainingConfig
    from .optimization import Optimization
    from .planning import PatchPlan
    from .unet import UNet3D

FILE = Path(__file__).with_name("warm_start.pt")
"""Parameters of the body in half precision, by name, and of the closed form."""

BASE_CHANNELS = 8
"""Width of the network that the weights are of."""

BATCHES = 8
"""Batches that the statistics and the head are taken from."""

_SEED = 20163


def starts_warm(model: ModelConfig, training: TrainingConfig) -> bool:
    """Tell whether a new model of this configuration begins with the weights.

    Its levels may be fewer than theirs, its strides and the image's channels others.
    """
    default = ModelConfig()
    same = ("stem", "filter_scales", "shortcut", "normalization")
    return (
        training.warm_start
        and model.base_channels == BASE_CHANNELS
        and 2 <= model.depth <= default.depth
        and all(getattr(model, name) == getattr(default, name) for name in same)
    )


def begin_warm(
    optimization: Optimization,
    model: ModelConfig,
    source: BatchSource,
    plan: PatchPlan,
    seed: int,
) -> None:
    """Load the weights, then take statistics and head from labelled patches.

    Parameters
    ----------
    optimization : Optimization
        Before its first step.
    model : ModelConfig
        Its network's, which `starts_warm`.
    source : BatchSource
        Draws the labelled patches.
    plan : PatchPlan
        Their size.
    seed : int
        Of the training.
    """
    # Not the network that learns: others may have a part in its statistics, while this
    # is done alike by all of them.
    network = build_network(model).to(
        optimization.device,
        memory_format=torch.channels_last_3d,  # type: ignore[call-overload]
    )
    stored = torch.load(FILE, map_location="cpu", weights_only=True)
    load_body(network, stored)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    vectors, classes = [], []
    # The person waits: the next batch is drawn while one is decoded.
    drawn = ahead(
        source.draw(plan, np.random.default_rng((_SEED, seed, k)))
        for k in range(BATCHES)
    )
    with torch.no_grad(), closing(drawn) as batches:
        for k, batch in enumerate(batches):
            for norm in norms:
                norm.momentum = 1 / (k + 1)
            network.train()
            with optimization.autocast():
                network.decode(batch.features, batch.region)
            network.eval()
            labelled = batch.target >= 0
            with optimization.autocast():
                decoded = network.decode(batch.features, batch.region, labelled)
            vectors.append(decoded[0, :, 0, 0].T.float())
            classes.append(batch.target[labelled])
        head = network.head
        solution = torch.exp(stored["log_scale"]).to(head.weight.device) * solve_head(
            torch.cat(vectors),
            torch.cat(classes),
            head.out_channels,
            torch.exp(stored["log_ridge"]).item(),
        )
        head.weight.copy_(solution[:-1].T.reshape(head.weight.shape))
        assert head.bias is not None
        head.bias.copy_(solution[-1])
    for learner in (optimization.network, optimization.average):
        learner.load_state_dict(network.state_dict())


def load_body(network: UNet3D, stored: dict[str, Tensor]) -> None:
    """Load all but the head and the statistics, fitted to strides and channels.

    Parameters
    ----------
    network : UNet3D
        Of a configuration that `starts_warm`.
    stored : dict of str to Tensor
        Of a network for one channel that pools by two along all axes.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("head."):
                continue
            value = stored[name].float()
            if name.startswith("up."):
                # Where an axis is not pooled, one weight stands for two.
                for axis, size in enumerate(parameter.shape):
                    if size == 1 and value.shape[axis] == 2:
                        value = value.mean(axis, keepdim=True)
            elif value.shape[1:2] != parameter.shape[1:2]:
                # Each filter response comes once for every channel of the image.
                channels = parameter.shape[1] // value.shape[1]
                value = value.repeat_interleave(channels, dim=1) / channels
            parameter.copy_(value)
