from __future__ import annotations

import time

import pytest
import torch

from napari_unet3d.worker import courtesy
from napari_unet3d.worker.courtesy import Courteous


@pytest.fixture
def made(monkeypatch):
    """Return a function that makes one for a number of threads, and the counts set."""
    counts = []
    monkeypatch.setattr(courtesy, "set_threads", counts.append)

    def make(threads):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return Courteous(time.sleep), counts

    return make


def waited(courteous, **options):
    began = time.monotonic()
    courteous.wait(lambda: False, **options)
    return time.monotonic() - began


def test_work_goes_on_with_fewer_threads_where_there_are_several(made):
    courteous, counts = made(4)
    courteous.extend(60)
    assert waited(courteous) < 1
    assert counts == [3]


@pytest.mark.parametrize(("threads", "slower"), [(1, True), (4, False)])
def test_it_waits_where_no_thread_can_be_left(threads, slower, made, monkeypatch):
    monkeypatch.setattr(courtesy, "LONGEST", 0.4)
    courteous, counts = made(threads)
    courteous.extend(60)
    assert waited(courteous, slower=slower) >= 0.4
    assert counts == [threads]


def test_nobody_is_waited_for_who_does_nothing(made):
    courteous, _ = made(1)
    assert waited(courteous) < 0.2


def test_processes_share_the_threads(made):
    courteous, counts = made(4)
    courteous.begin(2)
    assert courteous.threads.most == 2
    courteous.begin(100)
    assert counts[-1] == courteous.threads.most == 1
    courteous.begin()
    assert courteous.threads.most == 4
