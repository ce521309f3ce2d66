"""One segmentation on several devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet3d.engine import load, segment
from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.several_devices import memory_for_each

from .conftest import contents
from .test_blocks import FILES, OUTPUTS, SMALL, interrupted, wide

__all__ = ["interrupted", "wide"]

TWICE = ("--device", "cpu,cpu")


def test_two_devices_give_the_same_bytes(wide, program):
    assert program(*FILES, *OUTPUTS, *SMALL).status == 0
    others = ("--output", "seg2.zarr", "--probabilities", "prob2.zarr")
    result = program(*FILES, *others, *SMALL, *TWICE)
    assert result.status == 0, result.err
    assert "segmenting on cpu, cpu" in result.err
    assert "segmented 100%" in result.err
    for one, two in zip(OUTPUTS[1::2], others[1::2], strict=True):
        assert contents(Path(two)) == contents(Path(one))


def test_two_devices_go_on_where_one_stopped(interrupted, wide, program):
    result = program(*FILES, *OUTPUTS, *SMALL, *TWICE)
    assert result.status == 0, result.err
    assert "going on after " in result.err
    assert program(*FILES, "--output", "seg.zarr", *SMALL).status == 0
    assert contents(Path("seg.ome.zarr")) == contents(Path("seg.zarr"))


@pytest.mark.parametrize("selected", [(), ("--region", ":,:,:")])
def test_two_devices_write_other_files_too(selected, wide, program):
    result = program(*FILES, "--output", "seg.tif", *SMALL, *TWICE, *selected)
    assert result.status == 0, result.err
    whole = segment(load("model.pt"), wide).labels
    np.testing.assert_array_equal(tifffile.imread("seg.tif"), whole)


def test_devices_share_the_memory_they_have(monkeypatch):
    monkeypatch.setattr(
        "napari_unet3d.engine.several_devices.lasting_memory",
        lambda config, device: (config.memory or 12) * 1.0,
    )

    def memory(**settings):
        return memory_for_each(SegmentationConfig(**settings))

    assert memory(device="cpu") == 12
    assert memory(device="cpu,cpu,cpu") == 4
    assert memory(device="cpu,cpu", memory=3) == 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert memory(device="all") == 12
    assert memory(device="cuda:0,cuda:1,cuda:1") == 6
