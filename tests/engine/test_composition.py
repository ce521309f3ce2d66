from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from napari_unet3d.engine import composition
from napari_unet3d.engine.composition import (
    FEWEST_VOXELS,
    composed_kernel,
    composes,
    convolve_joined,
    count_taps,
    interleaved,
)
from napari_unet3d.engine.layers import Convolution, UpConvolution
from napari_unet3d.engine.regions import crop, grow, paddings_between
from napari_unet3d.engine.unet import UNet3D

STRIDES = st.tuples(*[st.sampled_from([2, 1, 3])] * 3)
SIZES = st.tuples(*[st.integers(1, 3)] * 3)


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@st.composite
def boxes(draw):
    """Draw strides, the size of what comes from below, and a box of the output."""
    strides, size = draw(STRIDES), draw(SIZES)
    box = []
    for stride, n in zip(strides, size, strict=True):
        low = draw(st.integers(0, n * stride - 1))
        box.append((low, draw(st.integers(low + 1, n * stride))))
    return strides, size, box


@settings(deadline=None)
@given(case=boxes())
def test_it_equals_upsampling_and_convolving_one_after_the_other(case):
    strides, size, box = case
    finer = [n * s for n, s in zip(size, strides, strict=True)]
    up = UpConvolution(3, strides).double()
    nn.init.normal_(up.weight)
    convolution = Convolution(2 + 3, 4).double().eval()
    below = numbers(2, 3, *size).requires_grad_()
    skip = numbers(2, 2, *finer, seed=1).requires_grad_()
    weights = numbers(2, 4, *(high - low for low, high in box), seed=2)

    needed = grow(box, 1, finer)
    padding = paddings_between(needed, box)
    results = []
    for one in (True, False):
        if one:
            part = crop(skip, needed)
            out = convolve_joined(convolution, part, padding, up, below, box)
        else:
            joined = torch.cat([skip, up(below)], dim=1)
            out = crop(convolution(joined, ((1, 1),) * 3), box)
        learned = [*convolution.conv.parameters(), up.weight, skip, below]
        results.append(
            [out, *torch.autograd.grad((out * weights).sum(), learned)],
        )
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_a_fine_voxel_sees_the_coarse_ones_of_its_neighbours(stride):
    seen = [
        {(voxel + step) // stride for step in (-1, 0, 1)} for voxel in range(stride)
    ]
    most = max(len(neighbours) for neighbours in seen)
    assert count_taps(stride) == most


def test_a_kernel_of_ones_counts_the_voxels_that_are_seen():
    kernel = composed_kernel(torch.ones(1, 1, 3, 3, 3), torch.ones(1, 1, 2, 2, 2))
    assert kernel.shape == (8, 1, 2, 2, 2)
    # Of its three neighbours along an axis, itself included, a voxel has two in its own
    # block; the first places of an output lie in the block before.
    assert kernel[0, 0].flatten().tolist() == [8, 4, 4, 2, 4, 2, 2, 1]
    assert kernel[-1, 0].flatten().tolist() == [1, 2, 2, 4, 2, 4, 4, 8]
    assert kernel.sum(dim=(1, 2, 3, 4)).tolist() == [27] * 8


def test_blocks_lie_side_by_side():
    blocks = torch.arange(2 * 3.0).view(1, 2, 1, 1, 3)  # channels, then blocks
    whole = interleaved(blocks, (1, 1, 2), (0, 0, 0), (1, 1, 6))
    assert whole.flatten().tolist() == [0, 3, 1, 4, 2, 5]
    part = interleaved(blocks, (1, 1, 2), (0, 0, 1), (1, 1, 3))
    assert part.flatten().tolist() == [3, 1, 4]


@settings(deadline=None)
@given(case=boxes())
def test_gradients_of_blocks_are_those_of_plain_views(case):
    strides, size, box = case
    blocks = numbers(2, 3 * prod(strides), *size).requires_grad_()
    low, shape = zip(*((a, b - a) for a, b in box), strict=True)
    finer = [n * s for n, s in zip(size, strides, strict=True)]
    plain = blocks.view(2, *strides, 3, *size).permute(0, 4, 5, 1, 6, 2, 7, 3)
    plain = crop(plain.reshape(2, 3, *finer), box)
    found = interleaved(blocks, strides, low, shape)
    assert torch.equal(found, plain)
    weights = numbers(*plain.shape, seed=1)
    gradients = [
        torch.autograd.grad((out * weights).sum(), blocks)[0] for out in (found, plain)
    ]
    torch.testing.assert_close(*gradients)


def test_gradients_lie_channels_last_in_memory():
    blocks = numbers(2, 8 * 3, 4, 4, 4).requires_grad_()
    part = interleaved(blocks, (2, 2, 2), (1, 1, 1), (6, 6, 6))
    weights = numbers(*part.shape).contiguous(memory_format=torch.channels_last_3d)
    (gradient,) = torch.autograd.grad((part * weights).sum(), blocks)
    assert gradient.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_network_learns_the_same_with_it(frozen, monkeypatch, randomize):
    image = numbers(2, 3, 16, 24, 24)
    network = randomize(UNet3D(3, 2, 4, ((1, 2, 2), (2, 2, 2)))).double()
    network.train(not frozen)
    target = torch.randint(0, 2, (2, 5, 24, 24))
    results, called = [], []

    def noted(*arguments):
        called.append(arguments)
        return convolve_joined(*arguments)

    monkeypatch.setattr("napari_unet3d.engine.unet.convolve_joined", noted)
    for fewest in (0, 10**9):
        monkeypatch.setattr(composition, "FEWEST_VOXELS", fewest)
        logits = network(image, ((6, 11), (0, 24), (0, 24)))
        network.zero_grad()
        functional.cross_entropy(logits, target).backward()
        results.append([logits, *(p.grad.clone() for p in network.parameters())])
    assert len(called) == 2
    torch.testing.assert_close(*results)


def test_only_many_voxels_in_full_precision_are_worth_it():
    up = UpConvolution(8, (2, 2, 2))
    depth = FEWEST_VOXELS // 2  # 8 channels times that many voxels, in blocks of 8
    skip = torch.zeros(2, 8, 8, 8, 8)
    assert composes(up, torch.zeros(2, 8, 1, 1, depth), skip)
    assert not composes(up, torch.zeros(2, 8, 1, 1, depth // 2 - 1), skip)
    many = torch.zeros(2, 8, 9, 9, 9)
    assert composes(up, many, skip)
    assert not composes(up, many.bfloat16(), skip)
    assert not composes(up, many.to("meta"), skip)
    with torch.autocast("cpu", torch.bfloat16):
        assert not composes(up, many, skip)


@pytest.mark.parametrize("edge", [50, 51])
def test_single_images_are_only_composed_where_torch_is_quick(edge):
    up = UpConvolution(8, (2, 2, 2))
    below = torch.zeros(1, 8, 51, edge + 1, 2)
    skip = torch.zeros(1, 8, 51, edge, 2)
    assert composes(up, below, skip) == (8 * 51 * edge > 20480)
    assert composes(up, below, torch.cat([skip, skip]))
