from __future__ import annotations

import os
import threading
from io import FileIO

import numpy as np
import pytest

from napari_unet3d.worker.channel import Channel


@pytest.fixture
def channels():
    there, here = os.pipe(), os.pipe()
    ends = [Channel(FileIO(there[0]), FileIO(here[1], "w"))]
    ends.append(Channel(FileIO(here[0]), FileIO(there[1], "w")))
    yield ends
    for end in ends:
        end.close()


def test_objects_arrive_in_order_from_many_threads(channels):
    one, other = channels
    large = np.arange(3_000_000)

    def send(number):
        for k in range(20):
            one.send((number, k, large[: 1000 * k]))
        one.send((number, 20, large))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    received = [other.receive() for _ in range(63)]
    for thread in threads:
        thread.join()

    for number in range(3):
        mine = [content for content in received if content[0] == number]
        assert [k for _, k, _ in mine] == list(range(21))
        np.testing.assert_array_equal(mine[-1][2], large)


def test_the_end_is_noticed(channels):
    one, other = channels
    one.close()

    with pytest.raises(EOFError):
        other.receive()
    with pytest.raises(BrokenPipeError):
        other.send("anybody there?")
