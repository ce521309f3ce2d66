from __future__ import annotations

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from napari_unet3d.commands import gallery

from .conftest import LABELLED, contents


def test_a_model(work, program):
    result = program("inspect", "model.pt")
    assert result.status == 0
    described = yaml.safe_load(result.out)
    assert described["classes"] == {1: "background", 2: "class 2", 3: "class 3"}
    assert described["trained"]["steps"] == 2
    assert described["model"]["base_channels"] == 2
    assert described["model"]["pooling"] == [[2, 2, 2]]
    assert described["training"]["steps"] == 2
    assert described["training"]["augmentation"]["elastic_sd"] == 4


def test_what_is_printed_of_a_model_is_a_configuration(work, program):
    described = yaml.safe_load(program("inspect", "model.pt").out)
    sections = {name: described[name] for name in ("model", "training")}
    (work / "again.yaml").write_text(yaml.safe_dump(sections))
    result = program(
        *("train", *LABELLED, "--model", "again.pt", "--config", "again.yaml")
    )
    assert result.status == 0
    assert (
        yaml.safe_load(program("inspect", "again.pt").out)["model"]
        == (described["model"])
    )


def test_a_configuration_is_printed_with_its_defaults(work, program):
    (work / "c.yaml").write_text("training: {steps: 7}\noutput: {model: m.pt}\n")
    described = yaml.safe_load(program("inspect", "c.yaml").out)
    assert described["training"]["steps"] == 7
    assert described["training"]["learning_rate"] == 5e-3
    assert described["model"]["depth"] == 4
    assert described["segmentation"]["weights"] == "best"
    assert set(described) == {"data", "model", "training", "segmentation", "output"}


def test_data(work, program):
    labels = np.zeros((16, 28, 30), np.uint8)
    labels[3, :, :10] = 1
    labels[3, :, 10:14] = 2
    # A line of the first slice lies in this one too, and counts here.
    labels[8:, 5] = 1
    tifffile.imwrite("few.tif", labels)
    before = contents(work)
    result = program("inspect", "--image", "a.tif", "--labels", "few.tif")
    assert result.status == 0
    assert result.out.splitlines() == [
        "a.tif: 16 × 28 × 30 voxels ZYX, 1 channel of uint8, spacing not known",
        "labelled: 632 of 13,440 voxels (4.70 %)",
        "slice        class 1     class 2",
        "Z = 3            270         108",
        "Y = 5            250           4",
        "all              520         112",
    ]
    assert contents(work) == before


def test_nothing_labelled(work, program):
    tifffile.imwrite("none.tif", np.zeros((16, 28, 30), np.uint8))
    result = program("inspect", "--image", "a.tif", "--labels", "none.tif")
    assert result.status == 0
    assert result.out.endswith("labelled: 0 of 13,440 voxels\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--patch-size", "8,16,16", "--stem", "none"),
        ("--padding", "valid", "--depth", "2", "--stem", "none"),
        ("--spacing", "4,1,1", "--filter-scales", "1", "--patch-size", "4,16,16"),
    ],
)
def test_the_gallery_shows_patches_before_and_after(arguments, work, program):
    result = program("inspect", *LABELLED, "--output", "g.png", *arguments)
    assert result.status == 0
    assert result.out.endswith("wrote g.png\n")
    picture = np.asarray(Image.open("g.png"))
    assert picture.ndim == 3
    # Labels lie over grey values on both sides of the middle.
    colored = np.ptp(picture.astype(int), axis=-1) > 20
    half = picture.shape[1] // 2
    assert colored[:, :half].any()
    assert colored[:, half:].any()
    grey = (picture > 0).all(-1) & (picture < 255).all(-1) & ~colored
    assert grey[:, :half].any()
    assert grey[:, half:].any()


def test_the_columns_of_the_gallery(work, program, monkeypatch):
    tables = []
    monkeypatch.setattr(gallery, "save_table", lambda *table: tables.append(table))
    pairs = (*LABELLED, "--image", "b.tif", "--labels", "b_sparse.tif")
    arguments = ("--output", "g.png", "--stem", "none", "--patch-size", "8,16,16")
    assert program("inspect", *pairs, *arguments).status == 0
    ((_, rows, columns),) = tables
    assert columns == (
        *("XY as it is", "XZ as it is", "YZ as it is"),
        *("XY varied", "XZ varied", "YZ varied"),
    )
    assert len(rows) == gallery.ROWS
    assert all(len(pictures) == 6 for _, pictures in rows)
    captions = " ".join(caption for caption, _ in rows)
    assert "a.tif, around voxel (" in captions
    assert "b.tif, around voxel (" in captions
    for _, pictures in rows:
        as_it_is, varied = pictures[:3], pictures[3:]
        assert any(
            not np.array_equal(a, b) for a, b in zip(as_it_is, varied, strict=True)
        )
    # The same seed shows the same patches.
    assert program("inspect", *pairs, *arguments).status == 0
    for (_, one), (_, other) in zip(rows, tables[1][1], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_data_of_a_configuration(work, program):
    (work / "c.yaml").write_text(
        "data: {train: [{image: a.tif, labels: a_sparse.tif},"
        " {image: b.tif, labels: b_sparse.tif}]}"
    )
    result = program("inspect", "--config", "c.yaml")
    assert result.status == 0
    assert result.out.count("labelled: ") == 2


def test_a_gallery_that_cannot_be_written(refused, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_unet3d.commands.pictures.os.replace", full)
    arguments = ("--output", "g.png", "--stem", "none", "--patch-size", "8,16,16")
    line = refused("inspect", *LABELLED, *arguments)
    assert "cannot write the picture g.png: No space left on device; choose" in line
