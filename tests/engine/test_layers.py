from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from napari_unet3d.engine.layers import pointwise


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
