"""Measure on labels that are held out of the training."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .batches import BatchSource
from .config import AugmentationConfig, ModelConfig
from .metrics import Scores, count
from .ranks import ALONE, Ranks

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .annotation import Annotation
    from .patch_plan import PatchPlan
    from .unet import UNet3D
    from .volume import FeatureVolume

BATCHES = 4

UNVARIED = AugmentationConfig(
    warp_probability=0,
    flip=(False, False, False),
    contrast=0,
    brightness=0,
    gamma=0,
    noise=0,
)


class HeldOut:
    """Fixed patches around held-out labels.

    Parameters
    ----------
    volumes : sequence of FeatureVolume
        The images.
    annotations : sequence of Annotation
        The labels held out of each.
    plan : PatchPlan
        Shapes of the patches.
    model : ModelConfig
        The network's.
    ranks : Ranks
        Those that share the work.
    """

    def __init__(
        self,
        volumes: Sequence[FeatureVolume],
        annotations: Sequence[Annotation],
        plan: PatchPlan,
        model: ModelConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        self.voxels = sum(len(annotation) for annotation in annotations)
        self.fingerprint = _fingerprint(annotations)
        self._n_classes = model.n_classes or 0
        self.plan = plan
        self._ranks = ranks
        # With a single class, nothing is better than to find it everywhere.
        classes = {int(k) for each in annotations for k in np.unique(each.labels)}
        self._source = (
            BatchSource(volumes, annotations, UNVARIED, model)
            if len(classes) > 1
            else None
        )

    def measure(
        self, network: UNet3D, autocast: AbstractContextManager[object]
    ) -> Scores | None:
        """Score a network in evaluation mode.

        `None` where nothing is held out, or one class only.
        """
        if self._source is None:
            return None
        totals = np.zeros((3, self._n_classes), np.int64)
        with torch.no_grad():
            for k in self._ranks.share(BATCHES):
                batch = self._source.draw(self.plan, np.random.default_rng(k))
                labelled = batch.target >= 0
                # The filters are not computed in a short number format.
                with autocast:
                    logits = network(batch.features, batch.region, labelled)
                totals += count(
                    batch.target[labelled].cpu().numpy() + 1,
                    logits.argmax(dim=1).flatten().cpu().numpy() + 1,
                    self._n_classes,
                )
        return Scores(*self._ranks.add(totals))


def _fingerprint(annotations: Sequence[Annotation]) -> float:
    """Return a number that tells held-out labels apart, exact as a float."""
    value = 0
    for annotation in annotations:
        value = zlib.crc32(annotation.index.tobytes(), value)
        value = zlib.crc32(annotation.labels.tobytes(), value)
    return float(value)
