from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.engine import (
    UNLABELLED,
    Annotation,
    AugmentationConfig,
    ModelConfig,
    UNet3D,
)
from napari_unet3d.engine.batches import BatchSource, choose_region
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.patch_plan import PatchPlan
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.validation import UNVARIED
from napari_unet3d.engine.volume import FeatureVolume

POOLING = ((2, 2, 2),)
PLAN = PatchPlan(((8, 16, 16), (16, 8, 16), (16, 16, 8)), 3)


@pytest.fixture
def make_source():
    """Return batches of a volume whose image is its labels, in all voxels."""

    def make(painted, augmentation=UNVARIED, padding="same", shape=(20, 30, 40)):
        dense = np.random.default_rng(0).integers(1, 4, shape)
        labels = np.zeros(shape, np.uint8)
        for index in painted:
            labels[index] = dense[index]
        volume = FeatureVolume(
            dense[None].astype(np.float32),
            IntensityStatistics((0.0,), (1.0,)),
            FilterStem(1, ()),
        )
        model = ModelConfig(pooling=POOLING, padding=padding)
        annotation = Annotation.from_labels(labels)
        return BatchSource([volume], [annotation], augmentation, model)

    return make


def crop(x, region):
    z, y, x_ = (slice(low, high) for low, high in region)
    return x[..., z, y, x_]


PAINTED = {
    0: (5,),
    1: (slice(None), 12),
    2: (slice(None), slice(None), 33),
}


@pytest.mark.parametrize("normal", [0, 1, 2])
def test_target_and_features_belong_together(normal, make_source):
    source = make_source([PAINTED[normal]])
    for seed in range(10):
        batch = source.draw(PLAN, np.random.default_rng(seed))
        assert batch.features.shape == (3, 1, *PLAN.sizes[normal])
        assert batch.features.dtype == torch.float32
        assert batch.target.dtype == torch.int64
        image = crop(batch.features[:, 0], batch.region)
        assert batch.target.shape == image.shape
        labelled = batch.target != UNLABELLED
        assert labelled.flatten(1).any(dim=1).all()
        assert torch.equal(batch.target[labelled] + 1, image[labelled].long())


@pytest.mark.parametrize("normal", [0, 1, 2])
def test_only_a_slab_around_the_annotated_slice_is_evaluated(normal, make_source):
    source = make_source([PAINTED[normal]])
    batch = source.draw(PLAN, np.random.default_rng(0))
    for axis, (low, high) in enumerate(batch.region):
        if axis == normal:
            assert high - low == 5
        else:
            assert (low, high) == (0, 16)


def test_all_labels_of_one_slice_are_in_the_slab(make_source):
    source = make_source([PAINTED[0]])
    batch = source.draw(PLAN, np.random.default_rng(0))
    assert (batch.target != UNLABELLED).sum() == 3 * 16 * 16


def test_a_densely_labelled_patch_is_evaluated_throughout(make_source):
    plan = PatchPlan(((16, 12, 20),) * 3, 1)
    batch = make_source([...]).draw(plan, np.random.default_rng(0))
    assert batch.region == ((0, 16), (0, 12), (0, 20))
    assert (batch.target != UNLABELLED).all()


@pytest.mark.parametrize(
    ("painted", "positions", "expected"),
    [
        ([6], [6, 6], (4, 9)),
        ([6], [0, 3], (0, 6)),
        ([1], [1, 1], (0, 4)),
        ([10], [11, 11], (9, 12)),
        # Most of the labels lie elsewhere.
        ([0, 1, 2, 8], [8, 8], (0, 12)),
    ],
)
@pytest.mark.parametrize("normal", [0, 1, 2])
def test_the_region_reaches_two_voxels_beyond_the_slices(
    normal, painted, positions, expected
):
    labels = torch.zeros(2, 12, 12, 12, dtype=torch.uint8)
    for position in painted:
        labels.select(normal + 1, position).fill_(1)
    region = choose_region(labels, normal, positions)
    if painted == [6] and positions == [0, 3]:
        # The slice that was painted is not among the positions.
        expected = (0, 12)
    assert region[normal] == expected
    assert all(region[axis] == (0, 12) for axis in range(3) if axis != normal)


@pytest.mark.parametrize("probability", [0, 1])
@pytest.mark.parametrize(
    "index", [(0,), (19,), PAINTED[1], (slice(None), slice(None), 39)]
)
def test_unpadded_networks_see_labels_even_at_the_border(
    index, probability, make_source
):
    augmentation = AugmentationConfig(warp_probability=probability)
    source = make_source([index], augmentation, padding="valid")
    plan = PatchPlan(((26, 26, 26),) * 3, 2)
    network = UNet3D(1, 3, 1, POOLING, padding="valid").eval()
    for seed in range(5):
        batch = source.draw(plan, np.random.default_rng(seed))
        assert batch.region is None
        assert (batch.target != UNLABELLED).flatten(1).any(dim=1).all()
        with torch.no_grad():
            assert network(batch.features).shape[2:] == batch.target.shape[1:]


def test_target_of_an_unpadded_network_is_the_middle(make_source):
    source = make_source([...], padding="valid")
    batch = source.draw(PatchPlan(((26, 26, 26),) * 3, 2), np.random.default_rng(0))
    inner = batch.features[:, 0, 8:18, 8:18, 8:18]
    labelled = batch.target != UNLABELLED
    assert batch.target.shape == inner.shape
    assert torch.equal(batch.target[labelled] + 1, inner[labelled].long())


def test_patches_are_laid_differently_around_a_voxel(make_source):
    source = make_source([(10, 15, 20)])
    positions = set()
    for seed in range(20):
        batch = source.draw(PLAN, np.random.default_rng(seed))
        # A single voxel counts as a slice across the last axis.
        positions |= {tuple(p) for p in (batch.target + 1).nonzero()[:, 1:3].tolist()}
    assert len(positions) > 20
    assert all(4 <= n <= 12 for p in positions for n in p)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_thinnest_patches_hold_the_voxel_they_are_laid_around(size, make_source):
    source = make_source([(slice(None, None, 2), 12)])
    plan = PatchPlan(((size, 16, 16),) * 3, 1)
    for seed in range(20):
        batch = source.draw(plan, np.random.default_rng(seed))
        assert (batch.target != UNLABELLED).any()


def test_the_same_seed_draws_the_same_batch(make_source):
    source = make_source([PAINTED[0], PAINTED[1]], AugmentationConfig())
    first, again, other = (
        source.draw(PLAN, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.target, again.target)
    assert first.region == again.region
    assert not torch.equal(first.features, other.features)


def test_batches_are_laid_out_for_quick_convolutions(make_source):
    batch = make_source([PAINTED[0]]).draw(PLAN, np.random.default_rng(0))
    assert batch.features.is_contiguous(memory_format=torch.channels_last_3d)
