from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from npe2 import PluginManifest

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "napari_unet3d" / "napari.yaml"


def named_commands(contributions: Any) -> Iterator[str]:
    """Yield every `command: ...` at any depth (npe2 does not check that it exists)."""
    if isinstance(contributions, dict):
        if "command" in contributions:
            yield contributions["command"]
        contributions = list(contributions.values())
    if isinstance(contributions, list):
        for item in contributions:
            yield from named_commands(item)


def test_both_manifests_are_the_same():
    assert (ROOT / "napari.yaml").read_bytes() == MANIFEST.read_bytes()


def test_contributions_name_declared_commands():
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    contributions = manifest["contributions"]
    declared = {command["id"] for command in contributions.get("commands", [])}
    assert set(named_commands(contributions)) <= declared


def test_named_commands_are_found_at_any_depth():
    contributions = {
        "widgets": [{"command": "a", "display_name": "A"}],
        "menus": {"napari/layers/segment": [{"command": "b"}]},
    }
    assert list(named_commands(contributions)) == ["a", "b"]


def test_manifest_is_valid_and_its_python_names_import():
    PluginManifest.from_file(MANIFEST).validate_imports()


def test_napari_finds_the_manifest_of_the_installed_package():
    (entry_point,) = entry_points(group="napari.manifest", name="napari-unet3d")
    assert entry_point.value == "napari_unet3d:napari.yaml"
    assert PluginManifest.from_distribution("napari-unet3d").display_name == "3D U-Net"
