from __future__ import annotations

import builtins
import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_unet3d.engine import EngineError, load, model_file, save
from napari_unet3d.engine.checkpoint import build_network
from napari_unet3d.engine.config import ModelConfig
from napari_unet3d.engine.errors import SaveError


@pytest.fixture
def model(make_checkpoint):
    """Return a model with something in every field."""
    return replace(
        make_checkpoint(padding="valid", spacing=(2.5, 1.0, 1.0)),
        class_colors=("#000000", "#ff0000", "#00ff00"),
        unit="micrometer",
        step=12,
        seconds=3.25,
        schedule={"step": 4, "seconds": 1.5},
        best={"iou": 0.75, "step": 8.0, "labels": 4294967295.0},
        optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []},
        history=[{"step": 1, "loss": 0.5}, {"step": 8, "iou": [0.5, float("nan")]}],
    )


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert_same(value, b[key])
    elif isinstance(a, list):
        for value, other in zip(a, b, strict=True):
            assert_same(value, other)
    else:
        np.testing.assert_equal(a, b)
        assert type(a) is type(b)


def test_every_field_comes_back(model, tmp_path):
    save(model, tmp_path / "model.unet3d")
    assert_same(vars(load(tmp_path / "model.unet3d")), vars(model))


def test_a_path_may_be_text(model, tmp_path):
    save(model, str(tmp_path / "a"))
    assert load(str(tmp_path / "a")).step == 12


def test_the_network_is_that_of_the_chosen_weights(model):
    for name in ("best", "average", "latest"):
        network = model.network(name)
        assert not network.training
        assert network.padding == "valid"
        assert_same(dict(network.state_dict()), dict(model.weights[name]))
    assert_same(dict(model.filter_stem().state_dict()), dict(model.stem))


@pytest.mark.parametrize("weights", ["best", "latest"])
def test_the_average_stands_in_for_missing_weights(weights, model):
    model.weights[weights] = {}
    assert_same(dict(model.network(weights).state_dict()), model.weights["average"])
    del model.weights[weights]
    assert_same(dict(model.network(weights).state_dict()), model.weights["average"])


def test_the_stem_may_be_none(make_checkpoint, tmp_path):
    save(make_checkpoint(stem="none"), tmp_path / "a")
    found = load(tmp_path / "a")
    assert found.filter_stem().scales == ()
    assert found.network().encoder[0].first.conv.in_channels == 1


def test_saving_replaces_a_model_as_a_whole(model, tmp_path):
    path = tmp_path / "model"
    save(model, path)
    save(replace(model, step=99), path)
    assert load(path).step == 99
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("where", ["write", "flush", "rename"])
@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("unexpected pos 8 vs 0")],
)
def test_a_failed_write_leaves_the_old_model_and_nothing_else(
    where, error, model, tmp_path, monkeypatch
):
    path = tmp_path / "model"
    save(model, path)
    before = path.read_bytes()

    def fail(*_):
        raise error

    if where == "write":

        def half(content, file):
            file.write(b"half a model")
            raise error

        monkeypatch.setattr(torch, "save", half)
    else:
        monkeypatch.setattr(os, {"flush": "fsync", "rename": "replace"}[where], fail)
    reason = "No space left on device|the disk is full or gone"
    with pytest.raises(SaveError, match=f"cannot write the model {path}: ({reason});"):
        save(replace(model, step=99), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_that_does_not_exist_is_a_sentence(model, tmp_path):
    with pytest.raises(EngineError, match="No such file or directory; choose a folder"):
        save(model, tmp_path / "nowhere" / "model")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs special files")
def test_a_device_is_not_replaced(model, tmp_path):
    path = tmp_path / "device"
    os.mkfifo(path)
    with pytest.raises(SaveError, match=f"{path}: it is a device; choose another"):
        save(model, path)
    assert path.is_fifo()


def test_a_folder_is_no_model_file(model, tmp_path):
    with pytest.raises(EngineError, match=f"cannot write the model {tmp_path}"):
        save(model, tmp_path)
    with pytest.raises(EngineError, match=f"{tmp_path} is a folder, not a model file"):
        load(tmp_path)


def test_a_file_that_is_missing_is_named(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(EngineError, match=f"there is no model file {path}"):
        load(path)


class Evil:
    """Ask the reader of a pickle to create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def foreign(path, kind):
    writers = {
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("hello\n" * 100),
        "zeros": lambda: path.write_bytes(bytes(1000)),
        "zip": lambda: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        "array": lambda: np.savez(path.open("wb"), a=np.ones(3)),
        "tensor": lambda: torch.save(torch.ones(3), path),
        "state dict": lambda: torch.save({"a": torch.ones(3)}, path),
        "module": lambda: torch.save(torch.nn.Linear(2, 2), path),
        "pickle": lambda: path.write_bytes(
            pickle.dumps({"format": model_file.FORMAT}, protocol=2)
        ),
        "old torch": lambda: torch.save(
            {"a": 1}, path, _use_new_zipfile_serialization=False
        ),
    }
    writers[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "text", "zeros", "zip", "array"),
        *("tensor", "state dict", "module", "pickle", "old torch"),
    ],
)
def test_another_file_is_refused_by_its_name(kind, tmp_path):
    path = tmp_path / "model"
    foreign(path, kind)
    with pytest.raises(EngineError, match=f"{path} (cannot be read|is not|is damaged)"):
        load(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(zipped, model, tmp_path):
    path, marker = tmp_path / "model", tmp_path / "executed"
    content = {"format": model_file.FORMAT, "format_version": 1, "unit": Evil(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(EngineError, match=f"{path} cannot be read .* not safe to open"):
        load(path)
    assert not marker.exists()
    path.write_bytes(pickle.dumps(Evil(marker), protocol=2))
    with pytest.raises(EngineError, match="not safe to open"):
        load(path)
    assert not marker.exists()
    # It would have been, by a reader that is less careful.
    pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.fixture(scope="module")
def saved(make_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    save(make_checkpoint(base_channels=1, pooling=((2, 2, 2),), stem="none"), path)
    return path


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(share, saved, tmp_path):
    data = saved.read_bytes()
    path = tmp_path / "model"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(EngineError, match=f"{path} cannot be read as a model"):
        load(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 0.999), noise=st.binary(min_size=1, max_size=40))
def test_a_damaged_file_is_read_or_refused_but_never_crashes(
    place, noise, saved, tmp_path
):
    data = bytearray(saved.read_bytes())
    start = int(len(data) * place)
    data[start : start + len(noise)] = noise
    path = tmp_path / "model"
    path.write_bytes(data)
    message = str(path)
    try:
        load(path)
    except EngineError as error:
        message = str(error)
    assert str(path) in message


def rewritten(saved, path, change):
    content = torch.load(saved, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


FIELDS = (
    *("model", "training", "weights", "stem", "class_names", "class_colors", "unit"),
    *("step", "seconds", "schedule", "best", "optimizer", "history", "version"),
)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, (3,), b"a", torch.ones(2)])
def test_a_field_of_another_type_is_named(field, value, saved, tmp_path):
    path = rewritten(
        saved, tmp_path / "a", lambda content: content.update({field: value})
    )
    with pytest.raises(
        EngineError, match=f"{path} is damaged: its field '{field}' is "
    ):
        load(path)


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(field, saved, tmp_path):
    path = rewritten(saved, tmp_path / "a", lambda content: content.pop(field))
    with pytest.raises(EngineError, match=f"its field '{field}' is NoneType"):
        load(path)


def updated(*path, value):
    """Return a change of one entry of nested dictionaries."""

    def change(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        content[last] = value

    return change


VARIANCE = "encoder.0.first.norm.running_var"


def without_average(content):
    content["weights"]["average"] = {}


def with_another_name(content):
    weights = content["weights"]["latest"]
    weights["stranger"] = weights.pop("head.bias")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (updated("format", value="another"), "is not a model of napari-unet3d"),
        (updated("format_version", value=None), "its format version is None"),
        (updated("format_version", value="2"), "its format version is '2'"),
        (updated("model", "depth", value=99), "model.depth: .*equal to 6, got 99"),
        (updated("model", "padding", value="odd"), "model.padding: "),
        (updated("model", "stranger", value=1), "unknown field model.stranger"),
        (updated("model", 3, value=1), "damaged: model: "),
        (updated("model", "in_channels", value=None), "it lacks in_channels"),
        (updated("model", "spacing", value=None), "it lacks spacing"),
        (updated("model", "in_channels", value=2), "encoder.0.first.conv.weight is"),
        (updated("model", "in_channels", value=2**62), "there is no such network|is"),
        (updated("model", "in_channels", value=10**30), "no such network|in_channels"),
        (
            updated("model", "base_channels", value=256),
            "encoder.0.first.conv.weight is",
        ),
        (updated("model", "n_classes", value=7), "it names 3 of 7 classes"),
        (updated("class_names", value=["a"]), "it names 1 of 3 classes"),
        (updated("step", value=-1), "its step is -1"),
        (updated("seconds", value=-1.0), "it was trained for -1.0 seconds"),
        (updated("seconds", value=float("nan")), "it was trained for nan seconds"),
        (updated("seconds", value=float("inf")), "it was trained for inf seconds"),
        (
            updated("schedule", "step", value=float("nan")),
            "step in its field 'schedule' is nan",
        ),
        (
            updated("best", "iou", value=-float("inf")),
            "iou in its field 'best' is -inf",
        ),
        (updated("model", "normalization", value="none"), "have an unexpected"),
        (updated("model", "stem", value="filters"), "weights do not fit"),
        (updated("model", "pooling", value=()), "weights do not fit"),
        (updated("model", "pooling", value=((2, 2, 2),) * 50), "model.pooling: "),
        (updated("model", "pooling", value=((2, -2, 2),)), "model.pooling.0.1: "),
        (updated("model", "pooling", value=((10**9,) * 3,)), "no such network|up.0"),
        (updated("training", "steps", value=-1), "training.steps: "),
        (without_average, "it lacks weights"),
        (with_another_name, "they (lack head.bias|have an unexpected stranger)"),
        (updated("weights", "latest", "head.bias", value=3), "head.bias is 3, not"),
        (
            updated("weights", "best", value=torch.ones(3)),
            "its best weights are Tensor",
        ),
        (updated("weights", "average", value=[1]), "its average weights are list"),
        (updated("stem", "mean", value=torch.ones(3)), "filter statistics do not fit"),
        (
            updated("stem", "mean", value=torch.tensor([float("nan")])),
            "filter statistics mean are not all finite numbers",
        ),
        (
            updated("stem", "deviation", value=torch.zeros(1)),
            "filter statistics deviation are not all positive",
        ),
        (
            updated("stem", "deviation", value=torch.tensor([float("nan")])),
            "filter statistics deviation are not all finite numbers",
        ),
        (
            updated("weights", "average", VARIANCE, value=torch.tensor([-0.5])),
            f"weights {VARIANCE} are negative",
        ),
        (updated("schedule", "step", value="a"), "step in its field 'schedule' is 'a'"),
        (updated("best", "iou", value=[1]), r"iou in its field 'best' is \[1\]"),
        (updated("history", value=[1]), "history holds more than dictionaries"),
    ],
)
def test_what_does_not_fit_is_named(change, message, saved, tmp_path):
    path = rewritten(saved, tmp_path / "model", change)
    with pytest.raises(EngineError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.half,
        torch.Tensor.int,
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: tensor.to("meta"),
    ],
)
@pytest.mark.parametrize(
    "place", [("weights", "best", "head.bias"), ("stem", "deviation")]
)
def test_tensors_of_another_kind_are_named(place, other, saved, tmp_path):
    def change(content):
        *parents, last = place
        for key in parents:
            content = content[key]
        content[last] = other(content[last])

    path = rewritten(saved, tmp_path / "model", change)
    with pytest.raises(
        EngineError, match=f"{path} is damaged: .* {place[-1]} is torch"
    ):
        load(path)


def test_a_newer_version_asks_for_an_update(saved, tmp_path):
    def change(content):
        content.update(format_version=model_file.FORMAT_VERSION + 1, version="9.8")

    path = rewritten(saved, tmp_path / "model", change)
    with pytest.raises(EngineError, match=r"napari-unet3d 9\.8, which is newer.*pip"):
        load(path)


def test_files_of_version_1_are_read(saved, tmp_path):
    def change(content):
        content["format_version"] = 1
        content["training"]["freeze_statistics"] = 0.05
        del content["training"]["batch_statistics"]

    found = load(rewritten(saved, tmp_path / "model", change))
    assert found.training == load(saved).training


def test_a_file_that_may_not_be_read(saved, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(EngineError, match=r"cannot be read .* .PermissionError"):
        load(saved)


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(make_checkpoint):
    model = make_checkpoint(in_channels=1)
    model.model = replace(model.model, in_channels=2)
    with pytest.raises(EngineError, match=r"weights do not fit .* is .*, not "):
        model.network()
    with pytest.raises(EngineError, match="filter statistics do not fit"):
        model.filter_stem()


def test_a_configuration_with_open_fields_is_no_network():
    with pytest.raises(AssertionError):
        build_network(ModelConfig())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, saved, tmp_path):
    def change(content):
        content["weights"]["average"]["head.bias"][0] = value

    path = rewritten(saved, tmp_path / "model", change)
    with pytest.raises(EngineError, match=r"head\.bias are not all finite numbers"):
        load(path)


@pytest.mark.parametrize("name", ["latest", "average", "best"])
def test_useless_weights_do_not_replace_a_model(name, model, tmp_path):
    path = tmp_path / "model"
    save(model, path)
    before = path.read_bytes()
    model.weights[name]["head.bias"][0] = float("nan")
    message = (
        rf"not written after 12 steps, and {path} stays as it was: its weights "
        r"head\.bias are not all finite numbers; .* lower learning rate \(now 0.005\)"
    )
    with pytest.raises(EngineError, match=message) as caught:
        save(model, path)
    # Another place is no remedy.
    assert not isinstance(caught.value, SaveError)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


def test_the_digest_is_that_of_the_file(saved, tmp_path):
    found, digest = model_file.load_with_digest(saved)
    assert digest == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert_same(vars(found), vars(load(saved)))
    with pytest.raises(EngineError, match=r"there is no model file .*none.pt; check"):
        model_file.load_with_digest(tmp_path / "none.pt")
    (tmp_path / "notes.pt").write_text("notes")
    with pytest.raises(EngineError, match=r"notes.pt cannot be read as a model \("):
        model_file.load_with_digest(tmp_path / "notes.pt")
