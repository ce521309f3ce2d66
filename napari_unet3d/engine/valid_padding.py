"""Shapes that unpadded convolutions take and leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import ModelConfig, Triple


def valid_output(size: Triple, model: ModelConfig) -> Triple | None:
    """Return what unpadded convolutions leave of a patch; `None` with same padding."""
    if model.padding != "valid":
        return None
    assert model.pooling is not None
    z, y, x = (
        _valid_output(n, [stride[axis] for stride in model.pooling]) or 0
        for axis, n in enumerate(size)
    )
    return z, y, x


def valid_size(size: int, strides: Sequence[int]) -> int:
    """Return the smallest input, at least `size`, that unpadded convolutions accept.

    Examples
    --------
    >>> valid_size(130, [2, 2, 2])
    132
    """
    while _valid_output(size, strides) is None:
        size += 1
    return size


def _valid_output(size: int, strides: Sequence[int]) -> int | None:
    """Return the size of the output, or `None` where the input does not fit."""
    for stride in strides:
        size -= 4
        if size <= 0 or size % stride:
            return None
        size //= stride
    size -= 4
    for stride in reversed(strides):
        size = size * stride - 4
    return size if size > 0 else None
