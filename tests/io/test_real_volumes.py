from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.io import open_image, read_labels

CONFOCAL = (0.2837, 0.1268, 0.1268)
SETS = {
    "ct_abdomen_totalsegmentator": ("", (30, 101, 122), (3, 3, 3), "millimeter"),
    "em_fibsem_gala_small": ("train_", (50, 100, 200), None, None),
    "em_fibsem_medulla": ("", (250, 250, 250), (10, 10, 10), "nanometer"),
    "membranes_arabidopsis_ovule_plantseg": (
        *("", (32, 128, 128)),
        *((0.235, 0.15, 0.15), "micrometer"),
    ),
    "mri_hippocampus_msd": ("hippocampus_003_", (35, 52, 34), (1, 1, 1), "millimeter"),
    "mri_spinal_cord_sct": ("t2_", (55, 60, 52), (1, 1, 1), "millimeter"),
    "nuclei_arabidopsis_plantseg": ("1135_", (100, 100, 100), CONFOCAL, "micrometer"),
    "nuclei_mouse_embryo_qcanet": ("8cell_", (51, 120, 122), (2.18, 1, 1), None),
}


@pytest.mark.parametrize("name", SETS)
def test_real_volumes_open(data_dir, name):
    prefix, shape, spacing, unit = SETS[name]

    image = open_image(data_dir / name / f"{prefix}image.tif")
    labels = read_labels(data_dir / name / f"{prefix}labels.tif")

    assert image.data.shape == (1, *shape)
    assert image.data.dtype.name in ("uint8", "uint16", "float32")
    assert image.data[0, 3, 5:9].shape == (4, shape[2])
    assert labels.data.shape == shape
    assert labels.data.dtype == np.uint8
    assert labels.data.max() < 10
    for volume in (image, labels):
        assert volume.spacing == (spacing and pytest.approx(spacing, rel=1e-3))
        assert volume.unit == unit
