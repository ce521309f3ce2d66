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

from episodes import (
    PATCHES,
    Grid,
    Responses,
    SyntheticVolume,
    SyntheticVolumes,
    choose_classes,
    cut,
    draw_episode,
    gathered,
)
from pretrain import EpisodeNorm, Learner, told
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


KIND = np.zeros(SHAPE, np.uint8)
"""Two kinds side by side."""
KIND[:, 9:18], KIND[:, 18:] = 1, 2
GROUPS = [(1,), (2,), (1, 2)]


def an_episode(seed, normal=0):
    rng = np.random.default_rng(seed)
    return draw_episode(choose_classes(KIND, GROUPS, rng), GRID, normal, rng)


def volume(seeds, normal=0):
    episodes = tuple(an_episode(seed, normal) for seed in seeds)
    return SyntheticVolume(GRID, normal, torch.from_numpy(KIND).float(), episodes)


def responses():
    """Features of which the first tells the kinds apart and the second is the kind."""
    features = torch.randn(21, *SHAPE, generator=torch.Generator().manual_seed(0))
    features[0] += 3 * torch.from_numpy(KIND)
    features[1] = torch.from_numpy(KIND)
    return features.half()


@pytest.mark.parametrize("seed", range(10))
def test_an_episode_annotates_one_slice_of_all_patches_but_one(seed):
    normal = seed % 3
    episode = an_episode(seed, normal)
    assert len(episode.corners) == len(episode.target) == PATCHES
    assert episode.target.shape == episode.annotated.shape
    for mask in episode.annotated[:-1]:
        across = mask.any(axis=tuple(a for a in range(3) if a != normal))
        assert across.sum() == 1
        assert mask.sum() == mask.size / mask.shape[normal]
    assert not episode.annotated[-1].any()
    assert 2 <= episode.n_classes <= 3


@pytest.mark.parametrize("seed", range(10))
def test_features_and_target_are_cut_and_mirrored_alike(seed):
    batch = cut([volume([seed]), volume([seed + 1])], [responses()] * 2, 0)
    assert batch.features.shape[:3] == (2, PATCHES, 21)
    assert batch.features.shape[3:] == batch.target.shape[2:]
    for features, target, n_classes in zip(
        batch.features, batch.target, batch.n_classes, strict=True
    ):
        kinds = [set(features[:, 1][target == k].tolist()) for k in range(n_classes)]
        assert sum(map(len, kinds)) == len(set().union(*kinds))


def test_volumes_are_gathered_with_their_like():
    volumes = [volume([0], normal) for normal in (0, 1, 0, 1, 0, 2)]
    found = list(gathered(volumes, 2))
    assert [[v.normal for v in group] for group in found] == [[0, 0], [1, 1]]


def test_volumes_come_by_number():
    first, again = (SyntheticVolumes(7, 2, 3)[1] for _ in range(2))
    assert torch.equal(first.image, again.image)
    assert len(first.episodes) == 3
    for one, other in zip(first.episodes, again.episodes, strict=True):
        np.testing.assert_array_equal(one.target, other.target)
    shape = first.grid.shape
    found = Responses(torch.device("cpu")).of(first)
    assert found.shape == (21, *shape)
    assert found.float().flatten(1).mean(1).abs().max() < 0.01
    with pytest.raises(IndexError):
        SyntheticVolumes(7, 2, 3)[2]


def test_every_episode_is_normalised_by_itself():
    norm = EpisodeNorm(torch.nn.BatchNorm3d(3))
    norm.episodes = 2
    x = torch.randn(6, 3, 4, 5, 2) * 3 + 1
    plain = torch.nn.BatchNorm3d(3)
    expected = torch.cat([plain(x[:3]), plain(x[3:])])
    torch.testing.assert_close(norm(x), expected)


def test_every_episode_has_its_own_head():
    torch.manual_seed(0)
    learner = Learner()
    volumes = [volume([1]), volume([2])]
    batch = cut(volumes, [responses()] * 2, 0)
    features = batch.features
    both = told(learner, features, batch)
    assert torch.isfinite(both.max(dim=2).values).all()
    for k, one in enumerate(volumes):
        alone = told(learner, features[k : k + 1], cut([one], [responses()], 0))
        torch.testing.assert_close(both[k, :, : alone.shape[2]], alone[0])


def test_a_learner_tells_the_rest_better_after_some_steps():
    torch.manual_seed(0)
    learner = Learner()
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    losses = []
    for step in range(9):
        batch = cut([volume([step % 3])], [responses()], 0)
        features = learner.embed(batch.features, ((2, 2, 2), (2, 2, 2), (2, 2, 2)))
        target = batch.target[~batch.annotated]
        loss = torch.nn.functional.cross_entropy(
            told(learner, features, batch)[0], target
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_strides_of_one_share_the_weights():
    learner = Learner()
    x = torch.randn(1, 1, 21, 4, 8, 8)
    flat = learner.embed(x, ((1, 2, 2), (1, 2, 2), (2, 2, 2)))
    flat.square().sum().backward()
    assert learner.network.up[0].weight.grad.abs().sum() > 0
