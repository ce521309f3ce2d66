"""Segmentation into OME-Zarrs on the disk, over several sessions if need be."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet3d.engine.block_plan import plan_blocks
from napari_unet3d.engine.blockwise import segment_block
from napari_unet3d.engine.columns import lasting_memory
from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.config_values import build
from napari_unet3d.engine.device import name_of
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.events import Warned
from napari_unet3d.engine.segmentation import Segmenter
from napari_unet3d.io.layout import chunks_of
from napari_unet3d.io.record import BlockRecord, differences
from napari_unet3d.io.unfinished import UnfinishedVolume

from .answers import SegmentOpened
from .segmenting import Progress, describe_output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        for region in run.go_on(request.begin_at, volume.check):
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
        self._chunks = chunks_of(segmenter.shape)
        made_from = describe_origin(segmenter, targets[1:])
        memory = lasting_memory(segmenter.config, segmenter.device)
        record = self._earlier(outputs[0])
        self._is_new = True
        if record is not None and self._may_go_on(record, made_from, memory):
            memory, self._is_new = record.memory, False
        self._blocks = self._plan(memory)
        if self._is_new or record is None or record.blocks != len(self._blocks):
            self._is_new = True
            record = BlockRecord(
                outputs[0].target, made_from, len(self._blocks), memory
            )
        self.record = record
        self._voxels = [_voxels(block) for block in self._blocks]
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
        if self._is_new:
            for output in self._outputs:
                output.discard()
            self.record.remove()
            self._arrays: list[Any] = [output.begin() for output in self._outputs]
            self.record.write()
        elif not self.record.is_complete:
            self._arrays = [output.resume() for output in self._outputs]

    def go_on(self, begin_at: int, check_image: Callable[[], None]) -> Any:
        """Segment what is left, yielding each region once it is written."""
        total = sum(self._voxels)
        for number in self._order(begin_at):
            block = self._blocks[number]
            for region in segment_block(
                self._segmenter, block, self._chunks, *self._arrays
            ):
                self._done += _voxels(region)
                # The last one is told once all is on the disk.
                self.share = min(self._done / total, 0.999)
                yield region
            # A store that vanishes reads as zeros.
            check_image()
            for output in self._outputs:
                output.flush(block)
            self.record.add(number)

    def finish(self) -> None:
        """Give the outputs their names."""
        for output in self._outputs:
            output.finish()
        self.record.remove()

    def _order(self, begin_at: int) -> list[int]:
        """List the unfinished blocks, those nearest to a slice first."""

        def distance(number: int) -> int:
            low, high = self._blocks[number][0]
            return max(low - begin_at, begin_at - high + 1, 0)

        left = set(range(len(self._blocks))) - self.record.finished
        return sorted(sorted(left), key=distance)

    def _plan(self, memory: float) -> list[Region]:
        segmenter = self._segmenter
        return plan_blocks(segmenter.network, segmenter.shape, self._chunks, memory)

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


def describe_origin(
    segmenter: Segmenter, more_targets: Sequence[str]
) -> dict[str, str]:
    """Say all that decides the labels but the plan, by what a person calls it.

    The model counts by its weights, as it may come from a file or from a training; the
    image by its shape and the statistics of its grey values.
    """
    digest = hashlib.sha256()
    for module in (segmenter.network, segmenter.features.stem):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            # As bytes: NumPy has no bfloat16.
            plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(plain.numpy().tobytes())
    statistics = segmenter.features.statistics
    shape = "×".join(map(str, segmenter.features.image.shape))
    mean, deviation = (
        ",".join(map(repr, values))
        for values in (statistics.mean, statistics.deviation)
    )
    return {
        "model": f"of weights {digest.hexdigest()[:16]}",
        "image": f"of {shape} with mean {mean} and deviation {deviation}",
        "device": segmenter.device.type,
        "precision": name_of(segmenter.dtype),
        "probabilities": ", ".join(map(os.path.abspath, more_targets)) or "none",
    }


def _voxels(region: Region) -> int:
    return int(np.prod([high - low for low, high in region], dtype=np.int64))
