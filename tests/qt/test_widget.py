"""Buttons, keys, files and several viewers."""

from __future__ import annotations

import sys

import numpy as np

from napari_unet3d._qt import shortcuts


def press_key(viewer, key):
    from app_model.types import KeyBinding

    viewer.keymap[KeyBinding.from_str(key.replace("-", "+"))](viewer)


def test_opening_loads_no_torch_and_shows_what_to_do(open_widget, qtbot):
    _, _, widget = open_widget()
    assert "There is no image" in widget.data.problem.text()
    assert not widget.training.train_button.isEnabled()
    assert not widget.segmenting.segment_button.isEnabled()
    qtbot.waitUntil(
        lambda: widget.controller.state.phase.value == "idle", timeout=30000
    )
    assert "There is no image" in widget.training.train_button.toolTip()
    assert "There is no model yet" in widget.segmenting.segment_button.toolTip()
    if "napari_unet3d.engine.unet" not in sys.modules:
        assert "torch" not in sys.modules


def test_classes_are_added_renamed_selected_and_removed(driver):
    section = driver.widget.classes
    driver.widget.data.new.click()
    layer = driver.widget.data.annotation()
    section.add.click()
    assert [c.name for c in section.classes] == ["background", "structure", "class 3"]
    section.table.item(2, 1).setText("nucleus")
    assert layer.metadata["napari-unet3d"]["class_names"][2] == "nucleus"
    section.table.selectRow(2)
    assert layer.selected_label == 3
    layer.selected_label = 2
    assert section.selected_label == 2
    layer.data_setitem((np.array([1]), np.array([1]), np.array([1])), 3)
    section.remove.click()
    assert [c.name for c in section.classes] == ["background", "nucleus"]
    assert layer.data[1, 1, 1] == 2


def test_an_undone_stroke_is_noticed(driver):
    driver.widget.data.new.click()
    layer = driver.widget.data.annotation()
    shown = driver.controller.annotating
    layer.paint((3, 5, 5), 2)
    driver.wait(lambda: len(shown.labelled.index) > 0, seconds=5)
    layer.undo()
    driver.wait(lambda: len(shown.labelled.index) == 0, seconds=5)


def test_keys_do_what_the_buttons_do_and_are_given_back(driver):
    driver.widget.data.new.click()
    layer = driver.widget.data.annotation()
    press_key(driver.viewer, shortcuts.NEXT)
    assert driver.viewer.dims.current_step[0] == 12
    press_key(driver.viewer, shortcuts.FILL)
    assert (layer.data[12] == 1).all()
    press_key(driver.viewer, shortcuts.PREVIEW)
    assert not driver.widget.preview.shown.isChecked()
    driver.widget.annotate.clear_button.click()
    assert not layer.data.any()
    driver.controller.close()
    assert not any("of_unet3d" in dir(f) for f in driver.viewer.keymap.values())


def test_keys_are_not_those_of_napari():
    from app_model.types import KeyBinding
    from napari.utils.shortcuts import default_shortcuts

    used = {key for keys in default_shortcuts.values() for key in keys}
    for key in shortcuts.ALL:
        assert KeyBinding.from_str(key.replace("-", "+")) not in used


def test_accepted_predictions_are_one_undo_step(driver, ball):
    driver.start(ball[1])
    driver.viewer.dims.set_current_step(0, 3)
    driver.press(driver.widget.annotate.accept_button)
    layer = driver.widget.data.annotation()
    assert layer.data[3].all()
    layer.undo()
    assert not layer.data[3].any()


def test_segment_into_an_ome_zarr(driver, ball, tmp_path):
    driver.start(ball[1])
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    path = str(tmp_path / "ball.ome.zarr")
    driver.controller.segment(path)
    driver.wait(lambda: "ball segmentation" in driver.viewer.layers)
    driver.wait(lambda: driver.phase == "idle")
    layer = driver.viewer.layers["ball segmentation"]
    assert set(np.unique(np.asarray(layer.data))) <= {1, 2}
    assert layer.metadata["napari-unet3d"]["path"] == path


def test_opening_a_model_shows_it_in_the_widget(driver, ball, tmp_path):
    driver.start(ball[1])
    path = tmp_path / "model.pt"
    driver.controller.save_model(str(path))
    driver.wait(path.exists)
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    driver.widget.model.new_button.click()
    driver.wait(lambda: not driver.controller.state.has_model)
    driver.viewer.open(str(path), plugin="napari-unet3d")
    driver.wait(lambda: driver.controller.state.has_model)


def test_two_viewers_have_a_worker_each(driver, ball, open_widget):
    driver.start(ball[1])
    viewer, _, widget = open_widget()
    viewer.add_image(ball[0], name="other")
    assert widget.data.choice().layer.name == "other"
    assert widget.controller.client.pid != driver.controller.client.pid
    assert not widget.controller.state.has_model


def test_wrong_settings_are_refused_with_a_sentence(driver, ball, said):
    driver.tiny()
    driver.widget.advanced.form("training").field("learning_rate").setText("7")
    driver.widget.data.new.click()
    driver.paint(ball[1], 8, 12)
    driver.press(driver.widget.training.train_button)
    assert driver.phase == "idle"
    assert any("learning_rate" in sentence for sentence in said)


def test_two_processes_train_and_one_segments(driver, ball):
    driver.widget.advanced.form("parallel").field("devices").setText("2")
    driver.start(ball[1])
    shown = driver.widget.training.device
    assert (shown.toolTip() or shown.text()) == "2 × CPU"
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: "ball segmentation" in driver.viewer.layers)
    before = driver.controller.state.step
    driver.wait(lambda: driver.controller.state.step > before)
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    assert driver.controller.state.has_model
    assert "×" not in shown.text()
