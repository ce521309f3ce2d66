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
    layer = driver.viewer.add_labels(np.zeros_like(ball[1]), name="mine")
    assert driver.widget.data.annotation() == layer


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
    data.images.setCurrentIndex(data.images.findText("ball"))
    dims.set_point(0, 0)
    assert data.time_in_view.isHidden()
