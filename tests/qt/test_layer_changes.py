"""What a person does to the layers behind the plugin's back."""

from __future__ import annotations


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
