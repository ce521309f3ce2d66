"""What a worker does, in this process."""

from __future__ import annotations

import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from napari_unet3d.distributed import block_task
from napari_unet3d.distributed.block_task import Job, Stopped, begun_at
from napari_unet3d.engine.config import SegmentationConfig
from napari_unet3d.engine.errors import EngineError
from napari_unet3d.engine.normalize import IntensityStatistics
from napari_unet3d.io.digest import digest_of
from napari_unet3d.io.unfinished import UnfinishedVolume

SHAPE = (8, 9, 10)


@pytest.fixture
def volume(tmp_path):
    volume = UnfinishedVolume(tmp_path / "seg.zarr", SHAPE, "uint8")
    volume.begin()
    yield volume
    volume.close()


@pytest.fixture
def job(tmp_path, volume):
    zarr.create_array(tmp_path / "image.zarr", data=np.zeros(SHAPE, np.uint8))
    (tmp_path / "model.pt").write_bytes(b"model")
    return Job(
        name="run",
        model=str(tmp_path / "model.pt"),
        digest=digest_of(tmp_path / "model.pt"),
        image=str(tmp_path / "image.zarr"),
        shape=(1, *SHAPE),
        axes=None,
        channels=None,
        statistics=IntensityStatistics((0.0,), (1.0,)),
        outputs=((str(volume.target), SHAPE),),
        begun=(begun_at(volume),),
        config=SegmentationConfig(),
        devices=("cuda:0", "cuda:1"),
        threads=1,
    )


def test_a_job_is_small_and_travels(job):
    sent = pickle.dumps(job)
    assert len(sent) < 2000
    assert pickle.loads(sent) == job
    assert hash(pickle.loads(sent)) == hash(job)


def test_workers_of_a_local_cluster_take_turns_in_the_devices(job):
    taken = [block_task._device_of(job, name) for name in (0, 1, 2, "tcp://a:1")]
    assert taken == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]


def test_trouble_is_told_before_the_work(job, volume, tmp_path):
    def trouble(**changes):
        return block_task._trouble_with(Job(**{**vars(job), **changes}))

    before = sorted(os.listdir(volume.folder))
    assert trouble() is None
    assert sorted(os.listdir(volume.folder)) == before
    assert "model.pt is another model there" in trouble(digest="0")
    assert "No such file or directory" in trouble(model=str(tmp_path / "none.pt"))
    assert "none.zarr does not exist" in trouble(image=str(tmp_path / "none.zarr"))
    assert "has shape (1, 8, 9, 10), but " in trouble(shape=(1, 8, 9, 11))
    assert "seg.zarr.unfinished is another folder there" in trouble(begun=(0,))
    there_is_none = ((str(tmp_path / "none" / "seg.zarr"), SHAPE),)
    assert "there is no folder " in trouble(outputs=there_is_none)


def test_an_output_is_written_only_as_long_as_its_block_is_wanted(volume):
    task = SimpleNamespace(state="executing")
    worker = SimpleNamespace(state=SimpleNamespace(tasks={"key": task}))
    joined = UnfinishedVolume(volume.target, SHAPE, "uint8")
    array = joined.join()
    begun = begun_at(volume)
    wanted = block_task._WantedArray(worker, "key", joined, array, begun)
    wanted[:4] = 1
    assert array[:].sum() == 4 * 9 * 10
    task.state = "cancelled"
    with pytest.raises(Stopped, match="the run was stopped"):
        wanted[4:] = 1
    worker.state.tasks.clear()
    with pytest.raises(Stopped, match="the run was stopped"):
        wanted[4:] = 1
    worker.state.tasks["key"] = SimpleNamespace(state="executing")
    os.utime(volume.folder / "0" / "zarr.json", ns=(begun + 1, begun + 1))
    with pytest.raises(Stopped, match="belongs to another run"):
        wanted[4:] = 1
    volume.discard()
    with pytest.raises(EngineError, match="is gone; see whether its disk"):
        wanted[4:] = 1
    assert not volume.folder.exists()
