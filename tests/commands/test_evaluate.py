from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from napari_unet3d.commands.evaluate import print_scores
from napari_unet3d.engine import evaluate
from napari_unet3d.io import create_volume

from .conftest import save

FILES = ("evaluate", "--segmentation", "seg.tif", "--truth", "truth.tif")


@pytest.fixture(autouse=True)
def volumes(work):
    truth = np.ones((4, 6, 10), np.uint8)
    truth[:, :3] = 2
    truth[0] = 0
    found = truth.copy()
    found[2, 0] = 1
    found[3, 5] = 4
    exclude = np.zeros_like(truth)
    exclude[3] = 1
    for name, volume in (("truth", truth), ("seg", found), ("exclude", exclude)):
        save(f"{name}.tif", volume)


def test_json_is_one_object_with_the_figures(program):
    result = program(*FILES, "--json")
    assert result.status == 0
    assert result.err == ""
    assert result.out.count("\n") == 1
    scores = json.loads(result.out)
    assert {
        *("iou", "mean_iou", "mean_foreground_iou", "dice", "voxels"),
        *("truth_voxels", "segmentation_voxels"),
    } <= scores.keys()
    # Class 1: 80 agree, 90 in the truth and 90 found; class 2: 80 of 90 found.
    assert scores["iou"] == pytest.approx(
        {"1": 80 / 100, "2": 80 / 90, "3": None, "4": 0}
    )
    assert scores["dice"]["2"] == pytest.approx(160 / 170)
    assert scores["mean_iou"] == pytest.approx((0.8 + 80 / 90 + 0) / 3)
    assert scores["mean_foreground_iou"] == pytest.approx((80 / 90 + 0) / 2)
    assert scores["voxels"] == 180
    assert scores["truth_voxels"] == {"1": 90, "2": 90, "3": 0, "4": 0}


def test_excluded_voxels_are_not_scored(program):
    result = program(*FILES, "--exclude", "exclude.tif", "--json")
    scores = json.loads(result.out)
    assert scores["voxels"] == 120
    assert scores["iou"] == pytest.approx({"1": 60 / 70, "2": 50 / 60})


def test_the_table_has_the_classes_that_occur(program):
    lines = program(*FILES).out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("class", "1", "2", "4", "mean", "foreground"),
    ]
    assert lines[2].split()[1:] == ["0.889", "0.941", "90"]
    assert len({len(line) for line in lines[:4]}) == 1


def test_long_names_stay_in_their_column(capsys):
    truth = np.array([[[1, 2, 2]]])
    print_scores(evaluate(truth, truth), ("background", "proximal tubule, wall"))
    lines = capsys.readouterr().out.splitlines()
    assert "2 proximal tubule, wall" in lines[2]
    assert len({len(line) for line in lines[:3]}) == 1


def test_axes_that_the_files_do_not_say(program, refused):
    for name in ("truth", "seg"):
        volume = tifffile.imread(f"{name}.tif")[1:4]
        tifffile.imwrite(f"{name}.tif", volume, imagej=True, metadata={"axes": "TYX"})
    line = refused(*FILES)
    assert "seg.tif has 3 time points" in line
    assert line.endswith("or pass --axes ZYX if that axis is depth")
    assert program(*FILES, "--axes", "ZYX").status == 0


def test_axes_are_not_for_a_segmentation_that_names_its_own(program):
    wanted = program(*FILES, "--json")
    found = tifffile.imread("seg.tif")
    for name in ("seg.tif", "seg.zarr", "seg.h5", "seg.nii"):
        with create_volume(name, found.shape, "uint8") as array:
            array[:] = found
        # x first, which the file does not say
        save("turned.tif", tifffile.imread("truth.tif").T.copy())
        files = ("--segmentation", name, "--truth", "turned.tif")
        result = program("evaluate", *files, "--axes", "XYZ", "--json")
        assert result.out == wanted.out, result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--truth", "a_truth.tif"), "the volumes differ in shape: segmentation (4, 6"),
        (("--exclude", "a.tif"), "exclude (16, 28, 30); give matching files"),
        (("--truth", "empty.tif"), "no voxel is left to score: the truth is 0 every"),
        (("--exclude", "truth.tif"), "no voxel is left to score: the truth is 0 every"),
        (("--truth", "float.tif"), "labels must be integers, got float32 in float.tif"),
        (("--segmentation", "no.tif"), "no.tif does not exist"),
    ],
)
def test_bad_input(arguments, sentence, refused):
    empty = np.zeros((4, 6, 10), np.uint8)
    save("empty.tif", empty)
    save("float.tif", empty.astype(np.float32))
    assert sentence in refused(*FILES, *arguments)
