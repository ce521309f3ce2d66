from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet3d.engine import EngineError, volume
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.volume import FeatureVolume

SHAPE = (9, 20, 31)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volume, "BLOCK", 16)
        yield


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(100, 5, (2, *SHAPE))


@pytest.fixture(scope="module")
def features(image):
    stem = FilterStem(2, (1, 2), (2, 1, 1))
    return FeatureVolume(image, IntensityStatistics.from_image(image), stem)


@pytest.fixture(scope="module")
def plain(image):
    return FeatureVolume(
        image, IntensityStatistics.from_image(image), FilterStem(2, ())
    )


BOXES = st.tuples(
    st.tuples(*[st.integers(-40, n + 40) for n in SHAPE]),
    st.tuples(*[st.integers(1, 20)] * 3),
)


@given(box=BOXES)
def test_a_box_is_read_as_if_the_border_went_on(box, image, plain):
    low, size = box
    found = plain.read(low, size).numpy()
    index = np.ix_(
        range(2),
        *[
            np.clip(np.arange(a, a + s), 0, n - 1)
            for a, s, n in zip(low, size, SHAPE, strict=True)
        ],
    )
    expected = plain.statistics.apply(image)[index]
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=20)
@given(box=BOXES)
def test_features_of_a_box_do_not_depend_on_the_box(box, features):
    low, size = box
    found = features.compute(low, size)
    # The same from a box that is larger on every side.
    around = features.compute([a - 3 for a in low], [s + 5 for s in size])
    inner = around[:, 3 : 3 + size[0], 3 : 3 + size[1], 3 : 3 + size[2]]
    assert found.shape == (features.stem.out_channels, *size)
    torch.testing.assert_close(found, inner, rtol=0, atol=1e-4)


@settings(max_examples=20)
@given(box=BOXES)
def test_kept_blocks_give_what_is_computed(box, features):
    torch.testing.assert_close(
        features.crop(*box), features.compute(*box), rtol=1e-3, atol=1e-2
    )


def test_what_is_cropped_can_be_changed(features):
    before = features.crop((0, 0, 0), (4, 4, 4))
    features.crop((0, 0, 0), (4, 4, 4)).zero_()
    assert torch.equal(features.crop((0, 0, 0), (4, 4, 4)), before)


def test_blocks_are_kept_until_there_are_too_many(features, monkeypatch):
    monkeypatch.setattr(volume, "CACHE_BYTES", 1)
    monkeypatch.setattr(volume, "BLOCK", 4)
    image = np.zeros((2, 8, 8, 32), np.float32)
    fresh = FeatureVolume(image, features.statistics, features.stem)
    computed = []
    compute = fresh.compute
    fresh.compute = lambda low, size: computed.append(low) or compute(low, size)
    fresh.crop((0, 0, 0), (4, 4, 32))
    fresh.crop((0, 0, 0), (4, 4, 32))
    assert len(computed) == 8
    fresh.crop((4, 0, 0), (4, 4, 4))
    fresh.crop((0, 0, 4), (4, 4, 28))
    assert len(computed) == 9
    fresh.crop((0, 0, 0), (4, 4, 4))
    assert len(computed) == 10


@pytest.mark.parametrize(("size", "edges"), [(64, 64), (65, 33), (100, 50), (5, 5)])
def test_blocks_share_a_volume_out_evenly(size, edges, features, monkeypatch):
    monkeypatch.setattr(volume, "BLOCK", 64)
    image = np.zeros((2, 5, 6, size), np.float32)
    fresh = FeatureVolume(image, features.statistics, features.stem)
    sizes = []
    compute = fresh.compute
    fresh.compute = lambda low, size: sizes.append(size[2]) or compute(low, size)
    fresh.crop((0, 0, 0), (5, 6, size))
    assert sizes == [edges] * -(-size // edges)


def test_specks_too_bright_for_half_precision_stay_finite(image):
    image = image.copy()
    image[:, 4, 5, 6] = 1e9
    statistics = IntensityStatistics.from_image(image)
    features = FeatureVolume(image, statistics, FilterStem(2, (1,)))
    assert features.compute((0, 0, 0), SHAPE).max() > 1e6
    assert torch.isfinite(features.crop((0, 0, 0), SHAPE)).all()


def test_values_that_the_statistics_did_not_see_must_be_finite_too(image, plain):
    image = image.copy()
    image[1, 6, 5, 4] = np.inf
    features = FeatureVolume(image, plain.statistics, plain.stem)
    features.read((0, 0, 0), (6, 20, 31))
    with pytest.raises(EngineError, match="slice 6 of the image has 1 values"):
        features.read((3, 0, 0), (6, 20, 31))


def test_features_are_where_the_stem_is(plain):
    assert plain.device == torch.device("cpu")
    assert plain.shape == SHAPE


def test_volumes_share_the_memory_for_blocks(features, monkeypatch):
    monkeypatch.setattr(volume, "BLOCK", 4)
    image = np.zeros((2, 4, 4, 80), np.float32)
    block = 4**3 * features.stem.out_channels * 2
    monkeypatch.setattr(volume, "CACHE_BYTES", 20 * block)
    for sharing, kept in ((1, 20), (2, 10), (5, 8)):
        fresh = FeatureVolume(image, features.statistics, features.stem, sharing)
        fresh.crop((0, 0, 0), (4, 4, 80))
        assert len(fresh._blocks) == kept
