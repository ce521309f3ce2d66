"""What the processes of the tests do; found by its name in each of them."""

from __future__ import annotations

import copy
import threading
import time
import warnings
from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import torch
from torch import distributed, nn

from napari_unet3d._sample_data import sparse_annotation, tubules
from napari_unet3d.distributed.batch_norm import share_batch_norm
from napari_unet3d.distributed.ranks import ProcessRanks
from napari_unet3d.engine import (
    Annotation,
    AugmentationConfig,
    ModelConfig,
    Trainer,
    TrainingConfig,
    TrainingVolume,
    optimization,
)
from napari_unet3d.engine.events import StepDone
from napari_unet3d.engine.loss import sparse_loss
from napari_unet3d.engine.ranks import ALONE

TRAINING = TrainingConfig(
    steps=4,
    patch_size=(8, 16, 16),
    batch_size=3,
    validate_every=3,
    device="cpu",
    precision="float32",
    augmentation=AugmentationConfig(flip=(True, True, True)),
)
MODEL = {"base_channels": 2, "depth": 2, "filter_scales": (1.0,)}


def join(rank, count, place):
    """Join the other processes, once and for all."""
    torch.set_num_threads(1)
    # A parameter of one voxel has several layouts that are the same.
    warnings.filterwarnings("ignore", "Grad strides", module=r"torch\.")
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}", rank=rank, world_size=count
    )


def call(function, *arguments):
    """Call a function with the ranks that were joined."""
    return function(ProcessRanks(), *arguments)


def volume(shape=(16, 28, 30), seed=1):
    """Return a small generated volume with an annotated slice per axis."""
    image, truth = tubules(shape, seed)
    return TrainingVolume(image, Annotation.from_labels(sparse_annotation(truth)))


def trainer(ranks, training=None, model=None, checkpoint=None):
    """Return a trainer of a tiny network on the generated volume."""
    return Trainer(
        [volume()],
        ModelConfig(**{**MODEL, **(model or {})}),
        replace(TRAINING, **(training or {})),
        # What is sent to several processes lies in memory that they share.
        checkpoint=copy.deepcopy(checkpoint),
        ranks=ranks,
    )


def train(ranks, *arguments, stop_after=None):
    """Train with float32; return the checkpoint."""
    prepared = trainer(ranks, *arguments)
    list(prepared.run(stop_after=stop_after))
    return prepared.checkpoint()


def begin_warm(ranks):
    """Return the checkpoint of a warm start, before the first step."""
    warm = {"base_channels": 8, "filter_scales": (1.0, 2.0, 4.0, 8.0)}
    return train(ranks, None, warm, stop_after=0)


def train_in_double(ranks, training, model=None, checkpoint=None, stop_after=None):
    """Train with double precision, where rounding hides nothing."""
    build = optimization.build_network
    in_double = mock.patch.object(
        optimization, "build_network", lambda model: build(model).double()
    )
    # The measurement is left out: it computes in float32.
    unmeasured = {"validation_fraction": 0.0, **training}
    with in_double:
        prepared = trainer(ranks, unmeasured, model, checkpoint)
    optimized = prepared.optimization
    forward, decode = optimized._forward, optimized.network.decode
    optimized._forward = lambda x, *where: forward(x.double(), *where)
    optimized.network.decode = lambda x, *where: decode(x.double(), *where)
    list(prepared.run(stop_after=stop_after))
    return prepared.checkpoint()


def stop_in_one(ranks, minutes):
    """Train until the last process is to stop; return step, seconds and reason."""
    stop = threading.Event()
    settings = {"steps": None, "minutes": minutes}
    for event in trainer(ranks, settings).run(stop):
        if isinstance(event, StepDone) and event.step == 3 and ranks.rank:
            stop.set()
    return event


def train_by_own_clock(ranks):
    """Train for a time that passes much faster for the second process."""
    prepared = trainer(ranks, {"steps": None, "minutes": 0.2 / 60})
    monotonic = time.monotonic

    def hurried():
        return monotonic() * 10**ranks.rank

    with mock.patch.object(time, "monotonic", hurried):
        return list(prepared.run())[-1]


def measure(ranks):
    """Measure together and alone with the same weights."""
    prepared = trainer(ranks, {"steps": 3})
    list(prepared.run())
    held_out, average = prepared.data.held_out, prepared.optimization.average
    shared = held_out.measure(average, nullcontext())
    held_out._ranks = ALONE
    return shared.iou, held_out.measure(average, nullcontext()).iou


def normalize(ranks, x, gradient, parts, dtype):
    """Normalise a part of a batch; return output, gradients and statistics."""
    holder = nn.Sequential(nn.BatchNorm3d(x.shape[1]))
    with torch.no_grad():
        holder[0].weight.copy_(torch.arange(x.shape[1]) + 0.5)
        holder[0].bias.copy_(torch.arange(x.shape[1]) - 1.0)
    share_batch_norm(holder)
    norm = holder[0].to(torch.promote_types(dtype, torch.float32))
    norm.momentum = 0.3
    mine = x[parts[ranks.rank]].to(dtype).requires_grad_()
    out = norm(mine)
    out.backward(gradient[parts[ranks.rank]].to(dtype))
    state = {name: value.detach() for name, value in norm.state_dict().items()}
    return out.detach(), mine.grad, norm.weight.grad, norm.bias.grad, state


def loss_of_part(ranks, logits, target, parts, kind, weights):
    """Return the loss and its gradient for a part of a batch."""
    mine = logits[parts[ranks.rank]].clone().requires_grad_()
    loss = sparse_loss(mine, target[parts[ranks.rank]], kind, weights, 2.0, ranks)
    loss.backward()
    return loss.detach(), mine.grad
