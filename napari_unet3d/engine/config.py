"""Every setting of the engine: default, limits and help, each written once.

The command line's flags, the YAML configuration, the form in napari and the record in
a checkpoint are all generated from these dataclasses. Validation is pydantic's, so a
wrong value is refused wherever it comes from.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass

from .no_booleans import NO_BOOLEANS

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Triple = tuple[int, int, int]
Size = tuple[PositiveInt, PositiveInt, PositiveInt]
Spacing = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """What the network is; `None` means chosen from data and device."""

    _no_booleans = NO_BOOLEANS

    in_channels: PositiveInt | None = Field(
        default=None, description="Channels of the image (default: those of the image)"
    )
    n_classes: int | None = Field(
        default=None, ge=2, le=254, description="Classes (default: the largest label)"
    )
    base_channels: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Channels of the first convolution; 32 in the paper "
        "(default: 8, the width that warm_start has weights for)",
    )
    depth: int = Field(
        default=4,
        ge=1,
        le=6,
        description="Resolution levels, unless pooling says how many; 4 in the paper",
    )
    pooling: tuple[Size, ...] | None = Field(
        default=None,
        max_length=5,
        description="Strides ZYX between levels, as 1,2,2/2,2,2/2,2,2 "
        "(default: from the spacing)",
    )
    padding: Literal["same", "valid"] = Field(
        default="same", description="Padding of the convolutions; valid as in the paper"
    )
    normalization: Literal["batch", "none"] = Field(
        default="batch", description="Normalisation between convolution and ReLU"
    )
    stem: Literal["filters", "none"] = Field(
        default="filters",
        description="Fixed multi-scale filter responses as further input channels, "
        "or the image alone as in the paper",
    )
    filter_scales: tuple[Annotated[float, Field(gt=0, le=32)], ...] = Field(
        default=(1.0, 2.0, 4.0, 8.0),
        min_length=1,
        max_length=8,
        description="Standard deviations of the filters, in voxels of the finest axis",
    )
    shortcut: int = Field(
        default=32,
        ge=0,
        le=256,
        description="Channels of the path that classifies a voxel by its own filter "
        "responses; 0 for none, as without a stem",
    )
    spacing: Spacing | None = Field(
        default=None,
        description="Size of a voxel along Z, Y, X (default: what the file says, or 1)",
    )


@dataclass(frozen=True, config=_STRICT)
class AugmentationConfig:
    """How training patches are varied (section 3.1 of the paper)."""

    _no_booleans = NO_BOOLEANS

    warp_probability: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of patches that are rotated, scaled and deformed",
    )
    elastic_sd: float = Field(
        default=4.0,
        ge=0,
        le=32,
        description="Standard deviation of the control points' displacement, in voxels "
        "of the finest axis; 4 in the paper",
    )
    elastic_spacing: float = Field(
        default=32.0,
        ge=4,
        le=512,
        description="Voxels between control points; 32 in the paper",
    )
    rotation: float = Field(
        default=15.0,
        ge=0,
        le=180,
        description="Largest rotation about any axis, in degrees",
    )
    scaling: float = Field(
        default=0.1, ge=0, lt=1, description="Largest relative change of size"
    )
    flip: tuple[bool, bool, bool] = Field(
        default=(False, False, False),
        description="Axes ZYX that may be mirrored: where sides do not differ, as left "
        "from right do in a body",
    )
    contrast: float = Field(
        default=0.3, ge=0, lt=1, description="Largest relative change of contrast"
    )
    brightness: float = Field(
        default=0.3,
        ge=0,
        le=5,
        description="Largest shift of grey values, in standard deviations",
    )
    gamma: float = Field(
        default=0.3, ge=0, lt=1, description="Largest bend of the grey-value curve"
    )
    noise: float = Field(
        default=0.2,
        ge=0,
        le=5,
        description="Largest noise, in standard deviations of the grey values",
    )


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """How the network is trained."""

    _no_booleans = NO_BOOLEANS

    minutes: PositiveFloat | None = Field(
        default=None,
        description="Minutes to train, unless steps are given (default: 1, or up to 3 "
        "where 300 steps take longer)",
    )
    steps: PositiveInt | None = Field(
        default=None, description="Steps to train, instead of minutes"
    )
    patch_size: Size | None = Field(
        default=None,
        description="Voxels ZYX of a training patch (default: from device and volume)",
    )
    batch_size: PositiveInt | None = Field(
        default=None, le=64, description="Patches in a step (default: from the device)"
    )
    warm_start: bool = Field(
        default=True,
        description="Begin with features learned from generated volumes, where the "
        "network has 8 base channels and otherwise default settings",
    )
    learning_rate: float = Field(
        default=5e-3, gt=0, le=1, description="Peak learning rate of AdamW"
    )
    weight_decay: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Weight decay of AdamW: high, so that few slices are not learned "
        "by heart; less may suit many classes",
    )
    warmup: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the training with rising learning rate; it rises over "
        "the first 40 steps in any case",
    )
    decay: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the training with falling learning rate",
    )
    batch_statistics: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the training in which every batch is normalised with its "
        "own statistics; after it the network learns with the running ones that it "
        "segments with (default: 0 after a warm start, else 0.05)",
    )
    gradient_clip: PositiveFloat = Field(
        default=1.0, description="Largest norm of the gradient"
    )
    ema_decay: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        description="Decay per step of the moving average of the weights, which "
        "segments",
    )
    loss: Literal["cross_entropy", "focal", "dice_cross_entropy"] = Field(
        default="cross_entropy", description="Loss over the labelled voxels"
    )
    focal_gamma: float = Field(
        default=2.0, ge=0, le=10, description="Focusing exponent of the focal loss"
    )
    class_weights: tuple[NonNegativeFloat, ...] | None = Field(
        default=None,
        description="Weight of each class in the loss (default: from the labels)",
    )
    class_balance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Exponent of the inverse class frequency that makes the automatic "
        "class weights: 0 all alike, 1 fully balanced; after a warm start it begins at "
        "0.5 at least, for 200 steps",
    )
    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=0.9,
        description="Share of the labels held out of the training",
    )
    hold_out_until: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of a new model's training after which the held-out labels "
        "are learned too, and no longer measured on",
    )
    validate_every: PositiveInt = Field(
        default=50, description="Steps between measurements on the held-out labels"
    )
    save_every: PositiveFloat = Field(
        default=20.0, description="Seconds between checkpoints while training"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of all that is random"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Number format of the convolutions in training; auto takes a short "
        "one where the device has units for it",
    )
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)


@dataclass(frozen=True, config=_STRICT)
class ParallelConfig:
    """Who trains; not a part of the model, as anybody may go on with it."""

    _no_booleans = NO_BOOLEANS

    devices: int = Field(
        default=1,
        ge=1,
        le=64,
        description="GPUs, or processes on a CPU, that train one model together; each "
        "takes its share of every batch",
    )


@dataclass(frozen=True, config=_STRICT)
class SegmentationConfig:
    """How a volume is segmented."""

    _no_booleans = NO_BOOLEANS

    weights: Literal["best", "average", "latest"] = Field(
        default="best",
        description="Weights to use: best on the held-out labels, moving average, "
        "or as after the last step",
    )
    recompute_statistics: bool = Field(
        default=False,
        description="Recompute the batch normalisation's statistics on this volume, "
        "instead of those of the training",
    )
    device: str = Field(
        default="auto",
        description="auto, cpu, cuda, cuda:1 or mps; several as cuda:0,cuda:1, or all "
        "for all GPUs",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="Number format of the convolutions in segmentation; bfloat16 is "
        "twice as fast where the device has units for it, which auto finds out, but "
        "rounds so early that it matters a little how the volume is cut",
    )
    memory: PositiveFloat | None = Field(
        default=None,
        description="GiB to use beside input and output (default: 40 % of the device's "
        "memory, at most 8)",
    )
