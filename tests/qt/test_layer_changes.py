"""What a person does to the layers behind the plugin's back."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image
from napari.layers._source import Source

from napari_unet3d._qt.annotation_tools import Slice
from napari_unet3d._qt.copying import Copy
from napari_unet3d.engine import EngineError

from .conftest import Driver


@pytest.fixture
def copying(monkeypatch):
    """Return an event that holds up images on their way to the worker while clear."""
    may_go_on = threading.Event()
    may_go_on.set()
    run = Copy.run

    def held_up(copy):
        may_go_on.wait(30)
        run(copy)

    monkeypatch.setattr(Copy, "run", held_up)
    yield may_go_on
    may_go_on.set()


def test_boxes_follow_the_names_of_the_layers(driver, ball):
    driver.viewer.add_image(ball[0], name="other")
    data = driver.widget.data
    data.images.setCurrentIndex(0)
    data.new.click()
    driver.viewer.layers["ball"].name = "kidney"
    driver.viewer.layers["other"].name = "marker"
    driver.viewer.layers["ball annotation"].name = "mine"
    assert data.images.currentText() == "kidney"
    assert data.annotations.currentText() == "mine"
    assert [action.text() for action in data._menu.actions()] == ["marker"]
    assert data.choice().layer.name == "kidney"


def test_what_was_made_for_an_image_follows_its_new_name(driver, ball):
    image = driver.viewer.layers["ball"]
    driver.widget.data.new.click()
    image.name = "kidney"
    image.scale = (3, 1, 1)
    annotation = driver.widget.data.annotation()
    assert tuple(annotation.scale) == (3, 1, 1)
    assert annotation.metadata["napari-unet3d"]["image"] == "kidney"


def test_an_image_that_was_renamed_keeps_its_project(driver, projects):
    from napari_unet3d._qt.projects import Project

    before = Project.of(driver.widget.data.choice())
    before.make()
    driver.viewer.layers["ball"].name = "kidney"
    assert Project.of(driver.widget.data.choice()) == before


def test_the_box_of_the_preview_tells_whether_it_is_seen(driver, ball):
    driver.start(ball[1])
    box, layers = driver.widget.preview.shown, driver.viewer.layers
    driver.wait(lambda: "ball preview" in layers)
    layers["ball preview"].visible = False
    assert not box.isChecked()
    layers["ball preview"].visible = True
    assert box.isChecked()
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "training")
    # The result is to be seen; the next training shows its preview again.
    assert not layers["ball preview"].visible
    assert not box.isChecked()
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle", seconds=10)
    driver.press(driver.widget.training.train_button)
    driver.wait(box.isChecked)
    assert layers["ball preview"].visible
    # Who hides it means it.
    box.click()
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle", seconds=10)
    driver.press(driver.widget.training.train_button)
    driver.trained(driver.controller.state.step + 1)
    assert not box.isChecked()


def test_a_removed_annotation_is_kept_and_offered(driver, ball, said):
    driver.start(ball[1])
    lost = driver.widget.data.annotation()
    painted = lost.data.copy()
    driver.viewer.layers.remove(lost)
    driver.wait(lambda: any("“ball annotation” was removed." in s for s in said))
    assert driver.phase == "training"
    # Not overwritten by what is painted now.
    driver.widget.data.new.click()
    driver.paint(ball[1], 2)
    driver.widget.data.restore_button.click()
    np.testing.assert_array_equal(driver.widget.data.annotation().data, painted)


def test_an_annotation_of_another_shape_is_put_down(driver, ball, said):
    driver.widget.data.new.click()
    driver.paint(ball[1], 8)
    layer = driver.widget.data.annotation()
    driver.wait(lambda: len(driver.controller.annotating.labelled.index) > 0)
    layer.data = np.zeros((5, 5, 5), np.uint8)
    driver.wait(lambda: driver.widget.data.annotation() is None, seconds=5)
    driver.wait(lambda: any("data of another shape" in s for s in said))
    assert driver.widget.data.offer.isVisibleTo(driver.widget)


def test_labels_that_no_class_can_have_are_named(driver, ball, said):
    driver.widget.data.new.click()
    layer = driver.widget.data.annotation()
    layer.data = np.where(ball[1] == 2, 300, 1).astype(np.int32)
    driver.wait(lambda: any("Label 300 is left out" in s for s in said), seconds=5)
    driver.controller.annotating.look()
    assert sum("Label 300" in sentence for sentence in said) == 1


def test_an_image_removed_while_segmenting_ends_the_training_too(driver, ball, said):
    driver.start(ball[1])
    driver.press(driver.widget.segmenting.segment_button)
    driver.viewer.layers.clear()
    driver.wait(lambda: driver.phase == "idle", seconds=20)
    driver.wait(lambda: any("“ball” was removed." in s for s in said))
    step = driver.controller.state.step
    driver.qtbot.wait(300)
    assert driver.controller.state.step == step


def test_what_was_offered_is_restored_even_after_painting_anew(driver, ball, said):
    driver.widget.data.new.click()
    driver.paint(ball[1], 8)
    lost = driver.widget.data.annotation()
    painted = lost.data.copy()
    driver.viewer.layers.remove(lost)
    driver.widget.data.new.click()
    driver.paint(ball[1], 2)
    driver.controller.annotating.look()
    driver.controller.keep()
    driver.controller.autosave.finish()
    driver.widget.data.restore_button.click()
    np.testing.assert_array_equal(driver.widget.data.annotation().data, painted)
    assert not driver.widget.data.offer.isVisibleTo(driver.widget)


def test_all_layers_removed_is_no_word_about_the_annotation(driver, ball, said):
    driver.widget.data.new.click()
    driver.paint(ball[1], 8)
    driver.controller.annotating.look()
    driver.viewer.layers.clear()
    driver.qtbot.wait(100)
    assert not said


def test_the_voxels_of_a_replaced_image_are_not_used_again(driver, ball):
    controller, viewer = driver.controller, driver.viewer
    driver.start(ball[1])
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    first = viewer.layers["ball"]
    other = viewer.add_image(ball[0], name="other")
    images = driver.widget.data.images
    images.setCurrentIndex(images.findText("other"))
    driver.wait(lambda: len(controller.transfer.choices()) == 2)
    images.setCurrentIndex(images.findText("ball"))
    other.data = ball[0] + 1
    assert [known.layer for known in controller.transfer.choices()] == [first]


def test_a_training_keeps_its_image_where_another_is_chosen_meanwhile(
    driver, ball, copying
):
    controller, data = driver.controller, driver.widget.data
    driver.tiny()
    data.new.click()
    driver.paint(ball[1], 8, 12, 16)
    mine = controller.project
    copying.clear()
    driver.press(driver.widget.training.train_button)
    driver.viewer.add_image(ball[0] + 1, name="other")
    data.images.setCurrentIndex(data.images.findText("other"))
    assert controller.project != mine
    copying.set()
    driver.trained(1)
    assert controller.model_file == mine.model
    driver.press(driver.widget.training.stop_button)
    driver.wait(lambda: driver.phase == "idle")
    assert mine.model.exists()


def test_images_that_were_only_looked_at_do_not_stay_in_memory(driver, ball):
    driver.start(ball[1])
    driver.press(driver.widget.training.stop_button)
    driver.wait(lambda: driver.phase == "idle")
    images, transfer = driver.widget.data.images, driver.controller.transfer
    for name in "abcd":
        driver.viewer.add_image(ball[0] + ord(name), name=name)
        images.setCurrentIndex(images.findText(name))
        driver.wait(lambda: transfer.number_of(driver.controller.choice) is not None)
    assert [known.layer.name for known in transfer.choices()] == ["ball", "c", "d"]


def test_a_corrected_scale_counts(driver, ball, said):
    driver.start(ball[1])
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    assert driver.controller.summary.spacing == (2, 1, 1)
    image = driver.viewer.layers["ball"]
    image.scale, image.translate = (5, 1, 1), (3, 0, 0)
    annotation = driver.widget.data.annotation()
    assert tuple(annotation.scale) == (5, 1, 1)
    assert tuple(annotation.translate) == (3, 0, 0)
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "idle")
    assert tuple(driver.viewer.layers["ball segmentation"].scale) == (5, 1, 1)
    before = len(said)
    driver.viewer.dims.set_current_step(0, 3)
    driver.qtbot.wait(1500)
    assert said[before:] == []
    driver.press(driver.widget.model.new_button)
    driver.wait(lambda: not driver.controller.state.has_model)
    driver.press(driver.widget.training.train_button)
    driver.wait(lambda: driver.controller.summary is not None)
    assert driver.controller.summary.spacing == (5, 1, 1)


def test_stopped_before_a_corrected_image_is_there_the_preview_goes_on(
    driver, ball, copying
):
    driver.start(ball[1])
    driver.press(driver.widget.training.stop_button)
    driver.wait(lambda: driver.phase == "idle")
    controller = driver.controller
    driver.viewer.layers["ball"].scale = (5, 1, 1)
    copying.clear()
    driver.press(driver.widget.training.train_button)
    assert controller.transfer.number_of(controller.choice) is None
    driver.press(driver.widget.training.stop_button)
    copying.set()
    driver.wait(lambda: controller.transfer.number_of(controller.choice) is not None)
    driver.viewer.dims.set_current_step(0, 3)
    driver.wait(lambda: controller.previewing.prediction(Slice(0, 3)) is not None)


def test_probabilities_follow_a_corrected_scale(driver, ball):
    driver.start(ball[1])
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    driver.widget.segmenting.probabilities.setChecked(True)
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "idle")
    image = driver.viewer.layers["ball"]
    image.scale, image.translate = (5, 1, 1), (3, 0, 0)
    probabilities = driver.viewer.layers["ball probabilities"]
    assert tuple(probabilities.scale) == (1, 5, 1, 1)
    assert tuple(probabilities.translate) == (0, 3, 0, 0)


def test_no_preview_is_asked_for_while_a_corrected_scale_is_on_its_way(
    driver, ball, said, copying, monkeypatch
):
    driver.start(ball[1])
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    # Which the segmentation does not put aside.
    driver.widget.preview.uncertainty.setChecked(True)
    driver.viewer.layers["ball"].scale = (5, 1, 1)
    copying.clear()
    client, asked = driver.controller.client, []
    request = client.request_preview
    monkeypatch.setattr(
        client, "request_preview", lambda *a, **k: asked.append(a) or request(*a, **k)
    )
    driver.press(driver.widget.segmenting.segment_button)
    asked.clear()
    driver.viewer.dims.set_current_step(0, 3)
    driver.qtbot.wait(300)
    assert not asked
    copying.set()
    driver.wait(lambda: bool(asked) and driver.phase == "idle")
    assert not [s for s in said if "There is no volume" in s]


def name_classes(driver, truth):
    """Annotate background, nucleus and wall; return the layer and what names it has."""
    controller = driver.controller
    driver.widget.data.new.click()
    layer = driver.paint(truth, 8)
    layer.data_setitem((np.array([2]), np.array([3]), np.array([4])), 3)
    controller.learning.look()
    names = ("background", "nucleus", "wall")
    classes = zip(controller.annotating.classes, names, strict=True)
    controller.edit_classes(tuple(replace(c, name=name) for c, name in classes))

    def now():
        controller.learning.look()
        return [each.name for each in controller.annotating.classes]

    return layer, now


def test_undo_brings_a_removed_class_back_with_its_name(driver, ball):
    layer, names = name_classes(driver, ball[1])
    driver.controller.remove_class(2)
    driver.controller.remove_class(1)
    assert (names(), layer.data[2, 3, 4]) == (["wall"], 1)
    layer.undo()
    assert (names(), layer.data[2, 3, 4]) == (["background", "wall"], 2)
    layer.undo()
    assert (names(), layer.data[2, 3, 4]) == (["background", "nucleus", "wall"], 3)
    layer.redo()
    layer.redo()
    assert (names(), layer.data[2, 3, 4]) == (["wall"], 1)
    layer.undo()
    layer.undo()
    assert (names(), layer.data[2, 3, 4]) == (["background", "nucleus", "wall"], 3)


def test_redo_does_not_take_a_class_that_is_past_redo(driver, ball):
    layer, names = name_classes(driver, ball[1])
    driver.controller.remove_class(2)
    layer.undo()
    assert names() == ["background", "nucleus", "wall"]
    driver.controller.remove_class(3)
    layer.undo()
    assert names() == ["background", "nucleus", "wall"]
    layer.redo()
    assert names() == ["background", "nucleus"]


def test_a_class_without_labels_any_more_is_not_taken_for_a_removed_one(driver, ball):
    layer, names = name_classes(driver, ball[1])
    driver.controller.remove_class(3)
    layer.undo()
    layer.undo()
    assert not (layer.data == 3).any()
    assert names() == ["background", "nucleus", "wall"]


def test_undo_finds_its_place_where_another_class_is_gone(driver, ball):
    layer, names = name_classes(driver, ball[1])
    driver.controller.remove_class(3)
    layer.data_setitem(np.nonzero(layer.data == 2), 1)
    names()
    driver.controller.remove_class(2)
    layer.undo()
    layer.undo()
    assert layer.data[2, 3, 4] == 3
    assert names() == ["background", "class 2", "wall"]


def test_a_class_is_not_removed_while_it_is_learned(driver, ball, said):
    driver.start(ball[1])
    before = driver.controller.annotating.classes
    driver.widget.classes.removed.emit(1)
    driver.wait(lambda: any("cannot be removed" in s for s in said))
    assert driver.controller.annotating.classes == before


def test_a_segmentation_that_cannot_begin_is_told(driver, ball, said, monkeypatch):
    driver.start(ball[1])

    def no_room(*_):
        raise EngineError("there is no room for an array of 1 GiB")

    monkeypatch.setattr("napari_unet3d._qt.segmenting.SharedArray.create", no_room)
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: any("cannot begin: there is no room" in s for s in said))
    assert driver.phase == "training"


def test_training_asked_for_before_the_worker_is_there(open_widget, qtbot, ball):
    viewer, dock, widget = open_widget()
    viewer.add_image(ball[0], name="ball")
    early = Driver(qtbot, viewer, dock, widget)
    assert early.phase == "starting"
    early.start(ball[1])
    early.trained(3)
    assert early.phase == "training"
    early.press(widget.training.stop_button)
    early.wait(lambda: early.phase == "idle")
    assert early.controller.state.has_model


def test_what_was_kept_is_offered_once_all_images_of_its_file_are_there(
    open_widget, qtbot, ball, tmp_path
):
    """Readers add the scenes of a file one after the other."""

    def open_scenes():
        viewer, dock, widget = open_widget()
        driver = Driver(qtbot, viewer, dock, widget)
        for number in (1, 2):
            scene = Image(ball[0] * number, name=f"scene {number}")
            scene._source = Source(path=str(tmp_path / "scenes.lif"))
            viewer.add_layer(scene)
            driver.widget.data.images.setCurrentIndex(0)
        return driver

    before = open_scenes()
    before.widget.data.new.click()
    layer = before.paint(ball[1], 8)
    before.controller.close()
    after = open_scenes()
    assert after.widget.data.offer.isVisibleTo(after.widget)
    after.widget.data.restore_button.click()
    np.testing.assert_array_equal(after.widget.data.annotation().data, layer.data)
    after.widget.data.images.setCurrentIndex(1)
    assert not after.widget.data.offer.isVisibleTo(after.widget)
