"""Fill in what the configuration leaves open, from data and device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import EngineError
from .memory import available_memory
from .valid_padding import valid_size

if TYPE_CHECKING:
    import torch

    from .config import ModelConfig, Spacing, TrainingConfig, Triple
    from .ranks import Ranks

AXES = "ZYX"

BASE_CHANNELS = 8
"""Width where none is asked for, and of the warm start's weights.

The paper's 32 is slower on a CPU, and behind for a start on a GPU too, where it has to
begin with random weights (docs/benchmarks.md).
"""


def derive_pooling(
    spacing: Spacing, depth: int, shape: Sequence[int] | None = None
) -> tuple[Triple, ...]:
    """Choose the strides between levels so that voxels become cubes.

    An axis is pooled once its spacing is less than twice the finest, and only while
    at least two voxels are left of it.

    Examples
    --------
    >>> derive_pooling((5.0, 1.0, 1.0), depth=4)
    ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    """
    spacings, sizes = list(spacing), list(shape or (2**30,) * 3)
    levels: list[Triple] = []
    for _ in range(depth - 1):
        finest = (
            min(s for s, n in zip(spacings, sizes, strict=True) if n >= 4)
            if any(n >= 4 for n in sizes)
            else 0.0
        )
        z, y, x = (
            2 if n >= 4 and s < 2 * finest else 1
            for s, n in zip(spacings, sizes, strict=True)
        )
        if (z, y, x) == (1, 1, 1):
            break
        levels.append((z, y, x))
        spacings = [s * stride for s, stride in zip(spacings, levels[-1], strict=True)]
        sizes = [n // stride for n, stride in zip(sizes, levels[-1], strict=True)]
    return tuple(levels)


def resolve_model(
    model: ModelConfig,
    shapes: Sequence[Sequence[int]],
    spacings: Sequence[Spacing | None],
    n_classes: int,
) -> ModelConfig:
    """Complete the network's configuration.

    Parameters
    ----------
    model : ModelConfig
        As the person gave it.
    shapes : sequence of (C, Z, Y, X)
        Of the training volumes.
    spacings : sequence of (float, float, float) or None
        Of the training volumes, where known.
    n_classes : int
        The largest label.

    Raises
    ------
    EngineError
        Where volumes do not fit each other, or what was given does not fit them.
    """
    channels = {int(shape[0]) for shape in shapes}
    if len(channels) > 1:
        raise EngineError(
            f"the training images have different numbers of channels: "
            f"{sorted(channels)}; give images with the same channels"
        )
    found = channels.pop()
    if model.in_channels not in (None, found):
        raise EngineError(
            f"the model takes {model.in_channels} channels but the image has {found}; "
            "choose the channels that it was made for"
        )
    if model.n_classes is not None and n_classes > model.n_classes:
        raise EngineError(
            f"the labels go up to class {n_classes} but the model has "
            f"{model.n_classes} classes; relabel or start a new model"
        )
    known = [spacing for spacing in spacings if spacing is not None]
    spacing = model.spacing or (known[0] if known else (1.0, 1.0, 1.0))
    smallest = [min(int(shape[axis]) for shape in shapes) for axis in (1, 2, 3)]
    if model.pooling is None:
        pooling = derive_pooling(spacing, model.depth, smallest)
    else:
        pooling = model.pooling
        _check_pooling(pooling, smallest)
    return replace(
        model,
        in_channels=found,
        n_classes=model.n_classes or n_classes,
        base_channels=model.base_channels or BASE_CHANNELS,
        depth=len(pooling) + 1,
        pooling=pooling,
        spacing=spacing,
    )


def _check_pooling(pooling: Sequence[Triple], shape: Sequence[int]) -> None:
    for axis, size in enumerate(shape):
        total = 1
        for stride in pooling:
            total *= stride[axis]
        if size < total:
            raise EngineError(
                f"the volume has {size} voxels along {AXES[axis]} but the network "
                f"pools that axis by {total}; use less depth or pooling along "
                f"{AXES[axis]}"
            )


@dataclass(frozen=True)
class PatchPlan:
    """Shapes of training patches."""

    sizes: tuple[Triple, Triple, Triple]
    """Shape ZYX of a patch for annotated slices across Z, Y and X."""
    batch_size: int
    warning: str = ""

    def smaller(self, model: ModelConfig) -> PatchPlan | None:
        """Halve the work of a step: fewer patches, then smaller ones."""
        if self.batch_size > 2:
            return replace(self, batch_size=self.batch_size // 2)
        stride = _total_stride(model)
        halved = []
        for size in self.sizes:
            axis = max(range(3), key=lambda a: size[a] / stride[a])
            half = list(size)
            half[axis] = size[axis] // 2 // stride[axis] * stride[axis]
            if not half[axis]:
                return None
            z, y, x = half
            halved.append(_not_below_valid((z, y, x), model))
        plan = replace(self, sizes=(halved[0], halved[1], halved[2]))
        return None if plan.sizes == self.sizes or plan._is_a_voxel(model) else plan

    def _is_a_voxel(self, model: ModelConfig) -> bool:
        """Tell whether a step has one voxel on the lowest level: no deviation."""
        return self.batch_size == 1 and _total_stride(model) in self.sizes


def plan_patches(
    training: TrainingConfig,
    model: ModelConfig,
    shapes: Sequence[Sequence[int]],
    device: torch.device,
) -> PatchPlan:
    """Choose the shape of patches and how many make a step.

    Patches are thin across the annotated slice and wide along it: more labelled
    voxels for the same work. The batch is at least 2 on a CPU, because torch's
    convolution falls back to a slow path for a batch of 1.
    """
    stride = _total_stride(model)
    largest = [max(int(shape[axis]) for shape in shapes) for axis in (1, 2, 3)]
    if training.patch_size:
        plan = _given_patches(training, model, stride, largest)
    else:
        plan = _chosen_patches(training, model, largest, device)
    if plan._is_a_voxel(model):
        few = f"one patch of {stride} voxels is too little for a step; taking two"
        warning = "; ".join(filter(None, [plan.warning, few]))
        plan = replace(plan, batch_size=2, warning=warning)
    return plan


def share_patches(plan: PatchPlan, training: TrainingConfig, ranks: Ranks) -> PatchPlan:
    """Have a plan that all ranks follow, with a patch for each at least.

    Raises
    ------
    EngineError
        Where the batch that was asked for has fewer patches than there are ranks.
    """
    # Free memory differs from device to device.
    plan = ranks.first(plan)
    if plan.batch_size >= ranks.count:
        return plan
    if training.batch_size:
        raise EngineError(
            f"a batch_size of {training.batch_size} cannot be shared by {ranks.count} "
            f"devices; use a batch_size of {ranks.count} or more, or fewer devices"
        )
    return replace(plan, batch_size=ranks.count)


def _chosen_patches(
    training: TrainingConfig,
    model: ModelConfig,
    largest: Sequence[int],
    device: torch.device,
) -> PatchPlan:
    assert model.spacing
    assert model.base_channels
    stride = _total_stride(model)
    thin, wide, batch = (16, 48, 4) if device.type == "cpu" else (32, 128, 2)
    if device.type == "cuda":
        # About 3 kB a voxel at 32 channels in half precision, forward and backward.
        room = available_memory(device) / 2
        while batch * thin * wide**2 * 100 * model.base_channels > room and wide > 32:
            wide //= 2
    ratio = [s / min(model.spacing) for s in model.spacing]
    sizes = []
    for normal in range(3):
        wished = [(thin if axis == normal else wide) / ratio[axis] for axis in range(3)]
        z, y, x = (
            _fit(wish, stride[axis], largest[axis], minimum=2)
            for axis, wish in enumerate(wished)
        )
        sizes.append(_not_below_valid((z, y, x), model))
    return PatchPlan((sizes[0], sizes[1], sizes[2]), training.batch_size or batch)


def _given_patches(
    training: TrainingConfig,
    model: ModelConfig,
    stride: Sequence[int],
    largest: Sequence[int],
) -> PatchPlan:
    assert training.patch_size
    z, y, x = (
        _fit(wish, stride[axis], largest[axis], minimum=1)
        for axis, wish in enumerate(training.patch_size)
    )
    size = _not_below_valid((z, y, x), model)
    warning = ""
    if size != training.patch_size:
        warning = (
            f"patch size {training.patch_size} does not fit a volume of "
            f"{tuple(largest)} voxels and a network that pools by {tuple(stride)}; "
            f"using {size}"
        )
    return PatchPlan((size,) * 3, training.batch_size or 2, warning)


def _total_stride(model: ModelConfig) -> Triple:
    z = y = x = 1
    for stride in model.pooling or ():
        z, y, x = z * stride[0], y * stride[1], x * stride[2]
    return z, y, x


def _fit(wish: float, stride: int, largest: int, minimum: int) -> int:
    """Round to a multiple of the stride, no more than the volume needs."""
    most = -(-largest // stride)
    return stride * max(1, min(most, max(minimum, round(wish / stride))))


def _not_below_valid(size: Triple, model: ModelConfig) -> Triple:
    """Enlarge to a size that unpadded convolutions accept; same padding takes any."""
    if model.padding != "valid":
        return size
    assert model.pooling is not None
    z, y, x = (
        valid_size(n, [stride[axis] for stride in model.pooling])
        for axis, n in enumerate(size)
    )
    return z, y, x
