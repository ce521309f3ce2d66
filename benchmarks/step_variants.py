"""Training steps that `training_step.py` compares, ours and those of peers."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
from peer_networks import build_peer
from reporting import seconds_of, wait
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from napari_unet3d.engine import (
    ModelConfig,
    Trainer,
    TrainingConfig,
    batches,
    composition,
)

if TYPE_CHECKING:
    from napari_unet3d.engine.patch_plan import PatchPlan

BATCHES = 4
"""Batches that every variant goes through, drawn beforehand."""

COUNTED = 20
"""Batches whose labelled voxels are counted."""

RATE = 1e-3


class OwnSteps:
    """Our training steps, through the same code as a training.

    Parameters
    ----------
    volume : TrainingVolume
        With one annotated slice per axis.
    plan : PatchPlan
        Shapes of the patches.
    base : int
        Channels of the first convolution.
    dense : bool
        Evaluate all voxels instead of a region.
    running : bool
        Learn with running statistics, as in most of a training: head and shortcut then
        see labelled voxels only.
    composed : bool
        Let the engine compose up-convolutions with what follows where that is quicker.
    stem, precision, device : str
        As in the engine's settings.
    """

    def __init__(
        self,
        volume,
        plan: PatchPlan,
        base: int,
        *,
        dense: bool = False,
        running: bool = False,
        composed: bool = True,
        stem: str = "none",
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        model = ModelConfig(base_channels=base, stem=stem)
        training = TrainingConfig(
            precision=precision, device=device, validation_fraction=0
        )
        trainer = Trainer([volume], model, training)
        trainer.data.refresh(plan)
        self.device = device
        self.optimization = trainer.optimization
        self.network = trainer.optimization.network
        self._data, self._plan = trainer.data, plan
        self._class_weights = trainer.data.class_weights.at(0)
        self.batches = [self._draw(k, dense) for k in range(BATCHES)]
        self._dense, self._running, self._composed = dense, running, composed

    @cached_property
    def labelled(self) -> int:
        """Labelled voxels that the loss takes in, of all batches counted."""
        return sum(_labelled(self._draw(k, self._dense)) for k in range(COUNTED))

    @cached_property
    def labelled_share(self) -> float:
        """Their share of the labelled voxels in the patches."""
        whole = sum(_labelled(self._draw(k, dense=True)) for k in range(COUNTED))
        return self.labelled / whole

    def run(self) -> None:
        """Do one step with every batch."""
        for batch in self.batches:
            self.step(batch)

    def step(self, batch) -> None:
        """Do one step."""
        with self._as_asked():
            self.optimization.step(batch, self._class_weights, RATE, self._running)

    def forward(self, batch) -> torch.Tensor:
        """Compute the logits that the loss needs."""
        with self._as_asked():
            return self.network(batch.features, batch.region)

    def _as_asked(self) -> AbstractContextManager[object]:
        if self._composed:
            return nullcontext()
        return mock.patch.object(composition, "FEWEST_VOXELS", 2**40)

    def parts(self) -> dict[str, float]:
        """Time drawing, forward, backward, optimizer and the rest, in seconds a step.

        "backward" includes the loss and the clipping; "rest" is the moving average.
        """
        marks: dict[str, float] = {}

        def mark(name):
            def note(*_):
                wait(self.device)
                marks[name] = time.perf_counter()

            return note

        optimizer = self.optimization.optimizer
        hooks = [
            self.network.register_forward_pre_hook(mark("forward")),
            self.network.register_forward_hook(mark("backward")),
            optimizer.register_step_pre_hook(mark("optimizer")),
            optimizer.register_step_post_hook(mark("rest")),
        ]
        totals = dict.fromkeys(("drawing", "forward", "backward", "optimizer"), 0.0)
        totals["rest"] = 0.0
        for k, batch in enumerate(self.batches):
            totals["drawing"] += seconds_of(lambda k=k: self._draw(k), self.device)
            self.step(batch)
            mark("end")()
            names = ["forward", "backward", "optimizer", "rest", "end"]
            for name, following in pairwise(names):
                totals[name] += marks[following] - marks[name]
        for hook in hooks:
            hook.remove()
        return {name: value / len(self.batches) for name, value in totals.items()}

    def _draw(self, seed: int, dense: bool = False):
        rng = np.random.default_rng(seed)
        if not dense:
            return self._data.batches.draw(self._plan, rng)
        with mock.patch.object(batches, "choose_region", _whole_patch):
            return self._data.batches.draw(self._plan, rng)


class PeerSteps:
    """Training steps of a peer's network on the dense batches of `OwnSteps`."""

    def __init__(
        self, method: str, base: int, own: OwnSteps, precision: str = "float32"
    ) -> None:
        torch.manual_seed(0)
        self._dtype = getattr(torch, precision)
        self.device = own.device
        self.batches = own.batches
        self.labelled, self.labelled_share = own.labelled, own.labelled_share
        channels = self.batches[0].features.shape[1]
        n_classes = own.network.head.out_channels
        self.network = build_peer(method, channels, n_classes, base).to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        self._choose_layout()

    def run(self) -> None:
        """Do one step with every batch."""
        for batch in self.batches:
            self.step(batch)

    def step(self, batch) -> None:
        """Do one step."""
        loss = functional.cross_entropy(
            self.forward(batch), batch.target, ignore_index=-1
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def forward(self, batch) -> torch.Tensor:
        """Compute the logits of the patches."""
        image = batch.features.contiguous(memory_format=self.layout)
        is_short = self._dtype != torch.float32
        with torch.autocast(image.device.type, self._dtype, enabled=is_short):
            return self.network(image).float()

    def _choose_layout(self) -> None:
        """Take the memory layout with the quicker step, each tried twice."""
        seconds = {}
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            self.layout = layout
            self.network.to(memory_format=layout)
            seconds[layout] = min(
                seconds_of(lambda: self.step(self.batches[0]), self.device)
                for _ in range(2)
            )
        self.layout = min(seconds, key=seconds.__getitem__)
        self.network.to(memory_format=self.layout)


def arithmetic(variant) -> float:
    """Count the billions of multiplications and additions of a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        variant.forward(variant.batches[0])
    return counter.get_total_flops() / 1e9


def convolution_share(variant) -> float:
    """Return the share of a step's time that is spent in convolutions, on the CPU."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        variant.step(variant.batches[0])
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    inside = [e.self_cpu_time_total for e in events if "conv" in e.key]
    return sum(inside) / total


def _labelled(batch) -> int:
    return int((batch.target >= 0).sum())


def _whole_patch(labels, normal, positions, ranks):
    z, y, x = ((0, int(n)) for n in labels.shape[1:])
    return z, y, x
