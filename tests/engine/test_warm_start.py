from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_unet3d._sample_data import SPACING, sparse_annotation, tubules
from napari_unet3d.engine import (
    Annotation,
    ModelConfig,
    SegmentationConfig,
    Trainer,
    TrainingConfig,
    TrainingVolume,
    segment,
    warm_start,
)
from napari_unet3d.engine.checkpoint import build_network
from napari_unet3d.engine.events import Started
from napari_unet3d.engine.optimization import FOLLOWED, WARM_STEPS, copied
from napari_unet3d.engine.unet import UNet3D
from napari_unet3d.engine.warm_start import BATCHES, FILE, load_body, starts_warm

MODEL = ModelConfig(
    in_channels=1,
    n_classes=2,
    base_channels=8,
    pooling=((2, 2, 2),) * 3,
    spacing=(1.0, 1.0, 1.0),
)
TRAINING = TrainingConfig(steps=8, device="cpu")


@pytest.fixture(scope="module")
def sample():
    image, truth = tubules((40, 72, 72))
    return image, truth, sparse_annotation(truth)


def trainer(sample, checkpoint=None, **training):
    image, _, labels = sample
    volume = TrainingVolume(image, Annotation.from_labels(labels), SPACING)
    config = replace(TRAINING, **training)
    return Trainer(
        [volume], ModelConfig(base_channels=8), config, checkpoint=checkpoint
    )


def run(trainer, steps):
    return list(trainer.run(stop_after=steps))


def body(model):
    network = build_network(model).eval()
    load_body(network, torch.load(FILE, weights_only=True))
    return network


def test_the_packaged_weights_are_small_and_finite():
    assert FILE.stat().st_size < 12e6
    stored = torch.load(FILE, weights_only=True)
    expected = dict(build_network(MODEL).named_parameters())
    names = {name for name in expected if not name.startswith("head.")}
    assert stored.keys() == names | {"log_ridge", "log_scale"}
    for name in names:
        assert stored[name].shape == expected[name].shape
        assert stored[name].dtype == torch.float16
        assert stored[name].isfinite().all()


@pytest.mark.parametrize(
    ("change", "is_warm"),
    [
        ({}, True),
        ({"depth": 2, "pooling": ((1, 2, 2),)}, True),
        ({"depth": 2, "pooling": ((1, 1, 1),)}, True),
        ({"depth": 2, "pooling": ((3, 3, 3),)}, False),
        ({"depth": 3, "pooling": ((2, 2, 2), (2, 4, 2))}, False),
        ({"pooling": None}, True),
        ({"in_channels": 3}, True),
        ({"padding": "valid"}, True),
        ({"base_channels": 16}, False),
        ({"stem": "none"}, False),
        ({"filter_scales": (1.0, 2.0)}, False),
        ({"shortcut": 0}, False),
        ({"normalization": "none"}, False),
    ],
)
def test_which_networks_start_warm(change, is_warm):
    assert starts_warm(replace(MODEL, **change), TRAINING) == is_warm
    assert not starts_warm(
        replace(MODEL, **change), replace(TRAINING, warm_start=False)
    )


@pytest.mark.parametrize("pooling", [((2, 2, 2),), ((1, 2, 2), (2, 2, 2))])
def test_fewer_levels_and_other_strides_are_filled(pooling):
    network = body(replace(MODEL, depth=len(pooling) + 1, pooling=pooling))
    stored = torch.load(FILE, weights_only=True)
    whole = stored["up.0.weight"].float()
    found = network.up[0].weight
    if pooling[0][0] == 1:
        torch.testing.assert_close(found[:, :, 0], whole.mean(2))
    else:
        torch.testing.assert_close(found, whole)


def test_a_channel_given_twice_is_as_one():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 21, 8, 8, 8, generator=generator).double()
    twice = features.repeat_interleave(2, dim=1)
    with torch.no_grad():
        one = body(MODEL).double().decode(features)
        two = body(replace(MODEL, in_channels=2)).double().decode(twice)
    torch.testing.assert_close(one, two)


def test_the_first_segmentation_needs_no_step(sample):
    image, truth, labels = sample
    model = trainer(sample)
    run(model, 0)
    assert model.step == 0
    config = SegmentationConfig(weights="average", device="cpu")
    found = segment(model.checkpoint(), image, config).labels
    unseen = labels == 0
    agreement = (found == truth)[unseen].mean()
    most_frequent = max(np.mean(truth[unseen] == k) for k in (1, 2, 3))
    assert agreement > most_frequent + 0.05


def test_head_and_shortcut_have_learned_from_the_labels(sample, monkeypatch):
    def loss_and_weights():
        model = trainer(sample)
        run(model, 0)
        batch = model.data.batches.draw(model.plan, np.random.default_rng(0))
        network = model.optimization.average
        with torch.no_grad():
            logits = network(batch.features, batch.region)
        target = torch.where(batch.target >= 0, batch.target, -100)
        loss = torch.nn.functional.cross_entropy(logits, target)
        return loss.item(), network.state_dict()

    learned, weights = loss_and_weights()
    again, same = loss_and_weights()
    monkeypatch.setattr("napari_unet3d.engine.warm_start.VOXEL_STEPS", 0)
    solved, before = loss_and_weights()

    assert learned == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert learned < 0.9 * solved
    changed = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert changed
    assert all(name.startswith(("head.", "shortcut.")) for name in changed)


def test_a_resumed_warm_training_is_that_of_one_go(sample):
    whole = trainer(sample)
    run(whole, 4)
    first = trainer(sample)
    run(first, 2)
    second = trainer(sample, checkpoint=first.checkpoint())
    run(second, 2)
    expected = whole.checkpoint().weights
    found = second.checkpoint().weights
    for kind in ("latest", "average"):
        for name, tensor in expected[kind].items():
            assert torch.equal(tensor, found[kind][name]), (kind, name)


def test_without_it_the_weights_are_random(sample):
    cold = trainer(sample, warm_start=False)
    run(cold, 0)
    warm = trainer(sample)
    run(warm, 0)
    name = "encoder.0.first.conv.weight"
    stored = torch.load(FILE, weights_only=True)[name].float()
    assert torch.equal(warm.checkpoint().weights["latest"][name], stored)
    assert not torch.equal(cold.checkpoint().weights["latest"][name], stored)


def statistics(model):
    weights = model.checkpoint().weights["latest"]
    return {name: weights[name] for name in weights if ".running_" in name}


@pytest.mark.parametrize(
    ("training", "moved"),
    [
        # They follow for the first time in the first step, slowly.
        ({}, FOLLOWED),
        ({"batch_statistics": 0.5}, 1 / (BATCHES + 1)),
        ({"warm_start": False}, 1.0),
        ({"warm_start": False, "batch_statistics": 0.0}, FOLLOWED),
    ],
)
def test_the_statistics_of_a_warm_start_are_learned_with(training, moved, sample):
    model = trainer(sample, **training)
    run(model, 0)
    before = statistics(model)
    run(model, 1)
    norms = [m for m in model.optimization.network.modules() if is_norm(m)]
    assert before
    assert {round(norm.momentum, 6) for norm in norms} == {round(moved, 6)}
    assert all(not torch.equal(before[n], v) for n, v in statistics(model).items())


def test_a_warm_start_is_not_given_up_for_the_first_steps(sample):
    model = trainer(sample, batch_statistics=0.5)
    run(model, 0)
    before = copied(model.optimization.average.state_dict())
    run(model, 1)
    latest = model.optimization.network.state_dict()
    for name, value in model.optimization.average.state_dict().items():
        if value.is_floating_point():
            expected = torch.lerp(before[name], latest[name], 9 / (WARM_STEPS + 1 + 9))
            torch.testing.assert_close(value, expected)
    norms = [m for m in model.optimization.network.modules() if is_norm(m)]
    assert {norm.momentum for norm in norms} == {1 / (BATCHES + 1)}


def is_norm(module):
    return isinstance(module, torch.nn.BatchNorm3d)


def test_of_many_labelled_voxels_a_part_is_learned_from(sample, monkeypatch):
    image, truth, _ = sample
    monkeypatch.setattr("napari_unet3d.engine.warm_start.MOST_VOXELS", 300)
    seen = []
    solve = warm_start.solve_head

    def noted(vectors, *rest):
        seen.append(len(vectors))
        return solve(vectors, *rest)

    monkeypatch.setattr(warm_start, "solve_head", noted)
    models = [trainer((image, truth, truth)) for _ in range(2)]
    for model in models:
        run(model, 0)
    assert seen == [300 * BATCHES] * 2
    one, same = (model.optimization.average.state_dict() for model in models)
    assert all(torch.equal(one[name], same[name]) for name in one)
    found = segment(models[0].checkpoint(), image).labels
    assert (found == truth).mean() > max(np.mean(truth == k) for k in (1, 2, 3))


def test_a_warm_start_takes_smaller_patches_where_memory_runs_out(sample, monkeypatch):
    forward = UNet3D.decode

    def greedy(self, features, *rest):
        if len(features) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, features, *rest)

    monkeypatch.setattr(UNet3D, "decode", greedy)
    started, warned, *_ = run(trainer(sample, batch_size=4), 0)
    assert isinstance(started, Started)
    assert "memory ran out: going on with 2 patches" in warned.message
