from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import (
    EngineError,
    ModelConfig,
    SegmentationConfig,
    TrainingConfig,
    TrainingVolume,
    segment,
)
from napari_unet3d.engine.events import StepDone
from napari_unet3d.engine.planning import derive_pooling, resolve_model
from napari_unet3d.engine.warm_start import starts_warm

FULL, FLAT = (2, 2, 2), (1, 2, 2)


def model(pooling=(FULL,) * 3, **fields):
    defaults = {
        "in_channels": 1,
        "n_classes": 2,
        "base_channels": 8,
        "spacing": (1.0, 1.0, 1.0),
    }
    return ModelConfig(**{**defaults, **fields}, pooling=pooling)


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((1, 1, 1), None, (FULL,) * 3),
        ((1.9, 1, 1), None, (FULL,) * 3),
        ((2, 1, 1), None, (FLAT, FULL, FULL)),
        ((2.2, 1, 1), None, (FLAT, FULL, FULL)),
        ((5, 1, 1), None, (FLAT, FLAT, FULL)),
        ((100, 1, 1), None, (FLAT,) * 3),
        ((1, 3, 1), None, ((2, 1, 2), FULL, FULL)),
        ((1, 2, 4), None, ((2, 1, 1), (2, 2, 1), FULL)),
        # Only the proportions matter, not the unit.
        ((5e-7, 1e-7, 1e-7), None, (FLAT, FLAT, FULL)),
        # An axis is pooled while at least two voxels are left of it.
        ((1, 1, 1), (16, 16, 16), (FULL,) * 3),
        ((1, 1, 1), (5, 100, 100), (FULL, FLAT, FLAT)),
        ((1, 1, 1), (1, 100, 100), (FLAT,) * 3),
        ((1, 1, 1), (8, 8, 8), (FULL, FULL)),
        ((1, 1, 1), (3, 2, 1), ()),
        # A fine axis with nothing left does not hold the others back.
        ((1, 4, 4), (2, 100, 100), (FLAT,) * 3),
    ],
)
def test_pooling_makes_voxels_cubes(spacing, shape, expected):
    assert derive_pooling(spacing, 4, shape) == expected


def test_depth_one_pools_nothing():
    assert derive_pooling((1, 1, 1), 1) == ()


@given(
    spacing=st.tuples(*[st.floats(0.01, 100)] * 3),
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    depth=st.integers(1, 6),
)
def test_pooling_never_asks_for_more_voxels_than_there_are(spacing, shape, depth):
    pooling = derive_pooling(spacing, depth, shape)
    assert len(pooling) < depth
    for axis, n in enumerate(shape):
        for stride in pooling:
            n //= stride[axis]
        assert n >= min(2, shape[axis])


def resolve(
    config=None, shapes=((1, 20, 30, 40),), spacings=(None,), n_classes=2, **kw
):
    return resolve_model(config or ModelConfig(**kw), shapes, spacings, n_classes)


def test_what_is_open_comes_from_the_data():
    found = resolve(
        shapes=[(2, 20, 300, 400), (2, 40, 100, 100)],
        spacings=[None, (5.0, 1.0, 1.0)],
        n_classes=3,
    )
    assert found.in_channels == 2
    assert found.n_classes == 3
    assert found.spacing == (5.0, 1.0, 1.0)
    assert found.pooling == (FLAT, FLAT, FULL)
    assert found.depth == 4
    assert found.base_channels == 8


def test_what_was_given_stays():
    given = model(pooling=(FLAT, FULL), spacing=(3.0, 1.0, 1.0), n_classes=5)
    assert resolve(given, spacings=[(1.0, 1.0, 1.0)]) == replace(given, depth=3)


def test_without_spacing_voxels_are_cubes():
    assert resolve().spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"shapes": [(1, 9, 9, 9), (3, 9, 9, 9)], "spacings": [None] * 2},
            r"different numbers of channels: \[1, 3\]",
        ),
        ({"in_channels": 2}, "takes 2 channels but the image has 1"),
        ({"n_classes": 4, "config": model()}, "class 4 but the model has 2 classes"),
        (
            {"config": model(), "shapes": [(1, 9, 7, 9)]},
            "7 voxels along Y but the network pools that axis by 8",
        ),
        (
            {"depth": 2, "pooling": (FULL,) * 3},
            "depth is 2 levels, but pooling has 3 strides for 4 of them",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(EngineError, match=message):
        resolve(**arguments)


@pytest.mark.parametrize("depth", [{}, {"depth": 3}])
def test_pooling_says_how_deep_a_network_is(depth):
    assert resolve(pooling=(FLAT, FULL), **depth).depth == 3


@pytest.mark.parametrize("patch_size", [None, (8, 16, 16)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_model_goes_on_with_a_volume_thinner_than_its_pooling(
    padding, patch_size, make_trainer, make_toy, make_checkpoint, sparse
):
    image, truth = make_toy((3, 32, 32))
    checkpoint = make_checkpoint(
        pooling=(FULL,) * 3, padding=padding, n_classes=2, stem="none"
    )
    trainer = make_trainer(
        [TrainingVolume(image, sparse(truth, slices=(1,)))],
        checkpoint=replace(checkpoint, class_names=("a", "b")),
        steps=2,
        patch_size=patch_size,
    )
    losses = [event.loss for event in trainer.run() if isinstance(event, StepDone)]
    assert len(losses) == 2
    assert trainer.model == checkpoint.model
    found = segment(trainer.checkpoint(), image, SegmentationConfig(device="cpu"))
    assert found.labels.shape == image.shape


def test_a_network_of_the_default_width_starts_warm():
    assert starts_warm(resolve(), TrainingConfig())
