"""Segmentation by dask's workers, as the flags --dask and --dask-local ask for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_unet3d.engine.device import choose_devices
from napari_unet3d.engine.errors import EngineError

from .concurrent_blocks import reported
from .files import expanded
from .inputs import label_axes

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from distributed import Client

    from napari_unet3d.distributed.survey import Crew
    from napari_unet3d.engine.config import SegmentationConfig
    from napari_unet3d.engine.regions import Region
    from napari_unet3d.io.unfinished import UnfinishedVolume

    from .blocks import CarryOut, Task
    from .concurrent_blocks import Progress


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Describe the flags."""
    group.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="Segment with the workers of a dask scheduler, as tcp://host:8786, or "
        "named by its scheduler file, FILE.json",
    )
    group.add_argument(
        "--dask-local",
        type=int,
        metavar="N",
        help="Segment with N processes on this machine",
    )


@dataclass(frozen=True)
class Files:
    """What the workers read and write, beside the model's own settings."""

    model: str | Path
    digest: str
    """SHA-256 of the model that was loaded."""
    image: str | Path
    axes: str | None
    channels: Sequence[int] | None
    mask: str | Path | None
    volumes: Sequence[UnfinishedVolume]


@dataclass(frozen=True)
class Workers:
    """Workers that are connected, and what holds for all of them."""

    client: Client
    crew: Crew

    @property
    def device(self) -> str:
        """Type of the devices that compute."""
        return self.crew.device

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Number format that all of them compute in."""
        return self.crew.precision

    @property
    def block_memory(self) -> float:
        """Bytes for a block."""
        return self.crew.block_memory

    @property
    def at_once(self) -> int:
        """Blocks that all of them segment at the same time."""
        return self.crew.at_once

    def carry_out(self, files: Files, config: SegmentationConfig) -> CarryOut:
        """Return what has blocks segmented by the workers."""
        from napari_unet3d.distributed.block_task import Job, begun_at
        from napari_unet3d.distributed.segmentation import segment_blocks

        def begin(
            task: Task, blocks: Sequence[Region], numbers: Sequence[int], *arrays: Any
        ) -> Progress:
            selection, features = task.selection, task.segmenter.features
            job = Job(
                name=uuid.uuid4().hex,
                model=_absolute(files.model),
                digest=files.digest,
                image=_absolute(files.image),
                shape=tuple(features.image.shape),
                axes=files.axes,
                channels=None if files.channels is None else tuple(files.channels),
                statistics=features.statistics,
                outputs=tuple(
                    (_absolute(volume.path), array.shape)
                    for volume, array in zip(files.volumes, arrays, strict=True)
                ),
                begun=tuple(begun_at(volume) for volume in files.volumes),
                config=config,
                devices=self.crew.devices,
                threads=self.crew.threads,
                region=selection.region,
                mask=None if files.mask is None else _absolute(files.mask),
                mask_axes=label_axes(files.axes),
                skip_below=selection.skip_below,
            )
            return segment_blocks(
                self.client, job, blocks, numbers, self.crew.resources
            )

        return reported(begin)


@contextmanager
def workers(
    address: str | None, processes: int | None, config: SegmentationConfig
) -> Iterator[Workers | None]:
    """Connect to workers, or start them; `None` where neither is asked for.

    Parameters
    ----------
    address : str, optional
        Of a scheduler.
    processes : int, optional
        To start on this machine.
    config : SegmentationConfig
        What device and memory to use.

    Raises
    ------
    EngineError
        Where both are given, or the workers cannot do what is asked.
    """
    if address is None and processes is None:
        yield None
        return
    if address is not None and processes is not None:
        raise EngineError(
            f"--dask {address} and --dask-local {processes} exclude each other; give "
            "one of them"
        )
    from napari_unet3d.distributed.cluster import local_workers, scheduler_at
    from napari_unet3d.distributed.survey import survey

    if address is not None:
        if "," in config.device or config.device == "all":
            raise EngineError(
                f"with --dask each worker has one device, got --device {config.device};"
                " start a worker for each GPU and give --device cuda"
            )
        with scheduler_at(address) as client:
            yield Workers(client, survey(client, config, (config.device,)))
        return
    assert processes is not None
    if processes < 1:
        raise EngineError(f"--dask-local must be at least 1, got {processes}")
    devices = choose_devices(config.device)
    with local_workers(processes, devices[0].type == "cuda") as client:
        yield Workers(client, survey(client, config, tuple(map(str, devices))))


def _absolute(path: str | Path) -> str:
    """Return a name that means the same in every folder; links stay as they are."""
    return str(expanded(path).absolute())
