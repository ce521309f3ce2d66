from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine import Annotation, EngineError, ModelConfig, TrainingConfig
from napari_unet3d.engine.class_weights import (
    BALANCED_STEPS,
    ClassWeights,
    class_balance,
)
from napari_unet3d.engine.closed_form import BALANCE

MODEL = ModelConfig(n_classes=3, base_channels=8)
COUNTS = np.array([60, 30, 10])
"""Of the annotation's classes."""


@pytest.fixture
def annotation():
    """Have 60 labelled voxels of the first class, 30 of the second, 10 of the third."""
    labels = np.zeros((4, 10, 10), np.uint8)
    labels[1] = 1
    labels[1, :3] = 2
    labels[1, 3] = 3
    return Annotation.from_labels(labels)


@pytest.fixture
def weights(annotation):
    """Return the weights of given settings after so many steps."""

    def at(step, model=MODEL, **training):
        config = TrainingConfig(**training)
        device = torch.device("cpu")
        return ClassWeights(model, config, [annotation], device).at(step).numpy()

    return at


@pytest.mark.parametrize(("step", "balance"), [(0, 0.5), (100, 0.25), (200, 0.0)])
def test_after_a_warm_start_rare_classes_count_more_at_first(weights, step, balance):
    expected = COUNTS**-balance
    expected *= COUNTS.sum() / (expected * COUNTS).sum()
    np.testing.assert_allclose(weights(step), expected, rtol=1e-6)


def test_random_weights_begin_with_what_is_asked_for(weights):
    assert weights(0, warm_start=False).tolist() == [1, 1, 1]
    assert weights(0, replace(MODEL, base_channels=16)).tolist() == [1, 1, 1]
    asked = weights(0, warm_start=False, class_balance=1.0)
    np.testing.assert_allclose(asked * COUNTS, asked[0] * COUNTS[0], rtol=1e-6)


@given(st.floats(0, 1), st.integers(0, 1000), st.booleans())
def test_the_balance_never_rises_and_ends_as_asked_for(asked, step, warm):
    training = TrainingConfig(class_balance=asked, warm_start=warm)
    now, then = (class_balance(MODEL, training, k) for k in (step, step + 1))
    assert asked <= then <= now <= max(asked, BALANCE)
    assert class_balance(MODEL, training, BALANCED_STEPS) == asked


def test_weights_can_be_given(weights):
    asked = (1.0, 2.0, 0.5)
    assert weights(0, class_weights=asked).tolist() == [1.0, 2.0, 0.5]
    assert weights(500, class_weights=asked).tolist() == [1.0, 2.0, 0.5]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((1.0, 2.0), r"2 values, \(1.0, 2.0\), but there are 3"),
        ((0.0, 0.0, 0.0), "all class_weights are 0"),
    ],
)
def test_weights_must_fit_the_classes(weights, asked, message):
    with pytest.raises(EngineError, match=message):
        weights(0, class_weights=asked)
