from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_unet3d.engine import SegmentationConfig, columns
from napari_unet3d.engine.block_plan import plan_blocks, plan_columns
from napari_unet3d.engine.columns import column_bytes, extent, lasting_memory
from napari_unet3d.engine.tiling import with_halo
from napari_unet3d.engine.unet import UNet3D

NETWORK = UNet3D(in_channels=1, n_classes=2, base_channels=8)
SHAPE, CHUNKS = (130, 700, 800), (64, 64, 64)


@pytest.mark.parametrize("memory", [1, 1e9, 3e9, 1e12])
@pytest.mark.parametrize("region", [None, ((3, 130), (65, 400), (700, 701))])
def test_every_chunk_belongs_to_one_block(memory, region):
    visits = np.zeros([-(-n // c) for n, c in zip(SHAPE, CHUNKS, strict=True)], int)
    for block in plan_blocks(NETWORK, SHAPE, CHUNKS, memory, region):
        assert all(low % 64 == 0 for low, _ in block)
        ends = zip(block, SHAPE, strict=True)
        assert all(high % 64 == 0 or high == n for (_, high), n in ends)
        visits[tuple(slice(low // 64, -(-high // 64)) for low, high in block)] += 1
    wanted = np.zeros_like(visits)
    box = region or [(0, n) for n in SHAPE]
    wanted[tuple(slice(low // 64, -(-high // 64)) for low, high in box)] = 1
    np.testing.assert_array_equal(visits, wanted)


@pytest.mark.parametrize("memory", [1e9, 3e9, 8e9])
def test_blocks_fit_in_memory_and_use_it(memory):
    blocks = plan_blocks(NETWORK, (2000,) * 3, CHUNKS, memory)
    used = []
    for block in blocks:
        y, x = (extent(NETWORK, axis, block[axis], 2000) for axis in (1, 2))
        used.append(column_bytes(NETWORK, y.times(x)))
    assert 0.6 * memory < max(used) <= memory


@pytest.mark.parametrize("memory", [1, 1e9, 1e12])
def test_columns_cover_their_part_of_the_plane(memory):
    visits = np.zeros((300, 200), int)
    across = ((5, 300), (100, 101))
    for column in plan_columns(NETWORK, (50, 300, 200), memory, across):
        visits[tuple(slice(*part) for part in column)] += 1
    assert visits.sum() == visits.max() * 295 == 295
    assert np.all(visits[5:, 100] == 1)


def test_a_volume_that_fits_is_one_block():
    assert plan_blocks(NETWORK, SHAPE, CHUNKS, 1e12) == [((0, 130), (0, 700), (0, 800))]


@pytest.mark.parametrize("at_once", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(512, 512, 512), (64, 1000, 1000), (900, 64, 64)])
def test_several_devices_are_done_sooner_than_one(at_once, shape):
    def rounds(blocks):
        halos = [
            [with_halo(NETWORK, b[a], a, shape[a]) for a in range(3)] for b in blocks
        ]
        sizes = [np.prod([high - low for low, high in halo]) for halo in halos]
        return -(-len(blocks) // at_once) * max(sizes)

    alone = plan_blocks(NETWORK, shape, CHUNKS, 1e12)
    several = plan_blocks(NETWORK, shape, CHUNKS, 1e12, at_once=at_once)

    assert len(several) > len(alone)
    assert rounds(several) < 0.8 * rounds(alone)
    covered = sum(np.prod([high - low for low, high in block]) for block in several)
    assert covered == np.prod(shape)


def test_many_blocks_stay_as_they_are_for_several_devices():
    shape = (2000,) * 3
    alone = plan_blocks(NETWORK, shape, CHUNKS, 1e9)
    assert plan_blocks(NETWORK, shape, CHUNKS, 1e9, at_once=2) == alone


@pytest.mark.parametrize("size", [256, 384, 700])
@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("memory", [2e9, 3e9, 4e9])
def test_several_devices_take_no_more_memory_for_a_block(size, levels, memory):
    network = UNet3D(1, 2, 8, ((2, 2, 2),) * levels)
    used = []
    for at_once in (1, 4):
        plan = plan_blocks(network, (size,) * 3, CHUNKS, memory, at_once=at_once)
        pairs = [
            [extent(network, axis, block[axis], size) for axis in (1, 2)]
            for block in plan
        ]
        used.append(max(column_bytes(network, y.times(x)) for y, x in pairs))
    assert used[1] <= max(memory, used[0])


def test_halos_along_z_are_a_small_share():
    ranges = {block[0] for block in plan_blocks(NETWORK, (4000, 64, 64), CHUNKS, 1e12)}
    computed = [with_halo(NETWORK, extent, 0, 4000) for extent in ranges]
    assert len(ranges) > 1
    assert sum(high - low for low, high in computed) < 1.05 * 4000


@pytest.mark.parametrize("strides", [((1, 2, 2), (3, 2, 2)), ()])
def test_pooling_that_does_not_divide_the_chunks(strides):
    network = UNet3D(1, 2, 2, pooling=strides)
    blocks = plan_blocks(network, (200, 200, 200), CHUNKS, 1)
    covered = sum(np.prod([b - a for a, b in block]) for block in blocks)
    assert covered == 200**3


def test_the_plan_does_not_depend_on_free_memory(monkeypatch):
    cpu = torch.device("cpu")
    before = lasting_memory(SegmentationConfig(), cpu)
    monkeypatch.setattr("napari_unet3d.engine.columns.available_memory", lambda _: 1)
    assert lasting_memory(SegmentationConfig(), cpu) == before
    assert 0 < before <= columns.MOST_MEMORY
    assert lasting_memory(SegmentationConfig(memory=2), cpu) == 2 * 2**30


def test_blocks_come_in_the_order_of_the_slices():
    starts = [
        tuple(low for low, _ in block)
        for block in plan_blocks(NETWORK, (4000, 300, 300), CHUNKS, 1)
    ]
    assert starts == sorted(starts)
    assert len(set(starts)) == len(starts) > 20
    assert all(a != b for a, b in itertools.pairwise(starts))
