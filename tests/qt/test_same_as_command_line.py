"""The segmentation in the viewer is that of the command line, voxel for voxel."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_unet3d.io import open_image, read_labels

pytestmark = pytest.mark.timeout(600)

PROGRAM = "import sys; from napari_unet3d.cli import main; sys.exit(main())"


@pytest.fixture
def ball(ball, stem):
    """Return grey values that single precision does not hold, for one of the tests."""
    image, truth = ball
    return (image.astype(np.float64) + 1e9 if stem == "filters" else image), truth


@pytest.mark.parametrize("stem", ["none", "filters"])
def test_a_saved_model_segments_alike(stem, driver, ball, tmp_path, said):
    driver.tiny(steps=12)
    driver.widget.advanced.form("model").set_values({"stem": stem})
    driver.widget.data.new.click()
    driver.paint(ball[1], 8, 12, 16)
    driver.press(driver.widget.training.train_button)
    driver.wait(lambda: driver.phase == "idle" and driver.controller.state.step == 12)
    driver.widget.segmenting.probabilities.setChecked(True)
    driver.press(driver.widget.segmenting.segment_button)
    driver.wait(lambda: driver.phase == "segmenting")
    driver.wait(lambda: driver.phase == "idle")
    shown = {
        kind: np.array(driver.viewer.layers[f"ball {kind}"].data)
        for kind in ("segmentation", "probabilities")
    }

    model, image = tmp_path / "model.pt", tmp_path / "ball.tif"
    driver.controller.save_model(str(model))
    driver.wait(lambda: f"The model was saved to {model}." in said)
    tifffile.imwrite(image, ball[0], metadata={"axes": "ZYX", "spacing": 2})
    labels, soft = tmp_path / "segmentation.tif", tmp_path / "probabilities.tif"
    files = ("--model", model, "--image", image, "--output", labels)
    subprocess.run(
        [sys.executable, "-c", PROGRAM, "segment", *files, "--probabilities", soft],
        check=True,
        timeout=300,
    )

    assert set(np.unique(shown["segmentation"])) == {1, 2}
    np.testing.assert_array_equal(read_labels(labels).data, shown["segmentation"])
    assert len(np.unique(shown["probabilities"])) > 10
    np.testing.assert_array_equal(open_image(soft).data[:], shown["probabilities"])
