from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import ModelConfig, TrainingConfig, patch_plan
from napari_unet3d.engine.patch_plan import PatchPlan, plan_patches
from napari_unet3d.engine.planning import resolve_model
from napari_unet3d.engine.unet import UNet3D
from napari_unet3d.engine.valid_padding import valid_output, valid_size

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FULL, FLAT = (2, 2, 2), (1, 2, 2)


def model(pooling=(FULL,) * 3, **fields):
    defaults = {
        "in_channels": 1,
        "n_classes": 2,
        "base_channels": 8,
        "spacing": (1.0, 1.0, 1.0),
    }
    return ModelConfig(**{**defaults, **fields}, pooling=pooling)


def plan(config, shapes, device=CPU, **training):
    return plan_patches(TrainingConfig(**training), config, shapes, device)


def test_patches_are_thin_across_the_annotated_slice():
    chosen = plan(model(), [(1, 200, 200, 200)])
    assert chosen == PatchPlan(((16, 48, 48), (48, 16, 48), (48, 48, 16)), 4)


def test_patches_of_coarse_voxels_have_fewer_of_them():
    config = model(pooling=(FLAT, FULL, FULL), spacing=(3.0, 1.0, 1.0))
    assert plan(config, [(1, 200, 200, 200)]).sizes[1] == (16, 16, 48)


@given(
    shape=st.tuples(*[st.integers(1, 100)] * 3),
    spacing=st.tuples(*[st.sampled_from([1.0, 2.5, 7.0])] * 3),
    depth=st.integers(1, 4),
    wish=st.none() | st.tuples(*[st.integers(1, 300)] * 3),
)
def test_patches_fit_network_and_volume(shape, spacing, depth, wish):
    config = resolve_model(ModelConfig(depth=depth), [(1, *shape)], [spacing], 2)
    chosen = plan(config, [(1, *shape)], patch_size=wish)
    strides = UNet3D(1, 2, 1, config.pooling).total_stride
    for size in chosen.sizes:
        for n, s, whole in zip(size, strides, shape, strict=True):
            assert n % s == 0
            assert 0 < n < whole + s


def test_a_patch_size_that_fits_is_taken():
    chosen = plan(model(), [(1, 99, 99, 99)], patch_size=(16, 32, 24), batch_size=3)
    assert chosen == PatchPlan(((16, 32, 24),) * 3, 3)
    assert plan(model(), [(1, 99, 99, 99)], patch_size=(16, 32, 24)).batch_size == 2


def test_a_patch_size_that_does_not_fit_is_changed_with_a_warning():
    chosen = plan(model(), [(1, 20, 99, 99)], patch_size=(64, 33, 1))
    assert chosen.sizes == ((24, 32, 8),) * 3
    assert "(64, 33, 1) does not fit" in chosen.warning
    assert "using (24, 32, 8)" in chosen.warning


@pytest.mark.parametrize("wish", [None, (8, 8, 8)])
def test_a_step_always_has_more_than_one_voxel_at_the_bottom(wish):
    chosen = plan(model(), [(1, 8, 8, 8)], patch_size=wish, batch_size=1)
    assert chosen.batch_size == 2
    assert "too little" in chosen.warning


@pytest.mark.parametrize("pooling", [(), (FULL,), ((5, 5, 5),), (FLAT, (3, 3, 3))])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_smallest_patches_can_be_normalized(padding, pooling):
    config = model(pooling, padding=padding, base_channels=1)
    chosen = plan(config, [(1, 60, 60, 60)], patch_size=(1, 1, 1), batch_size=1)
    network = UNet3D(1, 2, 1, pooling, padding=padding).train()
    network(torch.rand(chosen.batch_size, 1, *chosen.sizes[0]))


@pytest.mark.parametrize(("room", "wide"), [(2**36, 128), (2**30, 32), (2**20, 32)])
def test_patches_fit_the_memory_of_a_gpu(room, wide, monkeypatch):
    monkeypatch.setattr(patch_plan, "available_memory", lambda device: room)
    chosen = plan(model(base_channels=32), [(1, 500, 500, 500)], CUDA)
    assert chosen.sizes[0][1:] == (wide, wide)


@pytest.mark.parametrize("wish", [None, (100, 116, 140)])
@pytest.mark.parametrize("pooling", [(FULL,) * 3, (FLAT, FULL), ()])
def test_unpadded_patches_are_of_sizes_the_network_accepts(pooling, wish):
    config = model(pooling, padding="valid", base_channels=1)
    chosen = plan(config, [(1, 150, 150, 150)], patch_size=wish)
    network = UNet3D(1, 2, 1, pooling, padding="valid").eval()
    for size in set(chosen.sizes):
        with torch.no_grad():
            found = network(torch.zeros(1, 1, *size)).shape[2:]
        assert valid_output(size, config) == tuple(found)


def test_padded_patches_are_not_evaluated_in_the_middle_only():
    assert valid_output((16, 16, 16), model()) is None


@pytest.mark.parametrize(
    ("size", "strides", "expected"),
    [
        (132, [2, 2, 2], 132),
        (133, [2, 2, 2], 140),
        (1, [2, 2, 2], 92),
        (1, [2], 18),
        (1, [], 5),
        (9, [], 9),
        (1, [1, 2], 26),
        (1, [3], 22),
    ],
)
def test_the_next_size_for_unpadded_convolutions(size, strides, expected):
    assert valid_size(size, strides) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize(
    "config",
    [
        model(),
        model((FLAT, FULL)),
        model(()),
        model((FULL,) * 2, padding="valid"),
    ],
)
def test_less_and_less_work_comes_to_an_end(config, batch_size):
    shapes = [(1, 100, 100, 100)]
    chosen = plan(config, shapes, batch_size=batch_size)
    strides = UNet3D(1, 2, 1, config.pooling).total_stride

    def work(step):
        return step.batch_size * sum(z * y * x for z, y, x in step.sizes)

    steps = [chosen]
    while (smaller := steps[-1].smaller(config)) is not None:
        assert work(smaller) < work(steps[-1])
        for size in smaller.sizes:
            if config.padding == "valid":
                assert all(n > 0 for n in valid_output(size, config))
            else:
                assert all(n % s == 0 and n for n, s in zip(size, strides, strict=True))
        if batch_size == 1:
            assert strides not in smaller.sizes
        steps.append(smaller)
        assert len(steps) < 50
    assert len(steps) > 1
