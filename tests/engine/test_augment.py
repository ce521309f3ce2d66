from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet3d.engine import Annotation, AugmentationConfig
from napari_unet3d.engine.augment import (
    Variation,
    sample_patch,
    vary_grey_values,
)
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.validation import UNVARIED
from napari_unet3d.engine.volume import FeatureVolume
from napari_unet3d.engine.warp import Warp, cubic_b_spline

SPACINGS = ((1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (1.0, 3.0, 1.0))
GEOMETRY = replace(UNVARIED, warp_probability=1, flip=(True, True, True))
RIGID = replace(GEOMETRY, elastic_sd=0, scaling=0)


def rng(seed=0):
    return np.random.default_rng(seed)


def volume_of(image, spacing=(1.0, 1.0, 1.0), scales=()):
    image = np.asarray(image, np.float32)[None]
    plain = IntensityStatistics((0.0,), (1.0,))
    return FeatureVolume(image, plain, FilterStem(1, scales, spacing))


@given(position=st.floats(0, 9), more=st.integers(0, 5))
def test_weights_of_the_spline_sum_to_one(position, more):
    (weights,) = cubic_b_spline(np.array([position]), int(position) + 4 + more)
    assert weights.sum() == pytest.approx(1)
    assert np.all(weights >= 0)
    assert np.count_nonzero(weights > 1e-12) <= 4


def test_the_spline_reproduces_a_line():
    weights = cubic_b_spline(np.linspace(0, 5, 21), 9)
    np.testing.assert_allclose(weights @ (np.arange(9) - 1), np.linspace(0, 5, 21))


def test_the_spline_is_smooth():
    values = cubic_b_spline(np.linspace(0, 3, 301), 7) @ rng().normal(size=7)
    assert abs(np.diff(values, 2)).max() < 1e-3


SIZES = st.tuples(*[st.integers(1, 40)] * 3)


def positions_of(warp, size, centre, spacing):
    return warp.positions(size, centre, spacing).numpy().astype(float)


@given(size=SIZES, spacing=st.sampled_from(SPACINGS), seed=st.integers(0, 100))
def test_a_warp_of_no_strength_moves_nothing(size, spacing, seed):
    still = replace(RIGID, rotation=0)
    warp = Warp.draw(rng(seed), still, size, spacing)
    centre = [n // 2 for n in size]
    expected = np.indices(size) - np.reshape(centre, (3, 1, 1, 1))
    np.testing.assert_allclose(
        positions_of(warp, size, centre, spacing), expected, atol=1e-5
    )


@given(size=SIZES, spacing=st.sampled_from(SPACINGS), seed=st.integers(0, 100))
def test_the_centre_stays_where_it_is(size, spacing, seed):
    warp = Warp.draw(rng(seed), AugmentationConfig(), size, spacing)
    centre = tuple(n // 3 for n in size)
    positions = positions_of(warp, size, centre, spacing)
    np.testing.assert_allclose(positions[(slice(None), *centre)], 0, atol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_rotation_keeps_physical_distances(spacing):
    warp = Warp.draw(rng(3), replace(RIGID, rotation=90), (5, 6, 7), spacing)
    ratio = np.reshape(spacing, (3, 1, 1, 1)) / min(spacing)
    moved = positions_of(warp, (5, 6, 7), (2, 2, 2), spacing) * ratio
    still = (np.indices((5, 6, 7)) - 2) * ratio
    np.testing.assert_allclose((moved**2).sum(0), (still**2).sum(0), atol=1e-4)
    assert abs(moved - still).max() > 0.5


def test_scaling_changes_lengths_by_no_more_than_told():
    config = replace(RIGID, rotation=0, scaling=0.25)
    for seed in range(50):
        warp = Warp.draw(rng(seed), config, (9, 9, 9), (1, 1, 1))
        positions = positions_of(warp, (9, 9, 9), (0, 0, 0), (1, 1, 1))
        length = positions[[0, 1, 2], [8, 0, 0], [0, 8, 0], [0, 0, 8]] / 8
        assert np.all((length > 1 / 1.25 - 1e-6) & (length < 1.25 + 1e-6))


def test_elastic_displacement_has_the_papers_size():
    config = replace(RIGID, rotation=0, elastic_sd=4)
    size, corner, spacing = (64, 64, 1), (0, 0, 0), (1, 1, 1)
    still = np.indices(size)
    moves = [
        (
            positions_of(
                Warp.draw(rng(seed), config, size, spacing), size, corner, spacing
            )
            - still
        )[:, ::16, ::16]
        for seed in range(200)
    ]
    deviation = np.std(moves, axis=0)[:, 2:, 2:]
    # The spline averages coefficients, and the displacement of the centre is
    # subtracted: less than 4 a coefficient, more than nothing.
    assert 1.5 < deviation.mean() < 4


@pytest.fixture(scope="module")
def labels():
    """Return labels of smooth shapes, everywhere."""
    z, y, x = np.indices((30, 40, 50))
    labels = np.ones((30, 40, 50), np.uint8)
    distance = (y - 20) ** 2 + (x - 25) ** 2 + 2 * (z - 14) ** 2
    # One class inside the other: never is 2 a mixture of 1 and 3.
    labels[distance < 200] = 2
    labels[distance < 50] = 3
    return labels


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("config", [GEOMETRY, RIGID, replace(GEOMETRY, rotation=180)])
def test_image_and_labels_stay_aligned(spacing, config, labels):
    volume, annotation = volume_of(labels, spacing), Annotation.from_labels(labels)
    compared = 0
    for seed in range(5):
        features, found, _ = sample_patch(
            volume,
            annotation,
            (14, 20, 25),
            (16, 24, 24),
            (8, 12, 12),
            config,
            rng(seed),
        )
        image = features[0]
        # Between two classes the image is interpolated, the labels are not.
        sure = (image - image.round()).abs() < 1e-3
        sure &= found > 0
        compared += int(sure.sum())
        assert torch.equal(image.round()[sure], found[sure].float())
        assert len(found[sure].unique()) > 1
    assert compared > 5 * 16 * 24 * 24 / 4


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    probability=st.sampled_from([0, 1]),
    centre=st.tuples(*[st.integers(0, 7)] * 3),
    move_inside=st.booleans(),
    spacing=st.sampled_from(SPACINGS),
)
def test_the_anchor_lies_where_it_is_said_to(
    seed, probability, centre, move_inside, spacing
):
    shape, size = (9, 17, 6), (8, 8, 8)
    generator = rng(seed)
    anchor = tuple(int(generator.integers(n)) for n in shape)
    labels = np.zeros(shape, np.uint8)
    labels[anchor] = 7
    _, found, position = sample_patch(
        volume_of(labels, spacing),
        Annotation.from_labels(labels),
        anchor,
        size,
        centre,
        replace(GEOMETRY, warp_probability=probability),
        generator,
        move_inside,
    )
    assert found[position] == 7
    if not move_inside:
        assert all(p in (c, 7 - c) for p, c in zip(position, centre, strict=True))


def test_an_unvaried_patch_is_that_part_of_the_volume(labels):
    volume, annotation = volume_of(labels), Annotation.from_labels(labels)
    features, found, position = sample_patch(
        volume, annotation, (14, 20, 25), (4, 6, 8), (1, 2, 3), UNVARIED, rng()
    )
    box = (slice(13, 17), slice(18, 24), slice(22, 30))
    np.testing.assert_array_equal(features[0], labels[box])
    np.testing.assert_array_equal(found, labels[box])
    assert position == (1, 2, 3)


@pytest.mark.parametrize("probability", [0, 1])
def test_patches_are_moved_into_the_volume(probability, labels):
    config = replace(RIGID, rotation=0, warp_probability=probability, flip=(False,) * 3)
    volume, annotation = volume_of(labels), Annotation.from_labels(labels)
    _, found, position = sample_patch(
        volume, annotation, (0, 39, 2), (4, 6, 8), (2, 2, 7), config, rng()
    )
    np.testing.assert_array_equal(found, labels[:4, 34:, :8])
    assert position == (0, 5, 2)


@pytest.mark.parametrize("probability", [0, 1])
def test_what_lies_outside_the_volume_is_not_labelled(probability):
    image = rng().normal(size=(5, 6, 7))
    annotation = Annotation.from_labels(np.full((5, 6, 7), 2))
    config = replace(RIGID, rotation=0, warp_probability=probability, flip=(False,) * 3)
    features, found, position = sample_patch(
        volume_of(image), annotation, (2, 3, 4), (12, 12, 12), (2, 3, 4), config, rng()
    )
    expected = torch.zeros(12, 12, 12, dtype=torch.uint8)
    expected[:5, :6, :7] = 2
    assert torch.equal(found, expected)
    assert position == (2, 3, 4)
    # The image goes on as it ends.
    np.testing.assert_allclose(features[0, 5:, 0, 0], image[4, 0, 0], atol=1e-5)


@pytest.mark.parametrize("flipped", [0, 1, 2])
def test_flips_mirror_image_and_labels(flipped):
    labels = rng().integers(1, 9, (30, 40, 50))
    flip = tuple(axis == flipped for axis in range(3))
    volume, annotation = volume_of(labels), Annotation.from_labels(labels)
    arguments = (volume, annotation, (14, 20, 30), (4, 6, 8), (1, 2, 3))
    plain = sample_patch(*arguments, UNVARIED, rng())[1]
    seen = set()
    for seed in range(10):
        features, found, _ = sample_patch(
            *arguments, replace(UNVARIED, flip=flip), rng(seed)
        )
        assert torch.equal(features[0], found.float())
        mirrored = torch.equal(found, plain.flip(flipped))
        assert mirrored or torch.equal(found, plain)
        seen.add(mirrored)
    assert seen == {True, False}


@pytest.mark.parametrize("normal", [0, 1, 2])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_slice_one_voxel_thin_survives(normal, spacing):
    shape = (40, 40, 40)
    labels = np.zeros(shape, np.uint8)
    index = [slice(None)] * 3
    index[normal] = 20
    labels[tuple(index)] = 1
    volume, annotation = volume_of(labels, spacing), Annotation.from_labels(labels)
    size = tuple(16 if axis == normal else 24 for axis in range(3))
    centre = tuple(n // 2 for n in size)
    counts = [
        int(
            sample_patch(
                volume, annotation, (20, 20, 20), size, centre, GEOMETRY, rng(seed)
            )[1].count_nonzero()
        )
        for seed in range(12)
    ]
    assert np.mean(counts) == pytest.approx(24 * 24, rel=0.3)
    assert min(counts) > 0.4 * 24 * 24


def test_the_same_seed_makes_the_same_patch(labels):
    volume, annotation = volume_of(labels), Annotation.from_labels(labels)
    config = AugmentationConfig(warp_probability=1)
    arguments = (volume, annotation, (14, 20, 25), (8, 8, 8), (4, 4, 4), config)
    first, again, other = (sample_patch(*arguments, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[2] == again[2]
    assert not torch.equal(first[0], other[0])


def test_a_share_of_the_patches_is_warped(labels):
    volume, annotation = volume_of(labels), Annotation.from_labels(labels)
    config = replace(UNVARIED, warp_probability=0.3)
    arguments = (volume, annotation, (14, 20, 25), (8, 8, 8), (4, 4, 4), config)
    plain = labels[10:18, 16:24, 21:29]
    warped = [
        not np.array_equal(sample_patch(*arguments, rng(seed))[0][0], plain)
        for seed in range(200)
    ]
    assert np.mean(warped) == pytest.approx(0.3, abs=0.1)


@pytest.fixture
def filtered():
    image = rng().normal(size=(12, 14, 16)).cumsum(0)
    volume = volume_of(image, scales=(1,))
    volume.stem.fit([volume.read((0, 0, 0), (12, 14, 16))])
    return volume


def variation(seed=0, **strength):
    config = replace(UNVARIED, **strength)
    return Variation.draw(rng(seed), config, (4, 5, 6), (1.0, 1.0, 1.0))


def varied(volume, seed=0, **strength):
    features = volume.compute((4, 4, 4), (4, 5, 6))
    vary_grey_values(features, volume.stem, variation(seed, **strength))
    return features


def test_grey_values_without_strength_stay(filtered):
    assert torch.equal(varied(filtered), filtered.compute((4, 4, 4), (4, 5, 6)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strength", [{"contrast": 0.4}, {"brightness": 0.7}])
def test_responses_vary_as_those_of_a_varied_image(strength, seed, filtered):
    drawn = variation(seed, **strength)
    assert (drawn.contrast != 1) == ("contrast" in strength)
    assert (drawn.brightness != 0) == ("brightness" in strength)
    image = filtered.image[0] * drawn.contrast + drawn.brightness
    other = volume_of(image, scales=(1,))
    other.stem.load_state_dict(filtered.stem.state_dict())
    torch.testing.assert_close(
        varied(filtered, seed, **strength),
        other.compute((4, 4, 4), (4, 5, 6)),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("strength", [{"gamma": 0.5}, {"noise": 0.5}])
def test_curve_and_noise_change_the_image_alone(strength, filtered):
    plain, changed = varied(filtered), varied(filtered, **strength)
    assert torch.equal(changed[1:], plain[1:])
    assert 0.001 < (changed[0] - plain[0]).abs().mean() < 0.5


def test_the_grey_value_curve_is_monotone_and_keeps_the_mean():
    volume = volume_of(np.linspace(-4, 4, 9).reshape(1, 1, 9))
    for seed in range(20):
        features = volume.compute((0, 0, 0), (1, 1, 9))
        vary_grey_values(features, volume.stem, variation(seed, gamma=0.99))
        values = features.flatten()
        assert torch.all(values.diff() > 0)
        assert values[4] == 0
