"""Predictions of the slice that the person looks at."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet3d.engine.allocation import release_freed_memory
from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.folding import fold_normalization
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.preview import plane_tiles
from napari_unet3d.engine.segmentation import Segmenter
from napari_unet3d.engine.volume import FeatureVolume

from .pace import Pace
from .rendering import render
from .room import is_scarce
from .volumes import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from napari_unet3d.engine.checkpoint import Checkpoint
    from napari_unet3d.engine.trainer import Trainer
    from napari_unet3d.engine.unet import UNet3D

    from .answers import Event
    from .requests import RequestPreview
    from .volumes import OpenedVolume

ROUGH_HALO = 16
"""Voxels looked at around a slice at first; the rest of the receptive field weighs
next to nothing, and makes the slab four times thicker."""


@dataclass(frozen=True)
class _ReadyModel:
    """A finished model, made ready for a volume."""

    key: tuple[int, int]
    """The model's version and the number of the volume."""
    network: UNet3D
    features: FeatureVolume


class Previews:
    """Answer the newest request, again and again as the model becomes better.

    Parameters
    ----------
    volumes : mapping
        The volumes by number.
    send : callable
        Takes the answers.
    attend : callable
        Called now and then while computing, so that newer requests are seen.
    """

    def __init__(
        self,
        volumes: Mapping[int, OpenedVolume],
        send: Callable[[Event], None],
        attend: Callable[[], None],
    ) -> None:
        self._volumes, self._send, self._attend = volumes, send, attend
        self.wanted: RequestPreview | None = None
        self._answered: tuple[int, object] | None = None
        self._pace = Pace()
        self._trainer: Trainer | None = None
        self._live: dict[int, FeatureVolume] = {}
        self._finished: _ReadyModel | None = None

    def request(self, request: RequestPreview | None) -> None:
        """Take another request in place of the last one, or none."""
        if self.wanted and request and request.generation < self.wanted.generation:
            return
        self.wanted = request

    def give_up(self) -> int:
        """Drop the last request, which cannot be answered; return its generation."""
        request, self.wanted = self.wanted, None
        return request.generation if request else 0

    def forget(self, volume: int) -> None:
        """Drop what was computed for a volume that changes."""
        if self.wanted and volume == self.wanted.volume:
            self.wanted = None
        self._live.clear()
        self._finished = None

    def release(self) -> None:
        """Let go of a training that has ended."""
        self._trainer = None
        self._live.clear()

    def may_follow(self, trainer: Trainer, version: int) -> bool:
        """Tell whether a slice should be predicted between two steps."""
        if self.wanted is None:
            return False
        if self._answered is None or self._answered[0] != self.wanted.generation:
            return self._pace.allows(asked_for=True)
        if self._answered[1] == (version, trainer.step):
            return False
        return self._pace.allows(asked_for=False)

    def follow(self, trainer: Trainer, version: int, numbers: tuple[int, ...]) -> None:
        """Predict a slice with the weights as they are.

        Parameters
        ----------
        trainer : Trainer
            Between two steps.
        version : int
            Of the model.
        numbers : tuple of int
            Of its volumes.
        """
        request = self.wanted
        if request is None:
            return
        self._finished = None  # its memory is for the training now
        began = time.monotonic()
        features = self._live_volume(trainer, numbers, request.volume)
        network = fold_normalization(trainer.optimization.average)
        state = (version, trainer.step)
        with contextlib.suppress(Interrupted):
            plane = self._predict(network, features, request, rough=True)
            self._answer(request, plane, trainer.step, state)
        self._pace.spend(time.monotonic() - began)

    def is_idle(self, version: int) -> bool:
        """Tell whether nothing is left to do with a finished model."""
        return self.wanted is None or self._answered == (
            self.wanted.generation,
            (version, "exact"),
        )

    def improve(self, checkpoint: Checkpoint, version: int, device: str) -> None:
        """Do the next thing for a preview with a finished model.

        At first a slice is predicted roughly, then as the segmentation will be.
        """
        request = self.wanted
        if request is None:
            return
        with contextlib.suppress(Interrupted):
            model = self._made_ready(checkpoint, (version, request.volume), device)
            # Another request may have come meanwhile.
            request = self.wanted
            if request is None or request.volume != model.key[1]:
                return
            is_rough = self._answered == (request.generation, (version, "rough"))
            plane = self._predict(
                model.network, model.features, request, rough=not is_rough
            )
            state = (version, "exact" if is_rough else "rough")
            self._answer(request, plane, checkpoint.step, state)

    def _made_ready(
        self, checkpoint: Checkpoint, key: tuple[int, int], device: str
    ) -> _ReadyModel:
        if self._finished is None or self._finished.key != key:
            self.release()
            image = self._require(key[1]).image(self._attend)
            config = SegmentationConfig(device=device)
            segmenter = Segmenter(checkpoint, image, config)
            self._finished = _ReadyModel(key, segmenter.network, segmenter.features)
        return self._finished

    def _live_volume(
        self, trainer: Trainer, numbers: tuple[int, ...], number: int
    ) -> FeatureVolume:
        if self._trainer is not trainer:
            self._trainer = trainer
            self._live.clear()
        if number not in self._live:
            if number in numbers:
                features = trainer.data.features[numbers.index(number)]
            else:
                image = self._require(number).image(_nobody)
                _check_channels(image.shape[0], trainer.model.in_channels)
                statistics = IntensityStatistics.from_image(image)
                features = FeatureVolume(image, statistics, trainer.stem)
            self._live[number] = features
        return self._live[number]

    def _require(self, number: int) -> OpenedVolume:
        if number not in self._volumes:
            raise EngineError(f"there is no volume {number}; open it first")
        return self._volumes[number]

    def _predict(
        self,
        network: UNet3D,
        features: FeatureVolume,
        request: RequestPreview,
        rough: bool,
    ) -> Tensor | None:
        """Compute the logits of the slice; `None` where another one is wanted now."""
        if request.axis not in (0, 1, 2):
            raise EngineError(f"there is no axis {request.axis}; it must be 0, 1 or 2")
        size = features.shape[request.axis]
        if not 0 <= request.position < size:
            raise EngineError(
                f"there is no slice {request.position}: the volume has {size} along "
                f"{'ZYX'[request.axis]}"
            )
        shape = [n for axis, n in enumerate(features.shape) if axis != request.axis]
        plane: Tensor | None = None
        for rows, columns, logits in plane_tiles(
            network,
            features,
            request.axis,
            request.position,
            halo=ROUGH_HALO if rough else None,
            cached=rough,
        ):
            if plane is None:
                plane = logits.new_empty((logits.shape[0], *shape))
            plane[:, slice(*rows), slice(*columns)] = logits
            if plane.shape[1:] != logits.shape[1:] and is_scarce():
                # Else each tile leaves gaps that the next one does not fit in.
                release_freed_memory()
            self._attend()
            if not _same_slice(self.wanted, request):
                return None
        return plane

    def _answer(
        self, request: RequestPreview, logits: Tensor | None, step: int, state: object
    ) -> None:
        newest = self.wanted
        # The same slice may be wanted in another way by now.
        if logits is None or newest is None or not _same_slice(newest, request):
            return
        self._answered = (newest.generation, state)
        self._send(render(logits, newest, step))


def _same_slice(a: RequestPreview | None, b: RequestPreview) -> bool:
    return a is not None and (a.volume, a.axis, a.position) == (
        b.volume,
        b.axis,
        b.position,
    )


def _check_channels(found: int, expected: int | None) -> None:
    if found != expected:
        raise EngineError(
            f"the model takes {expected} channels but the image has {found}; choose "
            "the channels that it was trained on"
        )


def _nobody() -> None:
    pass
