"""What all benchmarks share: facts of the machine, repeats, tables and files."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_unet3d import __version__
from napari_unet3d.engine.allocation import keep_freed_memory
from napari_unet3d.engine.device import (
    choose_device,
    describe_device,
    has_matrix_units,
)
from napari_unet3d.engine.memory import free_memory

if TYPE_CHECKING:
    import argparse

PEERS = (
    *("monai", "pytorch3dunet", "torchio", "elasticdeform", "batchgeneratorsv2"),
    *("scikit-image", "scikit-learn"),
)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Say what is measured on, and with which versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "matrix units": has_matrix_units(),
        "free memory, GiB": round(free_memory() / 2**30, 1),
        "device": describe_device(choose_device(device)),
        "torch": torch.__version__,
        "napari-unet3d": __version__,
        "peers": {name: version for name in PEERS if (version := _version(name))},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark has."""
    parser.add_argument(
        "--quick", action="store_true", help="fewer and smaller cases, a few minutes"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")


def prepare(threads: int) -> None:
    """Set the number of threads, and have freed memory kept as the program does."""
    torch.set_num_threads(threads)
    keep_freed_memory()


def seconds_of(work: Callable[[], Any], device: str = "cpu") -> float:
    """Return the wall-clock time of a call, the device's queue included."""
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def wait(device: str) -> None:
    """Wait until the device has done all it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def side_by_side(
    works: Mapping[str, Callable[[], Any]], repeats: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Time several calls in turn, so that a change of load meets all of them.

    Each is called once before, untimed.
    """
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name].append(seconds_of(work, device))
    return seconds


def medians(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict]:
    """Merge rows that agree in `keys`: the median of every number, else the first."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(key)) for key in keys), []).append(row)
    merged = []
    for group in groups.values():
        row = {name: value for r in reversed(group) for name, value in r.items()}
        for name in row:
            numbers = [r[name] for r in group if isinstance(r.get(name), float)]
            if numbers:
                row[name] = statistics.median(numbers)
        merged.append(row | {"repeats": len(group)})
    return merged


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]
) -> None:
    """Print Markdown.

    Parameters
    ----------
    rows : sequence of mapping
        What was measured.
    columns : mapping
        Title of each column: the name in `rows` and the format of its values. What a
        row lacks is shown as a dash.
    """
    print("\n| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        cells = [
            "—" if row.get(name) is None else format(row[name], style)
            for name, style in columns.values()
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def write_json(path: Path | None, facts: Mapping[str, Any], **content: Any) -> None:
    """Write facts of the machine and rows, where a file was asked for."""
    if path:
        text = json.dumps({"machine": facts, **content}, indent=1, default=str)
        path.write_text(text.replace("NaN", "null") + "\n")  # JSON has no NaN


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
