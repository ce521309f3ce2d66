"""A training that can be watched, held, and fed with new labels."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from napari_unet3d.engine.config import ModelConfig, TrainingConfig
from napari_unet3d.engine.config_values import build
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.events import Saved, StepDone, Trained, Warned
from napari_unet3d.engine.ranks import ALONE, Ranks
from napari_unet3d.engine.trainer import Trainer
from napari_unet3d.engine.training_data import TrainingVolume
from napari_unet3d.engine.unet import UNet3D

from .answers import Paused, Resumed
from .volumes import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .answers import Event
    from .live_ranks import LiveRanks
    from .model import CurrentModel
    from .requests import Train, UpdateAnnotation
    from .volumes import OpenedVolume

INTERVAL = 0.1
"""Seconds between two `StepDone`, at least."""


class Training:
    """A training and what belongs to it.

    Parameters
    ----------
    request : Train
        What to train.
    volumes : mapping
        The volumes by number.
    model : CurrentModel
        Receives what is trained.
    attend : callable
        Called while the training is prepared; an exception ends it.
    """

    trainer: Trainer

    def __init__(
        self,
        request: Train,
        volumes: Mapping[int, OpenedVolume],
        model: CurrentModel,
        attend: Callable[[], None],
    ) -> None:
        missing = [number for number in request.volumes if number not in volumes]
        if missing or not request.volumes:
            raise EngineError(
                f"there is no volume {missing[0] if missing else 'to train on'}; open "
                "it first"
            )
        self.request = request
        self.stop = threading.Event()
        """Set it to end after the present step."""
        self.is_paused = False
        self._model = model
        self._attend = attend
        self._volumes = [volumes[number] for number in request.volumes]
        self._ranks: LiveRanks | None = None
        self._left_out = 0
        self._saved_to: str | None = None
        self._last_step = 0.0

    def run(
        self,
        send: Callable[[Event], None],
        between_steps: Callable[[Training], None],
    ) -> None:
        """Train to the end, sending what happens.

        Parameters
        ----------
        send : callable
            Takes the events; the last one is `Trained`.
        between_steps : callable
            Called after every step.
        """
        try:
            if self.request.devices == 1:
                self.run_with(ALONE, send, between_steps)
            else:
                self._run_on_devices(send, between_steps)
        except Interrupted:
            send(Trained(0, 0.0, "stopped"))

    def run_with(
        self,
        ranks: Ranks,
        send: Callable[[Event], None],
        between_steps: Callable[[Training], None],
    ) -> None:
        """Train as one of several, or alone; else as `run`.

        Raises
        ------
        Interrupted
            Where the preparation was ended.
        """
        self._prepare(ranks)
        trainer = self.trainer
        if ranks is ALONE:
            self.use_labels(send)  # more may have been painted meanwhile
        self._model.train(trainer)
        waiting: StepDone | None = None
        end: Trained | None = None
        try:
            for event in trainer.run(self.stop):
                if isinstance(event, StepDone):
                    waiting = self._throttle(event, send)
                    between_steps(self)
                    continue
                if waiting:
                    send(waiting)
                    waiting = None
                if isinstance(event, Saved):
                    self._saved_to = event.path
                if isinstance(event, Trained):
                    end = event
                else:
                    send(event)
        finally:
            self._model.finish(self._saved_to)
        if end:
            send(end)

    def take_labels(
        self, update: UpdateAnnotation, send: Callable[[Event], None]
    ) -> None:
        """Have the next step use what was painted; of several processes in all."""
        if self._ranks is None:
            self.use_labels(send)
        elif update.volume in self.request.volumes:
            self._ranks.post(update)

    def use_labels(self, send: Callable[[Event], None]) -> None:
        """Have the next step use what is painted now."""
        if not hasattr(self, "trainer"):
            return
        count = self.trainer.model.n_classes
        for volume, opened in zip(
            self.trainer.data.volumes, self._volumes, strict=True
        ):
            volume.annotation = opened.annotation(count)
        left_out = max(
            int(volume.labels.labels.max(initial=0)) for volume in self._volumes
        )
        if left_out > (count or 0) and left_out != self._left_out:
            self._left_out = left_out
            send(
                Warned(
                    f"class {left_out} is new: this model has {count} classes and does "
                    "not learn it; start a new training to include it"
                )
            )

    def hold(
        self,
        send: Callable[[Event], None],
        while_held: Callable[[Training], None],
    ) -> None:
        """Wait while the training is paused; `while_held` waits for requests."""
        if not self.is_paused:
            return
        send(Paused(self.trainer.step))
        while self.is_paused and not self.stop.is_set():
            while_held(self)
        self.is_paused = False
        send(Resumed(self.trainer.step))

    def _run_on_devices(
        self,
        send: Callable[[Event], None],
        between_steps: Callable[[Training], None],
    ) -> None:
        # Only where they are used: torch.distributed takes a while to load.
        from napari_unet3d.distributed.devices import check_devices
        from napari_unet3d.distributed.ranks import are_others_lost

        from .followers import Assignment, Followers

        request = self.request
        check_devices(
            request.devices, build(TrainingConfig, request.training, "training")
        )
        with Followers(
            request.devices, self._attend, lambda _: self.use_labels(send)
        ) as followers:
            assignment = Assignment(
                request,
                tuple(volume.request for volume in self._volumes),
                tuple(volume.as_update() for volume in self._volumes),
            )
            self._ranks = followers.ranks
            try:
                followers.assign(
                    assignment, self._model.latest() if request.proceed else None
                )
                self.run_with(followers.ranks, send, between_steps)
            except RuntimeError as error:
                if not are_others_lost(error):
                    raise
                raise followers.why_lost() from error
            finally:
                self._ranks = None

    def _prepare(self, ranks: Ranks) -> None:
        request = self.request
        model = build(ModelConfig, request.model, "model")
        training = build(TrainingConfig, request.training, "training")
        annotations = [volume.annotation() for volume in self._volumes]
        if model.n_classes is None and len(request.class_names) > 1:
            # Classes that have a name but no label yet may be painted later.
            largest = max(annotation.n_classes for annotation in annotations)
            model = replace(model, n_classes=max(largest, len(request.class_names)))
        images = [volume.image(self._attend) for volume in self._volumes]
        volumes = [
            TrainingVolume(image, annotation, volume.spacing, volume.name)
            for image, annotation, volume in zip(
                images, annotations, self._volumes, strict=True
            )
        ]
        self.trainer = Trainer(
            volumes,
            model,
            training,
            checkpoint=self._model.latest() if request.proceed else None,
            class_names=request.class_names,
            class_colors=request.class_colors,
            unit=next((v.unit for v in self._volumes if v.unit), ""),
            save_to=request.save_to,
            ranks=ranks,
        )
        for image in images:
            image.watch = _nobody

    def _throttle(
        self, event: StepDone, send: Callable[[Event], None]
    ) -> StepDone | None:
        """Send a step unless the last one was just sent; return it then."""
        now = time.monotonic()
        if now - self._last_step < INTERVAL:
            return event
        self._last_step = now
        send(event)
        return None


def warm_up(device: torch.device) -> None:
    """Have torch load now what it would load in the first step."""
    network = UNet3D(1, 2, 1, ((2, 2, 2),)).to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(1, 1, 8, 8, 8, device=device)).sum().backward()
    optimizer.step()


def _nobody() -> None:
    pass
