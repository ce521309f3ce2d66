from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from napari_unet3d.engine import EngineError, device
from napari_unet3d.engine.device import (
    choose_device,
    choose_devices,
    choose_precision,
    describe_device,
    has_matrix_units,
    is_out_of_memory,
    out_of_memory_as_error,
)
from napari_unet3d.engine.errors import OutOfMemoryError

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.fixture
def have(monkeypatch):
    """Return a function that sets which devices torch is to see."""

    def have(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return have


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ({}, "cpu"),
        ({"mps": True}, "mps"),
        ({"cuda": 1}, "cuda"),
        ({"cuda": 2, "mps": True}, "cuda"),
    ],
)
def test_the_fastest_device_is_chosen(devices, expected, have):
    have(**devices)
    assert choose_device() == choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_a_device_by_name(name, have):
    have(cuda=2, mps=True)
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", ["cuda"]),
        ("cpu", ["cpu"]),
        ("all", ["cuda:0", "cuda:1"]),
        ("cuda:1, cuda:0", ["cuda:1", "cuda:0"]),
    ],
)
def test_several_devices(name, expected, have):
    have(cuda=2)
    assert choose_devices(name) == [torch.device(device) for device in expected]


def test_all_devices_without_a_gpu_are_the_one_there_is(have):
    have()
    assert choose_devices("all") == [CPU]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cpu,cuda:0", "devices cpu,cuda:0 are of several types"),
        ("cuda:0,cuda:2", "device cuda:2 was asked for"),
        ("cpu,", "unknown device ''"),
    ],
)
def test_devices_that_do_not_go_together(name, message, have):
    have(cuda=2)
    with pytest.raises(EngineError, match=message):
        choose_devices(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown device 'gpu'; use auto, cpu, cuda, cuda:1 or mps"),
        ("", "unknown device ''"),
        ("cuda:1", "cuda:1 was asked for but .* sees 1 CUDA devices"),
        ("mps", "mps is not available here; use --device auto"),
        ("meta", "'meta' is not supported"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, message, have):
    have(cuda=1)
    with pytest.raises(EngineError, match=message):
        choose_device(name)


def test_devices_are_described(monkeypatch):
    card = SimpleNamespace(name="A card", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert describe_device(CUDA) == "A card, 24 GiB"
    assert describe_device(MPS) == "Apple GPU"
    for threads, text in ((1, "CPU, 1 thread"), (2, "CPU, 2 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        assert describe_device(CPU) == text


@pytest.mark.parametrize(
    ("where", "capability", "matrix_units", "expected"),
    [
        (CUDA, (9, 0), False, torch.bfloat16),
        (CUDA, (7, 5), False, torch.float16),
        (CPU, None, True, torch.bfloat16),
        (CPU, None, False, torch.float32),
        (MPS, None, True, torch.float32),
    ],
)
def test_the_number_format_is_one_that_the_device_is_good_at(
    where, capability, matrix_units, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(device, "has_matrix_units", lambda: matrix_units)
    assert choose_precision(where) == expected


def test_the_number_format_can_be_given():
    assert choose_precision(CUDA, "float32") == torch.float32
    assert choose_precision(CPU, "bfloat16") == torch.bfloat16
    with pytest.raises(EngineError, match="float16 is for GPUs only"):
        choose_precision(CPU, "float16")


def test_matrix_units_are_those_torch_sees(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert has_matrix_units()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_matrix_units()
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not has_matrix_units()


OUT_OF_MEMORY = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    RuntimeError("MPS backend out of memory (allocated 8 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_lack_of_memory_becomes_a_sentence(error):
    assert is_out_of_memory(error)
    with (
        pytest.raises(OutOfMemoryError, match="memory ran out: take less") as caught,
        out_of_memory_as_error("take less"),
    ):
        raise error
    assert isinstance(caught.value, EngineError)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("sizes differ"), KeyError("a")])
def test_other_errors_stay_what_they_are(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, out_of_memory_as_error("take less"):
        raise error
    assert caught.value is error
