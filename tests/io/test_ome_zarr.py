from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import create_volume, open_image, read_labels

STACK = np.random.default_rng(0).integers(0, 255, (2, 7, 5, 6)).astype(np.uint16)
NAMES = "czyx"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.zarr"


def multiscales(unit="micrometer", scale=(1, 2, 0.5, 0.25), **more):
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": unit} for name in "zyx"]
    transformations = [{"type": "scale", "scale": list(scale)}]
    datasets = [
        {"path": "full", "coordinateTransformations": transformations},
        {"path": "half", "coordinateTransformations": transformations},
    ]
    return {"axes": axes, "datasets": datasets, **more}


def written(path, version, multiscale):
    content = {"multiscales": [multiscale]}
    attributes = content if version == 2 else {"ome": {"version": "0.5", **content}}
    group = zarr.create_group(path, zarr_format=version, attributes=attributes)
    array = group.create_array(
        "full", shape=STACK.shape, dtype="u2", chunks=(1, 4, 4, 4)
    )
    array[:] = STACK
    group.create_array("half", shape=(2, 3, 2, 3), dtype="u2")
    return group


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_open_at_the_finest_level(path, version):
    written(path, version, multiscales())

    image = open_image(path, channels=[1])

    np.testing.assert_array_equal(image.data[...], STACK[1:])
    assert image.spacing == (2, 0.5, 0.25)
    assert image.unit == "micrometer"


def test_chunks_are_read_when_they_are_asked_for(path):
    written(path, 3, multiscales())
    image = open_image(path)
    (path / "full/c/0/0/0/0").write_bytes(b"damaged")
    np.testing.assert_array_equal(image.data[1], STACK[1])
    with pytest.raises(EngineError, match=r"image\.zarr cannot be read \("):
        image.data[0]


def test_scales_of_level_and_image_are_multiplied(path):
    common = [{"type": "scale", "scale": [1, 10, 10, 10]}]
    written(path, 3, multiscales(coordinateTransformations=common))
    assert open_image(path).spacing == (20, 5, 2.5)


def test_units_of_axes_come_in_one(path):
    multiscale = multiscales()
    multiscale["axes"][1]["unit"] = "nanometer"
    written(path, 3, multiscale)
    image = open_image(path)
    assert (image.spacing, image.unit) == ((0.002, 0.5, 0.25), "micrometer")


def test_an_unknown_unit_is_none(path):
    written(path, 3, multiscales(unit="furlong"))
    assert open_image(path).unit is None


@pytest.mark.parametrize("axes", [list(NAMES), None])
def test_older_versions_name_axes_otherwise_or_not(path, axes):
    multiscale = multiscales(axes=axes)
    for dataset in multiscale["datasets"]:
        del dataset["coordinateTransformations"]
    written(path, 2, multiscale)
    image = open_image(path)
    np.testing.assert_array_equal(image.data[...], STACK)
    assert image.spacing is None


@pytest.mark.parametrize("version", [2, 3])
def test_a_plain_array_is_a_volume(path, version):
    array = zarr.create_array(path, shape=(7, 5, 6), dtype=">i2", zarr_format=version)
    array[:] = STACK[0]
    np.testing.assert_array_equal(open_image(path).data[0], STACK[0])


def test_names_of_dimensions_are_heeded(path):
    array = zarr.create_array(
        path, shape=(6, 5, 7), dtype="u2", dimension_names=("x", "y", "z")
    )
    array[:] = STACK[0].T
    np.testing.assert_array_equal(open_image(path).data[0], STACK[0])


def test_the_names_of_xarray_are_heeded(path):
    array = zarr.create_array(path, shape=(6, 5, 7), dtype="u2", zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["x", "y", "z"]
    array[:] = STACK[0].T
    np.testing.assert_array_equal(open_image(path).data[0], STACK[0])


def test_a_group_or_array_within_is_named_by_its_path(tmp_path):
    outer = tmp_path / "plate.zarr"
    zarr.create_group(outer)
    written(outer / "sub/image", 3, multiscales())
    zarr.create_group(outer / "sub")
    for inner in ("sub/image", "sub/image/full"):
        np.testing.assert_array_equal(open_image(outer / inner).data[...], STACK)


def test_a_folder_with_another_ending_is_recognised(tmp_path):
    written(tmp_path / "image", 3, multiscales())
    assert open_image(tmp_path / "image").data.shape == STACK.shape


def test_the_only_array_of_a_group_is_taken(path):
    group = zarr.create_group(path)
    group.create_array("raw", shape=(7, 5, 6), dtype="u1")
    assert open_image(path).data.shape == (1, 7, 5, 6)


def test_a_group_without_an_image_lists_what_it_holds(path):
    group = zarr.create_group(path)
    with pytest.raises(EngineError, match=r"image.zarr is an empty zarr group; name"):
        open_image(path)
    group.create_group("labels")
    group.create_array("raw", shape=(7, 5, 6), dtype="u1")
    group.create_array("mask", shape=(7, 5, 6), dtype="u1")
    with pytest.raises(EngineError, match=r"as .*zarr/labels \(it holds labels, mask,"):
        open_image(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.pop("datasets"), "'datasets' is missing"),
        (lambda m: m["datasets"][0].update(path="none"), "none"),
        (lambda m: m["axes"].pop(), "3 axes are named, but the array has 4"),
        (lambda m: m["datasets"][0].update(path="../image.zarr"), ""),
        (lambda m: m["datasets"][0].update(path="labels"), "labels is no array"),
    ],
)
def test_metadata_that_contradict_are_a_sentence(path, change, reason):
    multiscale = multiscales()
    change(multiscale)
    written(path, 3, multiscale).create_group("labels")
    with pytest.raises(EngineError, match=f"cannot be read as OME-Zarr .*{reason}"):
        open_image(path)


def test_what_is_written_follows_the_standard(path):
    options = {
        "spacing": (2, 0.5, 0.25),
        "unit": "nm",
        "class_names": ["background", "nucleus"],
        "class_colors": [(0, 0, 0, 0), (1, 0.5, 0)],
    }
    with create_volume(path, (100, 70, 65), "uint8", **options):
        pass

    group = json.loads((path / "zarr.json").read_text())
    assert group["zarr_format"] == 3
    ome = group["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert ome["multiscales"] == [
        {
            "axes": [
                {"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"
            ],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [2.0, 0.5, 0.25]}
                    ],
                },
                *(
                    {
                        "path": path,
                        "coordinateTransformations": [
                            {"type": "scale", "scale": scale},
                            # Centres of voxels, those of the finest being at 0.
                            {"type": "translation", "translation": translation},
                        ],
                    }
                    for path, scale, translation in (
                        ("1", [2.0, 0.5, 0.5], [0.0, 0.0, 0.125]),
                        ("2", [2.0, 1.0, 1.0], [0.0, 0.25, 0.375]),
                        ("3", [2.0, 2.0, 2.0], [0.0, 0.75, 0.875]),
                        ("4", [4.0, 4.0, 4.0], [1.0, 1.75, 1.875]),
                    )
                ),
            ],
        }
    ]
    assert ome["image-label"] == {
        "colors": [
            {"label-value": 1, "rgba": [0, 0, 0, 0]},
            {"label-value": 2, "rgba": [255, 128, 0, 255]},
        ],
        "properties": [
            {"label-value": 1, "class": "background"},
            {"label-value": 2, "class": "nucleus"},
        ],
    }
    array = json.loads((path / "0/zarr.json").read_text())
    assert array["chunk_grid"]["configuration"]["chunk_shape"] == [64, 64, 64]
    assert array["dimension_names"] == ["z", "y", "x"]


def test_models_of_the_standard_accept_what_is_written(tmp_path):
    models = pytest.importorskip("ome_zarr_models.v05")
    with create_volume(tmp_path / "image.zarr", STACK.shape, "uint8", labels=False):
        pass
    models.Image.from_zarr(zarr.open_group(tmp_path / "image.zarr", mode="r"))
    colors = [(1, 0, 0)]
    path = tmp_path / "labels.zarr"
    with create_volume(path, (7, 5, 6), "uint8", unit="um", class_colors=colors):
        pass
    models.ImageLabel.from_zarr(zarr.open_group(path, mode="r"))


def test_grey_values_are_no_labels(path):
    with create_volume(path, STACK.shape, "float32", labels=False):
        pass
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    assert "image-label" not in attributes["ome"]


def test_a_zarr_is_replaced_as_a_whole(path):
    written(path, 2, multiscales())
    with create_volume(path, (3, 4, 5), "uint8") as array:
        array[:] = 7
    assert sorted(p.name for p in path.iterdir()) == ["0", "zarr.json"]
    assert read_labels(path).data.min() == 7
    assert [p.name for p in path.parent.iterdir()] == ["image.zarr"]
