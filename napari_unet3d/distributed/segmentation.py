"""Segment the blocks of a plan with dask, one task for each.

The client plans and keeps the record of what is finished; workers read, compute and
write. Every chunk of the output belongs to one block, and a block is computed from the
image alone: whichever worker does it, and how often, the bytes are the same.
"""

from __future__ import annotations

import math
import queue
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.events import BlockProgress

from .block_task import is_working_on, segment_one, trouble_with
from .cluster import workers_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from distributed import Client, Future

    from napari_unet3d.engine.regions import Region

    from .block_task import Job

MOST_QUEUED = 10_000
"""Tasks that the scheduler knows at once: each costs it about a kilobyte."""

FOR_A_WORKER = 2
"""Tasks of each worker, the one it is at among them, where they take resources."""

LOOKING = 5
"""Seconds after which the workers are counted again."""

RETRIES = 2
"""Of a block that failed: a network's disk may be away for a moment."""

PATIENCE = 30
"""Seconds without any worker before the person is told."""


def segment_blocks(
    client: Client,
    job: Job,
    blocks: Sequence[Region],
    numbers: Sequence[int],
    resources: dict[str, int] | None = None,
) -> Generator[BlockProgress, None, None]:
    """Segment blocks on the workers of a client.

    Closing the generator, or an error, cancels what is left and waits for the workers
    to end what they are at.

    Parameters
    ----------
    client : distributed.Client
        With at least one worker.
    job : Job
        What the blocks are part of; its outputs have been begun.
    blocks : sequence of regions
        The plan.
    numbers : sequence of int
        The blocks to segment, in this order.
    resources : dict of str to int, optional
        What each takes of its worker, as ``{"GPU": 1}``.

    Yields
    ------
    BlockProgress
        For each layer of chunks that is written, blocks in no order.

    Raises
    ------
    EngineError
        Where a worker cannot see the files, or a block fails on several.
    """
    require_files(client, job, resources)
    waiting = iter(numbers)
    pending: dict[int, Future[None]] = {}
    most, looked = 0, -math.inf
    with (
        _events(client, job.name) as events,
        _cancelled_at_the_end(client, job, pending),
    ):
        while True:
            if time.monotonic() - looked > LOOKING:
                most, looked = _most_queued(client, resources), time.monotonic()
            room = most - len(pending)
            batch = []
            if resources or room > most // 2:
                batch = [k for _, k in zip(range(room), waiting, strict=False)]
            if batch:
                futures: list[Future[None]] = client.map(
                    segment_one,
                    batch,
                    [blocks[k] for k in batch],
                    key=[(f"segment-block-{job.name}", k) for k in batch],
                    job=job,
                    resources=resources,
                    retries=RETRIES,
                    pure=False,
                )
                pending.update(zip(batch, futures, strict=True))
                for future in futures:
                    future.add_done_callback(events.put)
            if not pending:
                return
            event = _next(client, events)
            if not isinstance(event, BlockProgress):
                _, number = event.key
                del pending[number]
                _require_success(event, number, client)
                yield BlockProgress(number, 1)
            elif event.share < 1:
                # The end is told by the task's own, after its last write.
                yield event


def _most_queued(client: Client, resources: dict[str, int] | None) -> int:
    """Return how many tasks the scheduler is to know at once.

    Those that take resources it gives to workers at once, and the end of a worker
    counts against each that it has.
    """
    if not resources:
        return MOST_QUEUED
    return FOR_A_WORKER * max(1, len(workers_of(client, resources)))


def require_files(
    client: Client, job: Job, resources: dict[str, int] | None = None
) -> None:
    """Make sure that every worker can read and write the files of a job.

    Only those count that have the resources.

    Raises
    ------
    EngineError
        Naming a worker that cannot.
    """
    chosen = list(workers_of(client, resources or ()))
    answers = client.run(trouble_with, job, workers=chosen, on_error="return")
    trouble = {name: answer for name, answer in answers.items() if answer is not None}
    for name, answer in trouble.items():
        sentence = str(answer).rstrip(".")
        raise EngineError(
            f"{len(trouble)} of {len(answers)} workers cannot use the files. {name}: "
            f"{sentence}. Image, model and output must have the same names on all "
            "machines, as on a disk that they share"
        )


@contextmanager
def _events(client: Client, topic: str) -> Iterator[queue.SimpleQueue[Any]]:
    """Collect what the workers tell about a job."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def note(event: tuple[float, Mapping[str, Any]]) -> None:
        _, message = event
        events.put(BlockProgress(int(message["block"]), float(message["share"])))

    client.subscribe_topic(topic, note)
    try:
        yield events
    finally:
        if client.cluster is None and client.status == "running":
            client.unsubscribe_topic(topic)


def _next(client: Client, events: queue.SimpleQueue[Any]) -> Any:
    """Wait for an event; tell where there is no worker any more."""
    began, told = time.monotonic(), False
    while True:
        try:
            return events.get(timeout=1)
        except queue.Empty:
            is_alone = not workers_of(client)
            if is_alone and not told and time.monotonic() - began > PATIENCE:
                print(
                    "no worker is left; waiting for one (Ctrl-C stops, and the same "
                    "command goes on)",
                    file=sys.stderr,
                )
                told = True


def _require_success(future: Future[None], number: int, client: Client) -> None:
    from distributed import KilledWorker

    if future.status == "finished":
        return
    if future.status != "error":
        raise EngineError(
            f"block {number} was given up ({future.status}): the scheduler at "
            f"{client.scheduler_info().get('address', 'its address')} was stopped or "
            "cannot be reached"
        )
    error = future.exception()
    if isinstance(error, KilledWorker):
        raise EngineError(
            f"each worker that had block {number} has died, most likely because its "
            "time or memory ran out; finished blocks are kept, so repeat the command, "
            "with fewer workers on a machine or less --memory if it happens again"
        ) from error
    if isinstance(error, EngineError):
        raise error
    raise EngineError(
        f"block {number} failed on a worker ({type(error).__name__}: {error}); its log "
        "says more"
    ) from error


@contextmanager
def _cancelled_at_the_end(
    client: Client, job: Job, pending: Mapping[int, Future[None]]
) -> Iterator[None]:
    """Leave no task behind, whatever happens."""
    try:
        yield
    finally:
        if pending and client.cluster is not None:
            # Processes of this program alone need not end what they are at.
            client.cluster.close()
        elif pending and client.status == "running":
            client.cancel(list(pending.values()), force=True)
            told = False
            while _busy(client, job):
                if not told:
                    print("\nwaiting for the workers to stop", file=sys.stderr)
                told = True
                time.sleep(0.2)


def _busy(client: Client, job: Job) -> bool:
    """Tell whether a worker is still at a block of this job."""
    answers = client.run(is_working_on, job.name, on_error="ignore")
    return any(answers.values())
