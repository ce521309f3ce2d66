"""Memory that this process may take: the machine's, its container's, or less."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .errors import EngineError

if TYPE_CHECKING:
    import torch

VARIABLE = "NAPARI_UNET3D_MEMORY"
"""Environment variable: GiB to count on, where less than there is may be taken."""

MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
"""Where Linux tells which groups of processes this one is in, and their limits."""


def available_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; of main memory, but for CUDA."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def built_in_memory(device: torch.device) -> int:
    """Return the bytes that could be free on a device, the same in every run."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    whole = int(psutil.virtual_memory().total)
    return min([whole, *_wanted_limit(), *(limit for limit, _ in _control_groups())])


def free_memory() -> int:
    """Return the bytes of main memory that this process can still take.

    That is what the machine, the control groups of the process (its container, its job
    on a cluster) and the limit in `VARIABLE` leave.
    """
    free = int(psutil.virtual_memory().available)
    left = (max(0, limit - used) for limit, used in _control_groups())
    return min([free, *_wanted_limit(), *left])


def _wanted_limit() -> list[int]:
    """Return the bytes that `VARIABLE` allows, if it is a number of GiB."""
    try:
        wanted = float(os.environ[VARIABLE])
    except (KeyError, ValueError):
        return []
    return [int(wanted * 2**30)] if 0 < wanted < float("inf") else []


def check_limit() -> None:
    """Refuse a limit in `VARIABLE` that is none.

    Raises
    ------
    EngineError
        Naming it.
    """
    said = os.environ.get(VARIABLE, "")
    if said.strip() and not _wanted_limit():
        raise EngineError(
            f"the environment variable {VARIABLE} is {said!r}; give it a number of GiB "
            "above 0, as in 8 or 0.5, or unset it"
        )


def _control_groups() -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of all groups of this process that have a limit.

    Notes
    -----
    https://docs.kernel.org/admin-guide/cgroup-v2.html and, for the first version,
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = GROUPS / "memory"
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        # In a container its group may lie at the root instead of at the host's path.
        folder = root / path.lstrip("/")
        while folder.is_relative_to(root):
            # There is no limit without such files, nor where they say "max".
            with suppress(OSError, ValueError):
                yield _limit_and_use(folder, *names)
            folder = folder.parent


def _limit_and_use(folder: Path, limit: str, use: str, spare: str) -> tuple[int, int]:
    most, used = (int((folder / name).read_text()) for name in (limit, use))
    # Pages of files that nobody has used for a while go first where memory is needed.
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, count = line.partition(" ")
        if name == spare:
            used -= int(count)
    return most, used
