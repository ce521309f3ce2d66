"""An unfinished output is either there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.unfinished import UnfinishedVolume

SHAPE = (8, 9, 10)


@pytest.fixture
def volume(tmp_path):
    volume = UnfinishedVolume(tmp_path / "seg.zarr", SHAPE, "uint8")
    volume.begin()[:] = 1
    volume.close()
    return volume


def test_what_is_discarded_is_gone(volume, tmp_path):
    volume.discard()
    assert list(tmp_path.iterdir()) == []
    volume.discard()


def test_what_is_discarded_in_part_does_not_pass_for_the_whole(
    volume, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(
            EngineError, match=r"seg.zarr.unfinished.removed cannot be removed; remove"
        ):
            volume.discard()
    assert not volume.is_there
    assert not volume.begin()[:].any()
    volume.close()
    assert [path.name for path in tmp_path.iterdir()] == ["seg.zarr.unfinished"]


def test_what_cannot_be_discarded_is_a_sentence(volume, monkeypatch):
    def refused(self, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(
        EngineError, match=r"seg.zarr.unfinished cannot be removed \(.* busy\); remove"
    ):
        volume.discard()
    assert volume.join()[:].all()
    volume.close()
