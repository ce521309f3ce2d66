"""The generated volumes and episodes that the warm start was learned from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "pretraining"))

from episodes import PATCHES, Grid, SyntheticVolume, draw_episode
from pretrain import Learner, told
from synthetic_volumes import random_volume

SHAPE = (20, 28, 24)
GRID = Grid(SHAPE, (1.0, 1.0, 1.0), (8, 16, 16), 1.0)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), thickness=st.sampled_from([1.0, 4.0]))
def test_volumes_are_what_they_say(seed, thickness):
    image, kind, classes = random_volume(seed, SHAPE, (thickness, 1.0, 1.0))
    assert image.shape == kind.shape == SHAPE
    assert image.dtype == np.float32
    assert kind.dtype == np.uint8
    assert np.isfinite(image).all()
    assert image.std() > 0
    present = set(np.unique(kind))
    assert all(group and set(group) <= present - {0} for group in classes)


def test_a_seed_is_a_volume():
    first, again, other = (random_volume(seed, SHAPE)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def volume():
    """Two kinds side by side, which the first feature tells apart."""
    kind = torch.zeros(SHAPE, dtype=torch.uint8)
    kind[:, 9:18], kind[:, 18:] = 1, 2
    features = torch.randn(21, *SHAPE, generator=torch.Generator().manual_seed(0))
    features[0] += 3 * kind
    features[1] = kind
    return SyntheticVolume(GRID, features.half(), kind, [(1,), (2,), (1, 2)])


@pytest.mark.parametrize("seed", range(10))
def test_an_episode_annotates_one_slice_of_all_patches_but_one(seed):
    episode = draw_episode(volume(), np.random.default_rng(seed))
    assert episode.features.shape[:2] == (PATCHES, 21)
    assert episode.target.shape == episode.annotated.shape
    assert episode.target.shape[1:] == episode.features.shape[2:]
    slices = [
        max(int(mask.any(a).all(dim=-1).sum()) for a in range(3))
        for mask in episode.annotated
    ]
    assert all(slices[:-1])
    assert not episode.annotated[-1].any()
    patch = np.prod(GRID.patch)
    assert (episode.annotated[:-1].flatten(1).sum(1) <= patch // 8).all()
    assert 2 <= episode.n_classes <= 3
    # Features and target are flipped alike: no kind belongs to two classes.
    kinds = [
        set(episode.features[:, 1][episode.target == k].tolist())
        for k in range(episode.n_classes)
    ]
    assert sum(map(len, kinds)) == len(set().union(*kinds))


def test_a_learner_tells_the_rest_better_after_some_steps():
    torch.manual_seed(0)
    learner = Learner()
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    losses = []
    for step in range(9):
        episode = draw_episode(volume(), np.random.default_rng(step % 3))
        features = learner.embed(episode.features, ((2, 2, 2), (2, 2, 2), (2, 2, 2)))
        target = episode.target[~episode.annotated]
        loss = torch.nn.functional.cross_entropy(
            told(learner, features, episode), target
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_strides_of_one_share_the_weights():
    learner = Learner()
    x = torch.randn(1, 21, 4, 8, 8)
    flat = learner.embed(x, ((1, 2, 2), (1, 2, 2), (2, 2, 2)))
    flat.square().sum().backward()
    assert learner.network.up[0].weight.grad.abs().sum() > 0
