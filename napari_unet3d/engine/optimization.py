"""The network, its optimizer, the moving average of its weights, the schedule."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .annotation import UNLABELLED
from .checkpoint import Checkpoint, build_network
from .errors import EngineError
from .loss import sparse_loss
from .ranks import ALONE, Ranks
from .warm_start import BATCHES, starts_warm

if TYPE_CHECKING:
    from .batches import Batch
    from .config import ModelConfig, TrainingConfig


MOMENTUM = 0.02
"""Share of the newest batch in the statistics of the batch normalisation."""

FOLLOW_EVERY, FOLLOWED = 4, 0.04
"""Steps with running statistics after which these follow, and the batch's share then.

Where they stay as they are, a long training learns more by heart; where every batch has
its own, they do not fit the average of the weights for long.
"""

WARMUP = 9
"""Steps over which that share, and that of the newest weights in their average, falls
to one half."""

WARM_STEPS = 27
"""Steps that a warm start stands for in the average of the weights.

What it has brought along is better than the first few steps.
"""


class Optimization:
    """A network that learns step by step.

    Parameters
    ----------
    model, training : ModelConfig, TrainingConfig
        With nothing left open in `model`.
    device : torch.device
        Where to compute.
    dtype : torch.dtype
        Number format of the convolutions.
    ranks : Ranks
        Those that learn together; each takes its share of every batch.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
    ) -> None:
        self._training, self._ranks = training, ranks
        self.device, self._dtype = device, dtype
        # The generator is everybody's: a script may draw from it too.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(training.seed)
            network = build_network(model)
        self.network = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        """The moving average of the weights, in evaluation mode."""
        self._forward = ranks.parallel(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self._norms = [
            m for m in self.network.modules() if isinstance(m, torch.nn.BatchNorm3d)
        ]
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.steps = 0
        self._is_warm = starts_warm(model, training)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's weights and moments."""
        weights = checkpoint.weights
        self.network.load_state_dict(weights.get("latest") or weights["average"])
        self.average.load_state_dict(weights["average"])
        if checkpoint.optimizer:
            self._restore_moments(checkpoint.optimizer, checkpoint.step)
        self.steps = checkpoint.step

    def _restore_moments(self, state: dict[str, Any], steps: int) -> None:
        """Take moments and loss scale; rates and decays are the present settings."""
        present = self.optimizer.state_dict()
        try:
            self.optimizer.load_state_dict({**present, "state": state["state"]})
            if scaler := state.get("scaler"):
                self._scaler.load_state_dict(scaler)
            found = self.optimizer.state
            # In half precision the first steps may be skipped, on some devices wholly.
            none_yet = not found and (not steps or bool(scaler))
            fit = none_yet or all(
                found[parameter][name].shape == parameter.shape
                for parameter in self.network.parameters()
                for name in ("exp_avg", "exp_avg_sq")
            )
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            fit = False
        if not fit:
            raise EngineError(
                "the optimizer's state in the model does not fit its network, the file "
                "is damaged; segment with it or train a new model"
            )

    def step(
        self,
        batch: Batch,
        class_weights: Tensor,
        learning_rate: float,
        running: bool = False,
    ) -> Tensor:
        """Learn from one batch and return its loss, a scalar on the device.

        With `running`, the batch normalisation uses its running statistics, as it will
        in the segmentation, and they follow the batches slowly.
        """
        self.network.train()
        if running:
            self._normalize_as_it_segments(batch)
        else:
            self._normalize_by_batch(self._share())
        chosen, target = None, batch.target
        if running or not self._norms:
            # Nothing depends on the other voxels, as long as no statistics do.
            chosen = target != UNLABELLED
            target = target[chosen].view(1, 1, 1, -1)
        with self.autocast():
            logits = self._forward(batch.features, batch.region, chosen)
        loss = sparse_loss(
            logits,
            target,
            self._training.loss,
            class_weights,
            self._training.focal_gamma,
            self._ranks,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(
            self.network.parameters(), self._training.gradient_clip
        )
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.steps += 1
        self._update_average()
        return loss.detach()

    def _normalize_by_batch(self, share: float) -> None:
        """Normalise the next batch by itself; the running statistics take a share."""
        for norm in self._norms:
            norm.momentum = share
            norm.train()

    def _share(self) -> float:
        """Return the share of a batch that is normalised with its own statistics.

        The running ones follow quickly at first, when all is new: a slice predicted
        after a few steps is not to be normalised with what they began with.
        """
        share = WARMUP / (self.steps + WARMUP)
        if self._is_warm:
            # Those of all batches alike, the warm start's included
            share = 1 / (BATCHES + self.steps + 1)
        return max(MOMENTUM, share)

    def _normalize_as_it_segments(self, batch: Batch) -> None:
        """Normalise with the running statistics, which follow the batches slowly."""
        if self._norms and self.steps % FOLLOW_EVERY == 0:
            self._normalize_by_batch(FOLLOWED)
            with torch.no_grad(), self.autocast():
                self.network.decode(batch.features, batch.region)
        for norm in self._norms:
            norm.eval()

    def free(self) -> None:
        """Give back what a failed step holds on to."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which convolutions use the short number format."""
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)

    def state(self) -> dict[str, Any]:
        """Return copies of all that a checkpoint holds of this."""
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        # Empty unless training is in half precision
        optimizer["scaler"] = self._scaler.state_dict()
        if self.steps and not (optimizer["state"] or optimizer["scaler"]):
            # Not a step since it was a model that is only meant to segment
            optimizer = {}
        return {
            "weights": {
                "latest": copied(self.network.state_dict()),
                "average": copied(self.average.state_dict()),
            },
            "optimizer": optimizer,
        }

    def _update_average(self) -> None:
        """Move the average towards the weights; quickly at first, when all is new."""
        seen = self.steps + (WARM_STEPS if self._is_warm else 0)
        decay = min(self._training.ema_decay, seen / (seen + WARMUP))
        old, new = [], []
        for a, b in zip(
            self.average.state_dict().values(),
            self.network.state_dict().values(),
            strict=True,
        ):
            if a.is_floating_point():
                old.append(a)
                new.append(b)
            else:
                a.copy_(b)
        with torch.no_grad():
            torch._foreach_lerp_(old, new, 1 - decay)


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of copies in main memory."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
