"""Train the network on sparse annotations: a generator of what happens."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .annotation import Annotation, check_annotations
from .batches import Batch, BatchSource
from .checkpoint import Checkpoint, build_network, build_stem, save
from .config import ModelConfig, Spacing, TrainingConfig
from .device import (
    choose_device,
    choose_precision,
    describe_device,
    is_out_of_memory,
    out_of_memory_as_error,
)
from .errors import EngineError
from .events import Saved, Started, StepDone, Trained, TrainingEvent, Validated, Warned
from .loss import automatic_class_weights, sparse_loss
from .normalize import IntensityStatistics, as_channels_first
from .planning import plan_patches, resolve_model
from .validation import HeldOut
from .volume import FeatureVolume

BEST_TOLERANCE = 0.05
"""Newer weights replace the best ones unless their IoU is lower by more than this."""

OUT_OF_MEMORY = "use fewer base_channels, a smaller patch_size or another device"


@dataclass
class TrainingVolume:
    """A sparsely annotated volume.

    Parameters
    ----------
    image : (Z, Y, X) or (C, Z, Y, X) array-like
        Read in boxes; need not fit in memory.
    annotation : Annotation
        May be replaced while training goes on: the next step uses the new one.
    spacing : (float, float, float), optional
        Size of a voxel ZYX.
    name : str
        What to call it in messages.
    """

    image: Any
    annotation: Annotation
    spacing: Spacing | None = None
    name: str = "image"

    def __post_init__(self) -> None:
        self.image = as_channels_first(self.image)
        self.check()

    def check(self) -> None:
        """Refuse an annotation of another shape than the image."""
        shape = tuple(int(n) for n in self.image.shape[1:])
        if self.annotation.shape != shape:
            raise EngineError(
                f"{self.name}: the labels have shape {self.annotation.shape} but the "
                f"image has {shape}; labels and image must have the same grid"
            )


def train(
    volumes: Sequence[TrainingVolume],
    model: ModelConfig | None = None,
    training: TrainingConfig | None = None,
    *,
    save_to: str | Path | None = None,
    stop: threading.Event | None = None,
) -> Iterator[TrainingEvent]:
    """Train a new model, yielding what happens.

    The last event is always `Trained`. For more control (resuming, reading the
    weights in between) use `Trainer`.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
        Sparsely annotated volumes.
    model, training : ModelConfig, TrainingConfig, optional
        What and how to train.
    save_to : path, optional
        Model file, written now and then and at the end.
    stop : threading.Event, optional
        Set it to end after the current step.
    """
    return Trainer(volumes, model, training, save_to=save_to).run(stop)


class Trainer:
    """The state of a training, from which it can be stopped and resumed exactly.

    All randomness of a step comes from seed and step number, so a resumed training
    draws what an uninterrupted one would have drawn.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
        Sparsely annotated volumes.
    model, training : ModelConfig, TrainingConfig, optional
        What and how to train; `model` is the checkpoint's where there is one.
    checkpoint : Checkpoint, optional
        Model to go on from.
    validation : sequence of TrainingVolume
        Volumes to measure on, instead of a part of the training labels.
    class_names, class_colors : sequence of str
        Stored in the model.
    unit : str
        Unit of the spacing, stored in the model.
    save_to : path, optional
        Model file, written now and then and at the end.

    Raises
    ------
    EngineError
        Where the data cannot be trained on or do not fit the checkpoint.
    """

    step: int
    """Steps done, earlier sessions of the model included."""
    seconds: float
    """Time trained so far, likewise."""
    schedule: dict[str, float]
    """Step and second at which the learning rate's schedule began."""
    best: dict[str, float]
    """Step and IoU of the best weights, and which labels they were measured on."""
    history: list[dict[str, Any]]
    """What was reported, as in a `Checkpoint`."""

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        model: ModelConfig | None = None,
        training: TrainingConfig | None = None,
        *,
        checkpoint: Checkpoint | None = None,
        validation: Sequence[TrainingVolume] = (),
        class_names: Sequence[str] = (),
        class_colors: Sequence[str] = (),
        unit: str = "",
        save_to: str | Path | None = None,
    ) -> None:
        self.training = training or TrainingConfig()
        self.device = choose_device(self.training.device)
        self.dtype = choose_precision(self.device, self.training.precision)
        self.volumes = list(volumes)
        self.save_to = save_to
        self.unit = unit
        n_classes = check_annotations([v.annotation for v in self.volumes])
        self.model = resolve_model(
            checkpoint.model if checkpoint else model or ModelConfig(),
            [volume.image.shape for volume in self.volumes],
            [volume.spacing for volume in self.volumes],
            n_classes,
            self.device,
        )
        self._name_classes(class_names, class_colors, checkpoint)
        self.stem = build_stem(self.model).to(self.device)
        features = self._feature_volumes(self.volumes)
        if checkpoint:
            self.stem.load_state_dict(checkpoint.stem)
        else:
            self._fit_stem(features)
        _check_validation(validation, self.model)
        self._held_out_features = self._feature_volumes(validation)
        self._validation = tuple(validation)
        self._features = features
        self.plan = plan_patches(
            self.training,
            self.model,
            [volume.image.shape for volume in self.volumes],
            self.device,
        )
        self._seen: list[Annotation] = []
        self._best_weights: dict[str, Tensor] = {}
        self._build_network(checkpoint)

    def run(
        self, stop: threading.Event | None = None, stop_after: int | None = None
    ) -> Iterator[TrainingEvent]:
        """Train, yielding what happens; the last event is always `Trained`.

        Parameters
        ----------
        stop : threading.Event, optional
            Set it to end after the current step.
        stop_after : int, optional
            End after this many steps of this call, keeping the schedule, so that
            resuming goes on exactly.
        """
        stop = stop or threading.Event()
        self._start_schedule()
        if not self._seen:
            self._use_annotations([volume.annotation for volume in self.volumes])
        yield self._started()
        if self.plan.warning:
            yield Warned(self.plan.warning)
        first, last_event, last_save = self.step, 0.0, time.monotonic()
        while self.progress < 1 and not stop.is_set():
            if stop_after is not None and self.step - first >= stop_after:
                break
            began = time.monotonic()
            loss = yield from self._step_or_shrink()
            self.seconds += time.monotonic() - began
            # Reading the loss waits for the device: not at every step of a GPU.
            if self.device.type == "cpu" or time.monotonic() - last_event > 0.1:
                last_event = time.monotonic()
                yield self._step_done(loss)
            if self.step % self.training.validate_every == 0:
                began = time.monotonic()
                yield from self.validate()
                self.seconds += time.monotonic() - began
            if time.monotonic() - last_save > self.training.save_every:
                yield from self._save_and_go_on()
                last_save = time.monotonic()
        finished = self.progress >= 1
        reason = "finished" if finished else "stopped" if stop.is_set() else "paused"
        if self.step % self.training.validate_every and reason != "paused":
            yield from self.validate()
        if self.save_to:
            save(self.checkpoint(), self.save_to)
            yield Saved(self.step, str(self.save_to))
        yield Trained(self.step, self.seconds, reason)

    @property
    def progress(self) -> float:
        """Share of the schedule that is done."""
        if self.training.steps:
            return (self.step - self.schedule["step"]) / self.training.steps
        minutes = self.training.minutes or 3.0
        return (self.seconds - self.schedule["seconds"]) / (60 * minutes)

    def checkpoint(self) -> Checkpoint:
        """Return the present state; its tensors are copies."""
        return Checkpoint(
            model=self.model,
            training=self.training,
            weights={
                "latest": _copied(self.network.state_dict()),
                "average": _copied(self.average.state_dict()),
                "best": dict(self._best_weights),
            },
            stem=_copied(self.stem.state_dict()),
            class_names=self.class_names,
            class_colors=self.class_colors,
            unit=self.unit,
            step=self.step,
            seconds=self.seconds,
            schedule=dict(self.schedule),
            best=dict(self.best),
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            history=list(self.history),
        )

    def validate(self) -> Iterator[TrainingEvent]:
        """Measure the moving average on the held-out labels and keep the best."""
        if self.best.get("labels") != self._held_out.fingerprint:
            # Nothing to compare with: other labels than those are held out now.
            self.best, self._best_weights = {}, {}
        with out_of_memory_as_error(OUT_OF_MEMORY):
            scores = self._held_out.measure(self.average, self._autocast())
        if scores is None:
            return
        mean = scores.mean_iou
        # While the rate is high newer weights are rarely worse than older ones by
        # more than chance, so they are kept unless they clearly are.
        is_best = mean >= self.best.get("iou", -1) - BEST_TOLERANCE
        if is_best:
            iou = max(mean, self.best.get("iou", -1))
            self.best = {
                "iou": iou,
                "step": float(self.step),
                "labels": self._held_out.fingerprint,
            }
            self._best_weights = _copied(self.average.state_dict())
        self.history.append(
            {
                "step": self.step,
                "seconds": self.seconds,
                "iou": [float(value) for value in scores.iou],
                "mean_iou": mean,
            }
        )
        yield Validated(
            self.step, self.seconds, tuple(scores.iou.tolist()), mean, is_best
        )

    def _name_classes(
        self,
        names: Sequence[str],
        colors: Sequence[str],
        checkpoint: Checkpoint | None,
    ) -> None:
        count = self.model.n_classes or 0
        if checkpoint and not names:
            names, colors = checkpoint.class_names, checkpoint.class_colors
        defaults = ["background", *(f"class {k}" for k in range(2, count + 1))]
        self.class_names = (*names, *defaults[len(names) :])[:count]
        self.class_colors = tuple(colors)

    def _feature_volumes(
        self, volumes: Sequence[TrainingVolume]
    ) -> list[FeatureVolume]:
        return [
            FeatureVolume(
                volume.image, IntensityStatistics.from_image(volume.image), self.stem
            )
            for volume in volumes
        ]

    def _fit_stem(self, features: Sequence[FeatureVolume]) -> None:
        """Standardise the responses over boxes around labelled voxels."""
        if not self.stem.scales:
            return
        rng = np.random.default_rng(self.training.seed)
        margin = np.array(self.stem.margin)
        labelled = [i for i, v in enumerate(self.volumes) if len(v.annotation)]
        blocks = []
        for i in range(8):
            volume = self.volumes[labelled[i % len(labelled)]]
            coordinates = volume.annotation.coordinates
            centre = coordinates[rng.integers(len(coordinates))]
            size = np.minimum(volume.annotation.shape, 32)
            low = np.clip(
                centre - size // 2, 0, np.array(volume.annotation.shape) - size
            )
            source = features[labelled[i % len(labelled)]]
            blocks.append(
                source.read((low - margin).tolist(), (size + 2 * margin).tolist())
            )
        with torch.no_grad():
            self.stem.fit(blocks)

    def _build_network(self, checkpoint: Checkpoint | None) -> None:
        torch.manual_seed(self.training.seed)
        layout = torch.channels_last_3d
        self.network = build_network(self.model).to(self.device)
        self.network.to(memory_format=layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.training.learning_rate,
            weight_decay=self.training.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.dtype == torch.float16
        )
        self.step, self.seconds = 0, 0.0
        self.schedule = {"step": 0, "seconds": 0.0}
        self.best = {}
        self.history = []
        if checkpoint:
            self._restore(checkpoint)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.network.load_state_dict(
            checkpoint.weights.get("latest") or checkpoint.weights["average"]
        )
        self.average.load_state_dict(checkpoint.weights["average"])
        self._best_weights = dict(checkpoint.weights.get("best", {}))
        if checkpoint.optimizer:
            self._restore_optimizer(checkpoint.optimizer)
        self.step, self.seconds = checkpoint.step, checkpoint.seconds
        self.schedule = {**self.schedule, **checkpoint.schedule}
        self.best = dict(checkpoint.best)
        self.history = list(checkpoint.history)
        self.unit = self.unit or checkpoint.unit

    def _restore_optimizer(self, state: dict[str, Any]) -> None:
        """Take the moments; rates and decays are those of the present settings."""
        present = self.optimizer.state_dict()
        try:
            self.optimizer.load_state_dict({**present, "state": state["state"]})
            fit = all(
                self.optimizer.state[p][name].shape == p.shape
                for p in self.network.parameters()
                for name in ("exp_avg", "exp_avg_sq")
                if self.optimizer.state[p]
            )
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            fit = False
        if not fit:
            raise EngineError(
                "the optimizer's state in the model does not fit its network; the file "
                "is damaged: segment with it, or train a new model"
            )

    def _start_schedule(self) -> None:
        """Begin a new schedule where the old one is at its end."""
        if self.progress >= 1:
            self.schedule = {"step": self.step, "seconds": self.seconds}

    def _take_annotations(self) -> Iterator[TrainingEvent]:
        """Take the newest annotations, where they changed and can be trained on."""
        annotations = [volume.annotation for volume in self.volumes]
        if all(a is b for a, b in zip(annotations, self._seen, strict=True)):
            return
        self._seen = annotations
        try:
            for volume in self.volumes:
                volume.check()
            _check_classes(check_annotations(annotations), self.model)
        except EngineError as error:
            yield Warned(f"{error}; until then the labels from before are trained on")
        else:
            self._use_annotations(annotations)

    def _use_annotations(self, annotations: Sequence[Annotation]) -> None:
        self._seen = list(annotations)
        held_features, held = (
            self._held_out_features,
            [volume.annotation for volume in self._validation],
        )
        taught = annotations
        if not self._validation:
            fraction, seed = self.training.validation_fraction, self.training.seed
            parts = [annotation.split(fraction, seed) for annotation in annotations]
            taught = [part[0] for part in parts]
            held_features, held = self._features, [part[1] for part in parts]
        self._batches = BatchSource(
            self._features, taught, self.training.augmentation, self.model
        )
        self._held_out = HeldOut(held_features, held, self.plan, self.model)
        self._class_weights = self._choose_class_weights(taught)

    def _choose_class_weights(self, annotations: Sequence[Annotation]) -> Tensor:
        n_classes = self.model.n_classes or 0
        given = self.training.class_weights
        if given is not None:
            if len(given) != n_classes:
                raise EngineError(
                    f"class_weights has {len(given)} values, {given}, but there are "
                    f"{n_classes} classes; give one weight for each"
                )
            return torch.tensor(given, device=self.device)
        labels = np.concatenate([annotation.labels for annotation in annotations])
        counts = np.bincount(labels, minlength=n_classes + 1)[1:]
        weights = automatic_class_weights(counts.tolist(), self.training.class_balance)
        return weights.to(self.device)

    def _step_or_shrink(self) -> Generator[TrainingEvent, None, Tensor]:
        """Do one step; where memory runs out, with smaller patches."""
        yield from self._take_annotations()
        while True:
            try:
                return self._step()
            except (RuntimeError, MemoryError) as error:
                smaller = self.plan.smaller(self.model)
                if not is_out_of_memory(error) or smaller is None:
                    with out_of_memory_as_error(OUT_OF_MEMORY):
                        raise
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.plan = self._held_out.plan = smaller
            yield Warned(
                f"memory ran out: going on with {smaller.batch_size} patches of "
                f"{smaller.sizes[0]} voxels a step"
            )

    def _step(self) -> Tensor:
        """Do one step of the optimizer and return its loss."""
        rng = np.random.default_rng((self.training.seed, self.step))
        batch: Batch = self._batches.draw(self.plan, rng)
        self.network.train()
        with self._autocast():
            logits = self.network(batch.features, batch.region)
        loss = sparse_loss(
            logits,
            batch.target,
            self.training.loss,
            self._class_weights,
            self.training.focal_gamma,
        )
        rate = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(
            self.network.parameters(), self.training.gradient_clip
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self._update_average()
        return loss.detach()

    @property
    def learning_rate(self) -> float:
        """The rate of the next step: rising, constant, falling to zero."""
        progress = min(1.0, self.progress)
        warmup, decay = self.training.warmup, self.training.decay
        rate = self.training.learning_rate
        # The first steps rise in any case; adaptive moments are unreliable there.
        rise = (self.step - self.schedule["step"] + 1) / 10
        if warmup:
            rise = min(rise, (progress + 1e-3) / warmup)
        fall = (1 - progress) / decay if decay else 1.0
        return rate * min(1.0, rise, max(fall, 0.01))

    def _update_average(self) -> None:
        decay = min(self.training.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
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
            torch._foreach_lerp_(old, new, 1 - decay)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _step_done(self, loss: Tensor) -> StepDone:
        value = float(loss)
        if not math.isfinite(value):
            raise EngineError(
                f"the loss is {value} after {self.step} steps; lower the learning "
                f"rate (now {self.training.learning_rate:g}) or use precision float32"
            )
        rate = self.learning_rate
        self.history.append(
            {
                "step": self.step,
                "seconds": self.seconds,
                "loss": value,
                "learning_rate": rate,
            }
        )
        return StepDone(self.step, value, rate, self.seconds, min(1.0, self.progress))

    def _save_and_go_on(self) -> Iterator[TrainingEvent]:
        if not self.save_to:
            return
        try:
            save(self.checkpoint(), self.save_to)
        except EngineError as error:
            yield Warned(f"{error}; training goes on")
        else:
            yield Saved(self.step, str(self.save_to))

    def _started(self) -> Started:
        assert self.model.base_channels
        assert self.model.pooling is not None
        return Started(
            step=self.step,
            device=describe_device(self.device),
            precision=str(self.dtype).removeprefix("torch."),
            n_parameters=sum(p.numel() for p in self.network.parameters()),
            base_channels=self.model.base_channels,
            patch_size=self.plan.sizes[0],
            batch_size=self.plan.batch_size,
            pooling=self.model.pooling,
            labelled_voxels=sum(len(v.annotation) for v in self.volumes),
            held_out_voxels=self._held_out.voxels,
        )


def _check_validation(volumes: Sequence[TrainingVolume], model: ModelConfig) -> None:
    """Refuse volumes that a model cannot be measured on."""
    for volume in volumes:
        channels = volume.image.shape[0]
        if channels != model.in_channels:
            raise EngineError(
                f"{volume.name}: the validation image has {channels} channels but the "
                f"model takes {model.in_channels}; give one with the same channels"
            )
        _check_classes(volume.annotation.n_classes, model)


def _check_classes(n_classes: int, model: ModelConfig) -> None:
    if n_classes > (model.n_classes or 0):
        raise EngineError(
            f"the labels go up to class {n_classes} but the model has "
            f"{model.n_classes} classes; relabel or start a new model"
        )


def resume_config(checkpoint: Checkpoint, **changes: Any) -> TrainingConfig:
    """Return the checkpoint's training configuration with some fields changed."""
    return replace(checkpoint.training, **changes)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
