"""Begin with features learned beforehand from volumes of random structures.

The weights were learned by `pretraining/pretrain.py` from generated volumes only. The
head, which depends on what the person means, is solved for from the labels; then it and
the shortcut from the input learn a moment by themselves, from single voxels.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .ahead import ahead
from .checkpoint import build_network
from .closed_form import BALANCE, solve_head
from .config import ModelConfig
from .layers import Convolution
from .loss import automatic_class_weights
from .planning import BASE_CHANNELS
from .regions import crop, crop_centre

if TYPE_CHECKING:
    from .batches import Batch, BatchSource
    from .config import TrainingConfig
    from .optimization import Optimization
    from .patch_plan import PatchPlan
    from .unet import UNet3D

FILE = Path(__file__).with_name("warm_start.pt")
"""Parameters of the body in half precision, by name, and of the closed form."""

BATCHES = 8
"""Batches that the statistics and the head are taken from."""

MOST_VOXELS = 2**15
"""Labelled voxels of each that the head is solved for from."""

VOXEL_STEPS, VOXELS, LEARNING_RATE = 100, 4096, 0.005
"""Steps that head and shortcut learn by themselves, voxels in each, rate until half."""

COLD_STATISTICS = 0.05
"""Share of a training from random weights that has statistics of each batch."""

_SEED = 20163


def starts_warm(model: ModelConfig, training: TrainingConfig) -> bool:
    """Tell whether a new model of this configuration begins with the weights.

    Its levels may be fewer than theirs, the image's channels more, and axes may not be
    pooled; strides above 2 have no weights.
    """
    default = ModelConfig()
    strides = {stride for level in model.pooling or () for stride in level}
    same = ("stem", "filter_scales", "shortcut", "normalization")
    return (
        training.warm_start
        and model.base_channels == BASE_CHANNELS
        and 2 <= model.depth <= default.depth
        and strides <= {1, 2}
        and all(getattr(model, name) == getattr(default, name) for name in same)
    )


def batch_statistics(model: ModelConfig, training: TrainingConfig) -> float:
    """Return the share of the training that normalises with each batch's statistics.

    By default it is none after a warm start, which has taken running ones from labelled
    patches. Those of random weights change too fast at first.

    Examples
    --------
    >>> from napari_unet3d.engine import ModelConfig, TrainingConfig
    >>> batch_statistics(ModelConfig(base_channels=8), TrainingConfig())
    0.0
    >>> batch_statistics(ModelConfig(base_channels=16), TrainingConfig())
    0.05
    """
    if training.batch_statistics is not None:
        return training.batch_statistics
    return 0.0 if starts_warm(model, training) else COLD_STATISTICS


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
    vectors, images, classes = [], [], []
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
            labelled = _few(batch.target >= 0, (_SEED, seed, k))
            with optimization.autocast():
                decoded = network.decode(batch.features, batch.region, labelled)
            vectors.append(decoded[0, :, 0, 0].T.float())
            images.append(_image(batch).movedim(1, -1)[labelled])
            classes.append(batch.target[labelled])
        known = torch.cat(vectors), torch.cat(images), torch.cat(classes)
        del vectors, images, classes
        head = network.head
        solution = torch.exp(stored["log_scale"]).to(head.weight.device) * solve_head(
            known[0],
            known[2],
            head.out_channels,
            torch.exp(stored["log_ridge"]).item(),
        )
        head.weight.copy_(solution[:-1].T.reshape(head.weight.shape))
        assert head.bias is not None
        head.bias.copy_(solution[-1])
    _learn_from_voxels(network, *known, seed)
    for learner in (optimization.network, optimization.average):
        learner.load_state_dict(network.state_dict())


def _few(labelled: Tensor, seed: tuple[int, ...]) -> Tensor:
    """Return a mask of `MOST_VOXELS` of the voxels of a mask, or of all there are."""
    there = labelled.flatten().nonzero().flatten()
    if len(there) <= MOST_VOXELS:
        return labelled
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(there), MOST_VOXELS, replace=False))
    few = torch.zeros_like(labelled)
    few.view(-1)[there[torch.from_numpy(chosen).to(there.device)]] = True
    return few


def _image(batch: Batch) -> Tensor:
    """Return the network's input where the targets are."""
    if batch.region is not None:
        return crop(batch.features, batch.region)
    return crop_centre(batch.features, batch.target[:, None])


def _learn_from_voxels(
    network: UNet3D, vectors: Tensor, images: Tensor, classes: Tensor, seed: int
) -> None:
    """Let head and shortcut learn while the rest of the network stays as it is.

    A step takes milliseconds instead of the tenth of a second of a whole one, and the
    shortcut, a pixel classifier, is what tells many classes apart at first.

    Parameters
    ----------
    network : UNet3D
        In evaluation mode.
    vectors, images : Tensor of shape (M, C)
        What the head is given, and the network's input, of labelled voxels.
    classes : Tensor of shape (M,), int64
        Theirs, from 0.
    seed : int
        Of the order of voxels.
    """
    head = network.head
    last = network.shortcut[-1]
    assert isinstance(last, Convolution)
    own = last.conv.out_channels
    decoded = vectors[:, : head.in_channels - own].T[None, :, None, None]
    image = images.T[None, :, None, None]
    counts = classes.bincount(minlength=head.out_channels).tolist()
    # As the closed form weighs them
    weight = automatic_class_weights(counts, BALANCE).to(vectors.device)
    optimizer = torch.optim.AdamW(
        [*network.shortcut.parameters(), *head.parameters()],
        lr=LEARNING_RATE,
        weight_decay=0.0,
    )
    generator = torch.Generator().manual_seed(seed)
    for step in range(VOXEL_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, 2 * (1 - step / VOXEL_STEPS))
        index = torch.randint(len(classes), (VOXELS,), generator=generator)
        index = index.to(vectors.device)
        logits = network.classify(decoded[..., index], image[..., index])
        loss = functional.cross_entropy(
            logits[0, :, 0, 0].T, classes[index], weight=weight
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


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
