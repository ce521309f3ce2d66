"""Which volume a layer stands for, and layers on its grid."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_unet3d._qt import layers
from napari_unet3d._qt.annotation_tools import Slice
from napari_unet3d._qt.classes import DEFAULT_CLASSES, make_classes
from napari_unet3d._qt.previewing import show_slice, slice_in_view
from napari_unet3d._qt.volumes import VolumeChoice, possible_axes, problem_of

PLACES = {
    "plain": {},
    "scaled": {"scale": (4, 0.5, 0.5), "translate": (10, 20, 30)},
    "turned": {"rotate": (20, 10, 5), "scale": (2, 1, 1)},
    "sheared": {"shear": [0.1, 0.2, 0.3]},
    "affine": {"affine": np.diag([3.0, 2, 1, 1])},
}

WHOLE = (slice(None),) * 3


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_annotation_lies_where_the_image_lies(place):
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((5, 6, 7)), units=("um",) * 3, **place)
    layer = layers.add_annotation(viewer, VolumeChoice(image), DEFAULT_CLASSES)
    corners = np.array([(0, 0, 0), (4, 5, 6), (1, 2, 3)])
    for corner in corners:
        np.testing.assert_allclose(
            layer.data_to_world(corner), image.data_to_world(corner), atol=1e-9
        )
    assert layer.units == image.units
    assert layer.data.dtype == np.uint8
    assert layer.selected_label == 2


def test_the_last_axes_of_a_turned_layer_with_channels():
    image = Image(
        np.zeros((2, 5, 6, 7)), rotate=np.eye(4), scale=(1, 3, 2, 2), name="c"
    )
    viewer = ViewerModel()
    viewer.add_layer(image)
    layer = layers.add_annotation(viewer, VolumeChoice(image, "CZYX"), DEFAULT_CLASSES)
    assert layer.data.shape == (5, 6, 7)
    np.testing.assert_array_equal(layer.scale, (3, 2, 2))


def test_voxels_of_all_kinds_of_layers():
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 200, (5, 6, 7)).astype(np.uint8)
    plain = VolumeChoice(Image(volume))
    assert plain.n_channels == 1
    np.testing.assert_array_equal(
        plain.read((slice(1, 3), *WHOLE[1:])), volume[None, 1:3]
    )

    channels = rng.random((2, 5, 6, 7)).astype(np.float32)
    czyx = VolumeChoice(Image(channels), "CZYX")
    assert (czyx.shape, czyx.n_channels) == ((5, 6, 7), 2)
    np.testing.assert_array_equal(czyx.read(WHOLE), channels)

    movie = VolumeChoice(Image(channels), "TZYX", time=1)
    np.testing.assert_array_equal(movie.read(WHOLE), channels[1:])

    colors = rng.integers(0, 200, (5, 6, 7, 3)).astype(np.uint8)
    rgb = VolumeChoice(Image(colors, rgb=True))
    assert (rgb.shape, rgb.n_channels) == ((5, 6, 7), 3)
    np.testing.assert_array_equal(rgb.read(WHOLE), np.moveaxis(colors, -1, 0))
    opaque = np.full((5, 6, 7, 1), 255, np.uint8)
    rgba = VolumeChoice(Image(np.concatenate([colors, opaque], -1), rgb=True))
    assert (rgba.shape, rgba.n_channels) == ((5, 6, 7), 3)
    np.testing.assert_array_equal(rgba.read(WHOLE), rgb.read(WHOLE))

    exact = VolumeChoice(Image(volume + 1e9))
    np.testing.assert_array_equal(exact.read(WHOLE), volume[None] + 1e9)

    pyramid = VolumeChoice(Image([volume, volume[:, ::2, ::2]], multiscale=True))
    assert pyramid.shape == (5, 6, 7)
    np.testing.assert_array_equal(pyramid.read(WHOLE), volume[None])

    lazy = VolumeChoice(Image(da.from_array(volume, chunks=2)))
    np.testing.assert_array_equal(
        lazy.read((slice(2, 4), *WHOLE[1:])), volume[None, 2:4]
    )

    two = VolumeChoice(Image(volume), others=(Image(volume * 0.5),))
    assert (two.n_channels, two.dtype) == (2, np.float32)
    np.testing.assert_array_equal(two.read(WHOLE)[1], (volume * 0.5).astype(np.float32))


def test_axes_are_guessed_from_labels_and_sizes():
    assert possible_axes(Image(np.zeros((3, 5, 6, 7))))[0] == "CZYX"
    assert possible_axes(Image(np.zeros((9, 5, 6, 7))))[0] == "TZYX"
    labelled = Image(np.zeros((3, 5, 6, 7)), axis_labels=("t", "z", "y", "x"))
    assert possible_axes(labelled)[0] == "TZYX"
    assert possible_axes(Image(np.zeros((5, 6, 7)))) == ("ZYX",)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (None, "There is no image"),
        (VolumeChoice(Image(np.zeros((5, 6)), name="flat")), "“flat” has 2 axes"),
        (
            VolumeChoice(
                Image(np.zeros((0, 5, 6)), contrast_limits=(0, 1), name="none")
            ),
            "“none” has no voxels, its shape is 0 × 5 × 6",
        ),
        (
            VolumeChoice(
                Image(np.zeros((5, 6, 7)), name="a"),
                others=(Image(np.zeros((5, 6, 8)), name="b"),),
            ),
            "“b” has 5 × 6 × 8 voxels and “a” 5 × 6 × 7",
        ),
    ],
)
def test_layers_that_cannot_be_used_say_why(choice, sentence):
    assert sentence in problem_of(choice)


@pytest.mark.parametrize("ndim", [3, 4])
def test_the_slice_in_view_in_every_plane(ndim):
    viewer = ViewerModel()
    shape = (5, 6, 7) if ndim == 3 else (2, 5, 6, 7)
    image = viewer.add_image(np.zeros(shape), scale=(1, 4, 2, 1)[-ndim:])
    choice = VolumeChoice(image, "TZYX"[-ndim:])
    for axis, position in ((0, 3), (1, 4), (2, 6), (0, 1)):
        show_slice(viewer, choice, Slice(axis, position))
        assert slice_in_view(viewer, choice) == Slice(axis, position)
    viewer.dims.ndisplay = 3
    assert slice_in_view(viewer, choice) is None


def test_results_lie_between_image_and_annotation_and_keep_the_selection():
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((5, 6, 7)), name="a")
    choice = VolumeChoice(image)
    annotation = layers.add_annotation(viewer, choice, DEFAULT_CLASSES)
    made = layers.add_labels(
        viewer, choice, "preview", np.zeros((5, 6, 7), np.uint8), DEFAULT_CLASSES, 0.5
    )
    assert [layer.name for layer in viewer.layers] == [
        "a",
        "a preview",
        "a annotation",
    ]
    assert viewer.layers.selection.active is annotation
    assert layers.find(viewer, choice, "preview") is made
    assert not layers.is_annotation_for(made, choice)
    assert layers.is_annotation_for(Labels(np.zeros((5, 6, 7), int)), choice)


def test_classes_keep_names_and_colours_in_the_layer():
    from napari_unet3d._qt.classes import classes_of, extended, set_classes, without

    layer = Labels(np.zeros((2, 3, 4), np.uint8))
    classes = make_classes(["background", "a", "b"], ["", "#ff0000"])
    set_classes(layer, classes)
    assert classes_of(layer) == classes
    np.testing.assert_allclose(layer.colormap.map(2), (1, 0, 0, 1), atol=1e-6)
    assert [c.name for c in without(classes, 2)] == ["background", "b"]
    assert extended(classes, 4)[3].name == "class 4"
