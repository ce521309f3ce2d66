"""The generated volumes and episodes that the warm start was learned from."""

from __future__ import annotations

import sys
from dataclasses import replace
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
    Group,
    Responses,
    SyntheticVolume,
    SyntheticVolumes,
    choose_classes,
    cut,
    draw_episode,
    gathered,
)
from learner import EpisodeNorm, Learner, loss_of_rest, told
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
    return draw_episode(KIND, choose_classes(GROUPS, rng), GRID, normal, rng)


def volume(seeds, normal=0):
    episodes = tuple(an_episode(seed, normal) for seed in seeds)
    kind = torch.from_numpy(KIND)
    return SyntheticVolume(GRID, normal, kind.float(), kind, episodes)


def a_group(*volumes):
    """Features of which the first tells the kinds apart and the second is the kind."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(len(volumes), *SHAPE, 21, generator=generator)
    features[:] = features[0]
    features[..., 0] += 3 * torch.from_numpy(KIND)
    features[..., 1] = torch.from_numpy(KIND)
    return Group(
        GRID,
        volumes[0].normal,
        features.flatten(0, 3).bfloat16(),
        torch.stack([v.kind for v in volumes]).flatten(),
        tuple(v.episodes for v in volumes),
    )


@pytest.mark.parametrize("seed", range(10))
def test_an_episode_annotates_one_slice_of_all_patches_but_one(seed):
    normal = seed % 3
    batch = cut(a_group(volume([seed], normal)), 0)
    size = batch.features.shape[3:]
    assert size[normal] == 8
    annotated = torch.zeros(PATCHES, *size, dtype=torch.bool)
    annotated.view(-1)[batch.annotated[0]] = True
    for mask in annotated[:-1]:
        across = mask.any(dim=[a for a in range(3) if a != normal])
        assert across.sum() == 1
        assert mask.sum() == mask.numel() / mask.shape[normal]
    assert not annotated[-1].any()
    assert 2 <= batch.n_classes[0] <= 3


@pytest.mark.parametrize("seed", range(10))
def test_features_and_target_are_cut_and_mirrored_alike(seed):
    normal = seed % 3
    group = a_group(volume([seed], normal), volume([seed + 1], normal))
    batch = cut(group, 0)
    assert batch.features.shape[:3] == (2, PATCHES, 21)
    kinds = batch.features[:, :, 1].flatten(1).long()
    for found, target, (episode,) in zip(
        kinds, batch.target, group.episodes, strict=True
    ):
        classes = torch.from_numpy(episode.classes).long()
        assert torch.equal(classes[found], target)


def test_a_patch_is_what_lies_there():
    episode = an_episode(3)
    group = a_group(volume([3]))
    features = cut(group, 0).features[0]
    whole = group.features.view(*SHAPE, -1).movedim(-1, 0)
    for patch, low in zip(features, episode.corners.tolist(), strict=True):
        z, y, x = (slice(a, a + s) for a, s in zip(low, (8, 16, 16), strict=True))
        axes = [a + 1 for a in range(3) if episode.mirrored[a]]
        assert torch.equal(patch, whole[:, z, y, x].flip(axes))


def test_annotated_slices_hold_the_voxel_that_a_patch_is_about():
    classes = np.zeros(256, np.uint8)
    classes[5] = 1
    kind = np.zeros(SHAPE, np.uint8)
    kind[7, 20, 11] = 5
    episode = draw_episode(kind, classes, GRID, 0, np.random.default_rng(0))
    for k in (0, 2):
        low = episode.corners[k]
        assert (low <= (7, 20, 11)).all()
        assert low[0] + episode.slices[k] == 7


def test_volumes_are_gathered_with_their_like():
    volumes = [volume([0], normal) for normal in (0, 1, 0, 1, 0, 2)]
    found = list(gathered(volumes, 2))
    assert [[v.normal for v in group] for group in found] == [[0, 0], [1, 1]]


def test_volumes_come_by_number():
    first, again = (SyntheticVolumes(7, 2, 3)[1] for _ in range(2))
    assert torch.equal(first.image, again.image)
    assert len(first.episodes) == 3
    for one, other in zip(first.episodes, again.episodes, strict=True):
        np.testing.assert_array_equal(one.corners, other.corners)
        np.testing.assert_array_equal(one.classes, other.classes)
    responses = Responses(torch.device("cpu"))
    found = responses.of([first]).features
    assert found.shape == (first.image.numel(), 21)
    assert found.float().mean(0).abs().max() < 0.01
    both = responses.of([first, replace(first, image=-first.image)]).features
    torch.testing.assert_close(both[: len(found)], found)
    torch.testing.assert_close(both[len(found) :, 0], -found[:, 0])
    with pytest.raises(IndexError):
        SyntheticVolumes(7, 2, 3)[2]


def test_every_episode_is_normalised_by_itself():
    plain = torch.nn.BatchNorm3d(3).double()
    torch.nn.init.normal_(plain.weight)
    torch.nn.init.normal_(plain.bias)
    norm = EpisodeNorm(plain)
    norm.episodes = 2
    x = torch.randn(6, 3, 4, 5, 2).double() * 3 + 1
    x.requires_grad_()
    expected = torch.cat([plain(x[:3]), plain(x[3:])])
    torch.testing.assert_close(norm(x), expected)
    inputs = (x, plain.weight, plain.bias)
    upstream = torch.randn_like(x)
    for found, wanted in zip(
        torch.autograd.grad(norm(x), inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_every_episode_has_its_own_head():
    torch.manual_seed(0)
    learner = Learner()
    volumes = [volume([1]), volume([2])]
    batch = cut(a_group(*volumes), 0)
    both = told(learner, batch.features, batch)
    assert torch.isfinite(both.max(dim=2).values).all()
    for k, one in enumerate(volumes):
        alone = cut(a_group(one), 0)
        torch.testing.assert_close(both[k], told(learner, alone.features, alone)[0])


def test_the_loss_is_that_of_what_is_not_annotated():
    batch = cut(a_group(volume([1]), volume([2])), 0)
    logits = torch.randn(*batch.target.shape, 3)
    expected = []
    for one, target, known in zip(logits, batch.target, batch.annotated, strict=True):
        rest = torch.ones(len(target), dtype=torch.bool)
        rest[known] = False
        weight = target[rest].bincount(minlength=3).clamp_min(1).rsqrt()
        expected.append(
            torch.nn.functional.cross_entropy(one[rest], target[rest], weight=weight)
        )
    torch.testing.assert_close(
        loss_of_rest(logits, batch), torch.stack(expected).mean()
    )


def test_a_learner_tells_the_rest_better_after_some_steps():
    torch.manual_seed(0)
    learner = Learner()
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    losses = []
    for step in range(9):
        batch = cut(a_group(volume([step % 3])), 0)
        features = batch.features.float()
        features = learner.embed(features, ((2, 2, 2), (2, 2, 2), (2, 2, 2)))
        loss = loss_of_rest(told(learner, features, batch), batch)
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
