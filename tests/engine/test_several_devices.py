from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from napari_unet3d.engine import Segmenter, several_devices
from napari_unet3d.engine.block_plan import plan_blocks
from napari_unet3d.engine.blockwise import Selection, segment_block
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.several_devices import segment_blocks

SHAPE, CHUNKS = (20, 42, 20), (16, 16, 16)
REGION = ((3, 20), (0, 42), (0, 20))


class OneWriter:
    """An array that only one thread at a time may write to."""

    def __init__(self, *shape):
        self.array = np.full(shape, 77, np.uint8)
        self._busy = threading.Lock()

    def __setitem__(self, key, block):
        assert self._busy.acquire(blocking=False)
        self.array[key] = block
        self._busy.release()


@pytest.fixture(scope="module")
def segmenter(make_checkpoint):
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    return Segmenter(make_checkpoint(pooling=((2, 2, 2),), stem="none"), image)


@pytest.fixture(scope="module")
def blocks(segmenter):
    return plan_blocks(segmenter.network, SHAPE, CHUNKS, 1)


@pytest.fixture
def both(segmenter):
    return [segmenter, segmenter.on(torch.device("cpu"))]


def outputs(segmenter):
    return [OneWriter(*SHAPE), OneWriter(segmenter.n_classes, *SHAPE)]


def test_two_devices_write_what_one_writes(segmenter, both, blocks, monkeypatch):
    selection = Selection(region=REGION)
    one, two = outputs(segmenter), outputs(segmenter)
    for block in blocks[1:]:
        for _ in segment_block(segmenter, block, CHUNKS, *one, selection):
            pass
    # Neither does all before the other begins.
    met, begun = threading.Barrier(2), set()

    def together(one, *arguments):
        if id(one) not in begun:
            begun.add(id(one))
            met.wait(timeout=60)
        return segment_block(one, *arguments)

    monkeypatch.setattr(several_devices, "segment_block", together)
    numbers = range(1, len(blocks))
    events = list(segment_blocks(both, blocks, numbers, CHUNKS, *two, selection))
    for expected, found in zip(one, two, strict=True):
        np.testing.assert_array_equal(found.array, expected.array)
    assert begun == {id(each) for each in both}
    assert sorted(e.number for e in events if e.share == 1) == list(numbers)
    for number in numbers:
        shares = [event.share for event in events if event.number == number]
        assert shares == sorted(shares)


def test_the_copy_on_another_device_shares_no_weights(both):
    one, other = both
    weights = {p.data_ptr() for p in one.network.parameters()}
    assert not weights & {p.data_ptr() for p in other.network.parameters()}
    assert one.features.stem is not other.features.stem
    assert one.features.statistics is other.features.statistics


def test_an_error_of_one_ends_all(both, blocks, monkeypatch):
    begun, failed = [], threading.Event()

    def failing(segmenter, block, *_):
        begun.append(block)
        if segmenter is both[1]:
            failed.set()
            raise EngineError("too hot")
        # Blocks of no work would all be done before anybody hears of the error.
        failed.wait(timeout=60)
        time.sleep(0.001)
        yield block

    monkeypatch.setattr(several_devices, "segment_block", failing)
    with pytest.raises(EngineError, match="too hot"):
        list(segment_blocks(both, list(blocks) * 1000, range(6000), CHUNKS, None))
    assert len(begun) < 6000
    assert not alive()


def test_closing_ends_all_after_the_layer(both, blocks, monkeypatch):
    layers = []

    def endless(segmenter, block, *_):
        while True:
            layers.append(block)
            yield ((0, 1), (0, 1), (0, 1))

    monkeypatch.setattr(several_devices, "segment_block", endless)
    steps = segment_blocks(both, blocks, range(6), CHUNKS, None)
    next(steps)
    steps.close()
    assert not alive()
    assert len(set(layers)) <= 2


def alive():
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("segmentation")]
