"""Real volumes with dense ground truth, sparse annotation of them, and scores.

The volumes are not part of this repository. They are looked for in the folder named
by the environment variable ``UNET3D_DATA`` (by default ``../shared/data`` relative to
the root of the checkout); each set has a README there with its source and licence.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile

_NUCLEI = ("background", "nucleus")
_MEMBRANE = ("cell interior", "membrane")
_WALL = ("cell interior", "cell wall")
_CORD = ("background", "spinal cord")
_HIPPOCAMPUS = ("background", "anterior hippocampus", "posterior hippocampus")
_ABDOMEN = (
    *("background", "liver", "spleen", "kidneys", "gastrointestinal tract"),
    *("large vessels", "bone and cartilage", "muscle", "lung", "other organs"),
)
_PATIENTS = (1, 3, 4, 6, 7, 8, 11, 14, 15, 17, 19, 20)
_CONFOCAL = (0.2837, 0.127, 0.127)
_UNIT = (1.0, 1.0, 1.0)
_TEN = (10.0, 10.0, 10.0)
# name: (start of the two files' path, spacing, class names). Spacings are in the unit
# of the set's README; FIB-SEM voxels of gala are about 10 nm, not stated exactly.
_SETS = {
    "nuclei_1135": ("nuclei_arabidopsis_plantseg/1135_", _CONFOCAL, _NUCLEI),
    "nuclei_1136": ("nuclei_arabidopsis_plantseg/1136_", _CONFOCAL, _NUCLEI),
    "embryo_8cell": ("nuclei_mouse_embryo_qcanet/8cell_", (2.18, 1.0, 1.0), _NUCLEI),
    "embryo_16cell": ("nuclei_mouse_embryo_qcanet/16cell_", (2.18, 1.0, 1.0), _NUCLEI),
    "medulla": ("em_fibsem_medulla/", _TEN, _MEMBRANE),
    "medulla_centre": ("em_fibsem_medulla/", _TEN, _MEMBRANE),
    "medulla_full": ("em_fibsem_medulla/", _TEN, _MEMBRANE),
    "gala_train": ("em_fibsem_gala_small/train_", _TEN, _MEMBRANE),
    "gala_test": ("em_fibsem_gala_small/test_", _TEN, _MEMBRANE),
    "ovule": ("membranes_arabidopsis_ovule_plantseg/", (0.235, 0.15, 0.15), _WALL),
    "spinal_t1": ("mri_spinal_cord_sct/t1_", _UNIT, _CORD),
    "spinal_t2": ("mri_spinal_cord_sct/t2_", _UNIT, _CORD),
    "abdomen": ("ct_abdomen_totalsegmentator/", (3.0, 3.0, 3.0), _ABDOMEN),
}
for _name in (f"hippocampus_{patient:03d}" for patient in _PATIENTS):
    _SETS[_name] = (f"mri_hippocampus_msd/{_name}_", _UNIT, _HIPPOCAMPUS)
_CROPS = {"medulla": (slice(0, 112),) * 3, "medulla_centre": (slice(69, 181),) * 3}


@dataclass(frozen=True)
class Case:
    """One volume (axes Z, Y, X) and its dense ground truth."""

    name: str
    image: np.ndarray  # grey values in the type of the file
    truth: np.ndarray  # uint8, class 1..K of every voxel; 0 does not occur
    spacing: tuple[float, float, float]  # size of a voxel along Z, Y, X
    class_names: tuple[str, ...]  # of the classes 1..K


def data_folder() -> Path:
    """Return the folder that holds the sets, whether it exists or not."""
    root = Path(__file__).resolve().parent.parent
    return root / os.environ.get("UNET3D_DATA", "../shared/data")


def names() -> list[str]:
    """Return the names of all volumes that `load` knows, present or not."""
    return list(_SETS)


def load(name: str) -> Case:
    """Read one of `names`; ``medulla`` is a corner of ``medulla_full``."""
    if name not in _SETS:
        raise KeyError(f"no volume is called {name!r}; known are {', '.join(_SETS)}")
    start, spacing, class_names = _SETS[name]
    folder = data_folder()
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder {folder}; set UNET3D_DATA to it")
    image, truth = _read_pair(f"{folder}/{start}")
    crop = _CROPS.get(name, ...)
    return Case(name, image[crop].copy(), truth[crop].copy(), spacing, class_names)


def folder_cases(folder: str | Path, spacing=(1.0, 1.0, 1.0)) -> list[Case]:
    """Read every pair of image and labels in a folder.

    Pairs are ``NAME_image.tif`` with ``NAME_labels.tif``, or ``image.tif`` with
    ``labels.tif``, whose case is named after the folder. Labels are dense and count
    from 0. An image without labels is left out. All get the same `spacing`.
    """
    cases = []
    folder = Path(folder).resolve()
    for path in sorted([*folder.glob("*_image.tif"), *folder.glob("image.tif")]):
        start = str(path).removesuffix("image.tif")
        if Path(f"{start}labels.tif").exists():
            image, truth = _read_pair(start)
            classes = tuple(f"class {c}" for c in range(1, int(truth.max()) + 1))
            name = path.name.removesuffix("image.tif")[:-1] or folder.name
            cases.append(Case(name, image, truth, tuple(spacing), classes))
    return cases


def annotate(
    truth: np.ndarray,
    slices_per_axis: int = 1,
    seed: int | None = None,
    *,
    need_all_classes: bool = True,
) -> np.ndarray:
    """Imitate a person who paints a few whole slices along every axis.

    Parameters
    ----------
    truth : ndarray
        Dense classes 1..K.
    slices_per_axis : int, optional
        Into how many equal parts every axis is cut; in each, one slice is annotated.
    seed : int, optional
        Draw the slices at random with it, instead of the middle ones.
    need_all_classes : bool, optional
        Move a slice, within its part, to the nearest position that shows as many
        classes as any slice of that part does (of two equally near ones, to the
        lower). Without this, rare structures may not be annotated at all.

    Returns
    -------
    ndarray
        `truth` on the annotated slices, 0 elsewhere.
    """
    most = min(truth.shape)
    if not 1 <= slices_per_axis <= most:
        raise ValueError(f"slices_per_axis must be in [1, {most}]: {slices_per_axis}")
    rng = None if seed is None else np.random.default_rng(seed)
    labels = np.zeros_like(truth)
    for axis, size in enumerate(truth.shape):
        source, target = np.moveaxis(truth, axis, 0), np.moveaxis(labels, axis, 0)
        edges = [i * size // slices_per_axis for i in range(slices_per_axis + 1)]
        for lower, upper in pairwise(edges):
            middle = (lower + upper) // 2
            position = middle if rng is None else int(rng.integers(lower, upper))
            if need_all_classes:
                position = _richest(source, range(lower, upper), position)
            target[position] = source[position]
    return labels


def score(
    segmentation: np.ndarray, truth: np.ndarray, exclude: np.ndarray | None = None
) -> dict:
    """Compare a dense segmentation with the truth.

    Parameters
    ----------
    segmentation, truth : ndarray
        Classes 1..K; any other value in `segmentation` is simply wrong.
    exclude : ndarray, optional
        Voxels where this is not 0 do not count: pass the annotation.

    Returns
    -------
    dict
        ``iou``: list of the intersection over union of the classes 1..K, NaN for a
        class in neither. ``mean_iou``: their mean. ``mean_foreground_iou``: the
        mean without class 1. Both means leave NaN out.
    """
    if segmentation.shape != truth.shape:
        raise ValueError(f"shapes differ: {segmentation.shape} and {truth.shape}")
    counted = np.ones(truth.shape, bool) if exclude is None else exclude == 0
    iou = []
    for label in range(1, int(truth.max()) + 1):
        found, wanted = counted & (segmentation == label), counted & (truth == label)
        union = np.count_nonzero(found | wanted)
        both = np.count_nonzero(found & wanted)
        iou.append(float(both / union) if union else np.nan)
    return {"iou": iou, "mean_iou": _mean(iou), "mean_foreground_iou": _mean(iou[1:])}


def _richest(slices: np.ndarray, positions: range, wanted: int) -> int:
    """Return the position nearest to `wanted` with the most different values."""
    shown = {position: len(np.unique(slices[position])) for position in positions}
    return min(positions, key=lambda p: (-shown[p], abs(p - wanted)))


def _mean(values: list[float]) -> float:
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else np.nan


def _read_pair(start: str) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its labels, moved from 0..K-1 to 1..K."""
    image = tifffile.imread(f"{start}image.tif")
    labels = tifffile.imread(f"{start}labels.tif")
    if image.ndim != 3 or image.shape != labels.shape:
        raise ValueError(f"{start}image.tif and its labels must be 3-D, of one shape")
    if labels.min() < 0 or labels.max() > 254:
        raise ValueError(f"{start}labels.tif must hold values in [0, 254]")
    return image, (labels + 1).astype(np.uint8)
