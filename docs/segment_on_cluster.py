r"""Segment a volume with workers that a queueing system starts, SLURM or LSF.

    python segment_on_cluster.py --queue gpu --gpus 1 --jobs 8 -- \
        --model kidney.pt --image big.zarr --output big_seg.zarr

What follows ``--`` is for ``napari-unet3d segment``. Run it on a machine that may
submit jobs and that the jobs can reach, with the same Python environment and file
names. Needs ``pip install "napari-unet3d[distributed]" dask-jobqueue``.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from typing import Any

from dask.utils import parse_bytes
from dask_jobqueue import LSFCluster, SLURMCluster

# Importing dask_jobqueue has made Ctrl-C end the program without a word.
signal.signal(signal.SIGINT, signal.default_int_handler)


def cluster_of(options: argparse.Namespace) -> Any:
    """Return a cluster, still without jobs, each of which will be one worker."""
    is_slurm = options.system == "slurm"
    common = {
        "queue": options.queue,
        "account" if is_slurm else "project": options.account,
        # "4:00" would be four minutes for SLURM.
        "walltime": f"{options.hours}:00{':00' if is_slurm else ''}",
        "memory": options.memory,
        # One block at a time in a job; torch shares the cores among its threads.
        "cores": 1,
        "processes": 1,
        # A block has the GPU alone.
        "worker_extra_args": ["--resources", "GPU=1"] if options.gpus else [],
        "interface": options.interface,
        "scheduler_options": {"dashboard_address": ":0"},
    }
    if is_slurm:
        gpus = [f"--gres=gpu:{options.gpus}"] if options.gpus else []
        return SLURMCluster(**common, job_cpu=options.cpus, job_extra_directives=gpus)
    gpus = [f'-gpu "num={options.gpus}"'] if options.gpus else []
    return LSFCluster(
        **common,
        ncpus=options.cpus,
        mem=parse_bytes(options.memory),
        job_extra_directives=gpus,
    )


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        usage="%(prog)s [options] -- --model FILE --image FILE --output FILE ...",
    )
    parser.add_argument("--system", choices=["slurm", "lsf"], default="slurm")
    parser.add_argument("--jobs", type=int, default=4, help="workers to start")
    parser.add_argument("--queue", help="partition or queue of the jobs")
    parser.add_argument("--account", help="account or project that pays")
    parser.add_argument("--cpus", type=int, default=8, help="cores of a job")
    parser.add_argument("--gpus", type=int, default=0, help="0, or 1 for a job")
    parser.add_argument("--memory", default="32 GiB", help="memory of a job")
    parser.add_argument("--hours", type=int, default=4, help="longest time of a job")
    parser.add_argument("--interface", help="network interface, as ib0")
    parser.add_argument("segment", nargs="*", help="arguments of napari-unet3d segment")
    return parser.parse_args(arguments)


def main() -> int:
    """Start the jobs, segment, and end them."""
    options = parsed(sys.argv[1:])
    with cluster_of(options) as cluster:
        # A job that ends at its longest time is followed by another one.
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)
        program = [sys.executable, "-m", "napari_unet3d.cli", "segment"]
        address = ["--dask", cluster.scheduler_address]
        with subprocess.Popen([*program, *address, *options.segment]) as segmenting:
            # Ctrl-C reaches that program as well, which then ends by itself.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return segmenting.wait()


if __name__ == "__main__":
    raise SystemExit(main())
