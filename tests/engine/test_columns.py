"""What a sweep takes is what is estimated, measured on tensors without contents."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_unet3d.engine.columns import (
    FIXED,
    column_bytes,
    extent,
    kernel_bytes,
    slab_depth,
    sweep_bytes,
    sweep_work,
)
from napari_unet3d.engine.sweep import sweep
from napari_unet3d.engine.tiling import with_halo
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


def of_slice(network, core=(0, EDGE), size=EDGE):
    """Return the extent of a square slice of a column."""
    y, x = (extent(network, axis, core, size) for axis in (1, 2))
    return y.times(x)


def measured(network, depth, core=(0, EDGE), piece=(0, EDGE)):
    """Return the bytes that the sweep of a piece of the volume takes."""
    slab, dtype = slab_depth(network), network.head.weight.dtype
    edge = piece[1] - piece[0]
    size = (1, network.encoder[0].first.conv.in_channels, slab, edge, edge)
    inner = (core[0] - piece[0], core[1] - piece[0])
    live = LiveBytes()
    # Views of them are no new memory.
    for parameter in network.parameters():
        live.known[parameter.untyped_storage()._cdata] = 0
    with live:
        slabs = slabs_of(size, depth // slab, dtype)
        for _ in sweep(network, slabs, (inner, inner)):
            pass
    return live.peak


def slabs_of(size, count, dtype):
    """Yield slabs as filters do, with half as much in between."""
    slab = torch.empty(
        size, device="meta", dtype=dtype, memory_format=torch.channels_last_3d
    )
    for _ in range(count):
        torch.empty(slab.numel() // 2, device="meta")
        yield slab


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
@pytest.mark.parametrize("core", [(0, EDGE), (160, EDGE), (208, 304)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_enough_and_not_far_too_much(dtype, core, name):
    network = UNet3D(n_classes=3, **NETWORKS[name], normalization="none")
    network = network.to("meta", dtype, memory_format=torch.channels_last_3d).eval()
    # A larger volume, of which the sweep gets a column with its halo.
    low, high = with_halo(network, core, 1, EDGE)
    slice_extent = of_slice(network, core)
    assert slice_extent.whole == (high - low) ** 2
    used = measured(network, 160, core, (low, high))
    estimate = sweep_bytes(network, slice_extent) + kernel_bytes(network)
    # A layer's weights may be there in another order too; gaps are allowed for.
    copied = 4 * max(parameter.numel() for parameter in network.parameters())
    # Softmax and labels, which are in single precision and not part of the sweep, are
    # what a flat network needs most for.
    least = 0.75 if dtype == torch.float32 else 0.55
    assert least * estimate < used <= 1.02 * estimate + copied


def test_memory_does_not_grow_with_the_slices():
    network = UNet3D(21, 3, 8, shortcut=32, normalization="none").to("meta").eval()
    assert measured(network, 480) == measured(network, 160)


def test_halos_cost_less_than_cores():
    network = UNet3D(21, 3, 8, shortcut=32)
    size = 4 * EDGE
    narrow, wide = ((size // 2, size // 2 + n) for n in (64, EDGE))
    for core in (narrow, wide):
        slice_extent = of_slice(network, core, size)
        share = slice_extent.whole / slice_extent.core
        plain = of_slice(network, (0, core[1] - core[0]), core[1] - core[0])
        assert plain.whole == plain.core == slice_extent.core
        work = sweep_work(network, slice_extent) / sweep_work(network, plain)
        assert 1 < work < 0.9 * share
        used = sweep_bytes(network, slice_extent) / sweep_bytes(network, plain)
        assert 1 < used < 0.9 * share


def test_modules_count_too():
    network = UNet3D(1, 2, 4)
    assert column_bytes(network, of_slice(network, (0, 8), 8)) > FIXED
