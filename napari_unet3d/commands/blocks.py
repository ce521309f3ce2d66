"""Segment a volume block by block, over several runs if need be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from napari_unet3d.engine.block_plan import least_memory, plan_blocks
from napari_unet3d.engine.blockwise import Selection, segment_block
from napari_unet3d.engine.columns import lasting_memory
from napari_unet3d.engine.errors import EngineError, OutOfMemoryError
from napari_unet3d.engine.events import Segmented
from napari_unet3d.io.layout import chunks_of
from napari_unet3d.io.record import BlockRecord, differences
from napari_unet3d.io.unfinished import DamagedOutputError

from .doubts import warn, warn_of_little_memory
from .progress import RemainingTime

if TYPE_CHECKING:
    from napari_unet3d.engine.regions import Region
    from napari_unet3d.engine.segmentation import Segmenter
    from napari_unet3d.io import WritableArray
    from napari_unet3d.io.unfinished import UnfinishedVolume

CarryOut = Callable[..., Generator[int, None, None]]
"""Segments the blocks of a task, with the arguments and results of `segment_all`."""


@dataclass(frozen=True)
class Task:
    """A volume to be segmented, and which part of it."""

    segmenter: Segmenter
    selection: Selection
    block_memory: float | None = None
    """Bytes for each of several blocks at a time, where no earlier run says it."""
    with_probabilities: bool = False
    at_once: int = 1
    """Blocks at the same time, where no earlier run says it."""

    def plan(self, memory: float, at_once: int) -> list[Region]:
        """Return the blocks."""
        network, shape, chunks, region, beside = self._extent()
        return plan_blocks(network, shape, chunks, memory, region, beside, at_once)

    def least_memory(self) -> float:
        """Return the bytes that the smallest blocks take."""
        return least_memory(*self._extent())

    def _extent(self) -> tuple[Any, ...]:
        segmenter = self.segmenter
        chunks = chunks_of(segmenter.shape)
        layers = 1 + segmenter.n_classes if self.with_probabilities else 1
        return (
            segmenter.network,
            segmenter.shape,
            chunks,
            self.selection.region,
            segmenter.bytes_beside(chunks[0] * layers),
        )

    def memory(self) -> float:
        """Return the bytes for a block where no earlier run says it."""
        if self.block_memory is not None:
            return self.block_memory
        return lasting_memory(self.segmenter.config, self.segmenter.device)


def segment_all(
    task: Task,
    blocks: Sequence[Region],
    labels: Any,
    probabilities: Any = None,
    *,
    finished: Collection[int] = (),
) -> Generator[int, None, None]:
    """Segment all blocks but the finished ones, yielding the number of each.

    Parameters
    ----------
    task : Task
        What to segment.
    blocks : sequence of regions
        Its plan.
    labels, probabilities : array-likes
        As for `segment_block`.
    finished : collection of int
        Numbers of the finished blocks.
    """
    sizes = [np.prod([high - low for low, high in block]) for block in blocks]
    total, done = float(sum(sizes)), float(sum(sizes[k] for k in finished))
    report = RemainingTime(done / total)
    for number, block in enumerate(blocks):
        if number in finished:
            continue
        chunks = chunks_of(task.segmenter.shape)
        for region in segment_block(
            task.segmenter, block, chunks, labels, probabilities, task.selection
        ):
            done += float(np.prod([high - low for low, high in region]))
            report(Segmented(region, done / total))
        yield number


def segment_resumably(
    task: Task,
    volumes: Sequence[UnfinishedVolume],
    made_from: Mapping[str, str],
    check_input: Callable[[], object],
    *,
    restart: bool = False,
    carry_out: CarryOut | None = None,
    is_kept: bool = False,
) -> None:
    """Segment into OME-Zarrs; ended at any moment, the next call goes on from there.

    Parameters
    ----------
    task : Task
        What to segment.
    volumes : sequence of UnfinishedVolume
        The outputs, for labels and, perhaps, for probabilities.
    made_from : mapping of str to str
        Everything that decides the result, by what a person calls it.
    check_input : callable
        Raises an `EngineError` if the image, or a mask, is not there any more.
    restart : bool
        Whether to forget an earlier run.
    carry_out : callable, optional
        Segments the blocks in place of `segment_all`, with its arguments.
    is_kept : bool
        Whether that also checks the image and has each block on the disk.

    Raises
    ------
    EngineError
        If an earlier run made it from other things, or a disk is full or gone.
    """
    target = volumes[0].target
    if restart:
        for volume in volumes:
            volume.discard()
        record = None
    else:
        record = BlockRecord.read(target)
    if record is not None:
        _require_same(record, made_from, task)
        moved = all(volume.is_there or volume.target.is_dir() for volume in volumes)
        if not all(volume.is_there for volume in volumes) and not (
            record.is_complete and moved
        ):
            print("the unfinished output is gone; beginning anew", file=sys.stderr)
            record = None
    memory = task.memory() if record is None else record.memory
    if memory > task.memory() and not (record and record.is_complete):
        warn(
            f"the unfinished run took {memory / 2**30:.2g} GiB for a block, "
            f"{task.memory() / 2**30:.2g} GiB are meant to be taken now; if memory "
            "runs out, go on with fewer blocks at a time, or begin anew with --restart"
        )
    if record is None:
        warn_of_little_memory(task)
    at_once = task.at_once if record is None else record.at_once
    blocks = task.plan(memory, at_once)
    if record is not None and record.blocks != len(blocks):
        raise EngineError(
            f"{record.path} was planned by another version, in {record.blocks} blocks "
            f"instead of {len(blocks)}; begin anew with --restart"
        )
    is_new = record is None
    record = record or BlockRecord(target, made_from, len(blocks), memory, at_once)
    try:
        if not record.is_complete:
            arrays: list[Any] = list(_opened(volumes, record, is_new))
            if not is_kept:
                arrays = [_Flushed(*pair) for pair in zip(arrays, volumes, strict=True)]
            finished = frozenset(record.finished)
            steps = (carry_out or segment_all)(task, blocks, *arrays, finished=finished)
            # What works beside this must have ended before anything is discarded.
            with closing(steps):
                for number in steps:
                    if not is_kept:
                        # A store that vanishes reads as zeros.
                        check_input()
                        for volume in volumes:
                            volume.flush(blocks[number])
                    record.add(number)
        for volume in volumes:
            volume.finish()
        record.remove()
    except (EngineError, KeyboardInterrupt, SystemExit) as error:
        _kept(record, volumes, error)
    finally:
        for volume in volumes:
            volume.close()


def _opened(
    volumes: Sequence[UnfinishedVolume], record: BlockRecord, is_new: bool
) -> list[WritableArray]:
    """Begin the outputs, or go on with them."""
    if is_new:
        record.remove()
        arrays = [volume.begin() for volume in volumes]
        record.write()
        return arrays
    resumed = [volume.resume() for volume in volumes]
    print(
        f"going on after {len(record.finished)} of {record.blocks} blocks",
        file=sys.stderr,
    )
    return resumed


class _Flushed:
    """An array of which every part is on the disk once it is assigned."""

    def __init__(self, array: Any, volume: UnfinishedVolume) -> None:
        self._array, self._volume = array, volume

    def __setitem__(self, box: tuple[slice, ...], values: Any) -> None:
        self._array[box] = values
        self._volume.flush([(part.start, part.stop) for part in box[-3:]])


def _require_same(
    record: BlockRecord, made_from: Mapping[str, str], task: Task
) -> None:
    former, now = dict(record.made_from), dict(made_from)
    if task.segmenter.config.memory and task.memory() != record.memory:
        former["memory"] = f"{record.memory / 2**30:g} GiB"
        now["memory"] = f"{task.memory() / 2**30:g} GiB"
    if found := differences(former, now):
        raise EngineError(
            f"{record.path} is of an unfinished run with {'; '.join(found)}; give what "
            "was given then to go on, or --restart to begin anew"
        )


def _kept(
    record: BlockRecord, volumes: Sequence[UnfinishedVolume], error: BaseException
) -> NoReturn:
    """Say what is kept of a run that ends early; nothing, if no block is finished."""
    if isinstance(error, DamagedOutputError):
        raise EngineError(f"{error}; begin anew with --restart") from error
    if not record.finished:
        for volume in volumes:
            if volume.is_mine:
                # What cannot be removed is told by the next run.
                with suppress(EngineError):
                    volume.discard()
                record.remove()
        raise error
    state = f"{len(record.finished)} of {record.blocks} blocks are finished"
    if isinstance(error, OutOfMemoryError):
        raise OutOfMemoryError(f"{error}, and --restart ({state})") from error
    if isinstance(error, EngineError):
        sentence = str(error).rstrip(".")
        raise EngineError(
            f"{sentence}. {state}; repeat the command to go on."
        ) from error
    print(f"\n{state}; repeat the command to go on", file=sys.stderr)
    raise error
