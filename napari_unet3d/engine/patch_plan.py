"""Choose the shape of training patches, and how many make a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import EngineError
from .memory import available_memory
from .valid_padding import valid_size

if TYPE_CHECKING:
    import torch

    from .config import ModelConfig, TrainingConfig, Triple
    from .ranks import Ranks


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
        """Tell whether a step has one voxel on any level: no deviation."""
        return self.batch_size == 1 and any(
            (1, 1, 1) in _levels(size, model) for size in self.sizes
        )


def plan_patches(
    training: TrainingConfig,
    model: ModelConfig,
    shapes: Sequence[Sequence[int]],
    device: torch.device,
) -> PatchPlan:
    """Choose the shape of patches and how many make a step.

    Patches are thin across the annotated slice and wide along it: more labelled
    voxels for the same work. By default a batch has several, because torch's
    convolution falls back to a slow path for a single one on a CPU.
    """
    stride = _total_stride(model)
    largest = [max(int(shape[axis]) for shape in shapes) for axis in (1, 2, 3)]
    if training.patch_size:
        plan = _given_patches(training, model, stride, largest)
    else:
        plan = _chosen_patches(training, model, largest, device)
    if plan._is_a_voxel(model):
        size = min(plan.sizes)
        few = f"one patch of {size} voxels is too little for a step; taking two"
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


def _levels(size: Triple, model: ModelConfig) -> list[Triple]:
    """Return the shapes that convolutions leave, from the lowest level up."""
    lost = 4 if model.padding == "valid" else 0
    z, y, x = size
    strides = model.pooling or ()
    for a, b, c in strides:
        z, y, x = (z - lost) // a, (y - lost) // b, (x - lost) // c
    z, y, x = z - lost, y - lost, x - lost
    shapes = [(z, y, x)]
    for a, b, c in reversed(strides):
        z, y, x = z * a - lost, y * b - lost, x * c - lost
        shapes.append((z, y, x))
    return shapes


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
