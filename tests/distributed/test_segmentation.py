"""Segmentation by dask's workers: the same bytes, whoever computes them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from distributed import Client, LocalCluster

from napari_unet3d.distributed import block_task, cluster, segmentation
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io import location
from tests.commands.conftest import contents, program, refused, samples, work

__all__ = ["program", "refused", "samples", "work"]

SHAPE = (70, 130, 80)
FILES = ("segment", "--model", "model.pt", "--image", "wide.zarr")
OUTPUTS = ("--output", "seg.zarr", "--probabilities", "prob.zarr")
SMALL = ("--memory", "1e-6")
BLOCKS = 6
posix = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")


@pytest.fixture(autouse=True)
def one_thread_in_workers(monkeypatch):
    """Keep torch to one thread in the workers too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def scheduler():
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    ) as running:
        yield running.scheduler_address


@pytest.fixture
def client(scheduler):
    with Client(scheduler, set_as_default=False) as client:
        yield client


@pytest.fixture
def wide(work):
    """Write a volume of several blocks."""
    image = np.tile(tifffile.imread("b.tif"), (5, 5, 3))[tuple(map(slice, SHAPE))]
    zarr.create_array("wide.zarr", data=image, chunks=(32, 32, 32))


KNOWN = []
"""What one process makes of that volume: always the same, so computed once."""


@pytest.fixture
def expected(wide, program):
    if not KNOWN:
        assert program(*FILES, *OUTPUTS, *SMALL).status == 0
        KNOWN.append(taken())
    return KNOWN[0]


def taken():
    """Return the outputs as bytes, and remove them."""
    found = {}
    for name in ("seg.zarr", "prob.zarr"):
        found[name] = contents(Path(name))
        shutil.rmtree(name)
    assert not list(Path().glob("*.unfinished*"))
    return found


def die_while_writing():
    """Have a worker die when it has written a part of a block; runs on it."""
    write = block_task._WantedArray.__setitem__

    def last(self, place, value):
        write(self, place, value)
        os.kill(os.getpid(), signal.SIGKILL)

    block_task._WantedArray.__setitem__ = last


def lose(name):
    """Have a worker find a file no more once it has read it; runs on it."""
    if not name:
        location.existing = lose.former
        return

    def failing(path):
        if path.endswith(name):
            raise OSError(f"{path} is on strike")

    lose.former = location.existing
    location.existing = failing


def test_two_processes_give_the_same_bytes(expected, program):
    before = psutil.Process().children(recursive=True)
    result = program(*FILES, *OUTPUTS, *SMALL, "--dask-local", "2")
    assert result.status == 0, result.err
    assert "2 workers on 1 machine, 1 thread for a block, on cpu" in result.err
    assert "segmented 100%" in result.err
    assert taken() == expected
    left = set(psutil.Process().children(recursive=True)) - set(before)
    names = [" ".join(process.cmdline()) for process in left]
    assert not [name for name in names if "resource_tracker" not in name]


@posix
def test_a_worker_that_is_killed_changes_nothing(expected, scheduler, client, program):
    workers = client.nthreads()
    client.run(die_while_writing, workers=[next(iter(workers))])
    result = program(*FILES, *OUTPUTS, *SMALL, "--dask", scheduler)
    assert result.status == 0, result.err
    assert taken() == expected
    client.wait_for_workers(2, timeout=60)
    assert client.nthreads() != workers


def test_selections_reach_the_workers(wide, scheduler, program):
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:60, 20:70] = 1
    tifffile.imwrite("mask.tif", mask)
    chosen = ("--mask", "mask.tif", "--region", "5:,:,:70", "--skip-below", "20")
    assert program(*FILES, *OUTPUTS, *SMALL, *chosen).status == 0
    wanted = taken()
    result = program(*FILES, *OUTPUTS, *SMALL, *chosen, "--dask", scheduler)
    assert result.status == 0, result.err
    assert taken() == wanted


def test_one_way_goes_on_where_the_other_was_stopped(
    expected, scheduler, program, monkeypatch
):
    from napari_unet3d.io.record import BlockRecord

    add = BlockRecord.add

    def interrupting(self, block):
        add(self, block)
        signal.raise_signal(signal.SIGINT)

    plain, dask = (), ("--dask", scheduler)
    for first, second in ((plain, dask), (dask, plain)):
        with monkeypatch.context() as patched:
            patched.setattr(BlockRecord, "add", interrupting)
            result = program(*FILES, *OUTPUTS, *SMALL, *first)
        assert result.status == 130
        assert "1 of 6 blocks are finished; repeat the command to go on" in result.err
        result = program(*FILES, *OUTPUTS, *SMALL, *second)
        assert result.status == 0, result.err
        assert "going on after 1 of 6 blocks" in result.err
        assert taken() == expected


@pytest.mark.parametrize("lost", ["wide.zarr", "mask.zarr"])
def test_a_block_that_fails_is_a_sentence(lost, wide, scheduler, client, program, work):
    zarr.create_array("mask.zarr", data=np.ones(SHAPE, np.uint8))
    before = contents(work)
    client.run(lose, lost)
    masked = ("--mask", "mask.zarr", "--dask", scheduler)
    result = program(*FILES, *OUTPUTS, *SMALL, *masked)
    client.run(lose, "")
    assert result.status == 2
    assert "failed on a worker (OSError: " in result.err.splitlines()[-1]
    assert f"{lost} is on strike" in result.err
    assert contents(work) == before


@pytest.mark.skipif(sys.platform == "win32", reason="symlinks need a privilege")
def test_links_are_for_each_machine_to_follow(
    expected, scheduler, program, monkeypatch
):
    jobs, segment_blocks = [], segmentation.segment_blocks

    def noted(client, job, *arguments):
        jobs.append(job)
        return segment_blocks(client, job, *arguments)

    Path("disk").mkdir()
    Path("link").symlink_to("disk")
    monkeypatch.setattr(segmentation, "segment_blocks", noted)
    output = ("--output", "link/seg.zarr", "--dask", scheduler)
    result = program(*FILES, *SMALL, *output)
    assert result.status == 0, result.err
    assert jobs[0].outputs[0][0] == str(Path("link/seg.zarr").absolute())
    assert contents(Path("disk/seg.zarr")) == expected["seg.zarr"]


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc there")
def test_workers_that_cannot_see_a_file_are_a_sentence(wide, scheduler, refused):
    # The name means another folder in every process.
    model = "/proc/self/cwd/model.pt"
    line = refused(
        *("segment", "--model", model, "--image", "wide.zarr", "--dask", scheduler),
        *OUTPUTS,
        after=1,
    )
    assert " of 2 workers cannot use the files. tcp://" in line
    assert model in line
    assert "Image, model and output must have the same names on all machines" in line


def test_what_cannot_begin_is_a_sentence(wide, scheduler, refused, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(cluster, "CONNECTING", 0.5)
    Path("damaged.json").write_text("{")
    dask = ("--dask", scheduler)
    for flags, sentence in [
        (
            ("--dask", f"tcp://127.0.0.1:{port}"),
            f"no dask scheduler answers at tcp://127.0.0.1:{port} (",
        ),
        (("--dask", "nonsense://x"), "no dask scheduler answers at nonsense://x ("),
        (("--dask", "none/s.json"), "at none/s.json (there is no folder "),
        (("--dask", "damaged.json"), "no dask scheduler answers at damaged.json ("),
        ((*dask, "--dask-local", "2"), "exclude each other"),
        (("--dask-local", "0"), "--dask-local must be at least 1, got 0"),
        ((*dask, "--device", "cuda"), "none of the 2 workers offers a GPU; start "),
        ((*dask, "--device", "cpu,cpu"), "each worker has one device, got --device"),
        ((*dask, "--device", "quantum"), "unknown device 'quantum'; use auto, cpu"),
    ]:
        assert sentence in refused(*FILES, *OUTPUTS, *flags)
    line = refused(*FILES, "--output", "seg.tif", *dask)
    assert "several processes write OME-Zarrs only, got seg.tif" in line
    monkeypatch.setitem(sys.modules, "distributed", None)
    line = refused(*FILES, *OUTPUTS, *dask)
    assert 'pip install "napari-unet3d[distributed]"' in line


class Ended:
    """A future that ended badly."""

    key = ("name", 3)

    def __init__(self, status, error=None):
        self.status, self._error = status, error

    def exception(self):
        return self._error


class Scheduler:
    def scheduler_info(self):
        return {"address": "tcp://a:1"}


def test_how_a_block_ends_is_a_sentence():
    from distributed import KilledWorker

    def sentence(*ended):
        with pytest.raises(EngineError) as caught:
            segmentation._require_success(Ended(*ended), 3, Scheduler())
        return str(caught.value)

    killed = KilledWorker("x", None, 3)
    died = sentence("error", killed)
    assert "each worker that had block 3 has died" in died
    assert "repeat the command" in died
    assert "--restart" not in died
    assert sentence("error", EngineError("no memory")) == "no memory"
    assert "the scheduler at tcp://a:1 was stopped" in sentence("cancelled")
    segmentation._require_success(Ended("finished"), 3, Scheduler())


class Gpus:
    """A client of workers with a GPU each that are done with every block at once."""

    cluster, status = None, "closed"

    def __init__(self, count):
        self.count, self.batches = count, []

    def scheduler_info(self):
        return {"workers": {k: {"resources": {"GPU": 1}} for k in range(self.count)}}

    def run(self, *_, workers, **__):
        return dict.fromkeys(workers)

    def subscribe_topic(self, *_):
        pass

    def map(self, function, numbers, *_, key, **__):
        self.batches.append(len(numbers))
        return [Done(each) for each in key]


class Done:
    status = "finished"

    def __init__(self, key):
        self.key = key

    def add_done_callback(self, callback):
        callback(self)


def test_workers_with_resources_are_given_two_blocks_each():
    job, blocks = SimpleNamespace(name="run"), [((0, 1),) * 3] * 20
    for resources, batches in (({"GPU": 1}, [6, *[1] * 14]), (None, [20])):
        client = Gpus(3)
        steps = segmentation.segment_blocks(client, job, blocks, range(20), resources)
        assert [step.number for step in steps] == list(range(20))
        assert client.batches == batches
