"""The script that starts workers through a queueing system, as far as without one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "segment_on_cluster.py"


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        (
            "slurm",
            {
                "#SBATCH -p fast",
                "#SBATCH -A us",
                "#SBATCH -n 1",
                "#SBATCH --cpus-per-task=6",
                "#SBATCH --mem=14G",
                "#SBATCH -t 3:00:00",
                "#SBATCH --gres=gpu:1",
            },
        ),
        (
            "lsf",
            {
                "#BSUB -q fast",
                '#BSUB -P "us"',
                "#BSUB -n 6",
                "#BSUB -W 3:00",
                '#BSUB -gpu "num=1"',
            },
        ),
    ],
)
def test_a_job_is_one_worker_with_all_that_was_asked_for(system, lines, script):
    flags = ["--system", system, "--queue", "fast", "--account", "us", "--cpus", "6"]
    flags += ["--hours", "3", "--memory", "14 GiB", "--gpus", "1"]
    options = script.parsed([*flags, "--", "--model", "a.pt", "--image", "b.zarr"])
    assert options.segment == ["--model", "a.pt", "--image", "b.zarr"]
    with script.cluster_of(options) as cluster:
        job = cluster.job_script()
        assert cluster.scheduler_address in job
    assert lines <= set(job.splitlines())
    assert "--nthreads 1 " in job
    assert job.rstrip().endswith("--resources GPU=1")


def test_without_gpus_none_is_asked_for(script):
    with script.cluster_of(script.parsed([])) as cluster:
        assert "GPU" not in cluster.job_script().upper()
