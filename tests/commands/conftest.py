from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_unet3d._sample_data import sparse_annotation, tubules
from napari_unet3d.cli import main

SMALL = (
    *("--base-channels", "2", "--depth", "2", "--stem", "none"),
    *("--patch-size", "8,16,16", "--batch-size", "2", "--device", "cpu"),
    *("--precision", "float32"),
)
"""A network and patches that take a moment."""

LABELLED = ("--image", "a.tif", "--labels", "a_sparse.tif")


@dataclass(frozen=True)
class Result:
    """What a run of the program left behind."""

    status: int
    out: str
    err: str


Program = Callable[..., Result]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small volumes with sparse labels and truth, and a model trained a little."""
    folder = tmp_path_factory.mktemp("samples")
    for name, shape, seed in (("a", (16, 28, 30), 1), ("b", (14, 26, 32), 2)):
        image, truth = tubules(shape, seed)
        assert len(np.unique(truth)) == 3
        tifffile.imwrite(folder / f"{name}.tif", image)
        tifffile.imwrite(folder / f"{name}_truth.tif", truth)
        tifffile.imwrite(folder / f"{name}_sparse.tif", sparse_annotation(truth))
    pair = ("--image", str(folder / "a.tif"), "--labels", str(folder / "a_sparse.tif"))
    model = str(folder / "model.pt")
    assert main(["train", *pair, "--model", model, "--steps", "2", *SMALL]) == 0
    return folder


@pytest.fixture
def work(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterable[Path]:
    """Work in a folder of its own with a copy of the samples."""
    folder = tmp_path / "work"
    shutil.copytree(samples, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    """Run the program in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def refused(program: Program, work: Path) -> Callable[..., str]:
    """Run the program, which must refuse in one line and leave all files alone."""

    def run(*arguments: object, after: int = 0) -> str:
        before = contents(work)
        result = program(*arguments)
        lines = result.err.splitlines()
        assert result.status == 2, result
        assert len(lines) <= after + 1, lines
        assert lines[-1].startswith("napari-unet3d")
        assert contents(work) == before
        return lines[-1]

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def save(name: str, array: NDArray[Any]) -> None:
    """Write a TIFF; three or four slices are not taken for colours."""
    tifffile.imwrite(name, array, photometric="minisblack")
