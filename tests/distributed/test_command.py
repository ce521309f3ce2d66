"""The command on several devices, from start to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tifffile
import torch

from napari_unet3d._sample_data import sparse_annotation, tubules
from napari_unet3d.cli import main
from napari_unet3d.distributed import processes
from napari_unet3d.distributed.devices import check_devices
from napari_unet3d.engine import EngineError, TrainingConfig, load

SMALL = """
data: {train: [{image: a.tif, labels: a_sparse.tif}]}
model: {base_channels: 2, depth: 2, stem: none, normalization: none}
training: {steps: 4, patch_size: [8, 16, 16], device: cpu, precision: float32}
output: {model: all.pt}
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Work in a folder with a volume, labels and a configuration."""
    monkeypatch.chdir(tmp_path)
    image, truth = tubules((16, 28, 30), 1)
    tifffile.imwrite("a.tif", image)
    tifffile.imwrite("a_truth.tif", truth)
    tifffile.imwrite("a_sparse.tif", sparse_annotation(truth))
    Path("config.yaml").write_text(SMALL)
    return tmp_path


def train(*arguments):
    return main(["train", "--config", "config.yaml", *map(str, arguments)])


def test_two_devices_make_the_model_of_one(work, capfd):
    status = train("--devices", 2, "--stop-after", 2)
    said = capfd.readouterr().err
    assert status == 0, said
    # Everything is told once.
    assert said.count("network: ") == said.count("saved ") == 1
    assert f"on 2 × CPU, {max(1, processes.cores() // 2)} thread" in said or (
        "OMP_NUM_THREADS" in os.environ
    )
    assert load("all.pt").step == 2
    # The rest alone.
    tests = ("--test-image", "a.tif", "--test-labels", "a_truth.tif")
    assert train("--resume", "all.pt", *tests) == 0
    assert train("--model", "one.pt") == 0
    found, expected = load("all.pt"), load("one.pt")
    assert found.step == expected.step == 4
    for name, weights in expected.weights["average"].items():
        torch.testing.assert_close(
            found.weights["average"][name], weights, rtol=1e-5, atol=1e-5
        )
    assert found.training == expected.training
    names = {path.name for path in work.iterdir()} - {"a.tif", "a_truth.tif"}
    assert names == {*("a_sparse.tif", "config.yaml", "all.pt", "one.pt", "a_seg.tif")}


def test_started_by_torchrun(work):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"),
            *("--local-addr", "localhost", "-m", "napari_unet3d.distributed"),
            *("train", "config.yaml", "--steps", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training finished: 2 steps") == 1
    assert load("all.pt").step == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_an_interrupt_keeps_the_model(work, capfd):
    def interrupt():
        while not Path("all.pt").exists() and not ended.is_set():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    ended = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        status = train("--devices", 2, "--steps", 10**6, "--save-every", 1e-6)
    finally:
        ended.set()
        thread.join()
    said = capfd.readouterr().err
    assert status == 130, said
    assert "training stopped: " in said
    assert "Traceback" not in said
    assert load("all.pt").step >= 1


def test_one_has_too_little_memory(work, capfd, monkeypatch):
    code = (
        "import os, sys, torch\n"
        "from napari_unet3d.distributed import training\n"
        "from napari_unet3d.engine.optimization import Optimization\n"
        "def fail(*_): raise torch.OutOfMemoryError('CUDA out of memory.')\n"
        "if os.environ['RANK'] == '1': Optimization.step = fail\n"
        "status = training.main(sys.argv[1:])\n"
        "sys.stderr.flush()\n"
        "os._exit(status)"  # as the program itself ends
    )
    monkeypatch.setattr(processes, "PROGRAM", ("-c", code))
    assert train("--devices", 2) == 2
    lines = [
        line for line in capfd.readouterr().err.splitlines() if "data: " not in line
    ]
    assert len(lines) == 2, lines
    assert lines[0].startswith("network: ")
    assert "memory ran out: use fewer --base-channels, a smaller" in lines[1]
    assert not Path("all.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0,), "devices must be at least 1, got 0"),
        ((3, "--batch-size", 2), "3 devices cannot share a --batch-size of 2"),
        ((2, "--device", "cpu:0"), "2 devices are to train but device is cpu:0"),
        ((2, "--labels", "b.tif"), "got 0 --image and 1 --labels"),
        (("two",), "invalid int value: 'two'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments, sentence, work, capfd):
    status = train("--devices", *arguments)
    said = capfd.readouterr().err
    assert status == 2
    assert sentence in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("device", "gpus", "count", "sentence"),
    [
        ("auto", 1, 2, "2 devices are to train but torch sees 1 GPU; train on 1"),
        ("cuda", 2, 4, "4 devices are to train but torch sees 2 GPUs; train on 2"),
        ("cuda:1", 2, 2, "2 devices are to train but device is cuda:1, which is one"),
        ("mps", 0, 2, "2 devices cannot train together with mps .* give device cpu"),
        ("auto", 2, 2, None),
        ("cpu", 1, 4, None),
        ("cuda:1", 2, 1, None),
    ],
)
def test_devices_that_are_there(device, gpus, count, sentence, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: gpus == 0)
    settings = TrainingConfig(device=device)
    if sentence is None:
        check_devices(count, settings)
    else:
        with pytest.raises(EngineError, match=sentence):
            check_devices(count, settings)


def test_without_torchrun_it_says_how_to_start_it():
    others = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-m", "napari_unet3d.distributed", "train"],
        capture_output=True,
        text=True,
        timeout=280,
        env=others,
    )
    assert done.returncode == 2
    assert "start this with torchrun --nproc-per-node N -m napari" in done.stderr
    assert len(done.stderr.splitlines()) == 1
