"""A picture of training patches before and after augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet3d.engine.augment import sample_patch
from napari_unet3d.engine.batches import choose_region
from napari_unet3d.engine.checkpoint import build_stem
from napari_unet3d.engine.device import choose_device
from napari_unet3d.engine.label_checks import check_annotations
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.engine.patch_plan import plan_patches
from napari_unet3d.engine.patches import PatchSampler
from napari_unet3d.engine.planning import resolve_model
from napari_unet3d.engine.validation import UNVARIED
from napari_unet3d.engine.volume import FeatureVolume

from .pictures import PLANES, save_table, three_planes

if TYPE_CHECKING:
    from napari_unet3d.engine import TrainingVolume
    from napari_unet3d.engine.config import ModelConfig, TrainingConfig
    from napari_unet3d.engine.regions import Region

ROWS = 6
"""Patches in a gallery."""

COLUMNS = (
    *(f"{name} as it is" for name in PLANES),
    *(f"{name} varied" for name in PLANES),
)


def save_gallery(
    path: str | Path,
    volumes: Sequence[TrainingVolume],
    model: ModelConfig,
    training: TrainingConfig,
) -> None:
    """Write training patches before and after augmentation, with their labels.

    They are drawn as in training, and each is varied. The first channel is shown.

    Parameters
    ----------
    path : path
        PNG to write.
    volumes : sequence of TrainingVolume
        What would be trained on.
    model, training : ModelConfig, TrainingConfig
        Settings of the training.

    Raises
    ------
    EngineError
        Where the volumes cannot be trained on, or the file cannot be written.
    """
    device = choose_device("cpu")
    annotations = [volume.annotation for volume in volumes]
    shapes = [volume.image.shape for volume in volumes]
    spacings = [volume.spacing for volume in volumes]
    n_classes = check_annotations(annotations)
    model = resolve_model(model, shapes, spacings, n_classes)
    assert model.spacing
    stem = build_stem(model)
    features = [
        FeatureVolume(v.image, IntensityStatistics.from_image(v.image), stem)
        for v in volumes
    ]
    plan = plan_patches(training, model, shapes, device)
    # In training only some patches are.
    varied = replace(training.augmentation, warp_probability=1.0)
    sampler = PatchSampler(annotations)
    rows = []
    for k in range(ROWS):
        rng = np.random.default_rng((training.seed, k))
        location = sampler.draw(1, rng)[0]
        normal, size = location.normal, plan.sizes[location.normal]
        z, y, x = (n // 2 for n in size)
        pictures = []
        for config in (UNVARIED, varied):
            patch, labels, centre = sample_patch(
                features[location.volume],
                annotations[location.volume],
                location.anchor,
                size,
                (z, y, x),
                config,
                rng,
            )
            pictures += three_planes(
                patch[0].numpy(), labels.numpy(), centre, model.spacing
            )
        region = choose_region(labels[None], normal, [centre[normal]])
        where = ", ".join(map(str, location.anchor))
        caption = (
            f"{volumes[location.volume].name}, around voxel ({where}) of the slice "
            f"across {'ZYX'[normal]}; loss in {_shown(region)}"
        )
        rows.append((caption, pictures))
    save_table(path, rows, COLUMNS)


def _shown(region: Region) -> str:
    return " × ".join(f"{low}-{high}" for low, high in region)
