from __future__ import annotations

import argparse
import re

import pytest

from napari_unet3d.commands import evaluate, segment, train
from napari_unet3d.commands.flags import add_flags, given_flags
from napari_unet3d.commands.settings import (
    SECTIONS,
    RunConfig,
    as_plain,
    build_run,
    overlay_values,
    read_run,
)
from napari_unet3d.engine import ModelConfig, TrainingConfig
from napari_unet3d.engine.errors import EngineError


def actions(command):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return {
        flag: action for action in parser._actions for flag in action.option_strings
    }


def leaves(kind, path=()):
    """Every field of a configuration class that holds a value."""
    for name, info in kind.__pydantic_fields__.items():
        if hasattr(info.annotation, "__pydantic_fields__"):
            yield from leaves(info.annotation, (*path, name))
        else:
            yield (*path, name), info


FIELDS = [
    pytest.param(path, info, id=".".join(path)) for path, info in leaves(RunConfig)
]
PAIRS = {"train": "", "validation": "validation-", "test": "test-"}


@pytest.mark.parametrize(("path", "info"), FIELDS)
def test_every_field_is_a_flag_with_a_help(path, info):
    section, name = path[0], path[-1]
    # In a training these two flags are those of the training.
    is_other = section == "segmentation" and name in ("device", "precision")
    flags = actions(segment if is_other else train)
    assert info.description
    if section == "data" and name in PAIRS:
        for kind in ("image", "labels"):
            assert flags[f"--{PAIRS[name]}{kind}"].help
        return
    action = flags["--" + name.replace("_", "-")]
    assert action.dest == ".".join(path)
    assert info.description.split(" (default")[0] in action.help
    assert "(default:" in action.help or name == "model" or info.default is None


@pytest.mark.parametrize("command", [train, segment, evaluate])
def test_every_flag_has_a_help_and_a_short_metavar(command):
    for flag, action in actions(command).items():
        assert action.help, flag
        if action.nargs != 0 and action.choices is None:
            assert len(str(action.metavar)) <= 10, flag


def test_defaults_are_shown():
    help_texts = {flag: action.help for flag, action in actions(train).items()}
    rate = TrainingConfig().learning_rate
    scales = ",".join(f"{scale:g}" for scale in ModelConfig().filter_scales)
    assert help_texts["--learning-rate"].endswith(f"(default: {rate:g})")
    assert help_texts["--filter-scales"].endswith(f"(default: {scales})")
    assert help_texts["--flip"].endswith("(default: no,no,no)")
    assert help_texts["--loss"].endswith("(default: cross_entropy)")
    assert help_texts["--patch-size"].endswith("(default: from device and volume)")


VALUES = {
    "data.channels": ("0,2", [0, 2]),
    "data.axes": ("CZYX", "CZYX"),
    "data.class_names": ("a, b", ["a", "b"]),
    "model.in_channels": ("2", 2),
    "model.pooling": ("1,2,2/2,2,2", [[1, 2, 2], [2, 2, 2]]),
    "model.filter_scales": ("0.5,2", [0.5, 2]),
    "model.spacing": ("2.5,1,1", [2.5, 1, 1]),
    "model.padding": ("valid", "valid"),
    "training.minutes": ("0.5", 0.5),
    "training.patch_size": ("8,16,24", [8, 16, 24]),
    "training.class_weights": ("1,0.5", [1, 0.5]),
    "training.learning_rate": ("1e-3", 1e-3),
    "training.augmentation.flip": ("no,yes,0", [False, True, False]),
    "training.augmentation.rotation": ("90", 90),
    "segmentation.memory": ("1.5", 1.5),
    "output.model": ("m.pt", "m.pt"),
}


def parsed(section, *arguments):
    parser = argparse.ArgumentParser()
    add_flags(parser, section)
    return given_flags(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("field", "text", "value"), [(k, *v) for k, v in VALUES.items()]
)
def test_flags_are_understood(field, text, value):
    section, _, name = field.rpartition(".")
    flag = "--" + name.replace("_", "-")
    plain = as_plain(build_run(parsed(section, flag, text)))
    for part in field.split("."):
        plain = plain[part]
    assert plain == value


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--recompute-statistics", True), ("--no-recompute-statistics", False)],
)
def test_switches(flag, value):
    assert parsed("segmentation", flag) == {
        "segmentation": {"recompute_statistics": value}
    }


def test_only_given_flags_count():
    assert parsed("training") == {}
    assert parsed("training", "--seed", "0") == {"training": {"seed": "0"}}


def test_later_values_win():
    assert overlay_values(
        {"training": {"seed": 1, "augmentation": {"noise": 0.1, "gamma": 0.1}}},
        {"training": {"augmentation": {"noise": 0.2}}, "model": {"depth": 2}},
        {"training": {"seed": 3}},
    ) == {
        "training": {"seed": 3, "augmentation": {"noise": 0.2, "gamma": 0.1}},
        "model": {"depth": 2},
    }


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"minutes": 3, "steps": None}, {"steps": 5}, {"minutes": None, "steps": 5}),
        ({"steps": 5}, {"minutes": 3}, {"minutes": 3, "steps": None}),
        ({"steps": 5}, {"seed": 3}, {"steps": 5, "seed": 3}),
        ({"steps": 5}, {"minutes": None}, {"minutes": None, "steps": 5}),
    ],
)
def test_minutes_and_steps_take_each_others_place(below, above, expected):
    assert overlay_values({"training": below}, {"training": above})["training"] == (
        expected
    )


def test_minutes_and_steps_at_once():
    with pytest.raises(EngineError, match="exclude each other, got 3 minutes and 5 st"):
        overlay_values({"training": {"minutes": 3, "steps": 5}})


YAML = """
data:
  train:
    - {image: a.tif, labels: /elsewhere/a.tif}
  test:
    - image: d.h5:raw
      labels: ~/d.tif
model:
training:
  steps: 5
  learning_rate: 1e-3
  augmentation: {elastic_sd: 2}
output:
  model: runs/m.pt
"""


def test_a_file_gives_what_it_says_and_its_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "c.yaml").write_text(YAML)
    assert read_run(tmp_path / "c.yaml") == {
        "data": {
            "train": [{"image": str(tmp_path / "a.tif"), "labels": "/elsewhere/a.tif"}],
            "test": [
                {"image": str(tmp_path / "d.h5:raw"), "labels": "/home/someone/d.tif"}
            ],
        },
        "model": {},
        "training": {
            "steps": 5,
            "learning_rate": 1e-3,
            "augmentation": {"elastic_sd": 2},
        },
        "output": {"model": str(tmp_path / "runs" / "m.pt")},
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("training: {step: 3}", "training.step is no known field; did you mean steps?"),
        (
            "output: {xyzzy: 3}",
            "output.xyzzy is no known field; known are model, log_dir, tensorboard",
        ),
        ("modle: {depth: 3}", "modle is no known field; did you mean model?"),
        (
            "training: {elastic_sd: 3}",
            "training.elastic_sd is no known field; did you mean elastic_sd?",
        ),
        (
            "training: {steps: many}",
            "training.steps must be a whole number, got 'many'",
        ),
        ("training: {steps: 1.5}", "training.steps must be a whole number, got 1.5"),
        ("training: {steps: -1}", "training.steps must be greater than 0, got -1"),
        (
            "training: {augmentation: {noise: 9}}",
            "training.augmentation.noise must be at most 5, got 9",
        ),
        (
            "training: {patch_size: [8, 8]}",
            "training.patch_size has too few values, got",
        ),
        ("training: {loss: mse}", "training.loss must be 'cross_entropy', 'focal' or"),
        ("training: 3", "training must hold fields with values, got 3"),
        ("data: {train: a.tif}", "data.train must be a list, got 'a.tif'"),
        (
            "data: {train: [a.tif]}",
            "data.train must hold fields with values, got 'a.tif'",
        ),
        (
            "data: {train: [{image: a.tif}]}",
            "data.train.0.labels is missing",
        ),
        (
            "data: {train: [{image: 3, labels: a.tif}]}",
            "data.train.0.image must be text, got 3",
        ),
        (
            "data: {train: [{image: a, label: b, labels: c}]}",
            "data.train.0.label is no known field; did you mean labels?",
        ),
        ("- a\n- b", "holds list; write one setting per line"),
        ("", "holds nothing; write one setting per line"),
        ("training: {steps: 3", "is no valid configuration"),
        ("training: {steps: 3, steps: 4}", "'steps' is given twice in line 1"),
        ("training: !!python/object/apply:os.getcwd []", "is no valid configuration"),
    ],
)
def test_wrong_fields_are_named(text, sentence, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(EngineError) as caught:
        read_run(path)
    assert str(caught.value).startswith(str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_wrong_fields_are_named_at_once(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training: {steps: 0, seed: x}\nmodel: {depht: 3}\n")
    with pytest.raises(EngineError) as caught:
        read_run(path)
    assert str(caught.value) == (
        f"{path}: model.depht is no known field; did you mean depth?; "
        f"{path}: training.steps must be greater than 0, got 0; "
        f"{path}: training.seed must be a whole number, got 'x'"
    )


def test_every_section_is_described():
    assert set(SECTIONS) == set(RunConfig.__pydantic_fields__)
    for kind in SECTIONS.values():
        assert kind.__doc__
        assert re.match(r"[A-Z].*\.$", kind.__doc__.splitlines()[0])
