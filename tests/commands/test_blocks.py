"""Segmentation over several runs: ended at any moment, the same bytes in the end."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_unet3d import __version__
from napari_unet3d.commands import progress
from napari_unet3d.commands import segment as segment_command
from napari_unet3d.commands.progress import RemainingTime
from napari_unet3d.engine import load, save, segment
from napari_unet3d.engine.events import Segmented
from napari_unet3d.io import create_volume, open_image, read_labels
from napari_unet3d.io.digest import digest_of
from napari_unet3d.io.record import BlockRecord

from .conftest import contents

SHAPE = (70, 130, 80)
FILES = ("segment", "--model", "model.pt", "--image", "wide.zarr")
SMALL = ("--memory", "1e-6")
OUTPUTS = ("--output", "seg.ome.zarr", "--probabilities", "prob.ome.zarr")
BLOCKS = 6
UNFINISHED = {
    *("seg.ome.zarr.unfinished", "prob.ome.zarr.unfinished"),
    "seg.ome.zarr.unfinished.jsonl",
}
WRITE = "zarr.storage._local._put"

KILLED = """
import os, pathlib, signal, sys
from napari_unet3d.cli import main
count, when = int(sys.argv[1]), sys.argv[2]
for name in ("replace", "rename"):
    def counted(self, target, former=getattr(pathlib.Path, name)):
        global count
        count -= 1
        if count == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = former(self, target)
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(pathlib.Path, name, counted)
raise SystemExit(main(sys.argv[3:]))
"""
"""Every step that lasts is a renaming: of a chunk, of the record, of the output."""


@pytest.fixture
def wide(work):
    """Write a volume of several blocks."""
    image = np.tile(tifffile.imread("b.tif"), (5, 5, 3))[tuple(map(slice, SHAPE))]
    array = zarr.create_array("wide.zarr", data=image, chunks=(32, 32, 32))
    assert array.shape == SHAPE
    return image


@pytest.fixture
def interrupted(wide, program, monkeypatch):
    """Leave a run behind that has finished some blocks."""
    put, left = zarr.storage._local._put, [11]

    def limited(path, *arguments, **options):
        if "unfinished" in str(path) and "c" in path.parts:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(WRITE, limited)
        result = program(*FILES, *OUTPUTS, *SMALL)
    assert result.status == 2
    return result.err


def files_of(*names):
    return {name: contents(Path(name)) for name in names}


def interrupt_after_a_block(monkeypatch):
    add = BlockRecord.add

    def interrupting(self, block):
        add(self, block)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(BlockRecord, "add", interrupting)


def test_blocks_give_what_the_whole_gives(wide, program):
    assert program(*FILES, *OUTPUTS, *SMALL).status == 0
    whole = segment(load("model.pt"), wide, probabilities=True)
    np.testing.assert_array_equal(read_labels("seg.ome.zarr").data, whole.labels)
    shares = open_image("prob.ome.zarr").data[...].astype(int)
    np.testing.assert_allclose(shares, whole.probabilities.astype(int), atol=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_at_any_moment_it_ends_with_the_same_bytes(wide, work, program):
    assert program(*FILES, *OUTPUTS, *SMALL).status == 0
    expected = files_of("seg.ome.zarr", "prob.ome.zarr")
    for name in expected:
        shutil.rmtree(name)
    before = set(os.listdir())
    command = [sys.executable, "-c", KILLED]
    arguments = [*FILES, *OUTPUTS, *SMALL]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Among the first metadata, chunks, records, and the last two renamings
    moments = [(2, "before"), (7, "before"), (14, "after"), (9, "before")]
    moments += [(12, "before"), (6, "before")]
    ended = []
    while moments:
        count, when = moments.pop(0)
        done = subprocess.run(
            [*command, str(count), when, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        ended.append(done.returncode)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not os.path.exists("seg.ome.zarr")
    assert len(ended) > 4
    if ended[-1]:
        assert program(*arguments).status == 0
    assert files_of(*expected) == expected
    assert set(os.listdir()) == before | set(expected)


@pytest.mark.parametrize("moved", [1, 2])
def test_ended_between_the_last_renamings(moved, wide, work, program, monkeypatch):
    from napari_unet3d.io.unfinished import UnfinishedVolume

    (work / "seg.ome.zarr").mkdir()
    assert program(*FILES, "--output", "other.zarr", *SMALL).status == 0
    left, finish = [moved], UnfinishedVolume.finish

    def ended(self):
        finish(self)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(UnfinishedVolume, "finish", ended)
    result = program(*FILES, *OUTPUTS, *SMALL)
    assert result.status == 130
    assert "6 of 6 blocks are finished; repeat the command to go on" in result.err
    monkeypatch.undo()
    monkeypatch.chdir(work)
    assert program(*FILES, *OUTPUTS, *SMALL).status == 0
    assert not UNFINISHED & set(os.listdir())
    assert contents(work / "seg.ome.zarr") == contents(work / "other.zarr")
    assert open_image("prob.ome.zarr").data.shape == (3, *SHAPE)


def test_no_chunk_is_written_twice(wide, program, monkeypatch):
    written = []
    put = zarr.storage._local._put

    def noted(path, *arguments, **options):
        written.append(str(path))
        return put(path, *arguments, **options)

    monkeypatch.setattr(WRITE, noted)
    assert program(*FILES, *OUTPUTS, *SMALL).status == 0
    chunks = [path for path in written if "/c/" in path]
    assert len(chunks) >= 12
    assert len(set(chunks)) == len(chunks)


def test_a_full_disk_keeps_what_is_finished(interrupted, wide, work, program):
    line = interrupted.splitlines()[-1]
    assert "The disk is full: " in line
    assert "of 6 blocks are finished; repeat the command to go on" in line
    assert set(os.listdir()) >= UNFINISHED
    record = BlockRecord.read(work / "seg.ome.zarr")
    assert 0 < len(record.finished) < record.blocks == BLOCKS
    result = program(*FILES, *OUTPUTS, *SMALL)
    assert result.status == 0
    assert f"going on after {len(record.finished)} of 6 blocks" in result.err
    assert not UNFINISHED & set(os.listdir())
    whole = segment(load("model.pt"), wide).labels
    np.testing.assert_array_equal(read_labels("seg.ome.zarr").data, whole)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_nothing_is_kept_where_no_block_is_finished(
    error, wide, work, program, monkeypatch
):
    def failing(*_):
        raise error

    before = contents(work)
    monkeypatch.setattr("zarr.Array.__setitem__", failing)
    assert program(*FILES, *OUTPUTS, *SMALL).status in (2, 130)
    assert contents(work) == before


def test_an_interrupt_keeps_what_is_finished(wide, work, program, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_after_a_block(patched)
        result = program(*FILES, *OUTPUTS, *SMALL)
    assert result.status == 130
    assert "1 of 6 blocks are finished; repeat the command to go on" in result.err
    assert program(*FILES, *OUTPUTS, *SMALL).status == 0


def other_model():
    checkpoint = load("model.pt")
    checkpoint.class_names = ("a", "b", "c")
    save(checkpoint, "model.pt")


def other_image():
    zarr.open_array("wide.zarr", mode="r+")[:3] = 200


def mirrored_image():
    array = zarr.open_array("wide.zarr", mode="r+")
    array[:] = array[:][::-1]


@pytest.mark.parametrize(
    ("change", "more", "named"),
    [
        (mirrored_image, (), "image of 1×70×130×80 uint8 with mean "),
        (other_model, (), r"model of SHA-256 "),
        (other_image, (), "image of 1×70×130×80 uint8 with mean "),
        (None, ("--weights", "latest"), "weights best instead of latest"),
        (None, ("--memory", "2e-6"), "memory 1e-06 GiB instead of 2e-06 GiB"),
        (None, ("--region", ":,:,0:9"), "region none instead of :,:,0:9"),
        (None, ("--skip-below", "3"), "skip-below none instead of 3"),
    ],
)
def test_a_run_of_something_else_is_not_gone_on_with(
    change, more, named, interrupted, wide, program, refused
):
    if change:
        change()
    line = refused(*FILES, *OUTPUTS, *SMALL, *more)
    assert named in line
    assert "seg.ome.zarr.unfinished.jsonl is of an unfinished run with " in line
    assert "or --restart to begin anew" in line
    assert program(*FILES, *OUTPUTS, *SMALL, *more, "--restart").status == 0
    assert not UNFINISHED & set(os.listdir())


def test_the_record_names_the_model_that_was_loaded(wide, work, program, monkeypatch):
    digest = digest_of(work / "model.pt")
    opened = segment_command.open_image

    def meanwhile(*arguments, **options):
        other_model()
        return opened(*arguments, **options)

    interrupt_after_a_block(monkeypatch)
    monkeypatch.setattr(segment_command, "open_image", meanwhile)
    assert program(*FILES, *OUTPUTS, *SMALL).status == 130
    record = BlockRecord.read(work / "seg.ome.zarr")
    assert record.made_from["model"] == f"of SHA-256 {digest[:16]}"
    assert digest_of(work / "model.pt") != digest


def test_another_version_does_not_go_on(interrupted, refused, monkeypatch):
    monkeypatch.setattr("napari_unet3d.commands.origin.__version__", "9.8")
    line = refused(*FILES, *OUTPUTS, *SMALL)
    assert f"unfinished run with napari-unet3d {__version__} instead of 9.8; g" in line


def test_a_mask_whose_chunks_are_written_again_is_another(
    wide, program, refused, monkeypatch
):
    zarr.create_array("mask.zarr", data=np.ones(SHAPE, np.uint8), chunks=(32,) * 3)
    masked = (*FILES, *OUTPUTS, *SMALL, "--mask", "mask.zarr")
    with monkeypatch.context() as patched:
        interrupt_after_a_block(patched)
        assert program(*masked).status == 130
    zarr.open_array("mask.zarr", mode="r+")[:9] = 2
    line = refused(*masked)
    # 3 × 5 × 3 chunks and what describes them
    assert line.count("mask.zarr of 46 files until 20") == 2
    assert program(*masked, "--restart").status == 0


def test_an_unfinished_output_that_cannot_be_removed_is_a_sentence(
    interrupted, refused, monkeypatch
):
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith(".unfinished"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    line = refused(*FILES, *OUTPUTS, *SMALL, "--restart")
    assert "seg.ome.zarr.unfinished cannot be removed (" in line


def test_memory_need_not_be_said_again(interrupted, wide, program):
    assert program(*FILES, *OUTPUTS).status == 0
    whole = segment(load("model.pt"), wide).labels
    np.testing.assert_array_equal(read_labels("seg.ome.zarr").data, whole)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": null, "blocks": "x"}']
)
def test_a_damaged_record_is_a_sentence(text, interrupted, work, program, refused):
    (work / "seg.ome.zarr.unfinished.jsonl").write_text(text)
    line = refused(*FILES, *OUTPUTS, *SMALL)
    assert "seg.ome.zarr.unfinished.jsonl cannot be read as JSON" in line
    assert "--restart" in line
    assert program(*FILES, *OUTPUTS, *SMALL, "--restart").status == 0


def test_a_damaged_output_is_a_sentence(interrupted, work, refused, program):
    (work / "seg.ome.zarr.unfinished/0/zarr.json").write_text("{")
    line = refused(*FILES, *OUTPUTS)
    assert "seg.ome.zarr.unfinished is damaged; begin anew with --restart" in line
    assert "repeat the command" not in line
    assert program(*FILES, *OUTPUTS, *SMALL, "--restart").status == 0


def test_an_unfinished_output_that_is_gone_is_begun_anew(interrupted, work, program):
    shutil.rmtree("seg.ome.zarr.unfinished")
    result = program(*FILES, *OUTPUTS, *SMALL)
    assert result.status == 0
    assert "the unfinished output is gone; beginning anew" in result.err


@pytest.mark.parametrize("lost", ["wide.zarr", "mask.zarr", "prob.ome.zarr.unfinished"])
def test_a_lost_disk_is_a_sentence(lost, wide, work, program, monkeypatch):
    from napari_unet3d.commands import blocks

    segment_all = blocks.segment_all
    zarr.create_array("mask.zarr", data=np.ones(SHAPE, np.uint8))
    masked = (*FILES, *OUTPUTS, *SMALL, "--mask", "mask.zarr")

    def losing(*arguments, **options):
        for number in segment_all(*arguments, **options):
            if number == 2 and os.path.exists(lost):
                os.rename(lost, "lost")
            yield number

    with monkeypatch.context() as patched:
        patched.setattr(blocks, "segment_all", losing)
        result = program(*masked)
    assert result.status == 2
    assert lost in result.err
    assert "2 of 6 blocks are finished" in result.err
    shutil.rmtree(lost, ignore_errors=True)
    os.rename("lost", lost)
    assert program(*masked).status == 0
    whole = segment(load("model.pt"), wide).labels
    np.testing.assert_array_equal(read_labels("seg.ome.zarr").data, whole)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_runs_do_not_write_the_same(interrupted, wide, program, refused):
    import fcntl

    descriptor = os.open("seg.ome.zarr.unfinished", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    for more in ((), ("--restart",)):
        line = refused(*FILES, *OUTPUTS, *SMALL, *more, after=9)
        assert "is being written by another run; wait for its end" in line
    os.close(descriptor)
    assert program(*FILES, *OUTPUTS, *SMALL).status == 0


@pytest.mark.parametrize("output", ["part.ome.zarr", "part.tif"])
def test_a_region_of_the_volume(output, wide, program):
    region = ("--region", "10:69, 3:65,:40")
    assert program(*FILES, "--output", output, *SMALL, *region).status == 0
    wanted = np.zeros(SHAPE, np.uint8)
    box = (slice(10, 69), slice(3, 65), slice(40))
    wanted[box] = segment(load("model.pt"), wide).labels[box]
    np.testing.assert_array_equal(read_labels(output).data, wanted)


@pytest.mark.parametrize("output", ["part.ome.zarr", "part.tif"])
@pytest.mark.parametrize("name", ["mask.tif", "mask.zarr"])
def test_only_where_a_mask_is_set(name, output, wide, program):
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:60, 100:128, 30:70] = 9
    if name == "mask.tif":
        tifffile.imwrite(name, mask)
    else:
        zarr.create_array(name, data=mask)
    assert program(*FILES, "--output", output, *SMALL, "--mask", name).status == 0
    whole = segment(load("model.pt"), wide).labels
    np.testing.assert_array_equal(read_labels(output).data, whole * (mask > 0))


def test_axes_are_not_for_a_mask_that_names_its_own(wide, program):
    zarr.create_array("turned.zarr", data=wide.T.copy(), chunks=(32, 32, 32))
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:60, 100:128, 30:70] = 1
    with create_volume("mask.zarr", SHAPE, "uint8") as array:
        array[:] = mask
    files = ("segment", "--model", "model.pt", "--image", "turned.zarr")
    more = ("--axes", "XYZ", "--mask", "mask.zarr", "--output", "part.zarr")
    result = program(*files, *more, *SMALL)
    assert result.status == 0, result.err
    whole = segment(load("model.pt"), wide).labels
    np.testing.assert_array_equal(read_labels("part.zarr").data, whole * mask)


def test_dark_chunks_are_skipped(wide, program):
    array = zarr.open_array("wide.zarr", mode="r+")
    array[:64, :64, :64] = 0
    whole = segment(load("model.pt"), array[...]).labels
    whole[:64, :64, :64] = 1
    assert wide[64:].max() > 1
    skipping = (*FILES, "--output", "part.zarr", *SMALL, "--skip-below", "1")
    assert program(*skipping).status == 0
    np.testing.assert_array_equal(read_labels("part.zarr").data, whole)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--region", "1:2,3:4"), "--region is not understood, got '1:2,3:4'; give a"),
        (("--region", "a:2,3:4,:"), "--region is not understood"),
        (("--region", "-1:2,3:4,:"), "--region"),
        (("--region", "0:71,:,:"), "region 0:71 along z is empty or outside the volu"),
        (("--region", ":,9:9,:"), "region 9:9 along y is empty or outside the volume"),
        (("--skip-below", "dark"), "--skip-below must be a number, got 'dark'"),
        (("--skip-below", "nan"), "--skip-below must be a number, got 'nan'"),
        (("--mask", "none.tif"), "none.tif does not exist"),
        (("--mask", "b.tif"), "the mask has shape (14, 26, 32) but the image has"),
    ],
)
def test_selections_that_do_not_fit(arguments, sentence, wide, refused):
    assert sentence in refused(*FILES, "--output", "seg.zarr", *arguments)
    assert sentence in refused(*FILES, "--output", "seg.tif", *arguments)


def test_time_left_counts_from_where_it_went_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    report = RemainingTime(0.5, stream)
    region = ((0, 1), (0, 1), (0, 1))
    for share in (0.6, 0.7, 1.0):
        now[0] += 30
        report(Segmented(region, share))
    assert stream.getvalue().splitlines() == [
        "segmented  60%, 2:00 min left",
        "segmented  70%, 1:30 min left",
        "segmented 100%",
    ]
