from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from napari_unet3d.engine import EngineError
from napari_unet3d.worker import shared
from napari_unet3d.worker.images import share_image
from napari_unet3d.worker.shared import SharedArray

pytestmark = pytest.mark.timeout(60)

USE = """
import sys
import numpy as np
from napari_unet3d.worker.shared import SharedArray
array = SharedArray.create((3, 4, 5), np.int16)
array.array[:] = 7
view = array.array[1:]
print(array.reference.name, flush=True)
if sys.argv[1] == "closed":
    array.close()
elif sys.argv[1] == "killed":
    input()
"""
ATTACH = """
import sys
from napari_unet3d.worker.shared import ArrayReference, SharedArray
found = SharedArray.attach(ArrayReference("memory", sys.argv[1], (3, 4), "<f4"))
found.array[:] += 1
found.close()
"""


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_two_processes_see_the_same_array(shared_memory_names):
    array = SharedArray.create((3, 4), np.float32)
    array.array[:] = np.arange(12).reshape(3, 4)

    for _ in range(2):
        finished = run(ATTACH, array.reference.name)
        assert (finished.returncode, finished.stderr) == (0, "")

    np.testing.assert_array_equal(array.array, np.arange(12).reshape(3, 4) + 2)
    assert array.reference.name in shared_memory_names()
    array.close()
    array.close()
    assert array.reference.name not in shared_memory_names()


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_nothing_is_left_and_nothing_said_at_the_end(how, shared_memory_names):
    finished = run(USE, how)

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.strip() not in shared_memory_names()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_nothing_is_left_of_a_program_that_was_killed(shared_memory_names):
    with subprocess.Popen(
        [sys.executable, "-c", USE, "killed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        name = process.stdout.readline().strip()
        assert name in shared_memory_names()
        process.send_signal(signal.SIGKILL)
        process.wait()

    end = time.monotonic() + 5
    while name in shared_memory_names() and time.monotonic() < end:
        time.sleep(0.05)
    assert name not in shared_memory_names()


def test_views_outlive_the_name():
    array = SharedArray.create((100, 100), np.uint8)
    array.array[:] = 5
    view = array.array[10:20]

    array.close()
    del array
    gc.collect()

    assert (view == 5).all()
    view[:] = 6
    assert (view == 6).all()


def test_an_array_that_is_gone_gives_a_sentence():
    array = SharedArray.create((2, 2), np.uint8)
    reference = array.reference
    array.close()
    del array

    with pytest.raises(EngineError, match="cannot be opened"):
        SharedArray.attach(reference)


def test_a_file_takes_the_place_of_memory_that_is_short(monkeypatch, tmp_path):
    def full(size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared, "_new_memory", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = SharedArray.create((4, 5), np.uint16)
    array.array[:] = 9

    assert array.reference.kind == "file"
    other = SharedArray.attach(array.reference)
    other.array[0] = 3
    assert (array.array[0] == 3).all()
    other.close()
    assert len(list(tmp_path.iterdir())) == 1
    array.close()
    assert not list(tmp_path.iterdir())


def test_no_room_anywhere_gives_a_sentence(monkeypatch, tmp_path):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared, "_new_memory", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("napari_unet3d.io.mapped.reserve", full)

    with pytest.raises(EngineError, match="there is no room"):
        SharedArray.create((4, 5), np.uint16)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/shm")
def test_shared_memory_that_is_short_is_noticed_before_it_is_used(shared_memory_names):
    before = shared_memory_names()

    with pytest.raises(OSError, match=r"No space|too large|allocate"):
        shared._new_memory(2**50)

    assert shared_memory_names() == before


@pytest.mark.parametrize("dtype", [">u2", "float64", "bool", "int8"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 5, 6, 7)])
def test_an_image_is_shared_as_it_is(shape, dtype):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2, shape).astype(dtype)
    told = []

    array = share_image(image, told.append)

    assert array.array.ndim == 4
    np.testing.assert_array_equal(array.array, image.reshape(array.array.shape))
    assert array.array.dtype.isnative
    assert told[-1] == 1
    array.close()


def test_an_image_is_read_in_slabs(monkeypatch):
    monkeypatch.setattr("napari_unet3d.worker.images.SLAB", 100)
    told, keys = [], []

    class Lazy:
        shape, dtype = (7, 5, 6), np.dtype(np.uint8)

        def __getitem__(self, key):
            keys.append(key)
            return np.full(self.shape, 4, np.uint8)[key]

    array = share_image(Lazy(), told.append)

    assert len(keys) == len(told) == 3
    assert (array.array == 4).all()
    array.close()


@pytest.mark.parametrize("offset", [0, 128])
def test_a_mapped_file_is_not_copied(tmp_path, offset, shared_memory_names):
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(offset) + np.arange(60, dtype=np.uint8).tobytes())
    image = np.memmap(path, np.uint8, "r", offset, (3, 4, 5))
    before = shared_memory_names()

    array = share_image(image)

    assert shared_memory_names() == before
    assert array.reference.kind == "file"
    other = SharedArray.attach(array.reference)
    np.testing.assert_array_equal(other.array[0], image)
    array.close()
    assert path.exists()


@pytest.mark.parametrize(
    ("mode", "part"),
    [("r", np.s_[1:]), ("r", np.s_[:, ::-1]), ("c", np.s_[...])],
    ids=["part", "mirrored", "changed in memory only"],
)
def test_what_is_not_the_whole_file_is_copied(tmp_path, mode, part):
    path = tmp_path / "image.raw"
    path.write_bytes(np.arange(60, dtype=np.uint8).tobytes())
    whole = np.memmap(path, np.uint8, mode, shape=(3, 4, 5))
    image = whole if part is Ellipsis else whole[part]

    array = share_image(image)

    assert array.reference.kind == "memory"
    np.testing.assert_array_equal(array.array[0], image)
    array.close()
