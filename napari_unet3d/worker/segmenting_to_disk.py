"""Segmentation into OME-Zarrs on the disk, over several sessions if need be."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.block_plan import plan_blocks
from napari_unet3d.engine.blockwise import segment_block
from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.config_values import build
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.events import Warned
from napari_unet3d.engine.regions import count_voxels
from napari_unet3d.engine.segmentation import Segmenter
from napari_unet3d.engine.several_devices import (
    memory_for_each,
    nearest_first,
    on_every_device,
    segment_blocks,
)
from napari_unet3d.io.layout import chunks_of
from napari_unet3d.io.record import BlockRecord, differences
from napari_unet3d.io.unfinished import DamagedOutputError, UnfinishedVolume

from .answers import SegmentOpened
from .segmentation_origin import describe_origin
from .segmenting import OfOneThread, Progress, describe_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_unet3d.engine.checkpoint import Checkpoint
    from napari_unet3d.engine.regions import Region

    from .answers import Event
    from .requests import Segment
    from .volumes import OpenedVolume


def segment_to_disk(
    request: Segment,
    checkpoint: Checkpoint,
    volume: OpenedVolume,
    send: Callable[[Event], None],
    attend: Callable[[], None],
) -> None:
    """Segment a volume block by block; what an earlier run finished is kept.

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
        Where model, image and output do not fit each other, the image is gone, or a
        disk is full. The finished blocks are kept.
    """
    config = build(SegmentationConfig, request.config, "segmentation")
    attend = OfOneThread(attend)
    segmenter = Segmenter(checkpoint, volume.image(attend), config)
    targets = [str(request.labels)]
    if request.probabilities is not None:
        targets.append(str(request.probabilities))
    shapes = (segmenter.shape, (segmenter.n_classes, *segmenter.shape))
    outputs = [
        UnfinishedVolume(
            target, shape, "uint8", **describe_output(shape, checkpoint, volume)
        )
        for target, shape in zip(targets, shapes, strict=False)
    ]
    run = _Run(segmenter, outputs, targets, send)
    try:
        run.begin()
        folders = tuple(str(output.folder) for output in outputs)
        send(SegmentOpened(request.generation, folders, run.share))
        progress = Progress(request.generation, send)
        for region in run.go_on(request.begin_at, volume.check, attend):
            progress.report(region, run.share)
        run.finish()
    except EngineError as error:
        if not run.record.finished:
            raise
        state = f"{len(run.record.finished)} of {run.record.blocks} blocks are finished"
        sentence = str(error).rstrip(".")
        raise EngineError(
            f"{sentence}. {state}; press Segment volume to go on"
        ) from error
    finally:
        for output in outputs:
            output.close()


class _Run:
    """The blocks of a volume, and which of them are finished.

    Parameters
    ----------
    segmenter : Segmenter
        Model and image.
    outputs : sequence of UnfinishedVolume
        For labels and, perhaps, for probabilities.
    targets : sequence of str
        Their paths.
    send : callable
        Takes warnings.
    """

    record: BlockRecord
    share: float
    """Of the volume that is done."""

    def __init__(
        self,
        segmenter: Segmenter,
        outputs: Sequence[UnfinishedVolume],
        targets: Sequence[str],
        send: Callable[[Event], None],
    ) -> None:
        self._segmenter, self._outputs, self._send = segmenter, outputs, send
        self._segmenters = on_every_device(segmenter)
        self._chunks = chunks_of(segmenter.shape)
        made_from = describe_origin(segmenter, targets[1:])
        memory = memory_for_each(segmenter.config)
        at_once = len(self._segmenters)
        record = self._earlier(outputs[0])
        self._is_new = True
        self._arrays: list[Any] = []
        if record is not None and self._may_go_on(record, made_from, memory):
            # Blocks of that run may be too large for all devices at the same time.
            fitting = max(1, int(memory * at_once / record.memory))
            self._segmenters = self._segmenters[:fitting]
            memory, at_once = record.memory, record.at_once
            self._is_new = False
        layers = 1 if len(targets) == 1 else 1 + segmenter.n_classes
        self._blocks = plan_blocks(
            segmenter.network,
            segmenter.shape,
            self._chunks,
            memory,
            beside=segmenter.bytes_beside(self._chunks[0] * layers),
            at_once=at_once,
        )
        if self._is_new or record is None or record.blocks != len(self._blocks):
            self._is_new = True
            record = BlockRecord(
                outputs[0].target, made_from, len(self._blocks), memory, at_once
            )
        self.record = record
        self._voxels = [count_voxels(block) for block in self._blocks]
        self._done = sum(self._voxels[k] for k in record.finished)
        self.share = self._done / sum(self._voxels)

    def _earlier(self, output: UnfinishedVolume) -> BlockRecord | None:
        try:
            return BlockRecord.read(output.target)
        except EngineError as error:
            reason = str(error).partition(";")[0]
            self._send(Warned(f"{reason}; the volume is segmented anew"))
            return None

    def begin(self) -> None:
        """Open the outputs."""
        if not self._is_new:
            try:
                # Of a complete run some may have their names already.
                there = [output for output in self._outputs if output.is_there]
                self._arrays = [output.resume() for output in there]
                return
            except DamagedOutputError as error:
                self._send(Warned(f"{error}; the volume is segmented anew"))
                self._forget_earlier()
        for output in self._outputs:
            output.discard()
        self.record.remove()
        self._arrays = [output.begin() for output in self._outputs]
        self.record.write()

    def _forget_earlier(self) -> None:
        former, target = self.record, self._outputs[0].target
        self.record = BlockRecord(
            target, former.made_from, former.blocks, former.memory, former.at_once
        )
        self._done, self.share = 0, 0.0

    def go_on(
        self, begin_at: int, check_image: Callable[[], None], idle: Callable[[], None]
    ) -> Iterator[Region]:
        """Segment what is left, yielding each region once it is written."""
        total = sum(self._voxels)
        left = set(range(len(self._blocks))) - self.record.finished
        if not left:
            return
        written = dict.fromkeys(left, 0)
        for number, region, voxels in self._written(
            nearest_first(self._blocks, left, begin_at), idle
        ):
            written[number] += voxels
            self._done += voxels
            # The last one is told once all is on the disk.
            self.share = min(self._done / total, 0.999)
            yield region
            if written[number] == self._voxels[number]:
                # A store that vanishes reads as zeros.
                check_image()
                for output in self._outputs:
                    output.flush(self._blocks[number])
                self.record.add(number)

    def _written(
        self, numbers: Sequence[int], idle: Callable[[], None]
    ) -> Iterator[tuple[int, Region, int]]:
        """Segment blocks, yielding block, region and how many voxels are new."""
        if len(self._segmenters) == 1:
            for number in numbers:
                for region in segment_block(
                    self._segmenter, self._blocks[number], self._chunks, *self._arrays
                ):
                    yield number, region, count_voxels(region)
            return
        known = dict.fromkeys(numbers, 0)
        labels, probabilities = (*self._arrays, None)[:2]
        with closing(
            segment_blocks(
                self._segmenters,
                self._blocks,
                numbers,
                self._chunks,
                labels,
                probabilities,
                idle=idle,
            )
        ) as events:
            for event in events:
                number = event.number
                now = round(event.share * self._voxels[number])
                yield number, self._blocks[number], now - known[number]
                known[number] = now

    def finish(self) -> None:
        """Give the outputs their names."""
        for output in self._outputs:
            output.finish()
        self.record.remove()

    def _may_go_on(
        self, record: BlockRecord, made_from: dict[str, str], memory: float
    ) -> bool:
        """Whether an earlier run was about the same; else say what differs."""
        found = differences(record.made_from, made_from)
        if self._segmenter.config.memory and record.memory != memory:
            found.append("another limit of memory")
        there = all(
            each.is_there or (record.is_complete and each.target.is_dir())
            for each in self._outputs
        )
        if found and record.finished:
            self._send(
                Warned(
                    f"the {len(record.finished)} of {record.blocks} blocks that were "
                    f"segmented before are segmented anew: {'; '.join(found)}"
                )
            )
        return there and not found
