from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

from napari_unet3d.engine import allocation
from napari_unet3d.engine.allocation import (
    keep_freed_memory,
    lasting,
    release_freed_memory,
)


@pytest.fixture
def library(monkeypatch):
    """Pretend to be Linux with glibc, noting what it is told."""
    calls = []

    def mallopt(parameter, value):
        calls.append((parameter, value))
        return 1

    def malloc_trim(pad):
        calls.append(("trim", pad))
        return 1

    found = SimpleNamespace(mallopt=mallopt, malloc_trim=malloc_trim, calls=calls)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: found)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(allocation, "_is_kept", False)
    return found


def test_glibc_is_told_to_keep_memory_and_to_return_it(library):
    keep_freed_memory()
    assert library.calls == [(-1, 2**31 - 1), (-3, 2**30)]
    release_freed_memory()
    assert library.calls[2:] == [("trim", 0)]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(platform, library, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    keep_freed_memory()
    release_freed_memory()
    assert not library.calls


def test_a_c_library_without_these_functions_is_left_alone(library, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
    release_freed_memory()
    size = (1, 2, 3, 4, 5)
    assert lasting(size, torch.zeros(1)).shape == size


@pytest.mark.skipif(sys.platform != "linux", reason="pages are taken on Linux only")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lasting_tensors_are_like_others_and_given_back(dtype, monkeypatch):
    monkeypatch.setattr(allocation, "_is_kept", True)
    size = (2, 3, 4, 5, 6)
    found = lasting(size, torch.zeros(1, dtype=dtype))
    assert (tuple(found.shape), found.dtype) == (size, dtype)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    other = torch.randn(size, dtype=dtype)
    assert torch.equal(found.copy_(other), other)
    storage = weakref.ref(found.untyped_storage())
    del found
    gc.collect()
    assert storage() is None


def test_nothing_needs_no_pages(monkeypatch):
    monkeypatch.setattr(allocation, "_is_kept", True)
    assert lasting((1, 0, 1, 4, 4), torch.zeros(1)).numel() == 0


def test_lasting_tensors_of_other_devices(monkeypatch):
    monkeypatch.setattr(allocation, "_is_kept", True)
    like = torch.zeros(1, device="meta")
    assert lasting((1, 2, 3, 4, 5), like).device.type == "meta"
