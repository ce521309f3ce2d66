from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from napari_unet3d.engine.layers import Convolution, pointwise


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("outputs", [2, 128, 129, 200, 254])
@pytest.mark.parametrize("space", [(5, 32, 40), (1, 1, 300)])
def test_a_pointwise_convolution_of_many_classes(outputs, space, one_thread):
    """torch's own gave NaN for 200 outputs of such patches, with one thread."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, *space, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    weight = torch.randn(outputs, 24, 1, 1, 1, generator=generator, requires_grad=True)
    bias = torch.randn(outputs, generator=generator, requires_grad=True)
    gradient = torch.randn(2, outputs, *space, generator=generator)
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            if dtype == torch.bfloat16:
                out = pointwise(x, weight, bias)
            else:
                out = functional.conv3d(x, weight, bias)
        gradients = torch.autograd.grad(out, (x, weight, bias), gradient.to(out.dtype))
        found[dtype] = [out.detach().float(), *(g.float() for g in gradients)]
    for short, exact in zip(*found.values(), strict=True):
        assert short.shape == exact.shape
        assert (short - exact).abs().max() < 0.05 * exact.abs().max()


def leave_large_numbers_in_memory():
    sizes = [4**k for k in range(3, 10) for _ in range(6)]
    return [torch.full((size,), 1e30)[0] for size in sizes]


@pytest.mark.parametrize("channels", [(2, 4), (8, 16), (64, 8)])
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_short_numbers_of_few_slices_have_the_same_gradients(
    slices, channels, one_thread
):
    """Of two slices torch's weights had gradients of any size, of one also results."""
    torch.manual_seed(0)
    convolution = Convolution(*channels, "none")
    x = torch.randn(2, channels[0], slices, 12, 12).requires_grad_()
    gradient = torch.randn(2, channels[1], slices, 12, 12)
    found = []
    for short in (True, False):
        leave_large_numbers_in_memory()
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            out = convolution(x, ((1, 1),) * 3)
        parameters = list(convolution.parameters())
        gradients = torch.autograd.grad(out, parameters, gradient.to(out.dtype))
        found.append([out.detach().float(), *gradients])
    for short, exact in zip(*found, strict=True):
        # The ReLU is at its other side for some voxels.
        assert (short - exact).norm() < 0.25 * exact.norm()
