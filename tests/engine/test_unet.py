from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from napari_unet3d.engine.layers import Convolution, UpConvolution
from napari_unet3d.engine.regions import cut, grow
from napari_unet3d.engine.unet import UNet3D
from napari_unet3d.engine.valid_padding import valid_size

POOLINGS = (
    ((2, 2, 2),) * 2,
    ((1, 2, 2), (2, 2, 2)),
    ((2, 2, 2), (3, 1, 2)),
    ((2, 2, 2),),
    (),
)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def n_parameters(module, besides=()):
    return sum(
        p.numel()
        for child in module.modules()
        if not isinstance(child, besides)
        for p in child.parameters(recurse=False)
    )


def test_the_papers_network_has_as_many_parameters_as_the_paper_says():
    network = UNet3D(in_channels=3, n_classes=3)
    assert n_parameters(network, besides=nn.BatchNorm3d) == 19_069_955


def test_without_normalization_only_the_norm_layers_are_missing():
    plain = UNet3D(1, 2, base_channels=2, normalization="none")
    normed = UNet3D(1, 2, base_channels=2)
    assert n_parameters(plain) == n_parameters(normed, besides=nn.BatchNorm3d)


def test_unpadded_convolutions_leave_what_the_paper_says():
    network = UNet3D(3, 3, base_channels=1, padding="valid").eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, 116, 132, 132))
    assert logits.shape == (1, 3, 28, 44, 44)


def test_names_of_the_weights_are_stable():
    network = UNet3D(1, 2, base_channels=1, pooling=[(2, 2, 2)])
    convolution = ["conv.weight", "conv.bias"]
    norm = ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]
    names = [*convolution, *norm, "norm.num_batches_tracked"]
    assert list(network.state_dict()) == [
        *(f"encoder.0.first.{name}" for name in names),
        *(f"encoder.0.second.{name}" for name in names),
        *(f"encoder.1.first.{name}" for name in names),
        *(f"encoder.1.second.{name}" for name in names),
        "up.0.weight",
        *(f"decoder.0.first.{name}" for name in names),
        *(f"decoder.0.second.{name}" for name in names),
        "head.weight",
        "head.bias",
    ]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_channels_double_before_the_pooling(pooling):
    network = UNet3D(5, 4, base_channels=2, pooling=pooling)
    widths = [level.second.conv.out_channels for level in network.encoder]
    assert widths == [4 * 2**k for k in range(len(pooling) + 1)]
    assert network.encoder[0].first.conv.out_channels == 2
    assert network.head.out_channels == 4


def test_the_shortcut_sees_each_voxel_alone():
    network = UNet3D(2, 3, 1, ((2, 2, 2),), shortcut=4).eval()
    network.head.weight.data[:, :2] = 0
    image = numbers(1, 2, 4, 4, 4)
    other = image.clone()
    other[0, :, 1, 2, 3] += 1
    with torch.no_grad():
        changed = (network(other) != network(image)).any(dim=1)[0]
    assert changed.nonzero().tolist() == [[1, 2, 3]]


def test_total_stride_is_the_product_of_all():
    assert UNet3D(1, 2, 1, [(1, 2, 2), (3, 2, 1)]).total_stride == (3, 4, 2)
    assert UNet3D(1, 2, 1, []).total_stride == (1, 1, 1)


@pytest.mark.parametrize(("depth", "shortcut"), [(1, 0), (2, 3), (3, 0)])
def test_both_paddings_share_weights_and_agree_inside(depth, shortcut, randomize):
    pooling = ((2, 2, 2),) * (depth - 1)
    same = randomize(UNet3D(1, 2, 2, pooling, shortcut=shortcut)).double()
    valid = UNet3D(1, 2, 2, pooling, "valid", shortcut=shortcut).eval().double()
    valid.load_state_dict(same.state_dict())

    # Unpadded convolutions pool from their third voxel on, so their grid of pooled
    # voxels lies on the other's where the origin is 2 modulo the total stride.
    stride = 2 ** (depth - 1)
    origin = 2 * stride + 2
    size = valid_size(36, [2] * (depth - 1))
    image = numbers(1, 1, *[origin + size + origin] * 3).double()
    low, high = origin, origin + size
    with torch.no_grad():
        inner = valid(image[:, :, low:high, low:high, low:high])
        start = origin + (size - inner.shape[2]) // 2
        end = start + inner.shape[2]
        whole = same(image)
    torch.testing.assert_close(inner, whole[:, :, start:end, start:end, start:end])


@st.composite
def regions(draw):
    pooling = draw(st.sampled_from(POOLINGS))
    strides = UNet3D(1, 2, 1, pooling).total_stride
    size = [s * draw(st.integers(1, -(-16 // s))) for s in strides]
    region = []
    for n in size:
        low = draw(st.integers(0, n - 1))
        region.append((low, draw(st.integers(low + 1, n))))
    return pooling, size, tuple(region)


def crop(x, region):
    z, y, x_ = (slice(low, high) for low, high in region)
    return x[:, :, z, y, x_]


@settings(max_examples=25)
@given(case=regions(), shortcut=st.sampled_from([0, 3]))
def test_logits_of_a_region_are_those_of_the_whole(case, shortcut, randomize):
    pooling, size, region = case
    network = randomize(UNet3D(2, 3, 2, pooling, shortcut=shortcut))
    image = numbers(2, 2, *size)
    with torch.no_grad():
        part, whole = network(image, region), network(image)
    assert whole.shape == (2, 3, *size)
    torch.testing.assert_close(part, crop(whole, region), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_a_loss_on_a_region_are_those_of_the_whole(pooling, randomize):
    network = randomize(UNet3D(1, 2, 2, pooling)).double()
    image = numbers(2, 1, 12, 12, 12).double()
    region = ((5, 8), (0, 7), (3, 12))
    gradients = []
    for logits in (network(image, region), crop(network(image), region)):
        network.zero_grad()
        logits.square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    torch.testing.assert_close(*gradients)


@settings(max_examples=15)
@given(case=regions(), shortcut=st.sampled_from([0, 3]), seed=st.integers(0, 99))
def test_logits_of_chosen_voxels_are_those_of_the_whole(
    case, shortcut, seed, randomize
):
    pooling, size, region = case
    network = randomize(UNet3D(2, 3, 2, pooling, shortcut=shortcut))
    image = numbers(2, 2, *size)
    with torch.no_grad():
        part = crop(network(image), region)
        chosen = numbers(2, *part.shape[2:], seed=seed) > 0.5
        found = network(image, region, chosen)
    assert found.shape == (1, 3, 1, 1, int(chosen.sum()))
    expected = part.movedim(1, -1)[chosen].T.view_as(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_unpadded_convolutions_give_chosen_voxels_too(randomize):
    network = randomize(UNet3D(1, 2, 2, ((2, 2, 2),), "valid", shortcut=3))
    image = numbers(2, 1, *[valid_size(24, [2])] * 3)
    with torch.no_grad():
        whole = network(image)
        chosen = torch.zeros(2, *whole.shape[2:], dtype=torch.bool)
        chosen[1, 2, 3:5, 1] = True
        found = network(image, None, chosen)
    torch.testing.assert_close(found[0, :, 0, 0], whole[1, :, 2, 3:5, 1])


class PlainNorm(nn.Module):
    """A frozen batch normalisation, written out."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.mean, self.variance, self.eps = (
            norm.running_mean,
            norm.running_var,
            norm.eps,
        )

    def forward(self, x):
        shape = (-1, 1, 1, 1)
        scale = self.weight / torch.sqrt(self.variance + self.eps)
        return (x - self.mean.view(shape)) * scale.view(shape) + self.bias.view(shape)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_step_with_frozen_statistics_has_the_gradients_of_a_dense_one(
    pooling, randomize
):
    network = randomize(UNet3D(1, 3, 2, pooling, shortcut=3)).double()
    dense = copy.deepcopy(network)
    for module in list(dense.modules()):
        if isinstance(module, Convolution):
            module.norm = PlainNorm(module.norm)
    image = numbers(2, 1, 12, 12, 12).double()
    region = ((4, 9), (0, 12), (0, 12))
    chosen = torch.zeros(2, 5, 12, 12, dtype=torch.bool)
    chosen[:, 2] = True
    target = torch.randint(0, 3, (int(chosen.sum()),))
    few = network(image, region, chosen)[0, :, 0, 0].T
    many = crop(dense(image), region).movedim(1, -1)[chosen]
    torch.testing.assert_close(few, many)
    for logits in (few, many):
        functional.cross_entropy(logits, target).backward()
    found = dict(network.named_parameters())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(found[name].grad, parameter.grad, msg=name)


@given(case=regions())
def test_what_is_cut_out_is_a_plain_crop(case):
    _, size, box = case
    results = []
    for take in (cut, crop):
        x = numbers(1, 2, *size).requires_grad_()
        part = take(x, box)
        (part * numbers(*part.shape, seed=5)).sum().backward()
        results.append([part, x.grad])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (3, 1, 2)])
def test_up_convolution_is_the_transposed_convolution(stride):
    up = UpConvolution(3, stride)
    nn.init.normal_(up.weight)
    x = numbers(2, 3, 4, 3, 2)
    expected = functional.conv_transpose3d(x, up.weight, stride=stride)
    torch.testing.assert_close(up(x), expected)


@given(
    low=st.tuples(*[st.integers(0, 1)] * 3), high=st.tuples(*[st.integers(0, 1)] * 3)
)
def test_convolution_pads_each_end_as_told(low, high):
    convolution = Convolution(1, 2, "none")
    x = numbers(1, 1, 4, 5, 6)
    padded = functional.pad(x, (low[2], high[2], low[1], high[1], low[0], high[0]))
    expected = convolution.conv(padded).relu()
    found = convolution(x, list(zip(low, high, strict=True)))
    torch.testing.assert_close(found, expected)


def test_a_box_grows_up_to_the_border():
    assert grow(((1, 2), (4, 6), (0, 9)), 2, (9, 7, 9)) == ((0, 4), (2, 7), (0, 9))
