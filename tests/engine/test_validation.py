from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet3d.engine import Annotation, ModelConfig
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.patch_plan import PatchPlan
from napari_unet3d.engine.stem import FilterStem
from napari_unet3d.engine.validation import HeldOut
from napari_unet3d.engine.volume import FeatureVolume

MODEL = ModelConfig(n_classes=3, pooling=((2, 2, 2),))
PLAN = PatchPlan(((8, 16, 16),) * 3, 2)


class Threshold(nn.Module):
    """A stand-in for the network: the image is the class, but for one of them."""

    def __init__(self, wrong=None):
        super().__init__()
        self.wrong = wrong

    def forward(self, x, region, chosen):
        z, y, x_ = (slice(low, high) for low, high in region)
        classes = x[:, 0, z, y, x_][chosen].round().long().view(1, 1, 1, -1) - 1
        classes = classes.clamp(0, 2)
        if self.wrong is not None:
            classes[classes == self.wrong] = 0
        return nn.functional.one_hot(classes, 3).movedim(-1, 1).float()


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(1, 4, (20, 30, 40)).astype(np.uint8)


def held_out(truth, keep):
    volume = FeatureVolume(
        truth[None].astype(np.float32),
        IntensityStatistics((0.0,), (1.0,)),
        FilterStem(1, ()),
    )
    annotation = Annotation.from_labels(truth * keep.astype(np.uint8))
    return HeldOut([volume], [annotation], PLAN, MODEL)


@pytest.fixture
def slices(truth):
    keep = np.zeros(truth.shape, bool)
    keep[[4, 11]] = True
    return keep


def test_a_perfect_network_scores_one(truth, slices):
    part = held_out(truth, slices)
    assert part.voxels == 2 * 30 * 40
    scores = part.measure(Threshold(), nullcontext())
    np.testing.assert_array_equal(scores.iou, 1)
    # Only what is held out was looked at.
    assert 0 < scores.voxels <= 4 * 2 * 16 * 16


def test_a_class_that_is_missed_scores_nothing(truth, slices):
    scores = held_out(truth, slices).measure(Threshold(wrong=2), nullcontext())
    assert scores.iou[2] == 0
    assert scores.iou[1] == 1
    assert 0.3 < scores.iou[0] < 0.7


def test_classes_that_are_not_held_out_are_counted_too(truth, slices):
    truth[slices & (truth == 3)] = 1
    scores = held_out(truth, slices).measure(Threshold(), nullcontext())
    np.testing.assert_array_equal(scores.iou[:2], 1)
    assert np.isnan(scores.iou[2])


def test_every_measurement_looks_at_the_same_voxels(truth, slices):
    part = held_out(truth, slices)
    first, again = (part.measure(Threshold(1), nullcontext()) for _ in range(2))
    np.testing.assert_array_equal(first.truth, again.truth)


def test_a_single_class_tells_nothing(truth, slices):
    part = held_out(truth, slices & (truth == 2))
    assert part.voxels > 0
    assert part.measure(Threshold(), nullcontext()) is None


def test_nothing_held_out_is_no_score(truth, slices):
    part = held_out(truth, ~slices & slices)
    assert part.voxels == 0
    assert part.measure(Threshold(), nullcontext()) is None


def test_the_fingerprint_tells_held_out_labels_apart(truth, slices):
    other = slices.copy()
    other[4, 0, 0] = False
    recoloured = truth.copy()
    recoloured[4, 0, 0] = truth[4, 0, 0] % 3 + 1
    prints = [
        held_out(truth, slices).fingerprint,
        held_out(truth, slices.copy()).fingerprint,
        held_out(truth, other).fingerprint,
        held_out(recoloured, slices).fingerprint,
        held_out(truth, slices & ~slices).fingerprint,
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    assert all(float(np.float64(p)) == p for p in prints)


def test_no_gradients_are_kept(truth, slices):
    class Watched(Threshold):
        def forward(self, x, region, chosen):
            assert not torch.is_grad_enabled()
            return super().forward(x, region, chosen)

    held_out(truth, slices).measure(Watched(), nullcontext())


def test_filters_are_not_computed_in_a_short_number_format(truth, slices):
    image = np.random.default_rng(0).normal(0, 1, truth.shape).astype(np.float32)
    annotation = Annotation.from_labels(truth * slices.astype(np.uint8))
    volumes = [
        FeatureVolume(
            image[None],
            IntensityStatistics((0.0,), (1.0,)),
            FilterStem(1, (1.0, 4.0)),
        )
        for _ in range(2)
    ]
    contexts = nullcontext(), torch.autocast("cpu", torch.bfloat16)
    for volume, context in zip(volumes, contexts, strict=True):
        part = HeldOut([volume], [annotation], PLAN, MODEL)
        part.measure(Threshold(), context)
    box = [0, 0, 0], truth.shape
    assert torch.equal(volumes[0].crop(*box), volumes[1].crop(*box))
