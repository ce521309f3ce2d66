"""Segmentation into arrays or files, looked after while it goes on."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.config_values import build
from napari_unet3d.engine.errors import EngineError, OutOfMemoryError
from napari_unet3d.engine.events import Warned
from napari_unet3d.engine.segmentation import Segmenter
from napari_unet3d.engine.several_devices import (
    memory_for_each,
    on_every_device,
    segment_everywhere,
)

from .answers import SegmentProgress
from .shared import ArrayReference, SharedArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet3d.engine.checkpoint import Checkpoint

    from .answers import Event, Region
    from .requests import Segment
    from .volumes import OpenedVolume

ATTEMPTS = 3
"""How often it is tried with less memory after memory ran out."""


def segment(
    request: Segment,
    checkpoint: Checkpoint,
    volume: OpenedVolume,
    send: Callable[[Event], None],
    attend: Callable[[], None],
) -> None:
    """Segment a volume as was asked.

    Parameters
    ----------
    request : Segment
        What and where to.
    checkpoint : Checkpoint
        The model.
    volume : OpenedVolume
        The image.
    send : callable
        Takes the progress.
    attend : callable
        Called whenever a part of the image is read; an exception ends it.

    Raises
    ------
    EngineError
        Where model, image and output do not fit each other, or memory runs out.
    """
    config = build(SegmentationConfig, request.config, "segmentation")
    attend = OfOneThread(attend)
    image = volume.image(attend)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            segmenter = Segmenter(checkpoint, image, config)
            segmenters = on_every_device(segmenter)
            with ExitStack() as files:
                outputs = _outputs(request, segmenter, checkpoint, volume, files)
                progress = Progress(request.generation, send)
                begin_at = request.begin_at
                if len(segmenters) > 1:
                    events = segment_everywhere(segmenters, *outputs, begin_at, attend)
                else:
                    events = segmenter.run(*outputs, begin_at=begin_at)
                for event in events:
                    progress.report(event.region, event.progress)
        except OutOfMemoryError:
            if attempt == ATTEMPTS:
                raise
            config = replace(config, memory=_less_memory(config))
            send(
                Warned(
                    "memory ran out while segmenting: trying again in smaller parts "
                    f"that take {config.memory:.2g} GiB"
                )
            )
        else:
            return


class OfOneThread:
    """A function that is called in the present thread only, whoever asks for it.

    Other threads go on, until it has raised: then they end with the same exception.

    Parameters
    ----------
    function : callable
        What to call.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._thread = threading.get_ident()
        self._error: BaseException | None = None

    def __call__(self) -> None:
        """Call it, or raise what it has raised."""
        if threading.get_ident() == self._thread:
            try:
                self._function()
            except BaseException as error:
                self._error = error
                raise
        elif self._error is not None:
            raise self._error


class Progress:
    """Report what is complete, at most ten times a second."""

    def __init__(self, generation: int, send: Callable[[Event], None]) -> None:
        self._generation, self._send = generation, send
        self._box: Region | None = None
        self._last = 0.0

    def report(self, region: Region, progress: float) -> None:
        """Note a block that is complete."""
        box = _around(self._box, region) if self._box else region
        if progress < 1 and time.monotonic() - self._last < 0.1:
            self._box = box
            return
        self._send(SegmentProgress(self._generation, box, progress))
        self._box, self._last = None, time.monotonic()


def _around(a: Region, b: Region) -> Region:
    z, y, x = ((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return z, y, x


def _outputs(
    request: Segment,
    segmenter: Segmenter,
    checkpoint: Checkpoint,
    volume: OpenedVolume,
    files: ExitStack,
) -> tuple[Any, Any]:
    """Open the arrays, or create the files, that take labels and probabilities."""
    shapes = (segmenter.shape, (segmenter.n_classes, *segmenter.shape))
    found: list[Any] = []
    for target, shape in zip(
        (request.labels, request.probabilities), shapes, strict=True
    ):
        if target is None:
            found.append(None)
        elif isinstance(target, ArrayReference):
            found.append(_attached(target, shape))
        else:
            found.append(
                files.enter_context(_created(target, shape, checkpoint, volume))
            )
    return found[0], found[1]


def _attached(reference: ArrayReference, shape: Sequence[int]) -> Any:
    if reference.shape != tuple(shape) or reference.dtype != "|u1":
        raise EngineError(
            f"the output has shape {reference.shape} and type {reference.dtype}, but "
            f"{tuple(shape)} of uint8 is needed; make it again"
        )
    return SharedArray.attach(reference).array


def _created(
    path: str, shape: Sequence[int], checkpoint: Checkpoint, volume: OpenedVolume
) -> Any:
    from napari_unet3d.io import create_volume

    return create_volume(
        path, shape, "uint8", **describe_output(shape, checkpoint, volume)
    )


def describe_output(
    shape: Sequence[int], checkpoint: Checkpoint, volume: OpenedVolume
) -> dict[str, Any]:
    """Return what a file says of labels (Z, Y, X) or probabilities (K, Z, Y, X)."""
    is_labels = len(shape) == 3
    colors = [_rgb(color) for color in checkpoint.class_colors]
    return {
        "spacing": volume.spacing,
        "unit": volume.unit or None,
        "labels": is_labels,
        "class_names": checkpoint.class_names if is_labels else None,
        "class_colors": colors if is_labels and colors else None,
    }


def _rgb(color: str) -> tuple[float, ...]:
    """Turn "#rrggbb" into numbers from 0 to 1.

    Examples
    --------
    >>> _rgb("#ff0000")
    (1.0, 0.0, 0.0)
    """
    return tuple(int(color[k : k + 2], 16) / 255 for k in (1, 3, 5))


def _less_memory(config: SegmentationConfig) -> float:
    """Return a third of the GiB that were not there."""
    return memory_for_each(config, lasting=False) / 2**30 / 3
