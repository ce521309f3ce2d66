"""Dense segmentation that equals the whole volume in one pass.

The volume is cut into columns along Z, each swept slice by slice (see `sweep`). Where
the volume is wider than a column, neighbours overlap by the network's receptive field
at origins that agree with its pooling, so nothing depends on the cut: no seams.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .allocation import release_freed_memory
from .batch_statistics import recompute_statistics
from .block_plan import plan_columns
from .columns import SLAB, present_memory, slab_depth
from .config import SegmentationConfig, Triple
from .decision import as_labels, as_shares
from .device import (
    choose_devices,
    choose_segmentation_precision,
    out_of_memory_as_error,
)
from .errors import EngineError
from .events import Segmented
from .folding import fold_normalization
from .normalize import IntensityStatistics, as_channels_first
from .slabs import feature_slabs, slices_at_once
from .sweep import sweep
from .tiling import receptive_margin, with_halo
from .volume import FeatureVolume

if TYPE_CHECKING:
    import threading

    import torch
    from torch import Tensor

    from .checkpoint import Checkpoint
    from .regions import Region

MOST_TWICE = 0.25
"""Share of the slices that may be computed twice to begin at the slice in view."""

OUT_OF_MEMORY = (
    "give segmentation less memory (--memory), so that it takes smaller parts"
)


@dataclass(frozen=True)
class Segmentation:
    """What `segment` returns."""

    labels: NDArray[np.uint8]
    """(Z, Y, X), classes 1 to K."""
    probabilities: NDArray[np.uint8] | None
    """(K, Z, Y, X), 255 for certain; `None` unless asked for."""


def segment(
    checkpoint: Checkpoint,
    image: Any,
    config: SegmentationConfig | None = None,
    *,
    probabilities: bool = False,
) -> Segmentation:
    """Segment a volume.

    Parameters
    ----------
    checkpoint : Checkpoint
        A trained model.
    image : (Z, Y, X) or (C, Z, Y, X) array-like
        Of the spacing the model was trained with.
    config : SegmentationConfig, optional
        How to.
    probabilities : bool
        Whether to return those too.
    """
    segmenter = Segmenter(checkpoint, image, config)
    labels = np.zeros(segmenter.shape, np.uint8)
    found = (
        np.zeros((segmenter.n_classes, *segmenter.shape), np.uint8)
        if probabilities
        else None
    )
    for _ in segmenter.run(labels, found):
        pass
    return Segmentation(labels, found)


class Segmenter:
    """A model made ready for one volume.

    Parameters
    ----------
    checkpoint : Checkpoint
        A trained model.
    image : (Z, Y, X) or (C, Z, Y, X) array-like
        Read in boxes; need not fit in memory.
    config : SegmentationConfig, optional
        How to. Of several devices it is the first, see `on`.
    statistics : IntensityStatistics, optional
        Of this image, where they are known already.
    read_ahead : bool
        Whether the image may be read in another thread, while the network computes.

    Raises
    ------
    EngineError
        Where the image does not fit the model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        image: Any,
        config: SegmentationConfig | None = None,
        statistics: IntensityStatistics | None = None,
        *,
        read_ahead: bool = False,
    ) -> None:
        self.config = config or SegmentationConfig()
        self.read_ahead = read_ahead
        image = as_channels_first(image)
        model = checkpoint.model
        if image.shape[0] != model.in_channels:
            raise EngineError(
                f"the model takes {model.in_channels} channels but the image has "
                f"{image.shape[0]}; choose the channels that it was trained on"
            )
        self.n_classes = model.n_classes or 0
        self.device = choose_devices(self.config.device)[0]
        stem = checkpoint.filter_stem().to(self.device)
        self.features = FeatureVolume(
            image, statistics or IntensityStatistics.from_image(image), stem
        )
        self.shape: Triple = self.features.shape
        network = checkpoint.network(self.config.weights).to(self.device)
        if self.config.recompute_statistics and model.normalization == "batch":
            with out_of_memory_as_error(OUT_OF_MEMORY):
                recompute_statistics(network, self.features)
        self.dtype = choose_segmentation_precision(self.device, self.config.precision)
        self.network = fold_normalization(network).to(self.dtype)

    def on(self, device: torch.device) -> Segmenter:
        """Return the same on another device; both may be used at the same time."""
        other = copy.copy(self)
        other.device = device
        other.network = copy.deepcopy(self.network).to(device)
        former = self.features
        stem = copy.deepcopy(former.stem).to(device)
        other.features = FeatureVolume(former.image, former.statistics, stem)
        return other

    def run(
        self,
        labels: Any,
        probabilities: Any = None,
        stop: threading.Event | None = None,
        begin_at: int = 0,
    ) -> Iterator[Segmented]:
        """Segment into writable array-likes, yielding each block that is complete.

        Parameters
        ----------
        labels : (Z, Y, X) array-like of uint8
            Receives classes 1 to K, in blocks.
        probabilities : (K, Z, Y, X) array-like of uint8, optional
            Receives the probability of each class, 255 for certain.
        stop : threading.Event, optional
            Set it to end after the current block.
        begin_at : int
            Slice around which to begin, where the volume is so deep that beginning in
            its middle costs little.
        """
        total = float(np.prod(self.shape))
        done = 0
        blocks = (self.blocks(region) for region in self._order(begin_at))
        for region, logits in chain.from_iterable(blocks):
            box = tuple(slice(low, high) for low, high in region)
            found = as_labels(logits)
            labels[box] = found
            if probabilities is not None:
                probabilities[(slice(None), *box)] = as_shares(logits)
            done += found.size
            yield Segmented(region, done / total)
            if stop is not None and stop.is_set():
                return

    def _order(self, begin_at: int) -> list[Region]:
        """Cut the volume in two along Z, the part from a slice on being the first."""
        depth, height, width = self.shape
        cut = max(0, begin_at - SLAB // 2) // SLAB * SLAB
        cut -= cut % self.network.total_stride[0]
        # Two sweeps compute the slices twice that both depend on.
        twice = 2 * receptive_margin(self.network.pooling, 0)
        parts = [(cut, depth), (0, cut)] if 0 < cut < depth else [(0, depth)]
        if len(parts) > 1 and twice > MOST_TWICE * depth:
            parts = [(0, depth)]
        return [(part, (0, height), (0, width)) for part in parts]

    def logits(self) -> NDArray[np.float32]:
        """Return the logits (K, Z, Y, X) of the whole volume, for small volumes."""
        whole = np.empty((self.n_classes, *self.shape), np.float32)
        for region, logits in self.blocks():
            box = tuple(slice(low, high) for low, high in region)
            whole[(slice(None), *box)] = logits.cpu().numpy()
        return whole

    def blocks(self, region: Region | None = None) -> Iterator[tuple[Region, Tensor]]:
        """Yield disjoint blocks of a region (default: all) with their logits.

        Yields
        ------
        region : ((int, int), (int, int), (int, int))
            The block, ZYX.
        logits : Tensor of shape (K, Z, Y, X)
        """
        z, y, x = region or ((0, self.shape[0]), (0, self.shape[1]), (0, self.shape[2]))
        with out_of_memory_as_error(OUT_OF_MEMORY):
            memory = present_memory(self.config, self.device)
            beside = self.bytes_beside()
            for across in plan_columns(
                self.network, self.shape, memory, (y, x), beside
            ):
                yield from self.column((z, *across))

    def column(self, core: Region) -> Iterator[tuple[Region, Tensor]]:
        """Sweep one column with its halo, yielding the blocks of its core, as `blocks`.

        Whether it fits in memory is the caller's business.
        """
        release_freed_memory()
        box = [
            with_halo(self.network, core[axis], axis, self.shape[axis])
            for axis in range(3)
        ]
        low = [first for first, _ in box]
        width = [last - first for first, last in box[1:]]
        features = feature_slabs(
            self.features,
            low,
            [box[0][1] - box[0][0], *width],
            slab_depth(self.network),
            read_ahead=self.read_ahead,
            dtype=self.dtype,
        )
        y, x = (
            (first - a, last - a)
            for (first, last), a in zip(core[1:], low[1:], strict=True)
        )
        z = low[0]
        for logits in sweep(self.network, features, (y, x)):
            first, last = max(z, core[0][0]), min(z + logits.shape[2], core[0][1])
            if first < last:
                block = logits[0, :, first - z : last - z]
                yield ((first, last), core[1], core[2]), block.float()
            z += logits.shape[2]

    def bytes_beside(self, written: int = 0) -> float:
        """Return the bytes for each voxel of a slice that the sweep's do not include.

        Parameters
        ----------
        written : int
            Bytes of the output for each voxel of a slice that are collected until they
            are written.
        """
        image, margin = self.features.image, self.features.stem.margin
        # What is in use, what was read ahead, and what is being read; and the slices
        # that are filtered, all with their own margin.
        piece = slices_at_once(image) * np.dtype(image.dtype).itemsize
        around = 1.5 if any(margin) else 1.0
        read = around * image.shape[0] * (3 * piece + 2 * 4 * margin[0])
        # Collected, put together, put in its place, and being written
        return float(read + 4 * written)
