"""Segment the blocks of a plan on several devices of one process."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from .blockwise import segment_block
from .events import BlockProgress

if TYPE_CHECKING:
    from .blockwise import Selection
    from .regions import Region
    from .segmentation import Segmenter


def segment_blocks(
    segmenters: Sequence[Segmenter],
    blocks: Sequence[Region],
    numbers: Iterable[int],
    chunks: Sequence[int],
    labels: Any,
    probabilities: Any = None,
    selection: Selection | None = None,
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
                written += _voxels(layer)
                done.put(BlockProgress(number, written / _voxels(block)))
                if stop.is_set():
                    return

    # Not in a `with` block: it would wait for the threads before telling them to stop.
    pool = ThreadPoolExecutor(len(segmenters), "segmentation")
    try:
        for segmenter in segmenters:
            pool.submit(work, segmenter).add_done_callback(done.put)
        running = len(segmenters)
        while running:
            event = done.get()
            if isinstance(event, BlockProgress):
                yield event
            else:
                event.result()
                running -= 1
    finally:
        stop.set()
        pool.shutdown()


class _InTurn:
    """An array that one thread at a time writes to."""

    def __init__(self, array: Any, lock: threading.Lock) -> None:
        self._array, self._lock = array, lock

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._lock:
            self._array[key] = value


def _voxels(region: Region) -> int:
    return int(np.prod([high - low for low, high in region]))
