from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet3d.engine import UNLABELLED
from napari_unet3d.engine.loss import automatic_class_weights, sparse_loss

KINDS = ("cross_entropy", "focal", "dice_cross_entropy")


@pytest.fixture
def batch():
    """Return logits of three classes and labels of about a third of the voxels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(-5, 3, (2, 4, 5, 6), generator=generator)
    return logits.requires_grad_(), target.clamp_min(UNLABELLED)


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_voxels_have_no_gradient_at_all(kind, batch):
    logits, target = batch
    sparse_loss(logits, target, kind).backward()
    gradient = logits.grad.movedim(1, -1)
    assert torch.all(gradient[target == UNLABELLED] == 0)
    assert torch.all(gradient[target != UNLABELLED].abs().sum(-1) > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_network_says_of_unlabelled_voxels_is_all_the_same(kind, batch):
    logits, target = batch
    other = torch.where((target == UNLABELLED)[:, None], 100 * logits.flip(0), logits)
    assert sparse_loss(other, target, kind) == sparse_loss(logits, target, kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(
    before=st.integers(0, 30),
    after=st.integers(0, 30),
    labels=st.lists(st.integers(0, 2)),
)
def test_loss_does_not_depend_on_how_many_voxels_are_unlabelled(
    kind, before, after, labels
):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 1, 1, len(labels), generator=generator)
    target = torch.tensor(labels, dtype=torch.long).view(1, 1, 1, -1)
    alone = sparse_loss(logits, target, kind)

    logits = torch.nn.functional.pad(logits, (before, after), value=7)
    target = torch.nn.functional.pad(target, (before, after), value=UNLABELLED)
    torch.testing.assert_close(sparse_loss(logits, target, kind), alone)


@pytest.mark.parametrize("kind", KINDS)
def test_without_labels_the_loss_is_zero_and_its_gradient_too(kind, batch):
    logits, target = batch
    loss = sparse_loss(logits, torch.full_like(target, UNLABELLED), kind)
    loss.backward()
    assert loss == 0
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 10])
def test_certainty_leaves_the_gradient_finite(kind, gamma):
    logits = torch.tensor([[200.0, 200.0], [-200.0, -200.0]]).view(1, 2, 1, 1, 2)
    logits.requires_grad_()
    target = torch.tensor([0, 1]).view(1, 1, 1, 2)
    loss = sparse_loss(logits, target, kind, focal_gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_cross_entropy_is_torchs(batch):
    logits, target = batch
    weights = torch.tensor([0.5, 1.0, 3.0])
    expected = torch.nn.functional.cross_entropy(
        logits, target, weights, ignore_index=UNLABELLED
    )
    torch.testing.assert_close(
        sparse_loss(logits, target, class_weights=weights), expected
    )


def test_focal_loss_by_hand():
    # Two classes; the true one has probability 3/4 and 1/2.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]).view(1, 2, 1, 1, 2)
    target = torch.tensor([0, 1]).view(1, 1, 1, 2)
    expected = (-math.log(3 / 4) / 16 - math.log(1 / 2) / 4) / 2
    assert sparse_loss(logits, target, "focal").item() == pytest.approx(expected)


def test_focal_loss_without_focus_is_cross_entropy(batch):
    torch.testing.assert_close(
        sparse_loss(*batch, "focal", focal_gamma=0), sparse_loss(*batch)
    )


def test_dice_by_hand():
    # Certain of class 0 everywhere, while one of three voxels is of class 1.
    logits = torch.tensor([[90.0] * 3, [0.0] * 3, [0.0] * 3]).view(1, 3, 1, 1, 3)
    target = torch.tensor([0, 0, 1]).view(1, 1, 1, 3)
    dice = sparse_loss(logits, target, "dice_cross_entropy") - sparse_loss(
        logits, target
    )
    # Class 0: 2 * 2 / (3 + 2), class 1: 0; class 2 is not there.
    assert dice.item() == pytest.approx(1 - (4 / 5 + 0) / 2, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_logits_have_no_loss(kind):
    target = torch.tensor([0, 1, 2, UNLABELLED]).view(1, 1, 1, 4)
    logits = 100.0 * torch.eye(3, 4).view(1, 3, 1, 1, 4)
    assert sparse_loss(logits, target, kind).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal"])
def test_a_class_without_weight_does_not_count(kind, batch):
    logits, target = batch
    weights = torch.tensor([1.0, 0.0, 1.0])
    without = torch.where(target == 1, UNLABELLED, target)
    torch.testing.assert_close(
        sparse_loss(logits, target, kind, weights), sparse_loss(logits, without, kind)
    )


def test_half_precision_is_computed_in_single(batch):
    logits, target = batch
    short = logits.detach().bfloat16()
    assert sparse_loss(short, target).dtype == torch.float32
    assert sparse_loss(short, target) == sparse_loss(short.float(), target)


COUNTS = st.lists(st.integers(0, 10**7), min_size=2, max_size=6).filter(any)


@given(counts=COUNTS, balance=st.floats(0, 1))
def test_automatic_weights_have_mean_one_over_the_labelled_voxels(counts, balance):
    weights = automatic_class_weights(counts, balance).numpy()
    assert np.isfinite(weights).all()
    assert np.average(weights, weights=counts) == pytest.approx(1, rel=1e-4)


@given(counts=COUNTS)
def test_automatic_weights_without_balance_are_all_alike(counts):
    assert automatic_class_weights(counts, 0).tolist() == [1] * len(counts)


@given(counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=6))
def test_fully_balanced_classes_weigh_the_same_in_total(counts):
    total = automatic_class_weights(counts, 1).numpy() * counts
    np.testing.assert_allclose(total, total[0], rtol=1e-4)
