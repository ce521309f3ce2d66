"""What was painted, trained or segmented is not replaced behind the person's back."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers._source import Source
from qtpy.QtWidgets import QFileDialog

from napari_unet3d._qt.copying import Copy
from napari_unet3d._qt.segmentation_file import why_not_into
from napari_unet3d._qt.volumes import VolumeChoice
from napari_unet3d._qt.watching import AnnotationWatch


def stopped(driver, truth):
    """Train a little and stop; return the file of the model."""
    driver.start(truth)
    driver.press(driver.widget.training.stop_button)
    driver.wait(lambda: driver.phase == "idle")
    return driver.controller.project.model


def choose(monkeypatch, path):
    """Have the dialog answer with a path."""
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(path), "any filter")
    )


def test_no_training_begins_before_a_model_is_opened(driver, ball, tmp_path):
    model = stopped(driver, ball[1])
    mine = shutil.copy(model, tmp_path / "mine.pt")
    driver.press(driver.widget.model.new_button)
    driver.wait(lambda: not driver.controller.state.has_model)
    driver.controller.load_model(str(mine))
    assert "being opened" in driver.controller.state.why_not_train
    assert not driver.widget.training.train_button.isEnabled()
    driver.wait(lambda: driver.controller.state.has_model)
    assert driver.controller.state.why_not_train is None
    driver.controller.load_model(str(tmp_path / "missing.pt"))
    driver.wait(lambda: driver.controller.state.why_not_train is None)


def test_a_model_that_is_not_trained_on_is_put_aside(driver, ball):
    model = stopped(driver, ball[1])
    former = model.read_bytes()
    driver.press(driver.widget.model.new_button)
    driver.wait(lambda: not driver.controller.state.has_model)
    driver.press(driver.widget.training.train_button)
    driver.trained(1)
    assert (model.parent / "previous-1" / "model.pt").read_bytes() == former
    # Nothing that the person has forgotten comes back if the worker dies.
    assert driver.controller.kept_model is None
    driver.press(driver.widget.training.stop_button)
    driver.wait(lambda: driver.phase == "idle")
    assert driver.controller.kept_model == model


def test_a_model_is_saved_though_everything_is_closed_at_once(driver, ball, tmp_path):
    driver.start(ball[1])
    driver.controller.save_model(str(tmp_path / "mine.pt"))
    driver.controller.close()
    assert (tmp_path / "mine.pt").exists()


def test_a_name_that_gets_an_ending_replaces_nothing(
    driver, ball, said, tmp_path, monkeypatch
):
    stopped(driver, ball[1])
    (tmp_path / "kidney.pt").write_text("mine")
    (tmp_path / "kidney.ome.zarr").mkdir()
    choose(monkeypatch, tmp_path / "kidney")
    driver.controller.choose_model_file()
    driver.controller.choose_file()
    assert [sentence.partition(" exists")[0] for sentence in said] == [
        str(tmp_path / "kidney.pt"),
        str(tmp_path / "kidney.ome.zarr"),
    ]
    assert driver.phase == "idle"
    choose(monkeypatch, tmp_path / "new")
    driver.controller.choose_model_file()
    driver.wait((tmp_path / "new.pt").exists)
    assert (tmp_path / "kidney.pt").read_text() == "mine"


def test_an_image_is_not_segmented_into_itself(tmp_path):
    source = tmp_path / "a.ome.zarr" / "0"
    source.mkdir(parents=True)
    layer = Image(np.zeros((4, 5, 6)))
    layer._source = Source(path=str(source))
    choice = VolumeChoice(layer)
    for name in ("a.ome.zarr", "a.ome.zarr/b.zarr"):
        assert "where the image lies" in why_not_into(
            str(tmp_path / name), choice, False
        )
    target = str(tmp_path / "b_segmentation.ome.zarr")
    assert why_not_into(target, choice, True) is None
    (tmp_path / "b_probabilities.ome.zarr").mkdir()
    assert why_not_into(target, choice, False) is None
    assert "b_probabilities.ome.zarr" in why_not_into(target, choice, True)


def test_a_segmentation_that_waits_for_its_image_is_cancelled(
    driver, ball, monkeypatch
):
    stopped(driver, ball[1])
    may_go_on, run = threading.Event(), Copy.run
    monkeypatch.setattr(Copy, "run", lambda copy: may_go_on.wait(30) and run(copy))
    driver.viewer.add_image(ball[0] + 1, name="other")
    images = driver.widget.data.images
    images.setCurrentIndex(images.findText("other"))
    driver.press(driver.widget.segmenting.segment_button)
    assert driver.phase == "segmenting"
    driver.press(driver.widget.segmenting.cancel_button)
    assert driver.phase == "idle"
    may_go_on.set()
    driver.wait(lambda: driver.controller.transfer.number_of(driver.controller.choice))
    assert "other segmentation" not in driver.viewer.layers


def test_results_that_were_corrected_stay(driver, ball):
    stopped(driver, ball[1])
    for _ in range(2):
        driver.press(driver.widget.segmenting.segment_button)
        driver.wait(lambda: driver.phase == "idle")
    found = [layer for layer in driver.viewer.layers if "segmentation" in layer.name]
    assert len(found) == 1
    found[0].data = cleaned = np.full_like(ball[1], 7)
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "idle")
    assert found[0].data is cleaned
    found = [layer for layer in driver.viewer.layers if "segmentation" in layer.name]
    assert len(found) == 2


def test_a_picture_beside_an_annotated_volume_is_only_refused(driver, ball):
    driver.widget.data.new.click()
    driver.paint(ball[1], 8)
    driver.controller.learning.look()
    driver.viewer.add_image(ball[0][0], name="picture")
    images = driver.widget.data.images
    images.setCurrentIndex(images.findText("picture"))
    assert "“picture” has 2 axes" in driver.controller.state.problem
    (other,) = driver.controller.state.others
    assert "“picture” has 2 axes" in other.why_not


def test_strokes_reach_a_training_while_another_channel_is_chosen(
    driver, ball, monkeypatch
):
    driver.viewer.add_image(ball[0] + 1, name="marker")
    driver.widget.data.images.setCurrentIndex(0)
    driver.start(ball[1])
    sent = []
    monkeypatch.setattr(
        driver.controller.client,
        "update_annotation",
        lambda number, *_: sent.append(number),
    )
    (number,) = driver.controller.trained
    driver.widget.data._menu.actions()[0].trigger()
    assert driver.controller.choice.n_channels == 2
    driver.paint(ball[1], 3)
    driver.controller.learning.look()
    assert number in sent


def test_the_preview_goes_on_after_the_data_were_replaced(driver, ball):
    stopped(driver, ball[1])
    image = driver.viewer.layers["ball"]
    driver.wait(lambda: driver.controller.state.has_prediction)
    image.data = ball[0][::-1].copy()
    driver.wait(lambda: driver.controller.previewing.is_of(driver.controller.choice))
    driver.wait(lambda: driver.controller.state.has_prediction)


def test_a_preview_gets_the_classes_of_another_model(driver, ball):
    stopped(driver, ball[1])
    driver.wait(lambda: "ball preview" in driver.viewer.layers)
    driver.widget.classes.add.click()
    classes = driver.controller.learning.classes(driver.controller.choice)
    assert len(classes) == 3
    driver.controller.previewing.begin(driver.controller.choice, classes)
    kept = driver.viewer.layers["ball preview"].metadata["napari-unet3d"]
    assert kept["class_names"] == [each.name for each in classes]


@pytest.mark.parametrize("breaks", ["flush", "a look"])
def test_labels_on_a_disk_that_is_gone_are_not_taken_for_erased(
    breaks, tmp_path, qtbot
):
    array = zarr.create_array(
        tmp_path / "labels.zarr", shape=(8, 8, 8), chunks=(4, 4, 4), dtype="u1"
    )
    array[1] = 2
    viewer = ViewerModel()
    watch = AnnotationWatch(viewer)
    said = []
    watch.unreadable.connect(said.append)
    watch.watch(viewer.add_labels(array))
    assert len(watch.labelled.index) == 64
    (tmp_path / "labels.zarr").rename(tmp_path / "away")
    for _ in range(2):
        if breaks == "flush":
            watch.flush()
        else:
            watch._begin()
            qtbot.waitUntil(lambda: watch._scan is None)
    assert len(said) == 1
    assert "cannot be read" in said[0]
    assert len(watch.labelled.index) == 64
    (tmp_path / "away").rename(tmp_path / "labels.zarr")
    array[2] = 1
    assert len(watch.flush().index) == 128
    watch.close()
