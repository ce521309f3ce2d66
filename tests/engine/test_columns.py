"""What a sweep takes is what is estimated, measured on tensors without contents."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_unet3d.engine.columns import (
    FIXED,
    column_bytes,
    column_pixels,
    slab_depth,
    sweep_bytes,
)
from napari_unet3d.engine.sweep import sweep
from napari_unet3d.engine.unet import UNet3D

EDGE = 512
"""So large that weights, which count as well, hardly matter."""


class LiveBytes(TorchDispatchMode):
    """The bytes of all tensors that are there at the same time, at most."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage):
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key):
        self.now -= self.known.pop(key, 0)


def measured(network, depth):
    """Return the bytes a voxel of a slice that a sweep takes."""
    slab = slab_depth(network)
    size = (1, network.encoder[0].first.conv.in_channels, slab, EDGE, EDGE)
    with LiveBytes() as live:
        slabs = (
            torch.empty(size, device="meta", memory_format=torch.channels_last_3d)
            for _ in range(depth // slab)
        )
        for _ in sweep(network, slabs):
            pass
    return live.peak / EDGE**2


NETWORKS = {
    "default": {"in_channels": 21, "base_channels": 8, "shortcut": 32},
    "paper": {"in_channels": 1, "base_channels": 32},
    "coarse z": {
        "in_channels": 63,
        "base_channels": 8,
        "shortcut": 32,
        "pooling": ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
    },
    "deep": {"in_channels": 6, "base_channels": 4, "pooling": ((2, 2, 2),) * 4},
    "flat": {"in_channels": 6, "base_channels": 4, "pooling": ()},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_estimate_is_enough_and_not_far_too_much(name):
    network = UNet3D(n_classes=3, **NETWORKS[name], normalization="none")
    network = network.to("meta", memory_format=torch.channels_last_3d).eval()
    used = measured(network, depth=160)
    assert 0.75 * sweep_bytes(network) < used <= sweep_bytes(network)


def test_memory_does_not_grow_with_the_slices():
    network = UNet3D(21, 3, 8, shortcut=32, normalization="none").to("meta").eval()
    assert measured(network, 480) == measured(network, 160)


def test_pixels_and_bytes_are_inverse():
    network = UNet3D(1, 2, 4)
    memory = column_bytes(network, 5000.0, beside=300)
    assert column_pixels(network, memory, beside=300) == pytest.approx(5000)
    assert column_pixels(network, FIXED / 2) == 0
