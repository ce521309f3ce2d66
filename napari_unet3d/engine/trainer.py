"""The state of a training, step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .best_weights import BestWeights
from .checkpoint import Checkpoint, build_stem
from .config import ModelConfig, TrainingConfig
from .device import (
    choose_device,
    choose_precision,
    is_out_of_memory,
    out_of_memory_as_error,
)
from .events import Trained, TrainingEvent, Warned
from .label_checks import check_annotations
from .next_batch import NextBatch
from .optimization import Optimization, copied
from .patch_plan import plan_patches, share_patches
from .planning import resolve_model
from .ranks import ALONE, Ranks
from .reports import Reports
from .saving import RegularSaving
from .schedule import Schedule
from .training_data import TrainingData, TrainingVolume
from .warm_start import batch_statistics, begin_warm, starts_warm

if TYPE_CHECKING:
    from torch import Tensor

_Result = TypeVar("_Result")

OUT_OF_MEMORY = "use fewer base_channels, a smaller patch_size or another device"


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
    unit : str, optional
        Unit of the spacing, stored in a new model.
    save_to : path, optional
        Model file, written now and then and at the end.
    ranks : Ranks
        Those that train the model together, each with the same volumes and settings;
        the first one saves.

    Raises
    ------
    EngineError
        Where the data cannot be trained on or do not fit the checkpoint.
    """

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
        unit: str | None = None,
        save_to: str | Path | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.training = training or TrainingConfig()
        self._ranks = ranks
        self._saving = RegularSaving(
            save_to if ranks.rank == 0 else None,
            self.training.save_every,
            self.checkpoint,
        )
        self.device = choose_device(self.training.device)
        self.dtype = choose_precision(self.device, self.training.precision)
        shapes = [volume.image.shape for volume in volumes]
        self.model = resolve_model(
            checkpoint.model if checkpoint else model or ModelConfig(),
            shapes,
            [volume.spacing for volume in volumes],
            check_annotations([volume.annotation for volume in volumes]),
            is_trained=checkpoint is not None,
        )
        self.stem = build_stem(self.model).to(self.device)
        self.data = TrainingData(
            volumes, validation, self.stem, self.model, self.training, ranks
        )
        plan = plan_patches(self.training, self.model, shapes, self.device)
        self.plan = share_patches(plan, self.training, ranks)
        self.optimization = Optimization(
            self.model, self.training, self.device, self.dtype, ranks
        )
        self._next_batch = NextBatch(self.training.seed, self.device, ranks)
        self.schedule = Schedule(self.training)
        self._batch_statistics = batch_statistics(self.model, self.training)
        self._best = BestWeights()
        self._reports = Reports(self)
        self.unit = unit or ""
        if checkpoint:
            self._restore(checkpoint)
            class_names = class_names or checkpoint.class_names
            class_colors = class_colors or checkpoint.class_colors
        else:
            self.data.fit_stem(self.stem)
        self.class_names = _named(class_names, self.model.n_classes or 0)
        self.class_colors = tuple(class_colors)[: self.model.n_classes]

    @property
    def step(self) -> int:
        """Steps trained, earlier sessions of the model included."""
        return self.schedule.step

    @property
    def seconds(self) -> float:
        """Seconds trained, earlier sessions of the model included."""
        return self.schedule.seconds

    @property
    def best(self) -> dict[str, float]:
        """What was measured with the best weights: see `Checkpoint`."""
        return self._best.figures

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, earlier sessions of the model included."""
        return self._reports.history

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
        self._stopped = False
        self.schedule.begin()
        problem = self.data.refresh(self.plan, self.schedule.learns_all)
        shrunk: list[TrainingEvent] = []
        if not self.step and starts_warm(self.model, self.training):
            shrunk += self._or_shrink(self._begin_warm)
        yield self._reports.started(self._ranks.count)
        yield from shrunk
        for warning in filter(None, (self.plan.warning, problem)):
            yield Warned(warning)
        first, last_event = self.step, 0.0
        self._saving.begin()
        every = self.training.validate_every
        while not self._is_to_stop(stop) and self.schedule.progress < 1:
            if stop_after is not None and self.step - first >= stop_after:
                break
            if self.schedule.is_to_learn_all:
                # The last time that the held-out labels are new to the network.
                if self.step % every:
                    yield from self._timed(self.validate())
                self.schedule.learn_all()
            loss = yield from self._timed(self._step_by_newest())
            # Reading the loss waits for the device: not at every step of a GPU.
            if self.device.type == "cpu" or time.monotonic() - last_event > 0.1:
                last_event = time.monotonic()
                yield self._reports.step_done(loss)
            if self.step % every == 0:
                yield from self._timed(self.validate())
            yield from self._saving.if_due()
        self._next_batch.forget()
        finished = self.schedule.progress >= 1
        reason = "finished" if finished else "stopped" if self._stopped else "paused"
        if self.step % every and reason != "paused":
            yield from self.validate()
        yield from self._saving.at_the_end()
        yield Trained(self.step, self.seconds, reason)

    def checkpoint(self) -> Checkpoint:
        """Return the present state; its tensors are copies."""
        state = self.optimization.state()
        state["weights"]["best"] = dict(self._best.weights)
        return Checkpoint(
            model=self.model,
            training=self.training,
            stem=copied(self.stem.state_dict()),
            class_names=self.class_names,
            class_colors=self.class_colors,
            unit=self.unit,
            step=self.step,
            seconds=self.seconds,
            schedule=dict(self.schedule.start),
            best=dict(self.best),
            history=list(self.history),
            **state,
        )

    def validate(self) -> Generator[TrainingEvent, None, None]:
        """Measure the moving average on the held-out labels and keep the best.

        Once those labels are learned too, they only tell whether the training
        collapses, and nothing is reported.
        """
        apart = self.data.is_held_out
        with out_of_memory_as_error(OUT_OF_MEMORY):
            measured = self._best.measure(
                self.data.held_out, self.optimization, self.step, apart
            )
        if measured is not None and apart:
            yield self._reports.validated(*measured)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.stem.load_state_dict(checkpoint.stem)
        self.optimization.restore(checkpoint)
        self.schedule.restore(checkpoint)
        self._best.restore(checkpoint)
        self._reports.history = list(checkpoint.history)
        # That of its spacing, which stays, whatever the volumes have now.
        self.unit = checkpoint.unit

    def _is_to_stop(self, stop: threading.Event) -> bool:
        """Tell whether any rank is to stop; all get the first one's clock."""
        self.schedule.seconds, self._stopped = self._ranks.agree(
            self.schedule.seconds, stop.is_set()
        )
        return self._stopped

    def _timed(
        self, work: Generator[TrainingEvent, None, Any]
    ) -> Generator[TrainingEvent, None, Any]:
        """Count the seconds of a part of the training."""
        began = time.monotonic()
        result = yield from work
        self.schedule.seconds += time.monotonic() - began
        return result

    def _begin_warm(self) -> None:
        source = self.data.batches, self.plan
        begin_warm(self.optimization, self.model, *source, self.training.seed)

    def _step_by_newest(self) -> Generator[TrainingEvent, None, Tensor]:
        """Do one step with the newest annotations."""
        problem = self.data.refresh(self.plan, self.schedule.learns_all)
        if problem:
            yield Warned(problem)
        return (yield from self._or_shrink(self._step))

    def _or_shrink(
        self, work: Callable[[], _Result]
    ) -> Generator[TrainingEvent, None, _Result]:
        """Do something; where memory runs out, with smaller patches."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                # Whoever has less memory than the others cannot go on without them.
                alone = self._ranks.count == 1
                smaller = self.plan.smaller(self.model) if alone else None
                if not is_out_of_memory(error) or smaller is None:
                    with out_of_memory_as_error(OUT_OF_MEMORY):
                        raise
            self._next_batch.forget()
            self.optimization.free()
            self.plan = self.data.held_out.plan = smaller
            yield Warned(
                f"memory ran out: going on with {smaller.batch_size} patches of "
                f"{smaller.sizes[0]} voxels a step"
            )

    def _step(self) -> Tensor:
        """Do one step of the optimizer and return its loss."""
        source = self.data.batches, self.plan
        batch = self._next_batch.draw(*source, self.step)
        with self._next_batch.ahead(*source, self.step + 1):
            loss = self.optimization.step(
                batch,
                self.data.class_weights.at(self.step),
                self.schedule.learning_rate,
                self.schedule.progress >= self._batch_statistics,
            )
        self.schedule.step += 1
        return loss


def _named(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Name `count` classes, those without a name by their label."""
    defaults = ["background", *(f"class {k}" for k in range(2, count + 1))]
    return (*names, *defaults[len(names) :])[:count]
