"""Segment one block of a plan into chunks that are each written once and whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .ahead import behind
from .block_plan import single_chunks
from .decision import as_labels, as_shares
from .device import out_of_memory_as_error
from .errors import EngineError
from .segmentation import OUT_OF_MEMORY

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from .regions import Range, Region
    from .segmentation import Segmenter


@dataclass(frozen=True)
class Selection:
    """Which voxels to segment; all others become 0.

    Nothing of it depends on how the volume is cut into blocks.
    """

    region: Region | None = None
    """A box, ZYX."""
    mask: Any = None
    """Array-like (Z, Y, X), not 0 where to segment."""
    skip_below: float | None = None
    """Chunks whose grey values are all below it become class 1, not computed."""

    def check(self, shape: Sequence[int]) -> None:
        """Refuse what does not fit a volume.

        Raises
        ------
        EngineError
            Where the region reaches outside or is empty, or the mask has another shape.
        """
        for (low, high), n, axis in zip(self.region or (), shape, "zyx", strict=False):
            if not 0 <= low < high <= n:
                raise EngineError(
                    f"the region {low}:{high} along {axis} is empty or outside the "
                    f"volume; choose a part of 0:{n}"
                )
        if self.mask is not None and tuple(self.mask.shape) != tuple(shape):
            raise EngineError(
                f"the mask has shape {tuple(self.mask.shape)} but the image has "
                f"{tuple(shape)}; they must have the same grid"
            )


def segment_block(
    segmenter: Segmenter,
    block: Region,
    chunks: Sequence[int],
    labels: Any,
    probabilities: Any = None,
    selection: Selection | None = None,
) -> Iterator[Region]:
    """Segment a block, yielding each layer of chunks once it is written.

    It is written in a thread while the next one is computed.

    Parameters
    ----------
    segmenter : Segmenter
        Model and image.
    block : ((int, int), (int, int), (int, int))
        From `plan_blocks`.
    chunks : sequence of int
        Those that it was planned with.
    labels : (Z, Y, X) array-like of uint8
        Receives classes 1 to K, and 0 where nothing is selected.
    probabilities : (K, Z, Y, X) array-like of uint8, optional
        Receives the probability of each class, 255 for certain.
    selection : Selection, optional
        What to segment; everything by default.
    """
    works = _layers(
        segmenter, block, chunks, labels, probabilities, selection or Selection()
    )
    with closing(works):
        yield from behind(works)


def _layers(
    segmenter: Segmenter,
    block: Region,
    chunks: Sequence[int],
    labels: Any,
    probabilities: Any,
    selection: Selection,
) -> Generator[tuple[Region, Callable[[], None]], None, None]:
    """Yield each layer of chunks with the function that writes it."""
    chosen = _BlockSelection(segmenter, block, chunks, selection)
    core = chosen.core()
    slices = _Slices(segmenter, core, probabilities is not None)
    with closing(slices):
        for k, layer in enumerate(chosen.layers):
            box = (layer, *block[1:])
            low, high = max(layer[0], core[0][0]), min(layer[1], core[0][1])
            found, shares = slices.take(high - low) if low < high else (None, None)
            inside = _inside(((low, high), *core[1:]), box)
            whole = chosen.placed(k, found, inside, np.ones(1, np.uint8))[0]
            parts: list[tuple[Any, tuple[slice, ...], NDArray[np.uint8]]] = [
                (labels, _slices(box), whole)
            ]
            if probabilities is not None:
                certain = np.zeros(segmenter.n_classes, np.uint8)
                certain[0] = 255
                share = chosen.placed(k, shares, inside, certain)
                parts.append((probabilities, (slice(None), *_slices(box)), share))
            yield box, partial(_write, parts)


def _write(parts: Sequence[tuple[Any, tuple[slice, ...], NDArray[np.uint8]]]) -> None:
    for array, box, values in parts:
        array[box] = values


class _BlockSelection:
    """What of a block is selected, chunk by chunk."""

    def __init__(
        self,
        segmenter: Segmenter,
        block: Region,
        chunks: Sequence[int],
        selection: Selection,
    ) -> None:
        self._block, self._selection = block, selection
        self._region = selection.region or block
        axes = [single_chunks(r, c) for r, c in zip(block, chunks, strict=True)]
        self.layers, self._rows, self._columns = axes
        self._is_dark = np.zeros([len(axis) for axis in axes], bool)
        self._is_wanted = ~self._is_dark
        for k in range(len(self.layers)):
            self._look(k, segmenter.features.image)

    def _look(self, k: int, image: Any) -> None:
        """Find out which chunks of a layer are masked out or dark."""
        box = _slices((self.layers[k], *self._block[1:]))
        mask, threshold = self._selection.mask, self._selection.skip_below
        if mask is not None:
            self._is_wanted[k] = self._over_chunks(np.asarray(mask[box]) != 0, np.any)
        if threshold is not None and self._is_wanted[k].any():
            values = np.fmax.reduce(np.asarray(image[(slice(None), *box)]))
            # NaN is dark too.
            self._is_dark[k] = self._over_chunks(~(values >= threshold), np.all)
            self._is_wanted[k] &= ~self._is_dark[k]

    def _over_chunks(self, layer: NDArray[Any], reduce: Any) -> NDArray[np.bool_]:
        y, x = self._block[1][0], self._block[2][0]
        return np.array(
            [
                [
                    reduce(layer[:, b - y : c - y, d - x : e - x])
                    for d, e in self._columns
                ]
                for b, c in self._rows
            ]
        )

    def core(self) -> Region:
        """Return the smallest box to compute; empty where there is nothing."""
        if not self._is_wanted.any():
            z, y, x = ((r[0], r[0]) for r in self._block)
            return z, y, x
        found: list[Range] = []
        for axis, parts in enumerate((self.layers, self._rows, self._columns)):
            others = tuple(a for a in range(3) if a != axis)
            hit = np.flatnonzero(self._is_wanted.any(axis=others))
            low, high = self._region[axis]
            found.append((max(low, parts[hit[0]][0]), min(high, parts[hit[-1]][1])))
        return found[0], found[1], found[2]

    def placed(
        self,
        k: int,
        computed: NDArray[np.uint8] | None,
        inside: Sequence[slice],
        certain: NDArray[np.uint8],
    ) -> NDArray[np.uint8]:
        """Return a layer (channels, Z, Y, X) with what was computed in its place.

        `certain` are the values of a voxel that surely is of class 1.
        """
        box = (self.layers[k], *self._block[1:])
        size = [high - low for low, high in box]
        whole = np.zeros((len(certain), *size), np.uint8)
        if computed is not None:
            whole[(slice(None), *inside)] = computed
        for i, j in np.argwhere(self._is_dark[k]):
            cell = _inside((self.layers[k], self._rows[i], self._columns[j]), box)
            whole[(slice(None), *cell)] = certain[:, None, None, None]
        if self._selection.region is not None:
            kept = np.zeros_like(whole)
            part = (slice(None), *_inside(self._region, box))
            kept[part] = whole[part]
            whole = kept
        if self._selection.mask is not None:
            whole *= np.asarray(self._selection.mask[_slices(box)]) != 0
        return whole


class _Slices:
    """The slices of a column, in portions other than those that the sweep yields."""

    def __init__(self, segmenter: Segmenter, core: Region, with_shares: bool) -> None:
        self._sweep = cast("Generator[Any, None, None]", segmenter.column(core))
        self._with_shares = with_shares
        self._labels: list[NDArray[np.uint8]] = []
        self._shares: list[NDArray[np.uint8]] = []

    def take(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return the next slices: labels and, where wanted, shares (channels, ...)."""
        while sum(part.shape[1] for part in self._labels) < count:
            with out_of_memory_as_error(OUT_OF_MEMORY):
                _, logits = next(self._sweep)
                self._push(logits)
        shares = _portion(self._shares, count) if self._with_shares else None
        return _portion(self._labels, count), shares

    def close(self) -> None:
        """End the sweep."""
        self._sweep.close()

    def _push(self, logits: Tensor) -> None:
        self._labels.append(as_labels(logits)[None])
        if self._with_shares:
            self._shares.append(as_shares(logits))


def _portion(parts: list[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    stack = np.concatenate(parts, axis=1)
    parts[:] = [stack[:, count:].copy()] if count < stack.shape[1] else []
    return stack[:, :count]


def _slices(box: Region) -> tuple[slice, slice, slice]:
    z, y, x = (slice(low, high) for low, high in box)
    return z, y, x


def _inside(part: Region, box: Region) -> tuple[slice, slice, slice]:
    """Return where a part of the volume lies in a box."""
    z, y, x = (
        slice(max(0, min(high, b) - low), max(0, min(high, c) - low))
        for (b, c), (low, high) in zip(part, box, strict=True)
    )
    return z, y, x
