"""Blocks that are segmented several at a time, on several devices or machines."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet3d.engine.columns import lasting_memory
from napari_unet3d.engine.device import choose_devices
from napari_unet3d.engine.events import BlockProgress, Segmented
from napari_unet3d.engine.several_devices import segment_blocks
from napari_unet3d.io.layout import chunks_of

from .blocks import RemainingTime

if TYPE_CHECKING:
    from napari_unet3d.engine.config import SegmentationConfig
    from napari_unet3d.engine.regions import Region
    from napari_unet3d.engine.segmentation import Segmenter

    from .blocks import CarryOut, Task

Progress = Generator[BlockProgress, None, None]


def on_devices(segmenter: Segmenter) -> CarryOut | None:
    """Return what segments blocks on all devices of the settings, `None` for one.

    Parameters
    ----------
    segmenter : Segmenter
        On the first of them.
    """
    first, *more = choose_devices(segmenter.config.device)
    if not more:
        return None
    segmenters = [segmenter, *(segmenter.on(device) for device in more)]
    print(f"segmenting on {', '.join(map(str, [first, *more]))}", file=sys.stderr)

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


def memory_on_devices(config: SegmentationConfig) -> float | None:
    """Return the bytes for each block on several devices, `None` for a single one.

    Devices named twice, and all CPUs, share their memory.
    """
    devices = choose_devices(config.device)
    if len(devices) == 1:
        return None
    if config.memory:
        return lasting_memory(config, devices[0])
    sharing = Counter(map(str, devices))
    return min(lasting_memory(config, d) / sharing[str(d)] for d in devices)


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
