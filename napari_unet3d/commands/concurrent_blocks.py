"""Blocks that are segmented several at a time, on several devices or machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.device import choose_devices
from napari_unet3d.engine.events import BlockProgress, Segmented
from napari_unet3d.engine.several_devices import (
    memory_for_each,
    on_every_device,
    segment_blocks,
)
from napari_unet3d.io.layout import chunks_of

from .blocks import Task
from .progress import RemainingTime

if TYPE_CHECKING:
    from napari_unet3d.engine.blockwise import Selection
    from napari_unet3d.engine.regions import Region
    from napari_unet3d.engine.segmentation import Segmenter

    from .blocks import CarryOut

Progress = Generator[BlockProgress, None, None]


def task_on_devices(
    segmenter: Segmenter, selection: Selection, with_probabilities: bool
) -> Task:
    """Return a task for all devices of the settings.

    Parameters
    ----------
    segmenter : Segmenter
        On the first of them.
    selection, with_probabilities
        As of `Task`.
    """
    config = segmenter.config
    count = len(choose_devices(config.device))
    memory = memory_for_each(config) if count > 1 else None
    return Task(segmenter, selection, memory, with_probabilities, count)


def on_devices(segmenter: Segmenter) -> CarryOut | None:
    """Return what segments blocks on all devices of the settings, `None` for one.

    Parameters
    ----------
    segmenter : Segmenter
        On the first of them.
    """
    if len(choose_devices(segmenter.config.device)) == 1:
        return None
    segmenters = on_every_device(segmenter)
    print(
        f"segmenting on {', '.join(str(each.device) for each in segmenters)}",
        file=sys.stderr,
    )

    def begin(
        task: Task,
        blocks: Sequence[Region],
        numbers: Sequence[int],
        labels: Any,
        probabilities: Any = None,
    ) -> Progress:
        return segment_blocks(
            segmenters,
            blocks,
            numbers,
            chunks_of(segmenter.shape),
            labels,
            probabilities,
            task.selection,
        )

    return reported(begin)


def reported(
    begin: Callable[..., Progress],
) -> CarryOut:
    """Return a way to segment blocks that tells the progress of all together.

    Parameters
    ----------
    begin : callable
        Takes the task, its blocks, the numbers of those to segment and the outputs;
        yields the progress of single blocks.
    """

    def carry_out(
        task: Task,
        blocks: Sequence[Region],
        *arrays: Any,
        finished: Collection[int] = (),
    ) -> Generator[int, None, None]:
        sizes = [int(np.prod([b - a for a, b in block])) for block in blocks]
        voxels = {k: sizes[k] for k in finished}
        done, total = sum(voxels.values()), sum(sizes)
        report = RemainingTime(done / total)
        numbers = [k for k in range(len(blocks)) if k not in voxels]
        with closing(begin(task, blocks, numbers, *arrays)) as progress:
            for event in progress:
                number, size = event.number, sizes[event.number]
                known, now = voxels.get(number, 0), round(event.share * size)
                # What a block did that is begun again elsewhere does not count twice.
                if now <= known:
                    continue
                voxels[number] = now
                done += now - known
                report(Segmented(blocks[number], done / total))
                if now == size:
                    yield number

    return carry_out
