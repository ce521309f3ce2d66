"""The science: learn from a few annotated slices, segment the whole volume.

Everything is imported on first use, so that a program which only wants the settings
does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annotation import UNLABELLED, Annotation
    from .checkpoint import Checkpoint
    from .config import (
        AugmentationConfig,
        ModelConfig,
        SegmentationConfig,
        TrainingConfig,
    )
    from .errors import EngineError
    from .metrics import Scores, evaluate
    from .model_file import load, save
    from .segmentation import Segmentation, Segmenter, segment
    from .trainer import Trainer
    from .training import train
    from .training_data import TrainingVolume
    from .unet import UNet3D

_HOMES = {
    "UNLABELLED": "annotation",
    "Annotation": "annotation",
    "AugmentationConfig": "config",
    "Checkpoint": "checkpoint",
    "EngineError": "errors",
    "ModelConfig": "config",
    "Scores": "metrics",
    "Segmentation": "segmentation",
    "SegmentationConfig": "config",
    "Segmenter": "segmentation",
    "Trainer": "trainer",
    "TrainingConfig": "config",
    "TrainingVolume": "training_data",
    "UNet3D": "unet",
    "evaluate": "metrics",
    "load": "model_file",
    "save": "model_file",
    "segment": "segmentation",
    "train": "training",
}

__all__ = [
    "UNLABELLED",
    "Annotation",
    "AugmentationConfig",
    "Checkpoint",
    "EngineError",
    "ModelConfig",
    "Scores",
    "Segmentation",
    "SegmentationConfig",
    "Segmenter",
    "Trainer",
    "TrainingConfig",
    "TrainingVolume",
    "UNet3D",
    "evaluate",
    "load",
    "save",
    "segment",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
