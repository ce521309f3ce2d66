from __future__ import annotations

import psutil
import pytest
import torch

from napari_unet3d.engine import EngineError, memory
from napari_unet3d.engine.memory import (
    VARIABLE,
    available_memory,
    built_in_memory,
    check_limit,
    free_memory,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")
GIB = 2**30
STAT = "inactive_file {spare}\ntotal_inactive_file {spare}\nanon 12\n"
FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.max", "memory.current"),
}


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine of 16 GiB, 10 of them free, whose control groups are in a folder."""
    monkeypatch.delenv(VARIABLE, raising=False)
    state = type("", (), {"available": 10 * GIB, "total": 16 * GIB})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: state)
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    return tmp_path


def limit_group(folder, version, limit, used=0, spare=0):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(FILES[version], (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(STAT.format(spare=spare))


def both() -> tuple[float, float]:
    return free_memory() / GIB, built_in_memory(CPU) / GIB


def test_without_limits_it_is_the_machines():
    assert both() == (10, 16)
    assert available_memory(CPU) == free_memory()


def test_a_gpu_has_memory_of_its_own(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5, 9))
    found = type("", (), {"total_memory": 9})()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    assert (available_memory(CUDA), built_in_memory(CUDA)) == (5, 9)


@pytest.mark.parametrize(
    ("said", "expected"),
    [("4", (4, 4)), ("0.5", (0.5, 0.5)), ("12", (10, 12)), ("99", (10, 16))],
)
def test_a_limit_in_the_environment(said, expected, monkeypatch):
    monkeypatch.setenv(VARIABLE, said)
    assert both() == expected


@pytest.mark.parametrize("said", ["much", "8GB", "0,3", "inf", "nan", "-1", "0"])
def test_what_is_no_limit_is_none(said, monkeypatch):
    monkeypatch.setenv(VARIABLE, said)
    assert both() == (10, 16)
    with pytest.raises(EngineError, match=f"{VARIABLE} is '{said}'; give it a number"):
        check_limit()


@pytest.mark.parametrize("said", ["", "0.5", "8"])
def test_limits_are_fine(said, monkeypatch):
    monkeypatch.setenv(VARIABLE, said)
    check_limit()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("is_container", [False, True])
def test_what_the_job_may_take_counts(version, is_container, machine):
    listed = {1: "5:cpu,cpuacct:/job\n4:memory:/job/step\n", 2: "0::/job/step\n"}
    (machine / "cgroup").write_text(listed[version])
    root = machine / "groups" / ("memory" if version == 1 else "")
    # In a container the tree begins at its own group.
    group = root if is_container else root / "job" / "step"
    limit_group(group, version, 4 * GIB, 3 * GIB, spare=2 * GIB)
    assert both() == (3, 4)


def test_the_narrowest_of_all_groups_counts(machine):
    (machine / "cgroup").write_text("0::/job/step\n")
    limit_group(machine / "groups" / "job", 2, 6 * GIB, 5 * GIB)
    limit_group(machine / "groups" / "job" / "step", 2, "max", 1 * GIB)
    assert both() == (1, 6)


def test_a_group_that_took_more_than_it_may_leaves_nothing(machine):
    (machine / "cgroup").write_text("0::/\n")
    limit_group(machine / "groups", 2, 1 * GIB, 2 * GIB)
    assert both() == (0, 1)


def test_groups_without_a_limit(machine):
    (machine / "cgroup").write_text("4:memory:/\n0::/elsewhere\n")
    limit_group(machine / "groups" / "memory", 1, 2**63 - 4096, 5 * GIB)
    assert both() == (10, 16)
