"""The record of finished blocks, whole or cut short."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet3d.engine.errors import EngineError
from napari_unet3d.io.record import BlockRecord

MADE_FROM = {"model": "of weights 12ab", "probabilities": "none"}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tmp_path_factory.mktemp("record") / "seg.ome.zarr"


def begun(target, blocks=100):
    record = BlockRecord(target, MADE_FROM, blocks, 2.5e9)
    record.write()
    return record


@given(numbers=st.lists(st.integers(0, 99), unique=True), cut=st.integers(1, 3))
def test_what_was_added_is_read_however_it_ended(target, numbers, cut):
    record = begun(target)
    for number in numbers:
        record.add(number)

    found = BlockRecord.read(target)
    assert (found.made_from, found.blocks, found.memory) == (MADE_FROM, 100, 2.5e9)
    assert found.finished == set(numbers)

    # Ended while the last number was written: only that one is lost.
    whole = record.path.read_bytes()
    last = len(str(numbers[-1])) + 1 if numbers else 0
    record.path.write_bytes(whole[: len(whole) - min(cut, last)])
    found = BlockRecord.read(target)
    assert found.finished == set(numbers[:-1])
    found.add(7)
    assert BlockRecord.read(target).finished == {*numbers[:-1], 7}


def test_a_block_costs_one_line(target):
    record = begun(target, blocks=10**6)
    record.add(999_999)
    inode, size = record.path.stat().st_ino, record.path.stat().st_size

    record.add(123_456)

    assert record.path.stat().st_ino == inode
    assert record.path.stat().st_size == size + len("123456\n")


def test_a_line_that_was_not_written_whole_is_not_continued(target, monkeypatch):
    record = begun(target)
    record.add(1)
    fsync = os.fsync

    def failing(descriptor):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(EngineError, match="disk is full"):
        record.add(22)
    monkeypatch.setattr(os, "fsync", fsync)
    assert BlockRecord.read(target).finished == {1}

    record.add(3)

    # Block 22 was finished, it is only not noted before.
    assert BlockRecord.read(target).finished == {1, 22, 3}


def test_a_lost_folder_is_a_sentence(tmp_path):
    target = tmp_path / "lost" / "seg.ome.zarr"
    target.parent.mkdir()
    record = begun(target)
    record.path.unlink()
    target.parent.rmdir()

    with pytest.raises(EngineError, match=r"seg\.ome\.zarr"):
        record.add(1)


@pytest.mark.parametrize("line", ["x", "100", "-1", "1 2", "\0\0"])
def test_a_line_that_is_no_block_is_a_sentence(target, line):
    record = begun(target)
    with record.path.open("a") as file:
        file.write(f"5\n{line}\n6\n")

    with pytest.raises(EngineError, match=r"cannot be read.*begin anew with --restart"):
        BlockRecord.read(target)
