"""Two processes make the model that one makes."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import nn

from napari_unet3d.engine.annotation import UNLABELLED
from napari_unet3d.engine.loss import sparse_loss
from napari_unet3d.engine.ranks import ALONE
from tests.distributed import jobs

PARTS = (slice(0, 2), slice(2, 3))


def assert_same_weights(found, expected, tolerance):
    for kind in ("latest", "average"):
        assert found.weights[kind].keys() == expected.weights[kind].keys()
        for name, weights in expected.weights[kind].items():
            torch.testing.assert_close(
                found.weights[kind][name],
                weights,
                rtol=tolerance,
                atol=tolerance,
                msg=lambda text, name=name: f"{name}: {text}",
            )


@pytest.mark.parametrize(
    ("training", "model"),
    [
        ({"steps": 6, "batch_size": 4}, {"depth": 2}),
        ({"loss": "focal", "batch_size": 2}, {"stem": "none"}),
        ({"loss": "dice_cross_entropy"}, {}),
        ({"patch_size": (20, 20, 20)}, {"padding": "valid"}),
        # Patches that show only the first class weigh nothing.
        ({"class_weights": (0.0, 1.0, 3.0)}, {"normalization": "none"}),
    ],
)
def test_the_same_model_in_exact_arithmetic(training, model, together):
    expected = jobs.train_in_double(ALONE, training, model)
    for found in together(jobs.train_in_double, training, model):
        assert found.step == expected.step
        assert_same_weights(found, expected, 1e-9)
        losses = [entry["loss"] for entry in expected.history]
        assert [entry["loss"] for entry in found.history] == pytest.approx(losses)


@pytest.mark.parametrize(
    ("training", "model"),
    [({"batch_statistics": 0.0}, {}), ({}, {"normalization": "none"})],
)
def test_the_same_model_in_single_precision(training, model, together):
    """Without batch statistics, which amplify rounding on any number of threads."""
    training = {"batch_size": 4, **training}
    expected = jobs.train(ALONE, training, model)
    first, second = together(jobs.train, training, model)
    assert_same_weights(first, expected, 1e-5)
    assert first.best.keys() == expected.best.keys()
    assert_same_weights(second, first, 0)
    assert second.best == first.best
    assert asdict(first.training) == asdict(expected.training)


def test_the_same_warm_start(together):
    expected = jobs.begin_warm(ALONE)
    first, second = together(jobs.begin_warm)
    assert_same_weights(second, first, 0)
    assert_same_weights(first, expected, 1e-3)


def test_going_on_with_another_number_of_processes(together):
    expected = jobs.train_in_double(ALONE, {})
    begun = jobs.train_in_double(ALONE, {}, stop_after=1)
    middle = together(jobs.train_in_double, {}, None, begun, 2)[0]
    assert middle.step == 3
    found = jobs.train_in_double(ALONE, {}, None, middle)
    assert_same_weights(found, expected, 1e-9)


def test_all_stop_after_the_same_step(together):
    first, second = together(jobs.stop_in_one, 5.0)
    assert first.reason == second.reason == "stopped"
    assert first.step == second.step == 3
    assert first.seconds == second.seconds


def test_the_first_clock_counts(together):
    first, second = together(jobs.train_by_own_clock)
    assert first.reason == second.reason == "finished"
    assert first.step == second.step > 0
    assert first.seconds == second.seconds


def test_measuring_is_shared(together):
    for shared, alone in together(jobs.measure):
        assert shared.tolist() == alone.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_batch_normalization_over_all_patches(dtype, together):
    generator = torch.Generator().manual_seed(0)
    x, gradient = torch.randn(
        2, 3, 4, 3, 4, 5, generator=generator, dtype=torch.float64
    )
    x = (x * 3 + 7).to(memory_format=torch.channels_last_3d)
    norm = nn.BatchNorm3d(4, momentum=0.3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.arange(4) + 0.5)
        norm.bias.copy_(torch.arange(4) - 1.0)
    whole = x.clone().requires_grad_()
    expected = norm(whole)
    expected.backward(gradient)
    found = together(jobs.normalize, x, gradient, PARTS, dtype)
    close = {"rtol": 1e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {}
    close = close or {"rtol": 1e-5, "atol": 1e-5}
    if dtype == torch.float64:
        close = {"rtol": 1e-12, "atol": 1e-12}
    for k, single in enumerate((expected.detach(), whole.grad)):
        parts = torch.cat([part[k] for part in found]).double()
        torch.testing.assert_close(parts, single, **close)
    for k, parameter in ((2, norm.weight), (3, norm.bias)):
        total = sum(part[k].double() for part in found)
        torch.testing.assert_close(total, parameter.grad, rtol=1e-2, atol=close["atol"])
    for part in found:
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(part[4][name].double(), value.double(), **close)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "dice_cross_entropy"])
@pytest.mark.parametrize("labelled", ["both", "first"])
def test_the_loss_is_a_mean_over_what_all_have(kind, labelled, together):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 2, 4, 4, generator=generator)
    target = torch.randint(-1, 3, (3, 2, 4, 4), generator=generator)
    if labelled == "first":
        target[2] = UNLABELLED
    weights = torch.tensor([0.3, 1.0, 2.0])
    whole = logits.clone().requires_grad_()
    expected = sparse_loss(whole, target, kind, weights)
    expected.backward()
    found = together(jobs.loss_of_part, logits, target, PARTS, kind, weights)
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][0], expected.detach())
    torch.testing.assert_close(torch.cat([part[1] for part in found]), whole.grad)
