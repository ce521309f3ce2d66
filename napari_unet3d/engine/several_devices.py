"""Segment a volume on several devices of one process, block by block."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from .block_plan import plan_blocks
from .blockwise import segment_block
from .columns import lasting_memory, present_memory
from .device import choose_devices, out_of_memory_as_error
from .events import BlockProgress, Segmented
from .regions import count_voxels

if TYPE_CHECKING:
    from .blockwise import Selection
    from .config import SegmentationConfig
    from .regions import Region
    from .segmentation import Segmenter

PATIENCE = 0.1
"""Seconds until one looks again whether to go on."""

OUT_OF_MEMORY = "name fewer devices, or those that nobody else uses"

CHUNKS = (64, 64, 64)
"""At whose borders blocks end where no file asks for others."""


def on_every_device(segmenter: Segmenter) -> list[Segmenter]:
    """Return the same on every device of its settings, itself being the first."""
    _, *more = choose_devices(segmenter.config.device)
    with out_of_memory_as_error(OUT_OF_MEMORY):
        return [segmenter, *(segmenter.on(device) for device in more)]


def memory_for_each(config: SegmentationConfig, *, lasting: bool = True) -> float:
    """Return the bytes for a block of each device of the settings.

    Devices named twice, and all CPUs, share their memory, unless the settings say what
    each may take.

    Parameters
    ----------
    config : SegmentationConfig
        Names devices and, perhaps, memory.
    lasting : bool
        Whether it is to be the same in every run, or depends on what is free now.
    """
    devices = choose_devices(config.device)
    there_is = lasting_memory if lasting else present_memory
    if config.memory:
        return there_is(config, devices[0])
    sharing = Counter(map(str, devices))
    return min(there_is(config, d) / sharing[str(d)] for d in devices)


def nearest_first(
    blocks: Sequence[Region], numbers: Iterable[int], z: int
) -> list[int]:
    """Sort the numbers of blocks, those nearest to a slice first.

    Examples
    --------
    >>> blocks = [((low, low + 10), (0, 5), (0, 5)) for low in (0, 10, 20)]
    >>> nearest_first(blocks, range(3), 25)
    [2, 1, 0]
    """

    def distance(number: int) -> int:
        low, high = blocks[number][0]
        return max(low - z, z - high + 1, 0)

    return sorted(sorted(numbers), key=distance)


def segment_everywhere(
    segmenters: Sequence[Segmenter],
    labels: Any,
    probabilities: Any = None,
    begin_at: int = 0,
    idle: Callable[[], None] | None = None,
) -> Iterator[Segmented]:
    """Segment a whole volume into arrays, as `Segmenter.run` does on one device.

    Parameters
    ----------
    segmenters : sequence of Segmenter
        From `on_every_device`.
    labels, probabilities, begin_at
        As there.
    idle : callable, optional
        As for `segment_blocks`.
    """
    first = segmenters[0]
    layers = 1 if probabilities is None else 1 + first.n_classes
    blocks = plan_blocks(
        first.network,
        first.shape,
        CHUNKS,
        memory_for_each(first.config, lasting=False),
        beside=first.bytes_beside(CHUNKS[0] * layers),
        at_once=len(segmenters),
    )
    numbers = nearest_first(blocks, range(len(blocks)), begin_at)
    total = float(np.prod(first.shape))
    written = [0.0] * len(blocks)
    for event in segment_blocks(
        segmenters, blocks, numbers, CHUNKS, labels, probabilities, idle=idle
    ):
        written[event.number] = event.share * count_voxels(blocks[event.number])
        yield Segmented(blocks[event.number], sum(written) / total)


def segment_blocks(
    segmenters: Sequence[Segmenter],
    blocks: Sequence[Region],
    numbers: Iterable[int],
    chunks: Sequence[int],
    labels: Any,
    probabilities: Any = None,
    selection: Selection | None = None,
    idle: Callable[[], None] | None = None,
) -> Generator[BlockProgress, None, None]:
    """Segment blocks, each on the device that is free first.

    Every device has a thread of its own; one of them writes at a time. An error of one,
    or closing the generator, ends all after the layer of chunks they are at.

    Parameters
    ----------
    segmenters : sequence of Segmenter
        The same one on every device, see `Segmenter.on`.
    blocks : sequence of regions
        A plan.
    numbers : iterable of int
        The blocks to segment, in this order.
    chunks, labels, probabilities, selection
        As for `segment_block`.
    idle : callable, optional
        Called now and then while nothing is written; what it raises ends all.

    Yields
    ------
    BlockProgress
        For each layer of chunks that is written, blocks in no order.

    Raises
    ------
    EngineError
        Where a device runs out of memory, or image or output fail.
    """
    waiting = deque(numbers)
    done: queue.SimpleQueue[BlockProgress | Future[None]] = queue.SimpleQueue()
    stop = threading.Event()
    lock = threading.Lock()
    labels = _InTurn(labels, lock)
    if probabilities is not None:
        probabilities = _InTurn(probabilities, lock)

    def work(segmenter: Segmenter) -> None:
        while not stop.is_set():
            try:
                number = waiting.popleft()
            except IndexError:
                return
            block, written = blocks[number], 0
            for layer in segment_block(
                segmenter, block, chunks, labels, probabilities, selection
            ):
                written += count_voxels(layer)
                done.put(BlockProgress(number, written / count_voxels(block)))
                if stop.is_set():
                    return

    # Not in a `with` block: it would wait for the threads before telling them to stop.
    pool = ThreadPoolExecutor(len(segmenters), "segmentation")
    try:
        for segmenter in segmenters:
            pool.submit(work, segmenter).add_done_callback(done.put)
        running = len(segmenters)
        while running:
            event = _next(done, idle)
            if isinstance(event, BlockProgress):
                yield event
            else:
                event.result()
                running -= 1
    finally:
        stop.set()
        pool.shutdown()


def _next(
    done: queue.SimpleQueue[BlockProgress | Future[None]],
    idle: Callable[[], None] | None,
) -> BlockProgress | Future[None]:
    while idle is not None:
        idle()
        with contextlib.suppress(queue.Empty):
            return done.get(timeout=PATIENCE)
    return done.get()


class _InTurn:
    """An array that one thread at a time writes to."""

    def __init__(self, array: Any, lock: threading.Lock) -> None:
        self._array, self._lock = array, lock

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._lock:
            self._array[key] = value
