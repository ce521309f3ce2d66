"""The whole way, with a real worker and a tiny network."""

from __future__ import annotations

import os
import signal

import numpy as np


def test_paint_train_preview_segment_save_load(driver, ball, tmp_path, said):
    truth = ball[1]
    driver.start(truth)
    viewer, widget, controller = driver.viewer, driver.widget, driver.controller

    # A preview appears, in the image's place, and becomes better.
    driver.wait(lambda: "ball preview" in viewer.layers)
    preview = viewer.layers["ball preview"]
    np.testing.assert_array_equal(preview.scale, (2, 1, 1))
    viewer.dims.set_current_step(0, 11)
    driver.wait(lambda: preview.data[11].any())
    first = preview.data[11].copy()
    driver.wait(lambda: (preview.data[11] != first).any())
    driver.wait(lambda: (preview.data[11] == truth[11]).mean() > 0.9)

    # The brush is still in the hand, and what is painted now is used.
    assert viewer.layers.selection.active == widget.data.annotation()
    driver.paint(truth, 4)
    driver.wait(
        lambda: len(np.unique(controller.annotating.labelled.index)) >= 4 * 1600
    )

    widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle", seconds=10)
    assert widget.training.train_button.text() == "Continue"

    driver.press(widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "idle")
    segmentation = viewer.layers["ball segmentation"]
    assert set(np.unique(segmentation.data)) <= {1, 2}
    assert (segmentation.data == truth).mean() > 0.9
    np.testing.assert_array_equal(segmentation.scale, (2, 1, 1))
    about = segmentation.metadata["napari-unet3d"]
    assert about["model"]["step"] == controller.state.step
    assert about["class_names"] == ["background", "structure"]

    path = tmp_path / "ball.pt"
    controller.save_model(str(path))
    driver.wait(path.exists)
    driver.wait(lambda: f"The model was saved to {path}." in said)
    widget.model.new_button.click()
    driver.wait(lambda: not controller.state.has_model)
    assert not widget.segmenting.segment_button.isEnabled()
    controller.load_model(str(path))
    driver.wait(lambda: controller.state.has_model)
    assert "background, structure" in widget.model.summary.text()

    # The result is that of the command line, voxel for voxel.
    from napari_unet3d.engine import load, segment

    driver.press(widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "segmenting")
    driver.wait(lambda: driver.phase == "idle")
    again = viewer.layers["ball segmentation"]
    expected = segment(load(path), ball[0])
    np.testing.assert_array_equal(again.data, expected.labels)
    assert sum("segmentation" in layer.name for layer in viewer.layers) == 1


def test_pause_resume_and_the_end_of_a_training(driver, ball, said, monkeypatch):
    driver.start(ball[1], steps=60)
    widget, pace = driver.widget, driver.controller.pace
    widget.training.pause_button.click()
    driver.wait(lambda: driver.phase == "paused")
    assert widget.training.pause_button.text() == "Resume"
    assert "paused" in widget.training.line.text()
    step = driver.controller.state.step
    driver.qtbot.wait(300)
    assert driver.controller.state.step == step
    resets, reset = [], pace.reset
    monkeypatch.setattr(pace, "reset", lambda: resets.append(driver.phase) or reset())
    widget.training.pause_button.click()
    driver.wait(lambda: driver.phase == "idle")
    # The pause is not taken for slow steps.
    assert resets == ["training"]
    assert driver.controller.state.step == 60
    assert any(s.startswith("The training has finished after 60 steps") for s in said)


def test_preview_in_other_planes_with_probability_and_uncertainty(driver, ball):
    driver.start(ball[1])
    viewer, widget = driver.viewer, driver.widget
    widget.preview.probability.setCurrentIndex(2)
    widget.preview.uncertainty.setChecked(True)
    viewer.dims.order = (1, 0, 2)
    driver.wait(lambda: "ball uncertainty" in viewer.layers)
    assert "ball probability" in viewer.layers
    y = driver.controller.previewing.slice_in_view().position
    driver.wait(lambda: viewer.layers["ball preview"].data[:, y].all())
    widget.preview.shown.setChecked(False)
    assert not viewer.layers["ball preview"].visible
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle", seconds=10)


def test_segment_while_training_and_cancel(driver, ball):
    driver.start(ball[1])
    driver.widget.segmenting.probabilities.setChecked(True)
    driver.press(driver.widget.segmenting.segment_button)
    assert driver.phase == "segmenting"
    driver.wait(lambda: driver.phase == "training")
    soft = driver.viewer.layers["ball probabilities"].data
    assert soft.shape == (2, *ball[0].shape)
    assert soft.any()
    driver.press(driver.widget.segmenting.segment_button)
    driver.widget.segmenting.cancel_button.click()
    driver.wait(lambda: driver.phase == "training")


def test_a_killed_worker_is_started_again_with_the_last_model(driver, ball, said):
    driver.start(ball[1])
    project = driver.controller.project
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle", seconds=10)
    assert project.model.exists()
    driver.press(driver.widget.training.train_button)
    step = driver.controller.state.step
    driver.trained(step + 2)
    os.kill(driver.controller.client.pid, signal.SIGTERM)
    driver.wait(lambda: any("press Continue" in sentence for sentence in said))
    driver.wait(lambda: driver.phase == "idle" and driver.controller.state.has_model)
    driver.press(driver.widget.training.train_button)
    driver.trained(driver.controller.state.step + 1)
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "training")
    assert driver.viewer.layers["ball segmentation"].data.all()


def test_a_worker_killed_before_the_first_checkpoint_says_what_is_lost(
    driver, ball, said
):
    driver.start(ball[1])
    os.kill(driver.controller.client.pid, signal.SIGTERM)
    driver.wait(lambda: any("What was trained is lost" in each for each in said))
    driver.wait(lambda: driver.phase == "idle")
    state = driver.controller.state
    assert state.progress_line == ""
    assert state.model.startswith("No model yet")
    driver.press(driver.widget.training.train_button)
    driver.trained(1)


def test_a_model_that_was_opened_is_there_again_after_the_worker_has_died(
    driver, ball, said, tmp_path
):
    driver.start(ball[1])
    driver.widget.training.stop_button.click()
    driver.wait(lambda: driver.phase == "idle")
    driver.controller.save_model(str(tmp_path / "mine.pt"))
    driver.wait(lambda: (tmp_path / "mine.pt").exists())
    driver.widget.model.new.emit()
    driver.wait(lambda: not driver.controller.state.has_model)
    driver.controller.project.model.unlink()
    driver.controller.load_model(str(tmp_path / "mine.pt"))
    driver.wait(lambda: driver.controller.state.has_model)
    os.kill(driver.controller.client.pid, signal.SIGTERM)
    driver.wait(lambda: any("It is being started again" in each for each in said))
    assert not any("lost" in each for each in said)
    driver.wait(lambda: driver.phase == "idle" and driver.controller.state.has_model)


def test_the_image_is_removed_while_training(driver, ball, said):
    driver.start(ball[1])
    driver.viewer.layers.remove(driver.viewer.layers["ball"])
    driver.wait(lambda: driver.phase == "idle", seconds=15)
    assert any("“ball” was removed. The training was stopped" in s for s in said)
    assert driver.widget.data.choice() is None
    assert "There is no image" in driver.widget.data.problem.text()


def test_the_data_are_replaced_while_training(driver, ball, said):
    driver.start(ball[1])
    driver.viewer.layers["ball"].data = ball[0] * 2
    driver.wait(lambda: driver.phase == "idle", seconds=15)
    assert any("The data of “ball” were replaced." in s for s in said)
    driver.press(driver.widget.training.train_button)
    driver.trained(driver.controller.state.step + 1)


def test_dock_closed_while_training_leaves_no_process_and_loses_nothing(
    driver, ball, open_widget, qtbot, projects
):
    driver.start(ball[1])
    client, project = driver.controller.client, driver.controller.project
    driver.viewer.window.remove_dock_widget(driver.dock)
    driver.wait(lambda: not client.is_alive, seconds=10)
    assert project.annotation.exists()
    assert project.model.exists()
    # Opened again, the same annotation is worked on, and what was kept is offered.
    _, _, widget = open_widget(driver.viewer)
    assert widget.data.annotation().name == "ball annotation"
    assert widget.data.offer.isVisibleTo(widget)
    assert "4,800 voxels and a model" in widget.data._offer_text.text()
    qtbot.waitUntil(lambda: widget.controller.state.phase.value == "idle")
    widget.data.restore_button.click()
    qtbot.waitUntil(lambda: widget.controller.state.has_model)
    restored = widget.data.annotation()
    assert restored.name == "ball annotation [1]"
    np.testing.assert_array_equal(
        restored.data, driver.viewer.layers["ball annotation"].data
    )


def test_closed_viewer_leaves_no_process(driver, ball):
    driver.start(ball[1])
    client, project = driver.controller.client, driver.controller.project
    driver.viewer.close()
    driver.wait(lambda: not client.is_alive, seconds=10)
    assert project.annotation.exists()
    assert project.model.exists()
