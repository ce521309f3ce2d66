from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import EngineError, ModelConfig, TrainingConfig
from napari_unet3d.engine.batches import Batch
from napari_unet3d.engine.checkpoint import build_network
from napari_unet3d.engine.optimization import FOLLOW_EVERY, FOLLOWED, Optimization
from napari_unet3d.engine.schedule import Schedule

MODEL = ModelConfig(
    in_channels=1,
    n_classes=2,
    base_channels=1,
    pooling=((2, 2, 2),),
    spacing=(1.0, 1.0, 1.0),
    stem="none",
)
TRAINING = TrainingConfig(steps=10)
CPU = torch.device("cpu")
FLAT = torch.ones(2)


def make(dtype=torch.float32, **training):
    return Optimization(MODEL, replace(TRAINING, **training), CPU, dtype)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 1, 4, 4, 4, generator=generator)
    return Batch(features, (features[:, 0] > 0).long(), None)


def rates(training):
    schedule = Schedule(training)
    found = []
    for _ in range(training.steps):
        found.append(schedule.learning_rate)
        schedule.step += 1
    return found, schedule


def test_the_rate_rises_stays_and_falls():
    training = TrainingConfig(steps=1000, learning_rate=0.1, warmup=0.2, decay=0.3)
    found, schedule = rates(training)
    assert found[0] < 0.002
    assert found[100] == pytest.approx(0.05, rel=0.05)
    assert found[200:700] == [pytest.approx(0.1)] * 500
    assert found[850] == pytest.approx(0.05, rel=0.05)
    assert found[-1] == pytest.approx(0.001)
    assert schedule.progress == 1


@given(steps=st.integers(1, 200), warmup=st.floats(0, 1), decay=st.floats(0, 1))
def test_the_rate_is_never_too_large_and_never_nothing(steps, warmup, decay):
    training = TrainingConfig(
        steps=steps, learning_rate=0.1, warmup=warmup, decay=decay
    )
    found, _ = rates(training)
    assert all(0 < rate <= 0.1 for rate in found)
    # Even without a warm-up the first steps are small.
    assert found[0] <= 0.011


def test_minutes_are_counted_in_seconds():
    schedule = Schedule(TrainingConfig(minutes=0.5))
    schedule.seconds = 15
    assert schedule.progress == 0.5


@pytest.mark.parametrize(
    ("steps", "seconds", "progress"),
    [
        (0, 0, 0),
        (450, 30, 0.5),
        (600, 60, 1),
        # A slow machine is given time for its steps, but not for ever.
        (75, 60, 1 / 3),
        (225, 90, 0.75),
        (300, 120, 1),
        (0, 90, 0.5),
        (29, 180, 1),
    ],
)
def test_by_default_a_training_takes_a_minute_or_so(steps, seconds, progress):
    schedule = Schedule(TrainingConfig())
    schedule.step, schedule.seconds = steps, seconds
    assert schedule.progress == pytest.approx(progress)


def test_a_schedule_at_its_end_begins_anew():
    schedule = Schedule(TRAINING)
    schedule.step, schedule.seconds = 7, 3.5
    schedule.begin()
    assert schedule.progress == pytest.approx(0.7)
    schedule.step = 10
    schedule.begin()
    assert schedule.progress == 0
    assert schedule.start == {"step": 10, "seconds": 3.5}
    assert schedule.learning_rate < TRAINING.learning_rate / 5


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice_cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_make_the_loss_smaller(loss, dtype, batch):
    optimization = make(dtype, loss=loss)
    losses = [float(optimization.step(batch, FLAT, 0.02)) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.dtype == torch.float32 for p in optimization.network.parameters())


def test_the_average_follows_the_weights(batch):
    optimization = make(ema_decay=0.9)
    for _ in range(30):
        optimization.step(batch, FLAT, 0.01)
    before = {k: v.clone() for k, v in optimization.average.state_dict().items()}
    optimization.step(batch, FLAT, 0.01)
    latest = optimization.network.state_dict()
    for name, value in optimization.average.state_dict().items():
        if value.is_floating_point():
            # Quicker than told at first: 31 of 40, not 36 of 40.
            expected = torch.lerp(before[name], latest[name], 1 - 31 / 40)
            torch.testing.assert_close(value, expected)
        else:
            assert torch.equal(value, latest[name])


def test_without_averaging_both_are_the_same(batch):
    optimization = make(ema_decay=0.0)
    optimization.step(batch, FLAT, 0.01)
    latest = optimization.network.state_dict()
    for name, value in optimization.average.state_dict().items():
        torch.testing.assert_close(value, latest[name])


def test_the_average_is_always_ready_to_predict(batch):
    optimization = make()
    optimization.step(batch, FLAT, 0.01)
    assert not any(module.training for module in optimization.average.modules())


def test_the_gradient_is_clipped(batch):
    optimization = make(gradient_clip=1e-3)
    optimization.step(batch, 1000 * FLAT, 0.01)
    norms = [p.grad.norm() for p in optimization.network.parameters()]
    assert torch.stack(norms).norm() <= 1.001e-3
    optimization.free()
    assert all(p.grad is None for p in optimization.network.parameters())


def test_the_same_seed_makes_the_same_weights():
    first, again, other = (make(seed=seed) for seed in (1, 1, 2))
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
    assert not torch.equal(first.network.head.weight, other.network.head.weight)


def test_state_is_a_copy(batch):
    optimization = make()
    optimization.step(batch, FLAT, 0.01)
    state = optimization.state()
    before = {k: v.clone() for k, v in state["weights"]["latest"].items()}
    optimization.step(batch, FLAT, 0.01)
    for name, value in state["weights"]["latest"].items():
        assert torch.equal(value, before[name])
    (moments, *_) = state["optimizer"]["state"].values()
    assert moments["step"] == 1


def restored(optimization, checkpoint, **training):
    other = make(**training)
    other.restore(replace(checkpoint, **optimization.state()))
    return other


@pytest.fixture
def checkpoint(make_checkpoint):
    return make_checkpoint(
        n_classes=2, base_channels=1, pooling=((2, 2, 2),), stem="none"
    )


def test_restoring_goes_on_where_it_was(checkpoint, batch):
    optimization = make()
    optimization.step(batch, FLAT, 0.01)
    other = restored(optimization, replace(checkpoint, step=1))
    for _ in range(2):
        assert optimization.step(batch, FLAT, 0.01) == other.step(batch, FLAT, 0.01)
    for name in ("latest", "average"):
        state = other.state()["weights"][name]
        for key, value in optimization.state()["weights"][name].items():
            assert torch.equal(value, state[key])


def test_settings_may_change_when_training_goes_on(checkpoint, batch):
    optimization = make(weight_decay=0.3)
    optimization.step(batch, FLAT, 0.01)
    other = restored(optimization, checkpoint, weight_decay=0.1)
    assert {g["weight_decay"] for g in other.optimizer.param_groups} == {0.1}


def test_a_model_for_prediction_only_can_be_trained_on(checkpoint, batch):
    checkpoint = replace(checkpoint, optimizer={})
    del checkpoint.weights["latest"]
    optimization = make()
    optimization.restore(checkpoint)
    for name, value in optimization.network.state_dict().items():
        assert torch.equal(value, checkpoint.weights["average"][name])
    assert torch.isfinite(optimization.step(batch, FLAT, 0.01))


def damaged(state, kind):
    first = state["state"][0]
    changes = {
        "no state": lambda: state.pop("state"),
        "state is a list": lambda: state.update(state=[1, 2]),
        "moments are text": lambda: state["state"].update({0: "a"}),
        "a moment is missing": lambda: first.pop("exp_avg"),
        "a moment is a number": lambda: first.update(exp_avg_sq=3),
        "another shape": lambda: first.update(exp_avg=torch.zeros(3)),
    }
    changes[kind]()
    return state


@pytest.mark.parametrize(
    "kind",
    [
        *("no state", "state is a list", "moments are text"),
        *("a moment is missing", "a moment is a number", "another shape"),
    ],
)
def test_a_damaged_optimizer_state_is_a_sentence(kind, checkpoint, batch):
    optimization = make()
    optimization.step(batch, FLAT, 0.01)
    state = damaged(optimization.state()["optimizer"], kind)
    with pytest.raises(EngineError, match=r"optimizer's state .* damaged"):
        make().restore(replace(checkpoint, optimizer=state))


@pytest.mark.parametrize("kept", [0, 1])
def test_moments_are_those_of_all_weights(kept, checkpoint, batch):
    optimization = make()
    optimization.step(batch, FLAT, 0.01)
    state = optimization.state()["optimizer"]
    assert len(state["state"]) == len(list(optimization.network.parameters()))
    state["state"] = {k: v for k, v in state["state"].items() if k < kept}
    with pytest.raises(EngineError, match=r"optimizer's state .* damaged"):
        make().restore(replace(checkpoint, step=1, optimizer=state))


def test_before_the_first_step_there_are_no_moments(checkpoint):
    restored(make(), checkpoint)
    # A model for prediction that was trained, but not trained on
    optimization = make()
    optimization.restore(replace(checkpoint, step=5, optimizer={}))
    restored(optimization, replace(checkpoint, step=5))


def test_steps_skipped_in_half_precision_have_no_moments(checkpoint):
    state = make(torch.float16).state()
    assert state["optimizer"]["scaler"]
    make(torch.float16).restore(replace(checkpoint, step=1, **state))


def test_the_seed_is_not_everybodys(batch):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    network = make(seed=7).network
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(7)
    for a, b in zip(
        network.parameters(), build_network(MODEL).parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_the_scale_of_the_loss_goes_on(checkpoint, batch):
    optimization = make(torch.float16)
    optimization.step(batch, FLAT, 0.01)
    optimization._scaler.update(512.0)
    other = make(torch.float16)
    state = optimization.state()
    other.restore(replace(checkpoint, **state))
    assert other._scaler.get_scale() == 512
    assert make().state()["optimizer"]["scaler"] == {}
    make().restore(replace(checkpoint, **state))


def test_memory_is_given_back_on_a_gpu_too(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    optimization = make()
    optimization.free()
    assert not emptied
    optimization.device = torch.device("cuda")
    optimization.free()
    assert emptied


def statistics(network):
    return [value.clone() for name, value in network.named_buffers() if "mean" in name]


def test_the_first_batch_replaces_what_the_statistics_began_with(batch):
    optimization = make()
    first = optimization.network.encoder[0].first
    expected = first.conv(torch.nn.functional.pad(batch.features, (1,) * 6))
    optimization.step(batch, FLAT, 1e-3)
    found = first.norm.running_mean
    torch.testing.assert_close(
        found, expected.mean(dim=(0, 2, 3, 4)), rtol=1e-3, atol=0
    )


def test_running_statistics_follow_slowly_while_the_weights_learn(batch):
    optimization = make()
    optimization.step(batch, FLAT, 1e-3)
    before = statistics(optimization.network)
    weights = optimization.network.head.weight.clone()
    for _ in range(1, FOLLOW_EVERY):
        optimization.step(batch, FLAT, 1e-3, running=True)
    for old, new in zip(before, statistics(optimization.network), strict=True):
        assert torch.equal(old, new)
    assert not torch.equal(weights, optimization.network.head.weight)
    first = optimization.network.encoder[0].first
    convolved = first.conv(torch.nn.functional.pad(batch.features, (1,) * 6))
    expected = first.norm.running_mean.lerp(convolved.mean(dim=(0, 2, 3, 4)), FOLLOWED)
    optimization.step(batch, FLAT, 1e-3, running=True)
    torch.testing.assert_close(first.norm.running_mean, expected)
    moved = statistics(optimization.network)
    assert all(not torch.equal(*pair) for pair in zip(before, moved, strict=True))


def test_running_statistics_need_none(batch):
    model = replace(MODEL, normalization="none")
    optimization = Optimization(model, TRAINING, CPU, torch.float32)
    optimization.step(batch, FLAT, 1e-3, running=True)
    assert optimization.steps == 1
