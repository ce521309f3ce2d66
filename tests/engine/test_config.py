from __future__ import annotations

import dataclasses
import json

import pytest
import yaml

from napari_unet3d.engine import (
    AugmentationConfig,
    EngineError,
    ModelConfig,
    SegmentationConfig,
    TrainingConfig,
)
from napari_unet3d.engine.config_values import as_plain, build, field_names

KINDS = (ModelConfig, AugmentationConfig, TrainingConfig, SegmentationConfig)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_has_to_be_given(kind):
    assert build(kind, {}) == kind()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "through", [lambda x: x, lambda x: json.loads(json.dumps(x))], ids=["same", "json"]
)
def test_plain_values_come_back(kind, through):
    assert build(kind, through(as_plain(kind()))) == kind()


def test_values_of_yaml():
    text = """
        pooling: [[1, 2, 2], [2, 2, 2]]
        filter_scales: [1, 2]
        spacing: [2.5, 1, 1]
    """
    config = build(ModelConfig, yaml.safe_load(text))
    assert config.pooling == ((1, 2, 2), (2, 2, 2))
    assert config.filter_scales == (1.0, 2.0)
    assert config.spacing == (2.5, 1.0, 1.0)


def test_augmentation_is_part_of_training():
    config = build(TrainingConfig, {"augmentation": {"noise": 0.2}})
    assert config.augmentation == AugmentationConfig(noise=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_description(kind):
    for field in dataclasses.fields(kind):
        described = kind.__pydantic_fields__[field.name].description
        if field.name != "augmentation":
            assert described
            assert not described.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_settings_cannot_be_changed(kind):
    config = kind()
    name = dataclasses.fields(kind)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, None)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainingConfig, {"stpes": 3}, r"unknown field stpes; did you mean steps\?"),
        (SegmentationConfig, {"x": 3}, "unknown field x; known: weights, recompute_"),
        (
            TrainingConfig,
            {"augmentation": {"noize": 3}},
            r"unknown field augmentation.noize; did you mean noise\?",
        ),
        (TrainingConfig, {"steps": 0}, "steps: input should be greater than 0, got 0"),
        (TrainingConfig, {"steps": True}, "steps: input should not be yes or no"),
        (ModelConfig, {"shortcut": False}, "shortcut: input should not be yes or no"),
        (ModelConfig, {"spacing": [True, 1, 1]}, "spacing: input should not be yes or"),
        (ModelConfig, {"normalization": False}, "normalization: .*'batch' or 'none'"),
        (TrainingConfig, {"steps": "a"}, "steps: .* valid integer.*, got 'a'"),
        (TrainingConfig, {"learning_rate": float("nan")}, "learning_rate: .*got nan"),
        (TrainingConfig, {"loss": "mse"}, "loss: .*'cross_entropy'.*, got 'mse'"),
        (TrainingConfig, {"class_weights": [1, -2]}, "class_weights.1: .*got -2"),
        (TrainingConfig, {"patch_size": [8, 0, 8]}, "patch_size.1: .*got 0"),
        (
            TrainingConfig,
            {"augmentation": {"noise": -1}},
            "augmentation.noise: .*greater than or equal to 0, got -1",
        ),
        (ModelConfig, {"n_classes": 255}, "n_classes: .*equal to 254, got 255"),
        (ModelConfig, {"pooling": [[2, 2]]}, "pooling.0.2: field required"),
        (ModelConfig, {"pooling": [[2, 0, 2]]}, "pooling.0.1: .*got 0"),
        (ModelConfig, {"filter_scales": []}, "filter_scales: .*at least 1 item"),
        (ModelConfig, {"spacing": [1, 1, 0]}, "spacing.2: .*got 0"),
        (SegmentationConfig, {"memory": "a lot"}, "memory: .*got 'a lot'"),
    ],
)
def test_a_wrong_value_is_named_with_field_and_limit(kind, values, message):
    with pytest.raises(EngineError, match=message):
        build(kind, values)


def test_all_wrong_values_are_named_with_their_place():
    with pytest.raises(EngineError) as error:
        build(TrainingConfig, {"steps": -1, "seed": -2, "sede": 3}, "training")
    sentences = str(error.value).split("; ")
    assert any(s.startswith("training.steps: ") for s in sentences)
    assert any(s.startswith("training.seed: ") for s in sentences)
    assert "unknown field training.sede" in sentences


@pytest.mark.parametrize("values", [{3: 4}, [1, 2]])
def test_what_is_no_mapping_by_name_is_refused(values):
    with pytest.raises(EngineError, match=r"^training: "):
        build(TrainingConfig, values, "training")
    with pytest.raises(EngineError, match=r"^TrainingConfig: "):
        build(TrainingConfig, values)


def test_field_names_include_nested_ones():
    names = field_names(TrainingConfig)
    assert {"steps", "augmentation", "elastic_sd"} <= set(names)
