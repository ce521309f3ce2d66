"""Learning from several volumes, with a real worker and a tiny network."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unet3d.worker.protocol import Started


@pytest.fixture
def two(driver, ball):
    """Open a second volume: the ball upside down, beside a dark slab, class 3."""
    image, truth = ball[0][::-1].copy(), ball[1][::-1].copy()
    image[..., :7] -= 90
    truth[..., :7] = 3
    driver.viewer.add_image(image, name="other", scale=(2, 1, 1))
    return driver, truth


def choose(driver, name):
    images = driver.widget.data.images
    images.setCurrentIndex(images.findText(name))


def annotate(driver, name, truth, *slices):
    """Choose an image and paint slices of a new annotation layer."""
    choose(driver, name)
    driver.press(driver.widget.data.new)
    layer = driver.widget.data.annotation()
    assert layer.name == f"{name} annotation"
    for z in slices:
        index = np.nonzero(truth[z])
        layer.data_setitem((np.full(len(index[0]), z), *index), truth[z][index])
    return layer


def rows(driver):
    shown = driver.widget.data.others.list
    return [shown.item(i).text() for i in range(shown.count())]


def test_train_on_two_volumes_and_segment_the_other(two, ball, said, projects):
    driver, truth = two
    viewer, widget, controller = driver.viewer, driver.widget, driver.controller
    events = []
    controller.connection.received.connect(events.append)
    started = lambda: [e for e in events if isinstance(e, Started)]  # noqa: E731

    driver.tiny()
    annotate(driver, "ball", ball[1], 8, 12, 16)
    assert not widget.data.others.isVisibleTo(widget)
    second = annotate(driver, "other", truth, 10, 13)
    driver.wait(lambda: rows(driver) == ["ball · 4,800 voxels"])
    # The third class is in one of the volumes only.
    driver.wait(lambda: len(controller.annotating.classes) == 3)
    choose(driver, "ball")
    assert widget.data.annotation().name == "ball annotation"
    driver.wait(lambda: rows(driver) == ["other · 3,200 voxels"])
    assert widget.data.others.isVisibleTo(widget)

    driver.press(widget.training.train_button)
    driver.wait(lambda: len(started()) == 1)
    assert started()[0].labelled_voxels == 3 * 1600 + 2 * 1600
    driver.wait(lambda: "ball preview" in viewer.layers)
    assert controller.summary.class_names == ("background", "structure", "class 3")

    # A stroke in the layer that is not chosen is learned from too.
    sent = []
    update = controller.client.update_annotation
    controller.client.update_annotation = lambda *a: (sent.append(a), update(*a))
    second.data_setitem((np.full(40, 4), np.arange(40), np.arange(40)), 1)
    driver.wait(lambda: len(sent) > 0)
    assert len(sent[0][1]) == 40
    driver.wait(lambda: rows(driver) == ["other · 3,240 voxels"])

    # The preview follows to the other image, and Segment takes that one.
    choose(driver, "other")
    driver.wait(lambda: "other preview" in viewer.layers)
    viewer.dims.set_current_step(0, 11)
    shown = viewer.layers["other preview"].data
    driver.wait(lambda: (shown[11] == truth[11]).mean() > 0.9, seconds=150)
    # The best weights are chosen every 50 steps.
    learned = controller.state.step
    driver.wait(lambda: controller.state.step > learned + 60, seconds=150)
    driver.press(widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "training")
    result = viewer.layers["other segmentation"].data
    assert (result == truth).mean() > 0.85
    assert (result[truth == 3] == 3).mean() > 0.5
    widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    assert len(list(projects.glob("*/annotation.npz"))) == 2

    # Without the tick, the next training is of the chosen image alone.
    widget.data.others.list.item(0).setCheckState(Qt.CheckState.Unchecked)
    driver.press(widget.training.train_button)
    driver.wait(lambda: len(started()) == 2)
    assert started()[1].labelled_voxels == 3240
    assert not [sentence for sentence in said if "cannot" in sentence]


def test_learn_from_another_image_only(two, ball):
    driver, _ = two
    annotate(driver.tiny(), "ball", ball[1], 8, 12, 16)
    choose(driver, "other")
    assert driver.widget.data.annotation() is None
    driver.press(driver.widget.training.train_button)
    driver.trained(2)
    driver.wait(lambda: "other preview" in driver.viewer.layers)
    # What is painted here from now on is learned from as well.
    driver.press(driver.widget.data.new)
    where = (np.full(9, 3), np.arange(9), np.arange(9))
    driver.widget.data.annotation().data_setitem(where, 1)
    driver.trained(driver.controller.state.step + 5)
    assert driver.phase == "training"


@pytest.mark.parametrize("gone", ["other", "other annotation"])
def test_the_other_volume_is_removed_while_training(two, ball, said, gone):
    driver, truth = two
    annotate(driver.tiny(), "other", truth, 10, 13)
    annotate(driver, "ball", ball[1], 8, 12, 16)
    driver.press(driver.widget.training.train_button)
    driver.trained(2)
    driver.viewer.layers.remove(gone)
    assert rows(driver) == []
    assert not driver.widget.data.others.isVisibleTo(driver.widget)
    driver.trained(driver.controller.state.step + 5)
    assert driver.phase == "training"
    assert driver.widget.data.choice().layer.name == "ball"
    driver.paint(ball[1], 5)
    driver.trained(driver.controller.state.step + 5)
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    expected = "“other” was removed. The training goes on without it."
    if gone != "other":
        expected = (
            "“other annotation” was removed. What was painted is kept. Choose “other” "
            "and press Restore under Data to have it back."
        )
    assert said == [expected]
    driver.press(driver.widget.training.train_button)
    driver.trained(driver.controller.state.step + 1)


def test_classes_are_shared_and_channels_must_agree(two, ball):
    driver, truth = two
    widget = driver.widget
    first = annotate(driver, "other", truth, 10)
    driver.wait(lambda: len(driver.controller.annotating.classes) == 3)
    second = annotate(driver, "ball", ball[1], 8)
    widget.classes.table.item(1, 1).setText("cell")
    for layer in (first, second):
        assert layer.metadata["napari-unet3d"]["class_names"][1] == "cell"
    widget.classes.table.selectRow(2)
    widget.classes.remove.click()
    assert first.data.max() == 2
    driver.viewer.add_image(np.zeros((2, 24, 40, 40), np.float32), name="pair")
    choose(driver, "pair")
    assert all("channel" in row for row in rows(driver))
    names = [each.name for each in driver.controller.learning.volumes[0].classes]
    assert names == ["background", "cell"]
    assert "There is no annotation" in widget.training.train_button.toolTip()
