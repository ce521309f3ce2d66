"""How much each class counts in the loss, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .closed_form import BALANCE
from .errors import EngineError
from .loss import automatic_class_weights
from .warm_start import starts_warm

if TYPE_CHECKING:
    from .annotation import Annotation
    from .config import ModelConfig, TrainingConfig

BALANCED_STEPS = 200
"""Steps over which rare classes come to count as the settings say, not more.

A warm start's head was solved for with balanced classes. If they count by their voxels
at once, the first steps unlearn the rare ones.
"""


class ClassWeights:
    """The weights of the classes in the loss.

    Parameters
    ----------
    model : ModelConfig
        How many classes there are.
    training : TrainingConfig
        The weights, or how much classes are balanced.
    annotations : sequence of Annotation
        The labels that are taught.
    device : torch.device
        Where the weights are wanted.

    Raises
    ------
    EngineError
        Where the settings give weights that do not fit the classes.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        annotations: Sequence[Annotation],
        device: torch.device,
    ) -> None:
        self._model, self._training, self._device = model, training, device
        n_classes = model.n_classes or 0
        _check(training.class_weights, n_classes)
        labels = np.concatenate([annotation.labels for annotation in annotations])
        self._last: tuple[float | None, Tensor] = None, torch.empty(0)
        self._counts = np.bincount(labels, minlength=n_classes + 1)[1:].tolist()

    def at(self, step: int) -> Tensor:
        """Return the weights after so many steps, float32 of shape (K,)."""
        balance = class_balance(self._model, self._training, step)
        if balance != self._last[0]:
            self._last = balance, self._made(balance).to(self._device)
        return self._last[1]

    def _made(self, balance: float) -> Tensor:
        if self._training.class_weights is not None:
            return torch.tensor(self._training.class_weights)
        return automatic_class_weights(self._counts, balance)


def class_balance(model: ModelConfig, training: TrainingConfig, step: int) -> float:
    """Return the exponent of the automatic class weights after so many steps.

    After a warm start it begins at that of the head's solution, where that is more than
    the settings ask for, and falls to theirs.

    Examples
    --------
    >>> from napari_unet3d.engine import ModelConfig, TrainingConfig
    >>> model = ModelConfig(base_channels=8)
    >>> [class_balance(model, TrainingConfig(), step) for step in (0, 100, 200, 300)]
    [0.5, 0.25, 0.0, 0.0]
    """
    wanted = training.class_balance
    if not starts_warm(model, training):
        return wanted
    return wanted + max(0.0, BALANCE - wanted) * max(0.0, 1 - step / BALANCED_STEPS)


def _check(given: Sequence[float] | None, n_classes: int) -> None:
    if given is None:
        return
    if len(given) != n_classes:
        raise EngineError(
            f"class_weights has {len(given)} values, {given}, but there are "
            f"{n_classes} classes; give one weight for each"
        )
    if not any(given):
        raise EngineError(
            "all class_weights are 0, so nothing would be learned; give one "
            "class at least a weight above 0"
        )
