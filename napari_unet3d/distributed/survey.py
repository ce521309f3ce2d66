"""What the workers can do, and what follows from it for all of them alike."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from napari_unet3d import __version__
from napari_unet3d.engine.errors import EngineError

from .cluster import workers_of

if TYPE_CHECKING:
    from distributed import Client

    from napari_unet3d.engine.config import SegmentationConfig

GPU = {"GPU": 1}
"""What a worker offers that computes on a GPU, and a block takes."""

FALLBACK: Literal["float32"] = "float32"
"""Number format where the workers would take several."""

SHARE = 0.4
"""Of the memory that a worker is limited to, for a block."""


@dataclass(frozen=True)
class Crew:
    """What holds for all workers."""

    device: str
    """Type of the devices that compute."""
    precision: Literal["float32", "bfloat16"]
    """Number format of the convolutions."""
    devices: tuple[str, ...]
    """Worker number k takes device k, modulo their number."""
    threads: int
    """Of torch, for each block: the same everywhere, so that all round alike."""
    block_memory: float
    """Bytes for a block."""
    resources: dict[str, int] | None
    """That each block takes of its worker."""
    at_once: int
    """Blocks that are segmented at the same time."""


@dataclass(frozen=True)
class Facts:
    """What a worker says of itself."""

    device: str
    precision: Literal["float32", "bfloat16"]
    """Number format that it would take."""
    memory: float
    """Bytes for a block, if it had them alone."""
    cores: int
    affinity: tuple[int, ...]
    """Numbers of the cores it may use, as far as the system tells."""
    rounding: str
    """What decides the last digits of its results."""
    version: str


def survey(
    client: Client, config: SegmentationConfig, devices: tuple[str, ...] = ("auto",)
) -> Crew:
    """Ask all workers and decide for all of them.

    Parameters
    ----------
    client : distributed.Client
        With at least one worker.
    config : SegmentationConfig
        Whose memory counts.
    devices : tuple of str
        Those that the workers take turns in.

    Raises
    ------
    EngineError
        Where the workers cannot do what was asked, or not all of them the same.
    """
    workers = workers_of(client)
    gpus = [name for name, worker in workers.items() if worker["resources"].get("GPU")]
    kind = devices[0].split(":")[0]
    resources = None
    if kind == "cuda" and not gpus:
        raise EngineError(
            f"none of the {len(workers)} workers offers a GPU; start them as "
            '`dask worker ADDRESS --nthreads 1 --resources "GPU=1"`, one for each GPU, '
            "or give --device cpu"
        )
    if gpus and kind in ("cuda", "auto"):
        workers = {name: workers[name] for name in gpus}
        devices = devices if kind == "cuda" else ("cuda",)
        resources = GPU
    config = replace(config, device=devices[0])
    answers = client.run(_facts, config, workers=list(workers), on_error="return")
    facts = {name: _required(name, answer) for name, answer in answers.items()}
    device = _same_device(facts)
    formats = {fact.precision for fact in facts.values()}
    # What all of them can do, without a seam between their blocks.
    precision = formats.pop() if len(formats) == 1 else FALLBACK
    _warn_of_rounding(facts)
    threads = _threads(workers, facts)
    if "OMP_NUM_THREADS" in os.environ:
        import torch

        threads = min(threads, torch.get_num_threads())
    if config.memory:
        memory = config.memory * 2**30
    elif resources:
        # Workers on other machines have a GPU each.
        sharing = math.ceil(len(facts) / len(devices)) if client.cluster else 1
        memory = min(fact.memory for fact in facts.values()) / sharing
    else:
        memory = _block_memory(workers, facts)
    hosts = len({workers[name]["host"] for name in facts})
    print(
        f"{_count(len(facts), 'worker')} on {_count(hosts, 'machine')}, "
        f"{_count(threads, 'thread')} for a block, on {device}",
        file=sys.stderr,
    )
    devices = (device,) if devices == ("auto",) else devices
    at_once = sum(1 if resources else workers[name]["nthreads"] for name in facts)
    return Crew(device, precision, devices, threads, memory, resources, at_once)


async def _facts(config: SegmentationConfig) -> Facts:
    # Loading torch takes seconds, in which the worker's event loop goes on.
    return await asyncio.to_thread(_measured, config)


def _measured(config: SegmentationConfig) -> Facts:
    from napari_unet3d._thread_waiting import wait_briefly

    wait_briefly()
    import torch
    from dask.system import cpu_count

    from napari_unet3d.engine.columns import lasting_memory
    from napari_unet3d.engine.device import (
        choose_devices,
        choose_segmentation_precision,
        name_of,
    )

    device = choose_devices(config.device)[0]
    if device.type == "cuda":
        unit = torch.cuda.get_device_name(device)
    else:
        unit = f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
    affinity = getattr(os, "sched_getaffinity", lambda _: ())(0)
    return Facts(
        device.type,
        name_of(choose_segmentation_precision(device, config.precision)),
        lasting_memory(config, device),
        cpu_count(),
        tuple(sorted(affinity)),
        f"torch {torch.__version__} on {unit}",
        __version__,
    )


def _required(name: str, answer: Any) -> Facts:
    if isinstance(answer, EngineError):
        raise EngineError(f"worker {name}: {answer}") from answer
    if isinstance(answer, ImportError):
        raise EngineError(
            f"worker {name} cannot segment ({answer}); install napari-unet3d "
            f"{__version__} for all workers and the scheduler"
        ) from answer
    if isinstance(answer, BaseException):
        raise EngineError(
            f"worker {name} does not answer ({type(answer).__name__}: {answer}); see "
            "what it logged"
        ) from answer
    assert isinstance(answer, Facts)
    if answer.version != __version__:
        raise EngineError(
            f"worker {name} has napari-unet3d {answer.version}, but this is "
            f"{__version__}; install the same for all"
        )
    return answer


def _same_device(facts: Mapping[str, Facts]) -> str:
    kinds = Counter(fact.device for fact in facts.values())
    if len(kinds) > 1:
        listed = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        raise EngineError(
            f"the workers compute on {listed}, which round differently; choose one "
            "with --device, and start workers with a GPU with "
            '--resources "GPU=1"'
        )
    return next(iter(kinds))


def _warn_of_rounding(facts: Mapping[str, Facts]) -> None:
    found = sorted({fact.rounding for fact in facts.values()})
    if len(found) > 1:
        print(
            f"warning: the workers are not alike ({', '.join(found)}); a block may "
            "differ in the last digits by where it was computed",
            file=sys.stderr,
        )


def _threads(workers: Mapping[str, Any], facts: Mapping[str, Facts]) -> int:
    """Share the cores of each machine among the blocks at a time there."""
    at_a_time: Counter[Any] = Counter()
    cores = {}
    for name, fact in facts.items():
        place = workers[name]["host"], fact.affinity
        at_a_time[place] += workers[name]["nthreads"]
        cores[place] = fact.cores
    return max(1, min(cores[place] // n for place, n in at_a_time.items()))


def _block_memory(workers: Mapping[str, Any], facts: Mapping[str, Facts]) -> float:
    """Share the memory of each machine among the blocks at a time there."""
    at_a_time = Counter[str]()
    for name in facts:
        at_a_time[workers[name]["host"]] += workers[name]["nthreads"]
    rooms = []
    for name, fact in facts.items():
        worker = workers[name]
        rooms.append(fact.memory / at_a_time[worker["host"]])
        if limit := worker["memory_limit"]:
            rooms.append(SHARE * limit / worker["nthreads"])
    return min(rooms)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
