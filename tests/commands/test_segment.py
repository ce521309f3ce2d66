from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import tifffile
import torch
import zarr

from napari_unet3d.engine import SegmentationConfig, Segmenter, load, save, segment
from napari_unet3d.io import create_volume, open_image, read_labels

from .conftest import contents

FILES = ("segment", "--model", "model.pt", "--image", "b.tif")


@pytest.mark.parametrize("weights", ["best", "average", "latest"])
def test_the_result_is_the_engines(weights, work, program):
    result = program(*FILES, "--output", "seg.tif", "--weights", weights)
    assert result.status == 0
    assert result.err.endswith("wrote seg.tif\n")
    assert not result.out
    config = SegmentationConfig(weights=weights)
    expected = segment(load("model.pt"), tifffile.imread("b.tif"), config)
    found = tifffile.imread("seg.tif")
    assert found.dtype == np.uint8
    assert found.min() >= 1
    np.testing.assert_array_equal(found, expected.labels)


def test_probabilities(work, program):
    result = program(*FILES, "--output", "seg.tif", "--probabilities", "prob.tif")
    assert result.status == 0
    assert "wrote seg.tif and prob.tif" in result.err
    expected = segment(
        load("model.pt"), tifffile.imread("b.tif"), probabilities=True
    ).probabilities
    found = open_image("prob.tif").data[:]
    assert found.shape == (3, 14, 26, 32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["x.tif", "x.zarr", "x.h5:seg", "x.nii.gz", "x.npy"])
def test_formats(name, work, program):
    assert program(*FILES, "--output", name).status == 0
    expected = segment(load("model.pt"), tifffile.imread("b.tif")).labels
    np.testing.assert_array_equal(read_labels(name).data, expected)


def test_an_existing_file_is_replaced(work, program):
    (work / "seg.tif").write_bytes(b"former")
    assert program(*FILES, "--output", "seg.tif").status == 0
    assert tifffile.imread("seg.tif").shape == (14, 26, 32)


def test_little_memory_gives_the_same(work, program):
    image = np.tile(tifffile.imread("b.tif"), (1, 3, 1))
    tifffile.imwrite("wide.tif", image)
    wide = ("segment", "--model", "model.pt", "--image", "wide.tif")
    assert program(*wide, "--output", "one.tif").status == 0
    assert program(*wide, "--output", "many.tif", "--memory", "1e-6").status == 0
    np.testing.assert_array_equal(
        tifffile.imread("one.tif"), tifffile.imread("many.tif")
    )


def test_settings_from_a_file(work, program):
    (work / "c.yaml").write_text("segmentation: {weights: latest, memory: 1}\n")
    for name, arguments in (
        ("yaml.tif", ("--config", "c.yaml")),
        ("flags.tif", ("--weights", "latest")),
    ):
        assert program(*FILES, "--output", name, *arguments).status == 0
    np.testing.assert_array_equal(
        tifffile.imread("yaml.tif"), tifffile.imread("flags.tif")
    )


def with_spacing(name, spacing, unit):
    image = tifffile.imread("b.tif")
    with create_volume(
        name, image.shape, image.dtype, spacing=spacing, unit=unit, labels=False
    ) as file:
        file[:] = image


def trained_at(spacing, unit):
    checkpoint = load("model.pt")
    object.__setattr__(checkpoint.model, "spacing", spacing)
    checkpoint.unit = unit
    save(checkpoint, "model.pt")


@pytest.mark.parametrize(
    ("trained", "trained_unit", "spacing", "unit", "warns"),
    [
        ((2, 1, 1), "micrometer", (2, 1, 1), "micrometer", False),
        ((2, 1, 1), "micrometer", (2000, 1000, 1000), "nanometer", False),
        ((2, 1, 1), "micrometer", (1, 1, 1), "micrometer", True),
        ((2, 1, 1), "micrometer", (2, 1, 1), "millimeter", True),
        # Nothing is known of the training volume but that nobody said anything.
        ((1, 1, 1), "", (3, 3, 3), "micrometer", False),
        ((1, 1, 1), "", (6, 3, 3), "micrometer", True),
    ],
)
def test_another_spacing_brings_a_warning(
    trained, trained_unit, spacing, unit, warns, work, program
):
    trained_at(trained, trained_unit)
    with_spacing("c.tif", spacing, unit)
    result = program(
        *("segment", "--model", "model.pt", "--image", "c.tif", "--output", "seg.tif")
    )
    assert result.status == 0
    assert ("warning: c.tif has a spacing of" in result.err) is warns
    assert read_labels("seg.tif").spacing == pytest.approx(spacing)


def test_names_and_colours_of_the_classes_are_written(work, program):
    checkpoint = load("model.pt")
    checkpoint.class_names = ("none", "wall", "lumen")
    checkpoint.class_colors = ("#000000", "#ff0000", "#00ff00")
    save(checkpoint, "model.pt")
    assert program(*FILES, "--output", "seg.zarr").status == 0
    written = (work / "seg.zarr" / "zarr.json").read_text()
    assert "lumen" in written
    assert "255" in written
    checkpoint.class_colors = ("black", "red", "#00ff0")
    save(checkpoint, "model.pt")
    assert program(*FILES, "--output", "seg.zarr").status == 0


@pytest.mark.parametrize("output", ["seg.tif", "seg.zarr", "seg.h5"])
def test_an_interrupt_leaves_nothing(output, work, program, monkeypatch):
    blocks = Segmenter.blocks

    def interrupted(self, *arguments):
        yield from blocks(self, *arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Segmenter, "blocks", interrupted)
    before = contents(work)
    result = program(*FILES, "--output", output, "--probabilities", "prob.tif")
    assert result.status == 130
    assert contents(work) == before


def test_a_failure_leaves_what_was_there(work, refused, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    assert (work / "a.tif").exists()
    (work / "seg.tif").write_bytes(b"former")
    monkeypatch.setattr("napari_unet3d.io.output.move", full)
    line = refused(*FILES, "--output", "seg.tif", after=99)
    assert "The disk is full: seg.tif could not be written" in line


@pytest.mark.parametrize("place", ["statistics", "blocks"])
def test_memory_runs_out(place, refused, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    name = {"statistics": "recompute_statistics", "blocks": "sweep"}[place]
    monkeypatch.setattr(f"napari_unet3d.engine.segmentation.{name}", fail)
    line = refused(*FILES, "--output", "seg.tif", "--recompute-statistics")
    assert "memory ran out" in line
    assert "--memory" in line


@pytest.mark.parametrize("lost", ["b.zarr", "mask.zarr"])
def test_a_store_that_vanishes_is_no_success(lost, work, program, monkeypatch):
    image, column = tifffile.imread("b.tif"), Segmenter.column
    zarr.create_array("b.zarr", data=image)
    zarr.create_array("mask.zarr", data=np.ones_like(image))
    mask = () if lost == "b.zarr" else ("--mask", "mask.zarr")

    def losing(self, *arguments):
        for found in column(self, *arguments):
            if os.path.exists(lost):
                os.rename(lost, "away")
            yield found

    monkeypatch.setattr(Segmenter, "column", losing)
    files = ("segment", "--model", "model.pt", "--image", "b.zarr")
    result = program(*files, "--output", "seg.tif", *mask)
    assert result.status == 2
    assert f"{lost} does not exist" in result.err
    assert not (work / "seg.tif").exists()
