"""Labels layers that the plugin has not made, and times of a movie."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def foreign(driver, ball):
    """Add instance labels from another tool, all of which the ball's labels are not."""
    labels = (3 - ball[1].astype(np.int32)) * 2500
    return driver.viewer.add_labels(labels, name="from other tool", scale=(2, 1, 1))


def test_a_layer_of_another_tool_is_left_alone_until_it_is_chosen(
    driver, foreign, said
):
    data = driver.widget.data
    assert data.annotation() is None
    assert data.annotations.placeholderText() == "choose a layer"
    assert "choose a layer under Labels" in driver.controller.state.why_not_train
    assert "napari-unet3d" not in foreign.metadata
    before = foreign.colormap
    data.new.click()
    assert data.annotation() != foreign
    assert foreign.colormap == before
    data.choose_annotation(foreign)
    assert data.annotation() == foreign
    driver.wait(lambda: any("Label 5000 is left out" in each for each in said))


def test_an_empty_layer_made_in_napari_is_painted_on(driver, ball):
    data = driver.widget.data
    layer = driver.viewer.add_labels(np.zeros_like(ball[1]), name="mine")
    assert data.annotation() == layer
    driver.viewer.add_labels(np.zeros_like(ball[1]), name="another")
    assert data.annotation() == layer
    driver.viewer.layers.remove(layer)
    assert data.annotation().name == "another"


@pytest.mark.parametrize("how", ["removed", "reshaped"])
def test_no_other_labels_are_learned_where_the_annotation_goes(
    driver, ball, foreign, how, said
):
    driver.start(ball[1])
    annotation = driver.widget.data.annotation()
    wrong = (3 - ball[1]).astype(np.uint8)
    driver.viewer.add_labels(
        wrong, name="made before", metadata={"napari-unet3d": {"kind": "annotation"}}
    )
    if how == "removed":
        driver.viewer.layers.remove(annotation)
    else:
        annotation.data = annotation.data[1:]
    driver.wait(lambda: any("What was painted is kept" in each for each in said))
    assert driver.widget.data.annotation() is None
    # Whatever layers come and go
    driver.viewer.add_points(np.zeros((1, 3)))
    assert driver.widget.data.annotation() is None
    assert not driver.controller.learning.volumes
    driver.trained(driver.controller.state.step + 2)
    driver.press(driver.widget.data.restore_button)
    restored = driver.widget.data.annotation().data
    assert (restored[8] == ball[1][8]).all()
    driver.press(driver.widget.training.stop_button)
    driver.wait(lambda: driver.phase == "idle")


def test_no_image_gets_what_was_painted_for_another(driver, ball):
    data, viewer = driver.widget.data, driver.viewer
    viewer.add_image(ball[0], name="second")
    for name in ("ball", "ball", "second"):
        data.images.setCurrentIndex(data.images.findText(name))
        data.new.click()
        driver.paint(ball[1], 8)
    newest = data.annotation()
    # The annotation of an image that is not looked at, then that of the other
    viewer.layers.remove(viewer.layers["ball annotation [1]"])
    viewer.layers.remove(newest)
    for name in ("ball", "second", "ball"):
        data.images.setCurrentIndex(data.images.findText(name))
        assert data.annotation() is None
    data.choose_annotation(viewer.layers["ball annotation"])
    data.images.setCurrentIndex(data.images.findText("second"))
    assert data.annotation() is None
    data.images.setCurrentIndex(data.images.findText("ball"))
    assert data.annotation().name == "ball annotation"
    viewer.layers.remove(viewer.layers["ball"])
    assert data.choice().layer.name == "second"
    assert data.annotation() is None


def test_a_layer_that_was_chosen_belongs_to_that_image(driver, ball, foreign):
    data = driver.widget.data
    driver.viewer.add_image(ball[0], name="second")
    data.choose_annotation(foreign)
    data.new.click()
    data.images.setCurrentIndex(data.images.findText("second"))
    assert data.annotation() is None


def test_an_annotation_comes_back_with_what_was_missing_beside_it(driver, ball):
    data, viewer = driver.widget.data, driver.viewer
    image, second = data.choice().layer, viewer.add_image(ball[0], name="second")
    data.new.click()
    driver.paint(ball[1], 8)
    mine = data.annotation()
    data._menu.actions()[0].setChecked(True)
    assert data.choice().others == (second,)
    viewer.layers.remove(second)
    assert data.annotation() == mine
    whole = image.data
    image.data = whole[1:]
    assert data.annotation() is None
    image.data = whole
    assert data.annotation() == mine


def test_a_name_that_is_taken_does_not_mix_up_annotations(driver, ball):
    data, viewer = driver.widget.data, driver.viewer
    second = viewer.add_image(ball[0], name="second")
    for name in ("ball", "second"):
        data.images.setCurrentIndex(data.images.findText(name))
        data.new.click()
    viewer.layers["ball"].name = "second"
    origins = {
        layer.name: layer.metadata["napari-unet3d"]["image"]
        for layer in viewer.layers
        if layer.name.endswith("annotation")
    }
    assert second.name == "second"
    assert origins == {
        "ball annotation": "second [1]",
        "second annotation": "second",
    }


@pytest.fixture
def movie(driver, ball):
    """Add a movie, looked at in the middle, whose first axis is time."""
    layer = driver.viewer.add_image(
        np.stack([ball[0]] * 5), name="movie", scale=(3, 2, 1, 1)
    )
    driver.viewer.dims.set_point(0, 6)
    data = driver.widget.data
    data.images.setCurrentIndex(data.images.findText("movie"))
    return layer


def test_the_time_in_view_is_the_one_to_annotate(driver, movie):
    data, dims = driver.widget.data, driver.viewer.dims
    assert data.axes.currentText() == "TZYX"
    assert data.time.value() == 2
    data.new.click()
    assert data.annotation().name == "movie annotation (time 2)"
    assert data.time_in_view.text() == ""
    dims.set_point(0, 12)
    assert data.time.value() == 2
    assert data.time_in_view.text() == (
        "Time 4 is in view, and what is painted belongs to time 2: "
        "set Time to 4 to annotate what you see."
    )
    assert not data.time_in_view.isHidden()
    data.time.setValue(4)
    assert data.time_in_view.isHidden()
    assert data.annotation() is None
    data.time.setValue(1)
    assert dims.point[0] == 3
    data.time.setValue(2)
    assert dims.point[0] == 6
    assert data.annotation().name == "movie annotation (time 2)"


def test_whoever_comes_back_to_a_movie_finds_the_time_chosen_before(driver, movie):
    data, dims = driver.widget.data, driver.viewer.dims
    data.new.click()
    data.images.setCurrentIndex(data.images.findText("ball"))
    dims.set_point(0, 0)
    assert data.time_in_view.isHidden()
    data.images.setCurrentIndex(data.images.findText("movie"))
    assert data.time.value() == 2
    assert dims.point[0] == 6
    assert data.annotation().name == "movie annotation (time 2)"


def test_no_time_is_in_view_across_time_or_beyond_the_movie(driver, ball, movie):
    data, dims = driver.widget.data, driver.viewer.dims
    driver.viewer.add_image(np.zeros((10, 2, 8, 8)), name="longer", scale=(3, 2, 1, 1))
    dims.set_point(0, 12)
    assert not data.time_in_view.isHidden()
    dims.set_point(0, 24)
    assert data.time_in_view.isHidden()
    dims.set_point(0, 12)
    dims.order = (2, 3, 0, 1)
    assert data.time_in_view.isHidden()
    data.time.setValue(0)
    dims.order = (0, 1, 2, 3)
    assert not data.time_in_view.isHidden()
