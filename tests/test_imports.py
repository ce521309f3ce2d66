"""What importing a part of the package must not bring in, each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
if sys.argv[2] == "with submodules":
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(*sys.modules)
"""


def modules_after_importing(name: str, submodules: str = "alone") -> set[str]:
    process = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, name, submodules],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return set(process.stdout.split())


@pytest.mark.parametrize("unwanted", ["torch", "napari", "qtpy", "numpy"])
def test_the_package_costs_nothing(unwanted):
    assert unwanted not in modules_after_importing("napari_unet3d")


def test_the_engine_knows_no_viewer_no_file_format_and_no_worker():
    loaded = modules_after_importing("napari_unet3d.engine", "with submodules")
    assert "torch" in loaded
    assert not loaded & {
        "h5py",
        "magicgui",
        "napari",
        "napari_unet3d.io",
        "napari_unet3d.worker",
        "nibabel",
        "qtpy",
        "superqt",
        "tifffile",
        "zarr",
    }


def test_a_network_that_is_only_compared_with_does_not_load_a_compiler():
    code = (
        "import sys, torch; from napari_unet3d.engine.unet import UNet3D\n"
        "with torch.device('meta'): UNet3D(1, 2, 4)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert process.stdout.strip() == "False", process.stderr


@pytest.mark.parametrize("settled", [{}, {"GOMP_SPINCOUNT": "7"}])
def test_the_command_line_settles_how_threads_wait_before_torch_is_loaded(settled):
    code = (
        "import os, sys; from napari_unet3d import cli; loaded = 'torch' in sys.modules"
        "; cli.main(['--version']); print(loaded, os.environ['GOMP_SPINCOUNT'])"
    )
    others = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=others | settled,
    )
    wanted = settled.get("GOMP_SPINCOUNT", "2000")
    assert process.stdout.splitlines()[-1] == f"False {wanted}"
