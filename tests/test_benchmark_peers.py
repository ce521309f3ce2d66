"""What the benchmarks do around peers, without the peers themselves."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import peer_networks
import reporting


@pytest.fixture
def training(monkeypatch):
    """Train a single convolution, on a volume whose grey values are its labels."""
    monkeypatch.setattr(
        peer_networks, "build_peer", lambda *given: nn.Conv3d(1, given[2], 1)
    )
    labels = np.random.default_rng(0).integers(0, 3, (20, 40, 36)).astype(np.uint8)
    return peer_networks.PeerTraining("pytorch-3dunet", labels, labels)


def test_image_and_labels_of_a_peers_patch_are_varied_alike(training):
    for _ in range(20):
        image, target = training._draw()
        assert image.shape == target.shape == (32, 32, 32)
        inside = target >= 0
        for label in (0, 1):
            values = image[inside & (target == label)]
            assert values.max() - values.min() < 1e-5


def test_a_peer_learns_from_labelled_voxels(training):
    before = [p.clone() for p in training.network.parameters()]
    training.step()
    assert training.steps == 1
    after = training.network.parameters()
    assert any((a != b).any() for a, b in zip(after, before, strict=True))


def test_measuring_a_peer_does_not_count(training, monkeypatch):
    monkeypatch.setattr(training, "step", lambda: time.sleep(0.001))
    began = time.perf_counter()
    seconds = []
    for trained, _ in peer_networks.train_peer(training, began, [0.02, 0.04]):
        seconds.append(trained)
        time.sleep(0.5)
    assert seconds[0] >= 0.02
    assert 0.04 <= seconds[1] < 0.5


def test_medians_merge_repeats():
    rows = [
        {"method": "a", "seconds": 1.0, "size": 2},
        {"method": "b", "seconds": 9.0},
        {"method": "a", "seconds": 3.0, "size": 2, "failed": "no"},
        {"method": "a", "failed": "no memory"},
    ]
    first, second = reporting.medians(rows, ["method"])
    assert first["seconds"] == 2.0
    assert first["size"] == 2
    assert first["repeats"] == 3
    assert second["seconds"] == 9.0


def test_a_table_shows_what_is_missing(capsys):
    columns = {"method": ("method", ""), "seconds": ("seconds", ".1f")}
    reporting.print_table([{"method": "a", "seconds": 1.25}, {"method": "b"}], columns)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["| a | 1.2 |", "| b | — |"]
