from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from napari_unet3d.engine import interpolation
from napari_unet3d.engine.interpolation import interpolated


@settings(max_examples=30)
@given(
    size=st.tuples(*[st.integers(1, 6)] * 3),
    channels=st.integers(1, 3),
    seed=st.integers(0, 100),
)
@pytest.mark.parametrize("device", ["cpu", "other"])
def test_interpolation_is_that_of_grid_sample(size, channels, seed, device):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((channels, *size), generator=generator)
    values = values.movedim(0, -1).contiguous().movedim(-1, 0)
    last = torch.tensor(size).view(3, 1, 1, 1) - 1
    positions = torch.rand((3, 4, 2, 3), generator=generator) * (last + 2) - 1
    grid = 2 * positions / last.clamp_min(1) - 1
    expected = functional.grid_sample(
        values[None], grid.flip(0).movedim(0, -1)[None], "bilinear", "border", True
    )[0]
    with mock.patch.object(
        interpolation, "AS_TABLE", ("cpu",) if device == "cpu" else ()
    ):
        found = interpolated(values, positions)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.movedim(0, -1).is_contiguous()
