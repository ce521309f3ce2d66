"""The volumes a network is trained on, and what is held out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .batches import BatchSource
from .class_weights import ClassWeights
from .errors import EngineError
from .label_checks import check_annotations
from .normalize import IntensityStatistics, as_channels_first
from .ranks import ALONE, Ranks
from .validation import HeldOut
from .volume import FeatureVolume

if TYPE_CHECKING:
    from .annotation import Annotation
    from .config import ModelConfig, Spacing, TrainingConfig
    from .patch_plan import PatchPlan
    from .stem import FilterStem


@dataclass
class TrainingVolume:
    """A sparsely annotated volume.

    Parameters
    ----------
    image : (Z, Y, X) or (C, Z, Y, X) array-like
        Read in boxes; need not fit in memory.
    annotation : Annotation
        May be replaced while training goes on: the next step uses the new one.
    spacing : (float, float, float), optional
        Size of a voxel ZYX.
    name : str
        What to call it in messages.
    """

    image: Any
    annotation: Annotation
    spacing: Spacing | None = None
    name: str = "image"

    def __post_init__(self) -> None:
        self.image = as_channels_first(self.image)
        self.check()

    def check(self) -> None:
        """Refuse an annotation of another shape than the image.

        Raises
        ------
        EngineError
            With both shapes.
        """
        shape = tuple(int(n) for n in self.image.shape[1:])
        if self.annotation.shape != shape:
            raise EngineError(
                f"{self.name}: the labels have shape {self.annotation.shape} but the "
                f"image has {shape}; labels and image must have the same grid"
            )


class TrainingData:
    """Features, labels and class weights, always by the newest annotations.

    Parameters
    ----------
    volumes : sequence of TrainingVolume
        To train on.
    validation : sequence of TrainingVolume
        To measure on, instead of a part of the training labels.
    stem : FilterStem
        The model's.
    model, training : ModelConfig, TrainingConfig
        With nothing left open in `model`.
    ranks : Ranks
        Those that measure together.
    """

    batches: BatchSource
    """Draws training batches."""
    held_out: HeldOut
    """Measures on what is held out."""
    class_weights: ClassWeights
    """How much each class counts in the loss."""

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        validation: Sequence[TrainingVolume],
        stem: FilterStem,
        model: ModelConfig,
        training: TrainingConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self.volumes = tuple(volumes)
        self.features = _feature_volumes(volumes, stem)
        self._validation = tuple(validation)
        _check_validation(validation, model)
        self._validation_features = _feature_volumes(validation, stem)
        self._model, self._training = model, training
        self._seen: list[Annotation] = []
        self._learn_all = False

    @property
    def is_held_out(self) -> bool:
        """Whether what is measured on is kept from the training."""
        return bool(self._validation) or not self._learn_all

    @property
    def labelled_voxels(self) -> int:
        """Labelled voxels of all volumes, held out or not."""
        return sum(len(volume.annotation) for volume in self.volumes)

    def fit_stem(self, stem: FilterStem, boxes: int = 8, edge: int = 32) -> None:
        """Standardise the stem's responses over boxes around labelled voxels.

        There is one at least of each class, up to as many more `boxes`: the background
        may be the same everywhere, as where a mask has been applied to the image.
        """
        if not stem.scales:
            return
        rng = np.random.default_rng(self._training.seed)
        margin = np.array(stem.margin)
        blocks = []
        for chosen, voxel in self._centres(rng, boxes):
            annotation = self.volumes[chosen].annotation
            centre = annotation.coordinates[voxel]
            size = np.minimum(annotation.shape, edge)
            low = np.clip(centre - size // 2, 0, np.array(annotation.shape) - size)
            blocks.append(
                self.features[chosen].read(
                    (low - margin).tolist(), (size + 2 * margin).tolist()
                )
            )
        with torch.no_grad():
            stem.fit(blocks)

    def _centres(
        self, rng: np.random.Generator, count: int
    ) -> list[tuple[int, np.intp]]:
        """Draw labelled voxels, each as the number of a volume and its own number."""
        annotations = [volume.annotation for volume in self.volumes]
        labelled = [i for i, each in enumerate(annotations) if len(each)]
        found = []
        for k in range(count):
            chosen = labelled[k % len(labelled)]
            found.append((chosen, rng.integers(len(annotations[chosen]))))
        drawn = {int(annotations[i].labels[voxel]) for i, voxel in found}
        for chosen in labelled:
            labels = annotations[chosen].labels
            for label in np.flatnonzero(np.bincount(labels)):
                if label not in drawn and len(found) < 2 * count:
                    drawn.add(int(label))
                    found.append((chosen, rng.choice(np.flatnonzero(labels == label))))
        return found

    def refresh(self, plan: PatchPlan, learn_all: bool = False) -> str:
        """Take the newest annotations, where they changed since the last time.

        Parameters
        ----------
        plan : PatchPlan
            Shapes of the patches.
        learn_all : bool
            Whether to train on what was held out, too.

        Returns
        -------
        str
            Why they cannot be trained on, where those from before are kept.
        """
        annotations = [volume.annotation for volume in self.volumes]
        is_first = not self._seen
        is_changed = learn_all != self._learn_all
        self._learn_all = learn_all
        if is_changed and not is_first:
            self._teach()
        if not is_first and all(
            a is b for a, b in zip(annotations, self._seen, strict=True)
        ):
            return ""
        self._seen = annotations
        try:
            for volume in self.volumes:
                volume.check()
            _check_classes(check_annotations(annotations), self._model)
        except EngineError as error:
            if is_first:
                raise
            return f"{error}; until then the labels from before are trained on"
        self._use(annotations, plan)
        return ""

    def _use(self, annotations: Sequence[Annotation], plan: PatchPlan) -> None:
        held_features = self._validation_features
        held = [volume.annotation for volume in self._validation]
        self._all = self._kept = list(annotations)
        if not self._validation:
            fraction, seed = self._training.validation_fraction, self._training.seed
            parts = [annotation.split(fraction, seed) for annotation in annotations]
            self._kept, held = [part[0] for part in parts], [part[1] for part in parts]
            held_features = self.features
        self.held_out = HeldOut(held_features, held, plan, self._model, self._ranks)
        self._teach()

    def _teach(self) -> None:
        """Draw from all labels, or from those that are not held out."""
        taught = self._all if self._learn_all else self._kept
        self.batches = BatchSource(
            self.features, taught, self._training.augmentation, self._model
        )
        self.class_weights = ClassWeights(
            self._model, self._training, taught, self.features[0].device
        )


def _check_validation(volumes: Sequence[TrainingVolume], model: ModelConfig) -> None:
    """Refuse volumes that the model cannot be measured on."""
    for volume in volumes:
        channels = volume.image.shape[0]
        if channels != model.in_channels:
            raise EngineError(
                f"{volume.name}: the validation image has {channels} channels but the "
                f"model takes {model.in_channels}; give one with the same channels"
            )
        _check_classes(volume.annotation.n_classes, model)


def _check_classes(n_classes: int, model: ModelConfig) -> None:
    if n_classes > (model.n_classes or 0):
        raise EngineError(
            f"the labels go up to class {n_classes} but the model has "
            f"{model.n_classes} classes; relabel or start a new model"
        )


def _feature_volumes(
    volumes: Sequence[TrainingVolume], stem: FilterStem
) -> list[FeatureVolume]:
    features = []
    for volume in volumes:
        try:
            statistics = IntensityStatistics.from_image(volume.image)
        except EngineError as error:
            raise EngineError(f"{volume.name}: {error}") from error
        features.append(FeatureVolume(volume.image, statistics, stem, len(volumes)))
    return features
