"""One block as a task of dask: what travels, and what a worker does with it."""

from __future__ import annotations

import asyncio
import threading
import uuid
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from napari_unet3d.engine.blockwise import Selection
    from napari_unet3d.engine.config import SegmentationConfig
    from napari_unet3d.engine.normalize import IntensityStatistics
    from napari_unet3d.engine.regions import Region
    from napari_unet3d.engine.segmentation import Segmenter
    from napari_unet3d.io import WritableArray
    from napari_unet3d.io.unfinished import UnfinishedVolume

_preparing = threading.Lock()


class Stopped(EngineError):
    """Say that nobody wants the block any more."""


@dataclass(frozen=True)
class Job:
    """What to segment with what: paths, numbers and settings, never voxels.

    Paths are absolute, and the same for all workers.
    """

    name: str
    """Of this run alone."""
    model: str
    digest: str
    """SHA-256 of the model."""
    image: str
    shape: tuple[int, ...]
    """Of the image, CZYX."""
    axes: str | None
    channels: tuple[int, ...] | None
    statistics: IntensityStatistics
    """Of the whole image."""
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape of those for labels and, perhaps, for probabilities."""
    begun: tuple[int, ...]
    """When each output was begun, see `begun_at`."""
    config: SegmentationConfig
    devices: tuple[str, ...]
    """Worker number k takes device k, modulo their number."""
    threads: int
    """Of torch."""
    region: Region | None = None
    mask: str | None = None
    mask_axes: str | None = None
    skip_below: float | None = None


def begun_at(volume: UnfinishedVolume) -> int:
    """Return when an output was begun, in nanoseconds: it tells it from a later one.

    Raises
    ------
    EngineError
        If it is not there.
    """
    try:
        return (volume.folder / "0" / "zarr.json").stat().st_mtime_ns
    except OSError as error:
        raise EngineError(
            f"{volume.folder} is gone; see whether its disk is still there"
        ) from error


def segment_one(number: int, block: Region, job: Job) -> None:
    """Segment a block and have it on the disk; doing it twice changes nothing.

    Runs on a worker, which tells each layer of chunks that is written as an event under
    the name of the job.

    Parameters
    ----------
    number : int
        Of the block.
    block : ((int, int), (int, int), (int, int))
        From the plan.
    job : Job
        Everything else.

    Raises
    ------
    EngineError
        Where a file is not there or another one, memory runs out, or the image holds
        values that are not finite.
    Stopped
        If the task was cancelled.
    """
    import numpy as np
    import torch
    from distributed import get_worker

    from napari_unet3d.engine.blockwise import segment_block
    from napari_unet3d.io.layout import chunks_of
    from napari_unet3d.io.location import existing

    worker = get_worker()
    key = worker.get_current_task()
    with _preparing:
        ready = _prepared(job, _device_of(job, worker.name))
    if torch.get_num_threads() != job.threads:
        torch.set_num_threads(job.threads)
    arrays = [
        _WantedArray(worker, key, volume, array, begun)
        for (volume, array), begun in zip(ready.outputs, job.begun, strict=True)
    ]
    chunks = chunks_of(ready.segmenter.shape)
    labels, probabilities = (*arrays, None)[:2]
    written, size = 0.0, float(np.prod([b - a for a, b in block]))
    for layer in segment_block(
        ready.segmenter, block, chunks, labels, probabilities, ready.selection
    ):
        written += float(np.prod([b - a for a, b in layer]))
        worker.log_event(job.name, {"block": number, "share": written / size})
    # A store that vanishes reads as zeros.
    for path in (job.image,) if job.mask is None else (job.image, job.mask):
        existing(path)
    for volume, _ in ready.outputs:
        volume.flush(block)


def is_working_on(name: str, dask_worker: Any) -> bool:
    """Tell whether a worker is at a block of a job; runs on it."""
    return any(name in str(key) for key in dask_worker.active_keys)


async def trouble_with(job: Job) -> str | None:
    """Say what keeps a worker from doing the job, `None` if nothing; runs on it."""
    return await asyncio.to_thread(_trouble_with, job)


def _trouble_with(job: Job) -> str | None:
    from napari_unet3d.io.digest import digest_of

    try:
        _open_image(job)
        if digest_of(Path(job.model)) != job.digest:
            return f"{job.model} is another model there"
        for (volume, _), begun in zip(_joined(job), job.begun, strict=True):
            if begun_at(volume) != begun:
                return f"{volume.folder} is another folder there"
            # A name that is swept away, should the worker end between the two.
            probe = volume.folder / f".{uuid.uuid4().hex}.partial"
            probe.touch()
            probe.unlink()
    except (EngineError, OSError) as error:
        return str(error)
    return None


@dataclass(frozen=True)
class _Ready:
    segmenter: Segmenter
    selection: Selection
    outputs: tuple[tuple[UnfinishedVolume, WritableArray], ...]


@lru_cache(maxsize=2)
def _prepared(job: Job, device: str) -> _Ready:
    """Load the model and open the files, once in a process."""
    from napari_unet3d.engine import Segmenter
    from napari_unet3d.engine.allocation import keep_freed_memory
    from napari_unet3d.engine.blockwise import Selection
    from napari_unet3d.engine.model_file import load_with_digest
    from napari_unet3d.io.mask import open_mask

    keep_freed_memory()
    image = _open_image(job)
    model = Path(job.model)
    checkpoint, digest = load_with_digest(model)
    if digest != job.digest:
        raise EngineError(
            f"{model} is not the model that the segmentation was begun with"
        )
    mask = None if job.mask is None else open_mask(job.mask, job.mask_axes)
    config = replace(job.config, device=device)
    return _Ready(
        Segmenter(checkpoint, image, config, job.statistics, read_ahead=True),
        Selection(job.region, mask, job.skip_below),
        _joined(job),
    )


def _open_image(job: Job) -> Any:
    from napari_unet3d.io import open_image

    volume = open_image(job.image, axes=job.axes, channels=job.channels)
    if tuple(volume.data.shape) != job.shape:
        raise EngineError(
            f"{job.image} has shape {tuple(volume.data.shape)}, but the segmentation "
            f"was begun with one of {job.shape}"
        )
    return volume.data


def _joined(job: Job) -> tuple[tuple[UnfinishedVolume, WritableArray], ...]:
    from napari_unet3d.io.unfinished import UnfinishedVolume

    volumes = [UnfinishedVolume(path, shape, "uint8") for path, shape in job.outputs]
    return tuple((volume, volume.join()) for volume in volumes)


def _device_of(job: Job, name: object) -> str:
    """Return the device of a worker; those of a local cluster have numbers as names."""
    number = name if isinstance(name, int) else 0
    return job.devices[number % len(job.devices)]


class _WantedArray:
    """An output that takes a block as long as its task is wanted.

    A worker goes on with a task that was cancelled, and what it writes could come
    between a later run and its output.
    """

    def __init__(
        self,
        worker: Any,
        key: Any,
        volume: UnfinishedVolume,
        array: WritableArray,
        begun: int,
    ) -> None:
        self._worker, self._key = worker, key
        self._volume, self._array, self._begun = volume, array, begun

    def __setitem__(self, place: Any, value: Any) -> None:
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise Stopped("the run was stopped")
        if begun_at(self._volume) != self._begun:
            raise Stopped(f"{self._volume.folder} belongs to another run")
        self._array[place] = value
