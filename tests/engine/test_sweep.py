from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_unet3d.engine.folding import fold_normalization
from napari_unet3d.engine.streamed import largest_of_windows
from napari_unet3d.engine.sweep import sweep
from napari_unet3d.engine.unet import UNet3D

POOLINGS = (
    ((2, 2, 2),) * 2,
    ((1, 2, 2), (2, 2, 2)),
    ((1, 2, 2),) * 2,
    ((3, 1, 2), (2, 2, 1)),
    ((2, 2, 2),),
    (),
)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (3, 1, 2), (1, 1, 1)])
def test_the_largest_of_windows_are_those_of_max_pooling(stride):
    x = numbers(1, 5, 6, 4, 8).to(memory_format=torch.channels_last_3d)
    found = largest_of_windows(x, stride)
    assert torch.equal(found, nn.functional.max_pool3d(x, stride, stride))
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("normalization", ["batch", "none"])
def test_folding_keeps_the_logits_and_the_network(normalization, randomize):
    network = randomize(
        UNet3D(2, 3, 2, ((1, 2, 2),), normalization=normalization, shortcut=3)
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_normalization(network)
    assert not any(isinstance(m, nn.BatchNorm3d) for m in folded.modules())
    image = numbers(1, 2, 4, 8, 12)
    torch.testing.assert_close(folded(image), network(image), rtol=1e-4, atol=1e-5)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@settings(max_examples=20)
@given(data=st.data())
def test_a_sweep_is_the_network_on_all_slices_at_once(data, randomize):
    pooling = data.draw(st.sampled_from(POOLINGS))
    shortcut = data.draw(st.sampled_from([0, 3]))
    network = fold_normalization(randomize(UNet3D(1, 2, 2, pooling, shortcut=shortcut)))
    stride = network.total_stride
    lengths = [
        stride[0] * n
        for n in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    ]
    image = numbers(1, 1, sum(lengths), 2 * stride[1], 3 * stride[2])
    with torch.no_grad():
        whole = network.double()(image.double())
    close = functools.partial(torch.testing.assert_close, expected=whole)
    slabs = list(sweep(network, image.double().split(lengths, dim=2)))
    close(torch.cat(slabs, dim=2), rtol=0, atol=1e-10)
    slabs = list(sweep(network.float(), image.split(lengths, dim=2)))
    close(torch.cat(slabs, dim=2).double(), rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(data=st.data())
def test_only_a_core_of_the_plane(data, randomize):
    pooling = data.draw(st.sampled_from(POOLINGS))
    network = fold_normalization(randomize(UNet3D(1, 2, 2, pooling, shortcut=3)))
    stride = network.total_stride
    size = [8 * n for n in stride]
    core = [
        sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n))))
        for n in size[1:]
    ]
    core = [(low, max(high, low + 1)) for low, high in core]
    image = numbers(1, 1, *size).double()
    network.double()
    with torch.no_grad():
        whole = network(image)
    slabs = list(sweep(network, image.split(2 * stride[0], dim=2), tuple(core)))
    inner = (..., *(slice(*part) for part in core))
    torch.testing.assert_close(
        torch.cat(slabs, dim=2), whole[inner], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_thinnest_slabs(pooling, randomize):
    network = fold_normalization(randomize(UNet3D(1, 2, 2, pooling)))
    depth, height, width = network.total_stride
    image = numbers(1, 1, 6 * depth, height, width)
    slabs = list(sweep(network, image.split(depth, dim=2)))
    with torch.no_grad():
        whole = network(image)
    torch.testing.assert_close(torch.cat(slabs, dim=2), whole, rtol=1e-5, atol=1e-5)


def test_slices_come_out_long_before_the_last_one_is_in(randomize):
    network = fold_normalization(randomize(UNet3D(1, 2, 1, ((2, 2, 2),))))
    read = []

    def slabs():
        for k in range(10):
            read.append(k)
            yield numbers(1, 1, 8, 4, 4, seed=k)

    stream = sweep(network, slabs())
    next(stream)
    assert len(read) <= 4


def test_gradients_are_as_before_wherever_a_sweep_waits(randomize):
    network = fold_normalization(randomize(UNet3D(1, 2, 2, ((2, 2, 2),))))
    slabs = numbers(1, 1, 32, 4, 4).split(8, dim=2)
    first, second = sweep(network, slabs), sweep(network, slabs)
    next(first)
    assert torch.is_grad_enabled()
    next(second)
    list(first)
    second.close()
    assert torch.is_grad_enabled()
