from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet3d.engine import EngineError, normalize
from napari_unet3d.engine.normalize import IntensityStatistics, as_channels_first


class Lazy:
    """An array that is not one, as zarr's and dask's are."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key):
        return self._array[key]


@pytest.fixture
def image():
    noise = np.random.default_rng(0).normal(size=(2, 12, 13, 14))
    return 50 + noise * np.array([2, 30]).reshape(2, 1, 1, 1)


def test_every_channel_gets_mean_zero_and_deviation_one(image):
    normalized = IntensityStatistics.from_image(image).apply(image)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean(axis=(1, 2, 3)), 0, atol=0.02)
    np.testing.assert_allclose(normalized.std(axis=(1, 2, 3)), 1, atol=0.1)


def test_a_few_hot_voxels_change_nothing_much(image):
    hot = image.copy()
    hot[:, 3, 4, 5] = 1e6
    cold, warm = map(IntensityStatistics.from_image, (image, hot))
    np.testing.assert_allclose(warm.mean, cold.mean, rtol=0.01)
    np.testing.assert_allclose(warm.deviation, cold.deviation, rtol=0.02)


@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
def test_gain_and_offset_of_the_camera_do_not_matter(gain, offset):
    image = np.random.default_rng(0).normal(size=(1, 6, 7, 8))
    plain, changed = (
        IntensityStatistics.from_image(values).apply(values)
        for values in (image, gain * image + offset)
    )
    np.testing.assert_allclose(changed, plain, atol=1e-2)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", ">u2", "int32", "uint64", "float16", ">f8"]
)
def test_every_kind_of_number_can_be_normalized(dtype, image):
    values = (image > 50) if dtype == "bool" else image.clip(0, 255)
    values = values.astype(dtype)
    normalized = IntensityStatistics.from_image(values).apply(values)
    assert normalized.dtype == np.dtype("=f4")
    assert np.isfinite(normalized).all()
    assert np.ptp(normalized) > 1


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"),
    [
        ("float64", 1e9, 1),
        ("float64", 0, 1e-50),
        ("float64", 0, 1e50),
        (">f8", -1e9, 1),
        ("uint32", 3_000_000_000, 50),
        ("int32", -2_000_000_000, 50),
        ("int64", 2**40, 1000),
    ],
)
def test_nothing_is_lost_beside_a_large_offset(dtype, offset, scale):
    noise = np.random.default_rng(0).normal(size=(1, 8, 9, 10)) * scale
    if np.dtype(dtype).kind != "f":
        noise, offset = noise.round().astype(np.int64), int(offset)
    values = (noise + offset).astype(dtype)
    found = IntensityStatistics.from_image(values).apply(values)
    assert found.dtype == np.float32
    assert 0.9 < found.std() < 1.2
    assert np.corrcoef(found.ravel(), noise.ravel())[0, 1] > 0.99999


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">u2", "float16", "float32"])
def test_short_numbers_are_normalized_in_single_precision(dtype, image):
    values = image.clip(0, 255).astype(dtype)
    statistics = IntensityStatistics.from_image(values)
    mean, deviation = (
        np.array(figures, np.float32).reshape(2, 1, 1, 1)
        for figures in (statistics.mean, statistics.deviation)
    )
    expected = (values.astype(np.float32) - mean) / deviation
    np.testing.assert_array_equal(statistics.apply(values), expected)


def test_a_value_too_large_for_the_result_is_infinite(image):
    image[0, 1, 2, 3] = 1e300
    normalized = IntensityStatistics.from_image(image).apply(image)
    assert np.isinf(normalized).sum() == 1


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_numbers_that_cannot_be_squared_are_refused(scale, image):
    with pytest.raises(
        EngineError, match=r"channel 0 .* multiply or divide them first"
    ):
        IntensityStatistics.from_image((image - 50) * scale)


def test_an_image_that_is_nearly_everywhere_the_same_is_no_constant():
    image = np.zeros((1, 20, 20, 20))
    image[0, 3, 4, :5] = 1
    statistics = IntensityStatistics.from_image(image)
    assert statistics.deviation[0] > 0
    assert np.isfinite(statistics.apply(image)).all()


def test_a_constant_channel_is_refused_by_its_number(image):
    image[1] = 7
    with pytest.raises(EngineError, match=r"channel 1 .* same value 7 everywhere"):
        IntensityStatistics.from_image(image)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_refused_by_their_slice(value, image):
    image[1, 5, 2, 3:5] = value
    with pytest.raises(EngineError, match=r"slice 5 .* 2 values .* by NaN"):
        IntensityStatistics.from_image(image)


@given(
    hnp.arrays(np.bool_, (2, 3, 4, 5)).filter(lambda missing: not missing[:, 1:].any())
)
def test_nan_is_as_if_it_were_not_there(missing):
    image = np.random.default_rng(0).normal(5, 2, missing.shape)
    known = IntensityStatistics.from_image(np.where(missing, np.nan, image))
    for channel in range(2):
        values = image[channel][~missing[channel]].reshape(1, 1, 1, -1)
        alone = IntensityStatistics.from_image(values)
        assert known.mean[channel] == alone.mean[0]
        assert known.deviation[channel] == alone.deviation[0]
    normalized = known.apply(np.where(missing, np.nan, image))
    np.testing.assert_array_equal(normalized[missing], 0)
    np.testing.assert_array_equal(normalized[~missing], known.apply(image)[~missing])


def test_a_channel_without_data_is_refused(image):
    image = image.astype(float)
    image[1] = np.nan
    with pytest.raises(EngineError, match="channel 1 of the image is NaN everywhere"):
        IntensityStatistics.from_image(image)


def test_large_volumes_are_sampled_always_the_same(image, monkeypatch):
    monkeypatch.setattr(normalize, "WHOLE_VOXELS", 500)
    monkeypatch.setattr(normalize, "SAMPLE_EDGE", 3)
    first, again = (IntensityStatistics.from_image(image) for _ in range(2))
    assert first == again
    monkeypatch.undo()
    whole = IntensityStatistics.from_image(image)
    np.testing.assert_allclose(first.mean, whole.mean, rtol=0.1)
    np.testing.assert_allclose(first.deviation, whole.deviation, rtol=0.1)


@pytest.fixture
def few_boxes(monkeypatch):
    """Sample two boxes of the slices 10 and 30 of 40."""
    monkeypatch.setattr(normalize, "WHOLE_VOXELS", 10)
    monkeypatch.setattr(normalize, "SAMPLE_EDGE", 2)
    monkeypatch.setattr(normalize, "SAMPLE_SLICES", 2)
    monkeypatch.setattr(normalize, "SAMPLE_BOXES", 2)


@pytest.mark.parametrize("background", [0.0, np.nan])
def test_a_few_slices_of_a_large_volume_are_found(background, few_boxes):
    image = np.full((2, 40, 2, 4), background)
    image[:, 20:22] = np.random.default_rng(0).normal(5, 2, (2, 2, 2, 4))
    alone = IntensityStatistics.from_image(image[:, 20:22])
    assert IntensityStatistics.from_image(image) == alone


def test_no_more_of_a_large_volume_is_kept_than_of_others(few_boxes):
    image = np.random.default_rng(0).normal(size=(1, 40, 2, 4))
    image[:, [10, 30]] = 3
    values = normalize._sample(image, 0)
    assert values.size == 2 * 2 * 2 * 2
    np.testing.assert_array_equal(values, normalize._sample(image, 0))
    assert (values != 3).all()


@pytest.mark.parametrize(
    ("value", "message"), [(7, "has the same value 7"), (np.nan, "is NaN")]
)
def test_a_large_volume_without_anything_is_refused(value, message, few_boxes):
    with pytest.raises(EngineError, match=f"channel 0 .* {message} wherever it was"):
        IntensityStatistics.from_image(np.full((1, 40, 2, 4), value))


def test_a_volume_gets_a_channel_axis(image):
    assert as_channels_first(image) is image
    assert as_channels_first(image[0]).shape == (1, 12, 13, 14)
    assert as_channels_first(image[0].tolist()).shape == (1, 12, 13, 14)


@pytest.mark.parametrize(
    "key", [slice(0, 1), (slice(None), slice(2, 4), 3), (0, 1), (slice(1), ..., 2)]
)
def test_a_lazy_volume_reads_like_one_with_a_channel_axis(key, image):
    lazy = as_channels_first(Lazy(image[0]))
    assert lazy.shape == (1, 12, 13, 14)
    assert lazy.ndim == 4
    assert lazy.dtype == image.dtype
    np.testing.assert_array_equal(lazy[key], image[:1][key])
    assert as_channels_first(Lazy(image)).shape == image.shape


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5)), r"2 axes of shape \(4, 5\)"),
        (np.zeros((2, 3, 4, 5, 6)), "5 axes"),
        (np.zeros((3, 0, 5)), r"empty, its shape is \(3, 0, 5\)"),
        (np.zeros((3, 4, 5), complex), "real numbers, got complex128"),
        (np.full((3, 4, 5), "a"), "real numbers, got <U1"),
    ],
)
def test_what_is_no_volume_is_refused(image, message):
    with pytest.raises(EngineError, match=message):
        as_channels_first(image)
