from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from napari_unet3d.engine.tiling import (
    even_cores,
    receptive_margin,
    round_up,
    with_halo,
)
from napari_unet3d.engine.unet import UNet3D


def test_receptive_margin_of_the_papers_network():
    # 44 voxels from an unpadded output to the border of its input, and two more
    # because an aligned block may begin on the first voxel of a pooled one.
    assert receptive_margin([(2, 2, 2)] * 3, 0) == 46


@pytest.mark.parametrize(
    "strides", [(), (2,), (2, 2), (3, 2), (1, 2), (2, 1), (2, 2, 2)]
)
def test_a_block_depends_on_its_margin_and_on_nothing_beyond(strides):
    pooling = [(stride, 1, 1) for stride in strides]
    network = UNet3D(1, 1, 1, pooling, normalization="none").double().eval()
    for weight in network.parameters():
        nn.init.constant_(weight, 0.1)
    total = network.total_stride[0]
    margin = receptive_margin(pooling, 0)
    low = -(-(margin + 2) // total) * total
    high = low + 2 * total

    def block(changed=None):
        image = torch.ones(1, 1, low + high, 1, 1, dtype=torch.float64)
        if changed is not None:
            image[:, :, changed] += 1
        with torch.no_grad():
            return network(image)[:, :, low:high]

    unchanged = block()
    for inside in (low - margin, high + margin - 1):
        assert not torch.equal(block(inside), unchanged)
    for outside in (low - margin - 1, high + margin):
        assert torch.equal(block(outside), unchanged)


@given(n=st.integers(0, 1000), multiple=st.integers(1, 20))
def test_rounding_up(n, multiple):
    rounded = round_up(n, multiple)
    assert rounded % multiple == 0
    assert n <= rounded < n + multiple


@given(
    low=st.integers(0, 100),
    length=st.integers(1, 300),
    edge=st.integers(1, 200),
    stride=st.sampled_from([1, 2, 4, 8, 12]),
)
def test_cores_cover_a_range_at_multiples_of_the_stride(low, length, edge, stride):
    cores = even_cores((low, low + length), edge, stride)
    covered = np.concatenate([np.arange(*core) for core in cores])
    np.testing.assert_array_equal(covered, np.arange(low, low + length))
    assert all(first % stride == 0 for first, _ in cores[1:])
    # Rounding to the stride may lengthen a piece.
    assert all(last - first < max(edge, stride) + stride for first, last in cores)


@pytest.mark.parametrize(
    ("padding", "core", "expected"),
    [
        ("same", (0, 100), (0, 104)),
        ("same", (24, 32), (8, 48)),
        ("same", (97, 100), (80, 104)),
        ("valid", (0, 100), (-16, 120)),
        ("valid", (24, 32), (8, 48)),
    ],
)
def test_a_halo_ends_at_the_border(padding, core, expected):
    network = UNet3D(1, 2, 1, [(4, 1, 1), (2, 1, 1)], padding=padding)
    assert receptive_margin(network.pooling, 0) > 16
    assert with_halo(network, core, 0, size=100, most=16) == expected


def test_a_halo_is_all_that_the_logits_depend_on():
    network = UNet3D(1, 2, 1, [(2, 2, 2)] * 3)
    assert with_halo(network, (96, 104), 1, size=1000) == (48, 152)
