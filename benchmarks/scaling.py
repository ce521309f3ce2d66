"""What a volume of any size costs, from the plan of its blocks and measured rates.

    python benchmarks/scaling.py --rate 0.5 --task-seconds 0.01

Nothing is segmented: the plan is made as for a real volume, and says how often a voxel
is read, and how many times as much is computed as by one sweep of the whole. `--rate`
is in million voxels a second of one device, as `inference.py` or `out_of_core.py`
measure it for the same network, `--task-seconds` what `several_processes.py` finds for
a task.
"""

from __future__ import annotations

import argparse

from reporting import add_options, machine, print_table, write_json

from napari_unet3d.engine import ModelConfig
from napari_unet3d.engine.block_plan import plan_blocks
from napari_unet3d.engine.checkpoint import build_network
from napari_unet3d.engine.columns import Extent, extent, sweep_work
from napari_unet3d.engine.folding import fold_normalization
from napari_unet3d.io.layout import CHUNK

BESIDE = 844
"""Bytes for each voxel of a slice beside a sweep's: what `Segmenter.bytes_beside` says
of 8-bit grey values, the filter stem, and labels alone."""

COLUMNS = {
    "side": ("side", "d"),
    "voxels": ("voxels", ".1e"),
    "memory, GiB": ("memory", "g"),
    "blocks": ("blocks", "d"),
    "read": ("read", ".2f"),
    "computed": ("computed", ".2f"),
    "chunks": ("chunks", ".1e"),
    "device days": ("days", ".3g"),
    "days in tasks": ("task_days", ".2g"),
}


def cost(network, side, memory, rate, task_seconds):
    """Return what a cube of `side` voxels costs in blocks of `memory` GiB."""
    shape = (side,) * 3
    blocks = plan_blocks(network, shape, (CHUNK,) * 3, memory * 2**30, beside=BESIDE)
    # Blocks are a grid: what is computed is a product of sums along the axes.
    z, y, x = (
        [extent(network, axis, core, side) for core in set(cores)]
        for axis, cores in enumerate(zip(*blocks, strict=True))
    )
    plane = summed(y).times(summed(x))
    depth = summed(z).whole
    plain = extent(network, 1, (0, side), side)
    voxels = float(side) ** 3
    work = depth * sweep_work(network, plane)
    computed = work / (side * sweep_work(network, plain.times(plain)))
    return {
        "side": side,
        "voxels": voxels,
        "memory": memory,
        "blocks": len(blocks),
        "read": depth * plane.whole / voxels,
        "computed": computed,
        "chunks": float(-(-side // CHUNK)) ** 3,
        "days": computed * voxels / (rate * 1e6) / 86400,
        "task_days": len(blocks) * task_seconds / 86400,
    }


def summed(extents):
    """Add up what pieces of an axis compute."""
    return Extent(
        sum(each.whole for each in extents),
        sum(each.core for each in extents),
        tuple(map(sum, zip(*(each.decoded for each in extents), strict=True))),
    )


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 10240, 102400])
    parser.add_argument("--memory", type=float, nargs="+", default=[2, 8, 32])
    parser.add_argument("--rate", type=float, required=True, metavar="MVOXEL/S")
    parser.add_argument("--task-seconds", type=float, default=0.0)
    parser.add_argument("--base-channels", type=int, default=8)
    add_options(parser)
    options = parser.parse_args(arguments)
    config = ModelConfig(
        in_channels=1,
        n_classes=2,
        base_channels=options.base_channels,
        pooling=((2, 2, 2),) * 3,
        spacing=(1.0, 1.0, 1.0),
    )
    network = fold_normalization(build_network(config).eval())
    rows = [
        cost(network, side, memory, options.rate, options.task_seconds)
        for side in (options.sides[:1] if options.quick else options.sides)
        for memory in options.memory
    ]
    print_table(rows, COLUMNS)
    write_json(options.json, machine(), rows=rows)


if __name__ == "__main__":
    main()
