"""The worker's main loop: requests are answered between two steps of the training."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from typing import TYPE_CHECKING

import torch

from napari_unet3d.engine.device import choose_device, describe_device
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.events import Saved, Trained
from napari_unet3d.engine.model_file import load, save

from .answers import Failed, Ready, SegmentCancelled, SegmentDone
from .boundary import failure, is_fatal
from .courtesy import Courteous, slowed_by
from .model import CurrentModel, summarize
from .previews import Previews
from .requests import (
    CancelSegment,
    CloseVolume,
    Courtesy,
    LoadModel,
    NewModel,
    OpenVolume,
    Pause,
    Request,
    RequestPreview,
    Resume,
    SaveModel,
    Segment,
    Shutdown,
    Stop,
    StopPreview,
    Train,
    UpdateAnnotation,
)
from .segmenting import segment
from .segmenting_to_disk import segment_to_disk
from .training import Training, warm_up
from .volumes import Interrupted, OpenedVolume, still_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .answers import Event, What

Job = Train | Segment | LoadModel | SaveModel | NewModel
"""What takes its time, one after the other; all else is done when it is read."""


class Server:
    """Do what is asked for, one request at a time.

    Parameters
    ----------
    inbox : queue.SimpleQueue of Request
        Filled by another thread.
    send : callable
        Takes what there is to tell.
    """

    def __init__(
        self, inbox: queue.SimpleQueue[Request], send: Callable[[Event], None]
    ) -> None:
        self._inbox, self._send = inbox, send
        self._jobs: deque[Job] = deque()
        self._volumes: dict[int, OpenedVolume] = {}
        self._model = CurrentModel(send)
        self._previews = Previews(self._volumes, send, self._attend_preview)
        self._courteous = Courteous(self._listen)
        self._training: Training | None = None
        self._segmenting: Segment | None = None
        self._cancelled = False
        self._device = "auto"
        self._ending = False

    def serve(self) -> None:
        """Answer requests until the end is asked for."""
        device = choose_device()
        threads = torch.get_num_threads()
        self._send(Ready(describe_device(device), threads, slowed_by()))
        with self._reporting("training"):
            warm_up(device)
        while not self._ending:
            checkpoint = self._model.latest()
            idle = checkpoint is None or self._previews.is_idle(self._model.version)
            self._listen(None if idle and not self._jobs else 0.0)
            if self._jobs:
                self._do(self._jobs.popleft())
            elif checkpoint is not None and not self._ending:
                self._courteous.wait(self._has_work)
                with self._reporting("preview"):
                    version = self._model.version
                    self._previews.improve(checkpoint, version, self._device)
        self._save_first()

    def _has_work(self) -> bool:
        return self._ending or bool(self._jobs)

    def _listen(self, timeout: float | None = 0.0) -> None:
        """Take all requests that are there, or wait for one (`None`: for ever)."""
        requests: list[Request] = []
        with contextlib.suppress(queue.Empty):
            if timeout == 0.0:
                requests.append(self._inbox.get_nowait())
            else:
                requests.append(self._inbox.get(timeout=timeout))
            while True:
                requests.append(self._inbox.get_nowait())
        for request in still_wanted(requests):
            self._take(request)

    def _take(self, request: Request) -> None:
        """Do what is done at once; put off what takes its time."""
        match request:
            case OpenVolume():
                with self._reporting("volume", request.volume):
                    self._previews.forget(request.volume)
                    self._volumes[request.volume] = OpenedVolume(request)
            case CloseVolume():
                self._previews.forget(request.volume)
                self._volumes.pop(request.volume, None)
            case UpdateAnnotation():
                with self._reporting("annotation"):
                    self._update_annotation(request)
            case RequestPreview():
                self._previews.request(request)
            case StopPreview():
                self._previews.request(None)
            case Courtesy():
                self._courteous.extend(request.seconds)
            case Pause() | Resume():
                if self._training:
                    self._training.is_paused = isinstance(request, Pause)
            case Stop():
                self._stop()
            case CancelSegment():
                self._cancel(request.generation)
            case Shutdown():
                self._ending = True
                self._stop()
            case _:
                self._jobs.append(request)

    def _do(self, job: Job) -> None:
        match job:
            case Train():
                with self._reporting("training"):
                    self._train(job)
            case Segment():
                with self._reporting("segmentation", job.generation):
                    self._segment(job)
            case LoadModel():
                with self._reporting("model"):
                    self._model.replace(load(job.path), job.path)
            case SaveModel():
                with self._reporting("model"):
                    checkpoint = self._model.require()
                    save(checkpoint, job.path)
                    self._send(Saved(checkpoint.step, job.path))
            case NewModel():
                self._model.replace(None)

    @contextlib.contextmanager
    def _reporting(self, what: What, generation: int = 0) -> Iterator[None]:
        """Turn whatever goes wrong into a sentence; the worker lives on."""
        try:
            yield
        except Interrupted:
            pass
        except Exception as error:  # whatever it is, the worker lives on
            if what == "preview":
                generation = self._previews.give_up()
            self._send(failure(error, what, generation))
            if is_fatal(error):
                raise SystemExit(1) from error

    def _update_annotation(self, request: UpdateAnnotation) -> None:
        self._volume(request.volume).update(request)
        if self._training:
            self._training.take_labels(request, self._send)

    def _volume(self, number: int) -> OpenedVolume:
        if number not in self._volumes:
            raise EngineError(f"there is no volume {number}; open it first")
        return self._volumes[number]

    def _train(self, request: Train) -> None:
        self._device = str(request.training.get("device", "auto"))
        training = Training(request, self._volumes, self._model, self._attend_training)
        self._training = training
        self._courteous.begin(request.devices)
        try:
            training.run(self._send, self._between_steps)
        finally:
            self._training = None
            self._courteous.begin()
            self._previews.release()

    def _between_steps(self, training: Training) -> None:
        """Answer what was asked for while the last step went on."""
        self._courteous.note_step(training.trainer.seconds)
        self._listen()
        self._do_while_training()
        self._courteous.wait(lambda: self._ending or training.stop.is_set())
        training.hold(self._send, self._while_held)
        if self._may_follow(training):
            self._follow(training)

    def _while_held(self, training: Training) -> None:
        """Wait for a request, and answer it."""
        follows = self._may_follow(training)
        wants = self._previews.wanted is not None
        self._listen(0.0 if follows else 0.2 if wants else None)
        self._do_while_training()
        if follows:
            self._follow(training)

    def _may_follow(self, training: Training) -> bool:
        return not training.stop.is_set() and self._previews.may_follow(
            training.trainer, self._model.version
        )

    def _follow(self, training: Training) -> None:
        with self._reporting("preview"):
            self._previews.follow(
                training.trainer, self._model.version, training.request.volumes
            )

    def _do_while_training(self) -> None:
        """Do the jobs that are possible now, refuse the others."""
        assert self._training
        # What was asked for after Stop waits for the end.
        while self._jobs and not self._training.stop.is_set():
            job = self._jobs.popleft()
            if isinstance(job, Segment | SaveModel):
                self._do(job)
            else:
                sentence = "a training is going on; stop it first"
                self._send(Failed(sentence, "request"))

    def _segment(self, request: Segment) -> None:
        began = time.monotonic()
        self._segmenting, self._cancelled = request, False
        try:
            checkpoint = self._model.require()
            volume = self._volume(request.volume)
            carry_out = segment_to_disk if request.resumable else segment
            carry_out(
                request, checkpoint, volume, self._send, self._attend_segmentation
            )
        except Interrupted:
            self._send(SegmentCancelled(request.generation))
        else:
            seconds = time.monotonic() - began
            self._send(SegmentDone(request.generation, summarize(checkpoint), seconds))
        finally:
            self._segmenting = None

    def _stop(self) -> None:
        if self._training:
            self._training.stop.set()
            return
        for job in [job for job in self._jobs if isinstance(job, Train)]:
            self._jobs.remove(job)
            self._send(Trained(0, 0.0, "stopped"))

    def _cancel(self, generation: int) -> None:
        if self._segmenting and self._segmenting.generation == generation:
            self._cancelled = True
            return
        for job in [job for job in self._jobs if isinstance(job, Segment)]:
            if job.generation == generation:
                self._jobs.remove(job)
                self._send(SegmentCancelled(generation))

    def _attend_training(self) -> None:
        """Look after a training that is being prepared."""
        self._listen()
        if self._ending or (self._training and self._training.stop.is_set()):
            raise Interrupted

    def _save_first(self) -> None:
        """Save the model where that is what is wanted next."""
        while self._jobs and isinstance(self._jobs[0], SaveModel):
            self._do(self._jobs.popleft())

    def _attend_segmentation(self) -> None:
        self._listen()
        self._save_first()
        self._courteous.wait(lambda: self._ending or self._cancelled, slower=False)
        if self._ending or self._cancelled:
            raise Interrupted

    def _attend_preview(self) -> None:
        self._listen()
        training = self._training
        over = training.stop.is_set if training else self._has_work
        self._courteous.wait(over)
        if over():
            raise Interrupted
