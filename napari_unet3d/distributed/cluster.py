"""Connections to dask's workers, on this machine or on others."""

from __future__ import annotations

import inspect
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

CONNECTING = 10
"""Seconds that a scheduler has to answer."""

PATIENCE = 3
"""Seconds without any worker before the person is told."""


@contextmanager
def scheduler_at(address: str) -> Iterator[Client]:
    """Connect to a scheduler and wait for its first worker.

    Parameters
    ----------
    address : str
        As ``tcp://host:8786``, or the name of a scheduler file, which ends in .json.

    Yields
    ------
    distributed.Client

    Raises
    ------
    EngineError
        If dask.distributed is not installed or no scheduler answers.
    """
    _require_distributed()
    from distributed import Client

    with _quiet():
        try:
            target = _in_file(address) if address.endswith(".json") else address
            client = Client(target, timeout=CONNECTING, set_as_default=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (str(error).splitlines() or [""])[0].rstrip(".")
            raise EngineError(
                f"no dask scheduler answers at {address} ({reason}); see that "
                "`dask scheduler` runs there, and give its address, as "
                "tcp://host:8786, or its scheduler file"
            ) from error
        try:
            _wait_for_worker(client, address)
            yield client
        finally:
            client.close()


@contextmanager
def local_workers(count: int, has_gpus: bool = False) -> Iterator[Client]:
    """Start worker processes on this machine, which end with the block.

    Parameters
    ----------
    count : int
        How many.
    has_gpus : bool
        Whether each computes on a GPU.

    Yields
    ------
    distributed.Client

    Raises
    ------
    EngineError
        If dask.distributed is not installed.
    """
    _require_distributed()
    from distributed import Client, LocalCluster

    with (
        _quiet(),
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            # What a block takes is decided by its plan; dask would stop or end workers.
            memory_limit=0,
            resources={"GPU": 1} if has_gpus else None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        _spare_interrupts(cluster)
        cluster.scale(count)
        client.wait_for_workers(count)
        yield client


def workers_of(client: Client, resources: Iterable[str] = ()) -> dict[str, Any]:
    """Return what dask knows of each worker that offers some resources, by its name."""
    # Some versions tell of five workers unless they are asked for all.
    asked = inspect.signature(client.scheduler_info).parameters
    options = {"n_workers": -1} if "n_workers" in asked else {}
    return {
        name: worker
        for name, worker in client.scheduler_info(**options)["workers"].items()
        if all(worker["resources"].get(kind) for kind in resources)
    }


def _spare_interrupts(cluster: LocalCluster) -> None:
    """Have Ctrl-C reach this process alone: it is this one that ends the workers.

    A terminal sends it to all of them. What a thread starts inherits the signals that
    the thread blocks, so those of the cluster's own thread do, begun anew or not.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return
    # Starting it later, from that thread, would unblock them.
    resource_tracker.ensure_running()

    async def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    cluster.sync(block)


def _require_distributed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise EngineError(
            "dask.distributed is not installed; run "
            'pip install "napari-unet3d[distributed]", or leave out --dask and '
            "--dask-local"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask from logging what the program says itself."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _in_file(name: str) -> str:
    """Return the address in the file that a scheduler writes when it starts."""
    path = Path(os.path.expanduser(name)).absolute()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    began, told = time.monotonic(), False
    while not path.exists():
        time.sleep(0.1)
        if not told and time.monotonic() - began > PATIENCE:
            print(f"waiting for the file {path}; Ctrl-C stops", file=sys.stderr)
            told = True
    began = time.monotonic()
    while True:
        try:
            return str(json.loads(path.read_text())["address"])
        except ValueError:
            # It may be at writing it.
            if time.monotonic() - began > CONNECTING:
                raise
            time.sleep(0.1)


def _wait_for_worker(client: Client, address: str) -> None:
    told = False
    while not client.nthreads():
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            if not told:
                print(
                    f"waiting for a first worker at {address}; Ctrl-C stops",
                    file=sys.stderr,
                )
            told = True
