from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import numpy as np
import pytest
import tifffile
import torch
import yaml

from napari_unet3d.cli import main
from napari_unet3d.commands import train as command
from napari_unet3d.commands.settings import RunConfig, as_plain
from napari_unet3d.engine import (
    SegmentationConfig,
    load,
    model_file,
    optimization,
    segment,
)
from napari_unet3d.engine.device import choose_device
from napari_unet3d.io import create_volume, open_image, read_labels
from napari_unet3d.io.annotation_file import AnnotationFile

from .conftest import LABELLED, SMALL, contents

FILTERS = (*SMALL[:4], "--filter-scales", "1", *SMALL[6:])
"""The same with filter responses."""


def train(*arguments, model="new.pt"):
    return ("train", *LABELLED, "--model", model, *SMALL, *arguments)


def tensors(state, place=""):
    """Flatten the tensors of a checkpoint."""
    if isinstance(state, torch.Tensor):
        return {place: state}
    if isinstance(state, dict):
        parts = state.items()
    elif isinstance(state, list | tuple):
        parts = enumerate(state)
    else:
        return {}
    return {
        name: tensor
        for key, value in parts
        for name, tensor in tensors(value, f"{place}/{key}").items()
    }


def assert_same_training(one, other):
    """Compare all tensors bit for bit and all figures but the seconds."""
    one, other = (torch.load(name, weights_only=True) for name in (one, other))
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert len(a) > 40
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    for name in ("step", "schedule", "best", "model", "training", "class_names"):
        one_value, other_value = one[name], other[name]
        if name == "schedule":
            one_value, other_value = one_value["step"], other_value["step"]
        assert one_value == other_value, name


@pytest.mark.parametrize("arguments", [SMALL, FILTERS], ids=["plain", "with filters"])
def test_stopping_and_resuming_is_exact(arguments, work, program):
    arguments = (*arguments, "--validate-every", "2")
    start = ("train", *LABELLED, *arguments, "--steps", "6")
    assert program(*start, "--model", "whole.pt").status == 0
    first = program(*start, "--model", "part.pt", "--stop-after", "3")
    assert first.status == 0
    assert "training paused: 3 steps" in first.err
    assert "go on with --resume part.pt" in first.err
    # No setting is repeated, and it goes on in two parts.
    resumed = ("train", *LABELLED, "--resume", "part.pt", "--model", "part.pt")
    assert program(*resumed, "--stop-after", "1").status == 0
    last = program(*resumed)
    assert last.status == 0
    assert "training finished: 6 steps" in last.err
    assert "--resume" not in last.err
    assert_same_training("whole.pt", "part.pt")


def test_a_model_that_is_replaced_is_kept(work, program):
    before = (work / "model.pt").read_bytes()
    result = program(*train("--steps", "1", model="model.pt"))
    assert result.status == 0
    assert "is kept as" in result.err
    assert (work / "model-previous.pt").read_bytes() == before
    assert load("model.pt").step == 1
    # The same model, trained on.
    steps = ("--resume", "model.pt", "--model", "model.pt", "--steps", "1")
    result = program("train", *LABELLED, *steps)
    assert result.status == 0
    assert "is kept as" not in result.err
    assert (work / "model-previous.pt").read_bytes() == before


def test_a_model_that_is_kept_is_never_replaced(work, program):
    kept = [(work / "model.pt").read_bytes()]
    assert program(*train("--steps", "1", model="model.pt")).status == 0
    for name in ("model-previous-2.pt", "model-previous-3.pt"):
        kept.append((work / "model.pt").read_bytes())
        result = program(
            *("train", *LABELLED, "--resume", "model-previous.pt"),
            *("--model", "model.pt", "--steps", "1"),
        )
        assert result.status == 0
        assert f"the model that was in model.pt is kept as {name}" in result.err
    names = ("model-previous.pt", "model-previous-2.pt", "model-previous-3.pt")
    assert [(work / name).read_bytes() for name in names] == kept


def test_what_is_no_model_is_not_replaced(work, program):
    (work / "notes.pt").write_text("keep")
    result = program(*train("--steps", "1", model="notes.pt"))
    assert result.status == 2
    assert "--model notes.pt exists and is no model; choose another name" in result.err
    assert (work / "notes.pt").read_text() == "keep"


def test_a_finished_training_starts_anew_from_its_weights(work, program):
    result = program(
        *("train", *LABELLED, "--resume", "model.pt", "--model", "more.pt"),
        *("--steps", "3"),
    )
    assert "training finished: 5 steps" in result.err
    assert load("more.pt").schedule["step"] == 2


def test_the_same_seed_gives_the_same_model(work, program):
    for name, seed in (("one.pt", 1), ("same.pt", 1), ("other.pt", 2)):
        assert program(*train("--steps", 2, "--seed", seed, model=name)).status == 0
    assert_same_training("one.pt", "same.pt")
    one, other = (tensors(load(name).weights) for name in ("one.pt", "other.pt"))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_several_volumes_give_one_model(work, program):
    result = program(
        *train("--image", "b.tif", "--labels", "b_sparse.tif", "--steps", "2")
    )
    assert result.status == 0
    painted = sum(
        np.count_nonzero(tifffile.imread(name))
        for name in ("a_sparse.tif", "b_sparse.tif")
    )
    assert f"data: {painted:,} labelled voxels" in result.err


def test_a_single_slice_with_three_axes(work, program):
    """In every number format: some are computed wrongly for such volumes."""
    for name in ("a", "a_truth"):
        volume = tifffile.imread(f"{name}.tif")[8:9]
        with create_volume(f"{name}_slice.tif", volume.shape, "uint8") as file:
            file[:] = volume
    files = ("--image", "a_slice.tif", "--labels", "a_truth_slice.tif")
    for precision in ("float32", "bfloat16"):
        result = program(
            *("train", *files, *FILTERS, "--precision", precision, "--steps", "4"),
            *("--patch-size", "1,16,16", "--model", "new.pt"),
        )
        assert result.status == 0
        assert all(t.isfinite().all() for t in tensors(load("new.pt").weights).values())


def test_for_some_minutes(work, program):
    began = time.monotonic()
    result = program(*train("--minutes", "0.01"))
    assert result.status == 0
    assert 0.5 < time.monotonic() - began < 30
    assert load("new.pt").seconds >= 0.6
    assert load("new.pt").step >= 1


def test_validation_volumes(work, program):
    result = program(
        *train("--steps", "1"),
        *("--validation-image", "b.tif", "--validation-labels", "b_truth.tif"),
    )
    assert result.status == 0
    assert f"{14 * 26 * 32:,} held out" in result.err


def test_test_volumes_are_segmented_and_scored(work, program):
    (work / "other").mkdir()
    for name in ("b.tif", "b_truth.tif"):
        (work / "other" / name).write_bytes((work / name).read_bytes())
    result = program(
        *train("--steps", "1", "--class-names", "empty,wall,lumen"),
        *("--test-image", "b.tif", "--test-labels", "b_truth.tif"),
        *("--test-image", "other/b.tif", "--test-labels", "other/b_truth.tif"),
        *("--segmentation-dir", "found", "--weights", "latest"),
    )
    assert result.status == 0
    assert sorted(contents(work / "found")) == ["other_b_seg.tif", "work_b_seg.tif"]
    assert "found/work_b_seg.tif, scored by b_truth.tif:" in result.out
    assert "1 empty" in result.out
    assert "mean foreground IoU of 2 volumes: 0." in result.out
    expected = segment(
        load("new.pt"),
        open_image("b.tif").data,
        SegmentationConfig(weights="latest", device="cpu"),
    )
    found = tifffile.imread("found/work_b_seg.tif")
    np.testing.assert_array_equal(found, expected.labels)


def test_flags_and_yaml_make_the_same_model(work, program):
    settings = {
        "model": {
            "base_channels": 3,
            "pooling": [[1, 2, 2]],
            "filter_scales": [1.0, 1.5],
            "stem": "none",
            "spacing": [2, 1, 1],
        },
        "training": {
            "steps": 2,
            "patch_size": [8, 16, 16],
            "batch_size": 2,
            "learning_rate": 1e-3,
            "loss": "focal",
            "class_weights": [1, 2, 3],
            "device": "cpu",
            "augmentation": {"elastic_sd": 1, "flip": [False, True, True]},
        },
    }
    files = {
        "data": {
            "train": [{"image": "a.tif", "labels": "a_sparse.tif"}],
            "class_names": ["none", "wall", "lumen"],
        },
        "output": {"model": "yaml.pt", "log_dir": "log"},
    }
    (work / "deeper").mkdir()
    # Paths are relative to the file.
    below = yaml.safe_dump(settings | files).replace(": a", ": ../a")
    (work / "deeper" / "c.yaml").write_text(below)
    assert program("train", "--config", "deeper/c.yaml").status == 0
    assert {"yaml.pt", "log"} <= {path.name for path in (work / "deeper").iterdir()}
    flags = (
        *("--base-channels", 3, "--pooling", "1,2,2", "--filter-scales", "1,1.5"),
        *("--stem", "none"),
        *("--spacing", "2,1,1", "--steps", 2, "--patch-size", "8,16,16"),
        *("--batch-size", 2, "--learning-rate", "1e-3", "--loss", "focal"),
        *("--class-weights", "1,2,3", "--device", "cpu", "--elastic-sd", 1),
        *("--flip", "no,yes,yes", "--class-names", "none,wall,lumen"),
        *("--model", "flags.pt"),
    )
    assert program("train", *LABELLED, *flags).status == 0
    assert_same_training("deeper/yaml.pt", "flags.pt")
    effective = asdict(load("flags.pt").training)
    assert effective["augmentation"]["elastic_sd"] == 1
    assert effective["augmentation"]["flip"] == (False, True, True)
    assert effective["class_weights"] == (1, 2, 3)


def test_flags_win_over_yaml_over_the_model_over_defaults(work, program):
    start = ("--steps", "1", "--weight-decay", "0.5", "--noise", "0.4", "--rotation", 9)
    assert program(*train(*start, "--ema-decay", "0.7")).status == 0
    (work / "c.yaml").write_text(
        "training: {minutes: 5, noise: 0.3, augmentation: {rotation: 8}}".replace(
            "noise: 0.3, augmentation: {", "augmentation: {noise: 0.3, "
        )
    )
    resumed = ("train", *LABELLED, "--resume", "new.pt", "--model", "next.pt")
    result = program(*resumed, "--config", "c.yaml", "--rotation", 7, "--steps", 1)
    assert result.status == 0
    training = load("next.pt").training
    assert (training.steps, training.minutes) == (1, None)
    assert training.augmentation.rotation == 7
    assert training.augmentation.noise == 0.3
    assert training.weight_decay == 0.5
    assert training.ema_decay == 0.7
    assert training.gradient_clip == 1


def test_minutes_take_the_place_of_the_models_steps(work, program):
    resumed = ("train", *LABELLED, "--resume", "model.pt", "--model", "next.pt")
    assert program(*resumed, "--minutes", "0.001").status == 0
    training = load("next.pt").training
    assert (training.steps, training.minutes) == (None, 0.001)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--base-channels", "4"), "--base-channels is 4, but the model to go on from"),
        (("--depth", "1"), "--depth is 1, but the model to go on from has 2; leave it"),
        (("--pooling", "1,2,2"), "--pooling is 1,2,2, but the model to go on from has"),
        (
            ("--stem", "filters"),
            "--stem is filters, but the model to go on from has non",
        ),
        (("--padding", "valid"), "--padding is valid, but the model to go on from has"),
    ],
)
def test_another_network_than_the_models(arguments, sentence, refused):
    line = refused(
        *("train", *LABELLED, "--resume", "model.pt", "--model", "new.pt"), *arguments
    )
    assert sentence in line


def test_resuming_with_the_settings_of_the_first_training(work, program):
    """As one YAML file serves for both; the depth was more than the volume allows."""
    settings = ("--depth", "6", "--base-channels", "2", "--steps", "1")
    assert program(*train(*settings)).status == 0
    assert load("new.pt").model.depth < 6
    assert program(*train(*settings, "--resume", "new.pt")).status == 0


def test_the_effective_configuration_is_complete(work):
    model = load("model.pt")
    assert None not in asdict(model.model).values()
    assert as_plain(RunConfig(model=model.model, training=model.training))


def test_memory_runs_out_and_smaller_patches_go_on(work, program, monkeypatch):
    step = optimization.Optimization.step

    def fail(self, batch, *rest):
        if batch.features.shape[-3:].numel() > 1024:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return step(self, batch, *rest)

    monkeypatch.setattr(optimization.Optimization, "step", fail)
    result = program(*train("--steps", "2"))
    assert result.status == 0
    assert (
        "warning: memory ran out: going on with 2 patches of (8, 8, 16)" in result.err
    )


def test_memory_runs_out_for_good(refused, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(optimization.Optimization, "step", fail)
    line = refused(*train("--steps", "2"), after=99)
    assert "memory ran out: use fewer --base-channels, a smaller --patch-size" in line


def test_a_full_disk_does_not_cost_the_model(work, program, monkeypatch, tmp_path):
    former = (work / "model.pt").read_bytes()
    (work / "new.pt").write_bytes(former)
    replace = os.replace

    def full(source, target):
        if str(target) == "new.pt":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(model_file.os, "replace", full)
    monkeypatch.setattr(command.tempfile, "tempdir", str(tmp_path))
    before = contents(work)
    result = program(*train("--steps", "2", "--save-every", "1e-6"))
    assert result.status == 2
    assert contents(work) == {**before, "new-previous.pt": former}
    warning = "warning: cannot write the model new.pt: No space left on device; choose"
    assert warning in result.err
    line = result.err.splitlines()[-1]
    assert "cannot write the model new.pt: No space left on device;" in line
    (rescued,) = tmp_path.glob("napari-unet3d-*/new.pt")
    assert f"the trained model was saved as {rescued} instead: move it" in line
    assert load(rescued).step == 2
    # Not even there
    monkeypatch.setattr(command.tempfile, "tempdir", str(tmp_path / "none"))
    result = program(*train("--steps", "1"))
    assert result.status == 2
    assert "was saved as" not in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_is_really_full(work):
    """A limit on the size of files does as a disk that is full."""
    before = contents(work)
    code = (
        "import resource, sys; from napari_unet3d.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    for arguments in (
        train("--steps", "1"),
        ("segment", "--model", "model.pt", "--image", "b.tif", "--output", "new.tif"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"TMPDIR": str(work.parent)},
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert contents(work) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_stops_and_keeps_the_model(number, status, work):
    process = subprocess.Popen(
        [
            *(sys.executable, "-u", "-m", "napari_unet3d.cli"),
            *train("--steps", "1000000", "--log-dir", "log"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "step 1" in line:
            break
    process.send_signal(number)
    lines += process.stderr.readlines()
    process.wait(60)
    process.stderr.close()
    assert process.returncode == status
    assert any(line.startswith("training stopped: ") for line in lines)
    assert any(line.startswith("stopping after this step") for line in lines)
    assert lines[-1 if number == signal.SIGTERM else -2].startswith("go on with")
    assert not any("Traceback" in line for line in lines)
    model = load("new.pt")
    assert model.step >= 1
    assert model.training.steps == 1_000_000
    assert (work / "log" / "history.json").exists()
    leftovers = [name for name in contents(work) if "part" in name or "probe" in name]
    assert not leftovers


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_after_the_step_with_a_model(
    number, status, work, program, monkeypatch
):
    step = optimization.Optimization.step

    def signalled(self, *arguments):
        signal.raise_signal(number)
        return step(self, *arguments)

    monkeypatch.setattr(optimization.Optimization, "step", signalled)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = program(
        *train("--steps", "9"),
        *("--test-image", "b.tif", "--test-labels", "b_truth.tif"),
    )
    assert result.status == status
    assert "saved new.pt after 1 steps\ntraining stopped: 1 steps" in result.err
    assert "segmented" not in result.err
    assert load("new.pt").step == 1
    assert handlers == (
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
    )


def test_an_ignored_signal_stays_ignored(work, program, monkeypatch):
    """As in a background job of a shell."""
    step = optimization.Optimization.step

    def signalled(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(optimization.Optimization, "step", signalled)
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = program(*train("--steps", "2"))
    finally:
        signal.signal(signal.SIGINT, former)
    assert result.status == 0
    assert load("new.pt").step == 2


def test_in_a_thread(work):
    """Where signals cannot be handled."""
    statuses = []
    thread = threading.Thread(
        target=lambda: statuses.append(main([*train("--steps", "1")]))
    )
    thread.start()
    thread.join()
    assert statuses == [0]


def test_a_second_interrupt_ends_at_once(work, program, monkeypatch):
    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(optimization.Optimization, "step", interrupted)
    before = contents(work)
    result = program(*train("--steps", "5"))
    assert result.status == 130
    assert result.err.endswith("napari-unet3d: interrupted\n")
    assert contents(work) == before


def test_an_interrupt_while_saving_leaves_nothing_half_done(work, program, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_file.os, "replace", interrupted)
    before = contents(work)
    assert program(*train("--steps", "1")).status == 130
    assert contents(work) == before


def test_home_folder(work, program, monkeypatch):
    monkeypatch.setenv("HOME", str(work))
    (work / "there").mkdir()
    result = program(
        *train("--steps", "1", "--log-dir", "~/there/log", model="~/there/m.pt")
    )
    assert result.status == 0
    assert (work / "there" / "m.pt").exists()
    assert (work / "there" / "log").is_dir()
    (work / "c.yaml").write_text(
        "data: {train: [{image: ~/a.tif, labels: a_sparse.tif}]}\n"
        "output: {model: ~/there/n.pt}\n"
    )
    assert program("train", "--config", "~/c.yaml", *SMALL, "--steps", 1).status == 0
    assert (work / "there" / "n.pt").exists()


def test_axes_of_labels_follow_those_of_the_image(work, program):
    for name in ("a", "a_sparse"):
        turned = tifffile.imread(f"{name}.tif").transpose(2, 0, 1)
        np.save(f"{name}.npy", turned)
    files = ("--image", "a.npy", "--labels", "a_sparse.npy", "--axes", "XZY")
    assert program(*train("--steps", "2")).status == 0
    arguments = train("--steps", "2", model="npy.pt")
    assert program("train", *files, *arguments[5:]).status == 0
    assert_same_training("new.pt", "npy.pt")


def test_the_device_of_the_training_segments_the_test_volumes(
    work, program, monkeypatch
):
    from napari_unet3d.engine import segmentation

    asked = []

    def choose(name="auto"):
        asked.append(name)
        return [choose_device(name)]

    monkeypatch.setattr(segmentation, "choose_devices", choose)
    result = program(
        *train("--steps", "1"),
        *("--test-image", "b.tif", "--test-labels", "b_truth.tif"),
    )
    assert result.status == 0
    assert asked == ["cpu"]


def test_an_annotation_saved_in_napari_brings_its_classes(work):
    labels = read_labels("a_sparse.tif").data
    index = np.flatnonzero(labels)
    names = ("outside", "wall", "lumen", "nothing painted")
    colors = ("#000000", "#ff0000", "#00ff00", "#0000ff")
    AnnotationFile(labels.shape, index, labels.ravel()[index], names, colors).save(
        "painted.npz"
    )
    given = ("train", "--image", "a.tif", "--labels", "painted.npz", *SMALL)
    assert main([*given, "--steps", "2", "--model", "new.pt"]) == 0
    model = load("new.pt")
    assert model.class_names == names[:3]
    assert model.class_colors == colors[:3]
    named = ("--steps", "2", "--model", "named.pt", "--class-names", "a,b,c")
    assert main([*given, *named]) == 0
    assert load("named.pt").class_names == ("a", "b", "c")
    # A model that goes on keeps its own.
    more = ("--steps", "3", "--model", "more.pt", "--resume", "named.pt")
    assert main([*given, *more]) == 0
    assert load("more.pt").class_names == ("a", "b", "c")
