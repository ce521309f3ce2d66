"""Which device computes, in which number format, with how much memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from .errors import EngineError, OutOfMemoryError


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name; "auto" prefers CUDA, then MPS, then the CPU.

    Raises
    ------
    EngineError
        Where there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EngineError(
            f"unknown device {name!r}; use auto, cpu, cuda, cuda:1 or mps"
        ) from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise EngineError(
                f"device {name} was asked for but torch {torch.__version__} sees "
                f"{count} CUDA devices; use --device auto"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise EngineError("device mps is not available here; use --device auto")
    elif device.type not in ("cpu", "mps"):
        raise EngineError(f"device {name!r} is not supported; use auto, cpu or cuda")
    return device


def choose_devices(name: str = "auto") -> list[torch.device]:
    """Return the devices of a name; several are separated by commas.

    "all" are all CUDA devices, or what "auto" is where there is none. Only devices of
    one type round alike, so they may not be mixed.

    Raises
    ------
    EngineError
        Where there is no such device, or they are of several types.

    Examples
    --------
    >>> choose_devices("cpu,cpu")
    [device(type='cpu'), device(type='cpu')]
    """
    if name == "all":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        indexed = [torch.device("cuda", k) for k in range(count)]
        return indexed or [choose_device()]
    devices = [choose_device(part.strip()) for part in name.split(",")]
    if len({device.type for device in devices}) > 1:
        raise EngineError(
            f"devices {name} are of several types, which round differently; name "
            "devices of one type, as cuda:0,cuda:1"
        )
    return devices


def describe_device(device: torch.device) -> str:
    """Name the device as a person would."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "mps":
        return "Apple GPU"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'' if threads == 1 else 's'}"


def choose_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the number format of the convolutions.

    "auto" takes bfloat16 where the device multiplies it natively, else float16 on
    CUDA, else float32. On a CPU only the matrix units (AMX) make it faster; without
    them bfloat16 is much slower than float32.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        if device.type == "cpu" and dtype == torch.float16:
            raise EngineError(
                "precision float16 is for GPUs only; use auto, float32 or bfloat16"
            )
        return dtype
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu" and has_matrix_units():
        return torch.bfloat16
    return torch.float32


def choose_segmentation_precision(
    device: torch.device, name: str = "auto"
) -> torch.dtype:
    """Return the number format that volumes are segmented in.

    "auto" is that of `choose_precision`, but for float16: responses and sums of a speck
    may be too large for it, and no scaling helps.
    """
    dtype = choose_precision(device, name)
    return torch.float32 if dtype == torch.float16 else dtype


def name_of(dtype: torch.dtype) -> Literal["float32", "bfloat16"]:
    """Return the name of a number format of segmentation, as in the configuration.

    Examples
    --------
    >>> name_of(torch.bfloat16)
    'bfloat16'
    """
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def has_matrix_units() -> bool:
    """Tell whether the CPU multiplies bfloat16 matrices in hardware (AMX)."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


@contextmanager
def out_of_memory_as_error(remedy: str) -> Iterator[None]:
    """Turn a device's lack of memory into a sentence with the remedy.

    Raises
    ------
    OutOfMemoryError
        In place of torch's and Python's own errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"memory ran out: {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    # The CPU's allocator, the GPUs', and the libraries on them.
    signs = ("can't allocate memory", "out of memory", "status_alloc_failed")
    return any(sign in text for sign in signs)
