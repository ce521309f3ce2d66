"""The settings' form: defaults, limits and help are the configuration's."""

from __future__ import annotations

import pytest

from napari_unet3d._qt.form import Form
from napari_unet3d.engine.config import (
    AugmentationConfig,
    ModelConfig,
    SegmentationConfig,
    TrainingConfig,
)
from napari_unet3d.engine.config_values import build

KINDS = [ModelConfig, AugmentationConfig, TrainingConfig, SegmentationConfig]


@pytest.mark.parametrize("kind", KINDS)
def test_an_untouched_form_is_the_default_configuration(qtbot, kind):
    form = Form(kind)
    qtbot.addWidget(form)
    assert form.values() == {}
    assert build(kind, form.values()) == kind()
    assert form.problem() is None


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            TrainingConfig,
            {
                "learning_rate": 1e-5,
                "steps": 7,
                "patch_size": (8, 16, 32),
                "loss": "focal",
                "class_weights": (1.0, 0.5),
                "augmentation": {"flip": (False, True, True), "noise": 0.0},
            },
        ),
        (
            ModelConfig,
            {
                "pooling": ((1, 2, 2), (2, 2, 2)),
                "filter_scales": (1.5,),
                "stem": "none",
            },
        ),
        (SegmentationConfig, {"recompute_statistics": True, "memory": 0.5}),
    ],
)
def test_values_come_back_as_they_went_in(qtbot, kind, values):
    form = Form(kind)
    qtbot.addWidget(form)
    form.set_values(values)
    assert form.values() == values
    assert build(kind, form.values()) == build(kind, values)
    form.reset()
    assert form.values() == {}


def test_what_is_typed_in_is_checked(qtbot):
    form = Form(TrainingConfig)
    qtbot.addWidget(form)
    field = form.field("learning_rate")
    assert field.placeholderText() == f"{TrainingConfig().learning_rate:g}"
    assert field.toolTip() == "Peak learning rate of AdamW"
    qtbot.keyClicks(field, "2e-4")
    assert form.values() == {"learning_rate": 2e-4}
    field.setText("fast")
    assert "learning_rate" in form.problem()
    assert field.styleSheet()
    field.clear()
    assert form.problem() is None
    assert not field.styleSheet()


def test_hidden_fields_are_decided_elsewhere(qtbot):
    form = Form(ModelConfig, hidden=("in_channels",))
    qtbot.addWidget(form)
    with pytest.raises(KeyError):
        form.field("in_channels")
