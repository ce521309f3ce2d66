from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_unet3d._sample_data import SPACING, tubules
from napari_unet3d.commands import demo
from napari_unet3d.commands.settings import overlay_values
from napari_unet3d.engine import load
from napari_unet3d.io import read_labels

from .conftest import contents

NAMES = {
    *("image.tif", "truth.tif", "annotation.tif", "tubules.pt", "segmentation.tif"),
    *("demo.png", "README.txt", "log/history.csv", "log/history.json"),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    volume = tubules((20, 32, 36), 1)
    monkeypatch.setattr(demo, "tubules", lambda: volume)
    configuration = demo._configuration
    network = {"base_channels": 2, "depth": 2, "stem": "none"}
    patches = {"patch_size": [8, 16, 16], "batch_size": 2, "precision": "float32"}

    def smaller(folder, settings):
        settings = overlay_values(settings, {"model": network, "training": patches})
        return configuration(folder, settings)

    monkeypatch.setattr(demo, "_configuration", smaller)


def test_everything_is_written_and_scored(tmp_path, program):
    out = tmp_path / "made" / "here"
    result = program("demo", "--steps", "3", "--out", out, "--device", "cpu")
    assert result.status == 0
    assert set(contents(out)) == NAMES
    assert "a generated volume of 20 × 32 × 36 voxels, three slices" in result.out
    labels = [line.split()[0] for line in result.out.splitlines()]
    table = labels[labels.index("class") :]
    assert table[:6] == ["class", "1", "2", "3", "mean", "foreground"]
    assert f"everything is in {out}; look at {out / 'demo.png'}" in result.out
    model = load(out / "tubules.pt")
    assert model.step == 3
    assert model.class_names == ("background", "tubule", "lumen")
    assert model.unit == "micrometer"
    assert model.model.spacing == pytest.approx(SPACING)
    segmentation = read_labels(out / "segmentation.tif")
    assert segmentation.data.shape == (20, 32, 36)
    assert segmentation.spacing == pytest.approx(SPACING)
    annotated = tifffile.imread(out / "annotation.tif") > 0
    truth = tifffile.imread(out / "truth.tif")
    # Only what was not annotated is scored.
    scored = int(
        table and result.out.split("1 background")[1].split()[2].replace(",", "")
    )
    assert scored == np.count_nonzero((truth == 1) & ~annotated)
    assert Image.open(out / "demo.png").width > 100


def test_it_may_be_run_again_but_replaces_nothing_of_others(tmp_path, program):
    for _ in range(2):
        result = program("demo", "--steps", "1", "--out", tmp_path / "demo")
        assert result.status == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "image.tif").write_bytes(b"mine")
    result = program("demo", "--steps", "1", "--out", other)
    assert result.status == 2
    assert "holds image.tif, which this program did not write;" in result.err
    assert contents(other) == {"image.tif": b"mine"}
    # The same with a folder of other files and a README of its own
    (other / "image.tif").rename(other / "mine.tif")
    (other / "README.txt").write_text("mine")
    assert program("demo", "--steps", "1", "--out", other).status == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--steps", "0"), "--steps must be greater than 0, got '0'"),
        (("--minutes", "x"), "--minutes must be a number, got 'x'"),
        (("--steps", "3", "--minutes", "1"), "minutes and steps exclude each other"),
        (("--device", "gpu"), "unknown device 'gpu'; use auto, cpu, cuda"),
    ],
)
def test_wrong_flags_write_nothing(arguments, sentence, tmp_path, program):
    result = program("demo", "--out", tmp_path / "demo", *arguments)
    assert result.status == 2
    assert sentence in result.err
    assert not (tmp_path / "demo").exists()


def test_it_takes_a_minute_by_default(tmp_path, program, monkeypatch):
    asked = []

    def train(config):
        asked.append(config.training)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", train)
    for arguments in ((), ("--minutes", "5"), ("--steps", "7")):
        result = program("demo", "--out", tmp_path / "demo", *arguments)
        assert result.status == 130
    assert [(t.minutes, t.steps) for t in asked] == [(1, None), (5, None), (None, 7)]
