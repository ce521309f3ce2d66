from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.closed_form import solve_head


def blobs(count=200, classes=3, channels=5, seed=0):
    """Vectors around one centre for each class."""
    generator = torch.Generator().manual_seed(seed)
    centres = 6 * torch.randn(classes, channels, generator=generator)
    labels = torch.arange(count) % classes
    vectors = centres[labels] + torch.randn(count, channels, generator=generator)
    return vectors, labels


def apply(head, vectors):
    return vectors @ head[:-1] + head[-1]


@given(classes=st.integers(2, 6), seed=st.integers(0, 10))
def test_what_is_apart_is_told(classes, seed):
    vectors, labels = blobs(classes=classes, channels=8, seed=seed)
    head = solve_head(vectors, labels, classes, 1e-3)
    assert head.shape == (9, classes)
    assert (apply(head, vectors).argmax(1) == labels).float().mean() > 0.95


def test_a_class_without_a_voxel_is_nowhere():
    vectors, labels = blobs()
    logits = apply(solve_head(vectors, labels, 5, 1e-3), vectors)
    assert (logits[:, 3:] < logits[:, :3].max(1, keepdim=True).values).all()


def test_the_origin_and_the_unit_of_a_feature_do_not_matter_without_penalty():
    vectors, labels = blobs()
    changed = 3 * vectors - 2
    plain = apply(solve_head(vectors, labels, 3, 1e-9), vectors)
    other = apply(solve_head(changed, labels, 3, 1e-9), changed)
    torch.testing.assert_close(plain, other, atol=1e-3, rtol=1e-3)


def test_a_large_penalty_leaves_the_bias():
    vectors, labels = blobs()
    head = solve_head(vectors, labels, 3, 1e9)
    assert head[:-1].abs().max() < 1e-6
    # Equally many of each class: a third is +1, two thirds are -1.
    torch.testing.assert_close(head[-1], torch.full((3,), -1 / 3), atol=0.02, rtol=0)


def test_a_rare_class_is_not_drowned():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(2000) % 100 == 0).long()
    vectors = labels[:, None] + 0.2 * torch.randn(2000, 1, generator=generator)
    found = apply(solve_head(vectors, labels, 2, 1e-6), vectors).argmax(1)
    assert found[labels == 1].float().mean() > 0.6
    # Plain least squares never finds it.
    design = torch.cat([vectors, torch.ones_like(vectors)], 1)
    plain = torch.linalg.lstsq(design, 2.0 * labels[:, None] - 1).solution
    assert (design @ plain).max() < 0


def test_gradients_go_through_the_solution():
    vectors, labels = blobs(count=12, classes=2, channels=2)
    vectors.requires_grad_()
    ridge = torch.tensor(0.1, requires_grad=True)
    solve_head(vectors, labels, 2, ridge).square().sum().backward()
    step = 1e-2
    for k in range(2):
        moved = [vectors.detach().clone() for _ in range(2)]
        moved[0][3, k] += step
        moved[1][3, k] -= step
        high, low = (solve_head(v, labels, 2, 0.1).square().sum() for v in moved)
        slope = float(high - low) / (2 * step)
        assert vectors.grad[3, k].item() == pytest.approx(slope, rel=0.02, abs=1e-5)
    assert ridge.grad.item() != 0
