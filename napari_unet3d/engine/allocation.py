"""What the C library does with memory that is freed, and memory apart from that.

Its settings are the whole process's, and so are these. Only glibc is known to need
them; other systems are left as they are.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from math import prod

import torch
from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL_KEPT = 2**31 - 1, 2**30

_is_kept = False


def keep_freed_memory() -> None:
    """Have the C library keep memory that torch frees for its next use.

    glibc returns large blocks to the system at once, and fetching them again costs
    more than many of the operations on them.
    """
    global _is_kept
    _is_kept = _set(_TRIM_THRESHOLD, _ALL_KEPT[0]) and _set(
        _MMAP_THRESHOLD, _ALL_KEPT[1]
    )


def release_freed_memory() -> None:
    """Have the C library return the memory that it keeps, for work of other sizes.

    Pieces of many sizes leave gaps in which what comes next does not fit.
    """
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def lasting(
    size: Sequence[int], like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Return an uninitialised tensor that is used again and again, channels last.

    In main memory it lies apart from what is freed soon: lasting tensors between
    passing ones would be the borders of gaps that the next passing ones do not fit in.

    Parameters
    ----------
    size : sequence of int
        N, C, Z, Y, X.
    like : Tensor
        On the same device.
    dtype : torch.dtype, optional
        That of `like` by default.
    """
    batch, channels, *space = size
    count, dtype = prod(size), dtype or like.dtype
    pages = None
    if _is_kept and like.device.type == "cpu" and count:
        # Where there is no room torch finds none either, and says so in its own way.
        with suppress(OSError):
            pages = mmap.mmap(
                -1, count * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
    if pages is None:
        return torch.empty(
            tuple(size),
            dtype=dtype,
            device=like.device,
            memory_format=torch.channels_last_3d,
        )
    flat = torch.frombuffer(pages, dtype=dtype, count=count)
    return flat.view(batch, *space, channels).permute(0, 4, 1, 2, 3)


def _set(parameter: int, value: int) -> bool:
    library = _glibc()
    return library is not None and library.mallopt(parameter, value) == 1


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt, library.malloc_trim  # noqa: B018  another C library has none
    except (OSError, AttributeError):
        return None
    return library
