"""Volumes and models that are quick to make, for all tests of the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet3d.engine import (
    Annotation,
    Checkpoint,
    ModelConfig,
    Trainer,
    TrainingConfig,
    TrainingVolume,
)
from napari_unet3d.engine.checkpoint import build_network, build_stem

QUICK = TrainingConfig(
    steps=4,
    patch_size=(8, 16, 16),
    batch_size=2,
    validate_every=1000,
    device="cpu",
    precision="float32",
)


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights and statistics as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.3, generator=generator)
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(module, nn.Conv3d):
                std = (module.weight[0].numel() / 2) ** -0.5
                module.weight.normal_(0, std, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    return network.eval()


@pytest.fixture(scope="session", name="randomize")
def fixture_randomize() -> Any:
    return randomize


@pytest.fixture(scope="session")
def make_toy() -> Any:
    """Return a noisy image of two intensities and its truth."""

    def make(shape=(16, 32, 32), seed=0, n_classes=2):
        z, y, x = np.indices(shape)
        truth = np.ones(shape, np.uint8)
        for k in range(2, n_classes + 1):
            centre = (shape[0] * k / (n_classes + 2), shape[1] / k, shape[2] / 2)
            squares = [
                ((p - c) / (0.4 * n)) ** 2
                for p, c, n in zip((z, y, x), centre, shape, strict=True)
            ]
            truth[sum(squares) < 1] = k
        noise = np.random.default_rng(seed).normal(0, 10, shape)
        return (100.0 * truth + noise).astype(np.float32), truth

    return make


@pytest.fixture(scope="session")
def sparse() -> Any:
    """Return the annotation of a few slices across one axis."""

    def make(truth, slices=(3, 7, 11), axis=0):
        labels = np.zeros_like(truth)
        for position in slices:
            index = (slice(None),) * axis + (position,)
            labels[index] = truth[index]
        return Annotation.from_labels(labels)

    return make


@pytest.fixture(scope="session")
def make_trainer(make_toy, sparse) -> Any:
    """Return a trainer of a tiny model on a toy volume."""

    def make(volumes=None, model=None, checkpoint=None, **training):
        settings = {
            name: training.pop(name)
            for name in ("save_to", "validation", "class_names", "unit")
            if name in training
        }
        if volumes is None:
            image, truth = make_toy()
            volumes = [TrainingVolume(image, sparse(truth))]
        model = {"base_channels": 2, "depth": 2, "stem": "none", **(model or {})}
        return Trainer(
            volumes,
            ModelConfig(**model),
            replace(QUICK, **training),
            checkpoint=checkpoint,
            **settings,
        )

    return make


@pytest.fixture(scope="session")
def make_checkpoint() -> Any:
    """Return a model that looks trained, for a certain configuration."""

    def make(seed=0, **model):
        defaults = {
            "in_channels": 1,
            "n_classes": 3,
            "base_channels": 2,
            "pooling": ((2, 2, 2),) * 2,
            "spacing": (1.0, 1.0, 1.0),
            "filter_scales": (1.0, 2.0),
        }
        config = ModelConfig(**{**defaults, **model})
        config = replace(config, depth=len(config.pooling) + 1)
        stem = build_stem(config)
        generator = torch.Generator().manual_seed(seed)
        if stem.scales:
            stem.mean.normal_(0, 0.3, generator=generator)
            stem.deviation.uniform_(0.5, 1.5, generator=generator)
        weights = {
            name: randomize(build_network(config), seed + k).state_dict()
            for k, name in enumerate(("latest", "average", "best"))
        }
        return Checkpoint(
            model=config,
            training=QUICK,
            weights=weights,
            stem=stem.state_dict(),
            class_names=("background", "cells", "walls"),
        )

    return make
