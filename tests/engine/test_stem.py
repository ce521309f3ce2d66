from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_unet3d.engine.eigenvalues import symmetric_eigenvalues
from napari_unet3d.engine.stem import FilterStem, _portions

SPACINGS = ((1, 1, 1), (2.2, 1, 1), (5, 1, 1), (1, 3, 1))


def with_margin(stem, function, shape=(3, 4, 5)):
    """Sample a function of z, y, x in physical units, the stem's margin included."""
    axes = [
        ratio * torch.arange(-m, n + m, dtype=torch.float32)
        for n, m, ratio in zip(shape, stem.margin, stem.ratio, strict=True)
    ]
    return function(*torch.meshgrid(*axes, indexing="ij"))[None].float()


@pytest.mark.parametrize(
    ("channels", "scales", "expected"),
    [(1, (), 1), (1, (1,), 6), (2, (1, 2, 4), 32)],
)
def test_channels(channels, scales, expected):
    stem = FilterStem(channels, scales)
    image = torch.zeros(channels, *(1 + 2 * m for m in stem.margin))
    assert stem.out_channels == expected
    assert stem(image).shape == (expected, 1, 1, 1)


def test_margin_is_that_of_the_largest_scale_in_voxels():
    assert FilterStem(1, ()).margin == (0, 0, 0)
    assert FilterStem(1, (1, 2)).margin == (7, 7, 7)
    assert FilterStem(1, (1, 2), (4, 1, 2)).margin == (3, 7, 4)
    # Along an axis that is this coarse the Gaussian would be narrower than a voxel.
    assert FilterStem(1, (1,), (10, 1, 1)).margin == (1, 4, 4)


def test_without_scales_the_image_is_left_as_it_is():
    image = torch.randn(2, 3, 4, 5)
    assert torch.equal(FilterStem(2, ())(image), image)


@pytest.mark.parametrize("spacing", SPACINGS)
@settings(max_examples=10)
@given(data=st.data())
def test_responses_of_a_part_are_those_of_the_whole(spacing, data):
    stem = FilterStem(2, (0.7, 1.5), spacing)
    shape = (5, 6, 7)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(
        2,
        *(n + 2 * m for n, m in zip(shape, stem.margin, strict=True)),
        generator=generator,
    )
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    around = tuple(
        slice(a, b + 2 * m) for a, b, m in zip(low, high, stem.margin, strict=True)
    )
    torch.testing.assert_close(
        stem(image[(slice(None), *around)]),
        stem(image)[(slice(None), *box)],
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_constant_image_has_no_edges(spacing):
    stem = FilterStem(1, (1, 2), spacing)
    image, *responses = stem(with_margin(stem, lambda z, y, x: 3 + 0 * z))
    torch.testing.assert_close(image, torch.full_like(image, 3))
    for scale in (responses[:5], responses[5:]):
        torch.testing.assert_close(scale[0], image)
        torch.testing.assert_close(torch.stack(scale[1:]), torch.zeros(4, 3, 4, 5))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("scale", [1, 2])
def test_a_ramp_has_its_slope_whatever_the_voxels(spacing, scale):
    stem = FilterStem(1, (scale,), spacing)
    ramp = with_margin(stem, lambda z, y, x: 2 * z + 3 * y - 6 * x)
    image, smooth, edge, *curved = stem(ramp)
    torch.testing.assert_close(smooth, image, rtol=0, atol=1e-4)
    torch.testing.assert_close(edge, torch.full_like(edge, 7.0 * scale))
    torch.testing.assert_close(
        torch.stack(curved), torch.zeros(3, 3, 4, 5), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_parabola_has_its_curvatures_whatever_the_voxels(spacing):
    stem = FilterStem(1, (2,), spacing)
    image = with_margin(stem, lambda z, y, x: 0.5 * z * z - y * y + x * y)
    # Second derivatives 1, and those of the matrix [[-2, 1], [1, 0]].
    expected = sorted([1, -1 + 2**0.5, -1 - 2**0.5], reverse=True)
    eigenvalues = stem(image)[3:]
    for found, value in zip(eigenvalues, expected, strict=True):
        torch.testing.assert_close(
            found, torch.full_like(found, 4 * value), rtol=0, atol=2e-2
        )


def test_a_bright_sheet_and_a_bright_tube_differ():
    stem = FilterStem(1, (1,))
    sheet = stem(with_margin(stem, lambda z, y, x: torch.exp(-((z - 1) ** 2))))
    tube = stem(
        with_margin(stem, lambda z, y, x: torch.exp(-((z - 1) ** 2) - (y - 1) ** 2))
    )
    across_sheet, across_tube = sheet[3:, 1, 1, 2], tube[3:, 1, 1, 2]
    assert (across_sheet < -0.1).sum() == 1
    assert (across_tube < -0.1).sum() == 2


@given(matrix=arrays(np.float32, (3, 3), elements=st.floats(-1000, 1000, width=32)))
def test_eigenvalues_are_numpys(matrix):
    matrix = matrix + matrix.T
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    found = symmetric_eigenvalues(*(torch.tensor(matrix[pair]) for pair in pairs))
    expected = np.linalg.eigvalsh(matrix.astype(np.float64))[::-1]
    size = max(1, np.abs(matrix).max())
    np.testing.assert_allclose(torch.stack(found), expected, rtol=0, atol=2e-6 * size)


@pytest.mark.parametrize("value", [0, 1, -3])
def test_eigenvalues_that_are_equal(value):
    entries = [torch.full((1,), float(value))] * 3 + [torch.zeros(1)] * 3
    for found in symmetric_eigenvalues(*entries):
        assert found.item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("apart", [0, 1e-7, 1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("third", [-2, 0, 0.5, 5])
def test_eigenvalues_that_are_nearly_equal_keep_their_digits(apart, third):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(200, 3, 3)))[0]
    matrices = (axes * [1, 1 + apart, third]) @ axes.transpose(0, 2, 1)
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    found = symmetric_eigenvalues(
        *(torch.tensor(matrices[:, i, j], dtype=torch.float32) for i, j in pairs)
    )
    expected = sorted([1, 1 + apart, third], reverse=True)
    for values, value in zip(found, expected, strict=True):
        assert (values - value).abs().max() < 2e-6 * max(1, abs(third))


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 300, 300), (40, 3, 2)])
def test_portions_are_all_voxels_once(shape):
    count = np.zeros(shape, int)
    for z, y in _portions(shape, 1000):
        assert (z[1] - z[0]) * (y[1] - y[0]) * shape[2] <= 1000
        count[slice(*z), slice(*y)] += 1
    assert (count == 1).all()


@pytest.fixture
def fitted():
    stem = FilterStem(2, (1, 2), (2, 1, 1))
    generator = torch.Generator().manual_seed(0)
    blocks = [
        torch.randn(2, *(6 + 2 * m for m in stem.margin), generator=generator).cumsum(3)
        for _ in range(3)
    ]
    stem.fit(blocks)
    return stem, blocks


def test_fitting_standardises_every_response(fitted):
    stem, blocks = fitted
    values = torch.cat([stem(block).flatten(1) for block in blocks], dim=1)
    torch.testing.assert_close(
        values.mean(1), torch.zeros(len(values)), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(
        values.std(1), torch.ones(len(values)), rtol=1e-3, atol=0
    )


def test_a_response_that_never_changes_stays_finite():
    stem = FilterStem(1, (1,))
    stem.fit([torch.zeros(1, *(2 + 2 * m for m in stem.margin))] * 2)
    assert torch.isfinite(stem(torch.zeros(1, *(2 + 2 * m for m in stem.margin)))).all()


def test_a_brighter_image_moves_every_output_as_told(fitted):
    stem, (block, *_) = fitted
    moved = stem(block + 1) - stem(block)
    expected = (stem.brightness_response / stem.deviation).view(-1, 1, 1, 1)
    torch.testing.assert_close(moved, expected.expand_as(moved), rtol=0, atol=1e-3)


def test_only_the_statistics_are_saved(fitted):
    assert set(fitted[0].state_dict()) == {"mean", "deviation"}


def test_what_is_flat_where_it_was_fitted_stays_small_elsewhere():
    stem = FilterStem(2, (1, 2))
    generator = torch.Generator().manual_seed(0)
    around = [12 + 2 * m for m in stem.margin]
    block = torch.zeros(2, *around)
    block[0] = torch.randn(around, generator=generator)
    stem.fit([block])
    # As bright as the first channel: ten times larger in its outputs, about.
    block[1] = torch.randn(around, generator=generator)
    outputs = stem(block).view(-1, 2, 12**3)
    assert (outputs[:, 1].std(1) <= 15 * outputs[:, 0].std(1)).all()
