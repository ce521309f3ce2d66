"""Complete the network's configuration from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .config import ModelConfig
from .errors import EngineError

if TYPE_CHECKING:
    from .config import Spacing, Triple

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
    is_trained: bool = False,
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
    is_trained : bool
        Whether it is that of a trained model, whose levels cannot be changed any more:
        then the volumes may be thinner than they pool.

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
        if not is_trained:
            _check_pooling(pooling, model.depth, smallest)
    return replace(
        model,
        in_channels=found,
        n_classes=model.n_classes or n_classes,
        base_channels=model.base_channels or BASE_CHANNELS,
        depth=len(pooling) + 1,
        pooling=pooling,
        spacing=spacing,
    )


def _check_pooling(pooling: Sequence[Triple], depth: int, shape: Sequence[int]) -> None:
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
    # The default depth may not have been given.
    if depth not in (len(pooling) + 1, ModelConfig().depth):
        raise EngineError(
            f"the depth is {depth} levels, but pooling has {len(pooling)} strides for "
            f"{len(pooling) + 1} of them; give only one of both"
        )
