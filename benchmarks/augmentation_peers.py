"""Elastic and affine deformation of a patch as peers do it.

Every function returns one without arguments, which warps the patch in another way at
every call.
"""

from __future__ import annotations

import numpy as np
import torch

DEGREES, SCALING = 15, 0.1
DEVIATION, SPACING = 4.0, 32
"""Standard deviation of the displacement of control points, and their distance."""


def torchio(image, labels):
    """Warp a patch with torchio."""
    import torchio

    subject = torchio.Subject(
        image=torchio.ScalarImage(tensor=torch.from_numpy(image)[None]),
        labels=torchio.LabelMap(tensor=torch.from_numpy(labels)[None]),
    )
    transform = torchio.RandomAffineElasticDeformation(
        affine_kwargs={"scales": SCALING, "degrees": DEGREES},
        elastic_kwargs={
            "num_control_points": max(5, image.shape[0] // SPACING + 3),
            "max_displacement": 2 * DEVIATION,
        },
    )

    def work():
        found = transform(subject)
        return found.image.data, found.labels.data

    return work


def monai(image, labels):
    """Warp a patch with MONAI."""
    from monai.transforms import Rand3DElasticd

    patch = {
        "image": torch.from_numpy(image)[None],
        "labels": torch.from_numpy(labels)[None],
    }
    transform = Rand3DElasticd(
        keys=list(patch),
        prob=1,
        sigma_range=(5, 7),
        magnitude_range=(100, 200),
        rotate_range=(np.radians(DEGREES),) * 3,
        scale_range=(SCALING,) * 3,
        mode=("bilinear", "nearest"),
        padding_mode="border",
    )

    def work():
        found = transform(dict(patch))
        return found["image"], found["labels"]

    return work


def elasticdeform(image, labels):
    """Warp a patch with elasticdeform."""
    import elasticdeform
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    points = image.shape[0] // SPACING + 3

    def work():
        angles = rng.uniform(-DEGREES, DEGREES, 3)
        turn = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
        turn = turn * rng.uniform(1 - SCALING, 1 + SCALING, 3)
        middle = (np.array(image.shape) - 1) / 2
        return elasticdeform.deform_grid(
            [image, labels],
            rng.normal(0, DEVIATION, (3, points, points, points)),
            order=[1, 0],
            mode=["nearest", "constant"],
            affine=np.column_stack([turn, middle - turn @ middle]),
        )

    return work


def batchgeneratorsv2(image, labels):
    """Warp a patch with batchgeneratorsv2."""
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    transform = SpatialTransform(
        image.shape,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=1,
        elastic_deform_scale=(0.1, 0.2),
        elastic_deform_magnitude=(DEVIATION, 2 * DEVIATION),
        p_rotation=1,
        rotation=(-np.radians(DEGREES), np.radians(DEGREES)),
        p_scaling=1,
        scaling=(1 - SCALING, 1 + SCALING),
        mode_seg="nearest",
    )
    patch = {
        "image": torch.from_numpy(image)[None],
        "segmentation": torch.from_numpy(labels)[None],
    }

    def work():
        found = transform(**patch)
        return found["image"], found["segmentation"]

    return work


PEERS = {
    "torchio": torchio,
    "MONAI": monai,
    "elasticdeform": elasticdeform,
    "batchgeneratorsv2": batchgeneratorsv2,
}
