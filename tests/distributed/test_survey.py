"""What follows from what the workers say of themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_unet3d import __version__
from napari_unet3d.distributed.survey import GPU, Facts, survey
from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.errors import EngineError

CONFIG = SegmentationConfig()
PLAIN = Facts(
    "cpu", "float32", 12.0, 8, tuple(range(8)), "torch 2 on AVX512", __version__
)


class Workers:
    """A client of workers, each given by its facts and what dask knows of it."""

    cluster = None

    def __init__(self, *workers):
        known = {"host": "a", "nthreads": 1, "memory_limit": 0, "resources": {}}
        self.workers = {f"w{k}": known | more for k, (_, more) in enumerate(workers)}
        self.answers = {f"w{k}": answer for k, (answer, _) in enumerate(workers)}

    def scheduler_info(self):
        return {"workers": self.workers}

    def run(self, function, config, workers, on_error):
        self.asked = config.device
        return {name: self.answers[name] for name in workers}


@pytest.fixture(autouse=True)
def no_limit(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_cores_and_memory_of_a_machine_are_shared(capsys):
    crew = survey(Workers((PLAIN, {}), (PLAIN, {}), (PLAIN, {"host": "b"})), CONFIG)
    assert (crew.threads, crew.block_memory) == (4, 6.0)
    assert (crew.device, crew.devices, crew.resources) == ("cpu", ("cpu",), None)
    shown = capsys.readouterr().err
    assert shown == "3 workers on 2 machines, 4 threads for a block, on cpu\n"


def test_a_worker_with_several_threads_has_several_blocks_at_a_time():
    crew = survey(Workers((PLAIN, {"nthreads": 4})), CONFIG)
    assert (crew.threads, crew.block_memory) == (2, 3.0)
    limited = Workers((PLAIN, {"nthreads": 4, "memory_limit": 10}))
    assert survey(limited, CONFIG).block_memory == 1.0


def test_all_workers_are_asked_where_dask_tells_of_five():
    class Reticent(Workers):
        def scheduler_info(self, n_workers=5, **_):
            names = list(self.workers)[: n_workers if n_workers >= 0 else None]
            return {"workers": {name: self.workers[name] for name in names}}

    crew = survey(Reticent(*[(PLAIN, {})] * 8), CONFIG)
    assert (crew.at_once, crew.threads) == (8, 1)


def test_workers_with_cores_of_their_own_share_none():
    other = replace(PLAIN, affinity=tuple(range(8, 16)))
    assert survey(Workers((PLAIN, {}), (other, {})), CONFIG).threads == 8


def test_the_memory_that_was_given_is_that_of_a_block():
    config = SegmentationConfig(memory=2)
    crew = survey(Workers((PLAIN, {}), (PLAIN, {})), config)
    assert crew.block_memory == 2 * 2**30


def test_the_threads_of_the_command_are_a_limit(monkeypatch):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    assert survey(Workers((PLAIN, {})), CONFIG).threads == 1


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_workers_that_offer_a_gpu_do_it(asked):
    gpu = replace(PLAIN, device="cuda", memory=40.0), {"resources": {"GPU": 1}}
    client = Workers((PLAIN, {}), gpu)
    crew = survey(client, CONFIG, (asked,))
    assert client.asked == "cuda"
    assert (crew.device, crew.devices) == ("cuda", ("cuda",))
    assert (crew.resources, crew.block_memory) == (GPU, 40.0)


def test_processes_of_this_machine_share_its_gpus():
    gpu = replace(PLAIN, device="cuda", memory=40.0), {"resources": {"GPU": 1}}
    client = Workers(gpu, gpu, gpu)
    client.cluster = "local"
    crew = survey(client, CONFIG, ("cuda:0", "cuda:1"))
    assert (crew.devices, crew.block_memory) == (("cuda:0", "cuda:1"), 20.0)


@pytest.mark.parametrize(
    ("other", "expected"), [("bfloat16", "bfloat16"), ("float32", "float32")]
)
def test_all_blocks_have_one_number_format(other, expected):
    short = replace(PLAIN, precision="bfloat16")
    crew = survey(Workers((short, {}), (replace(PLAIN, precision=other), {})), CONFIG)
    assert crew.precision == expected


def test_workers_that_round_differently_are_told(capsys):
    older = replace(PLAIN, rounding="torch 2 on AVX2")
    survey(Workers((PLAIN, {}), (older, {})), CONFIG)
    line = capsys.readouterr().err.splitlines()[0]
    assert "(torch 2 on AVX2, torch 2 on AVX512); a block may differ" in line


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (replace(PLAIN, device="cuda"), "compute on cpu (1), cuda (1), which round"),
        (replace(PLAIN, version="0"), "worker w1 has napari-unet3d 0, but this is "),
        (EngineError("no device"), "worker w1: no device"),
        (ModuleNotFoundError("No module x"), "worker w1 cannot segment (No module x)"),
        (OSError("gone"), "worker w1 does not answer (OSError: gone); see what"),
    ],
)
def test_workers_that_do_not_fit_are_a_sentence(other, sentence):
    with pytest.raises(EngineError) as caught:
        survey(Workers((PLAIN, {}), (other, {})), CONFIG)
    assert sentence in str(caught.value)
