"""Batches drawn ahead are those that would have been drawn in their turn."""

from __future__ import annotations

import threading

import pytest
import torch

from napari_unet3d.engine.next_batch import NextBatch
from napari_unet3d.engine.patch_plan import PatchPlan

PLAN = PatchPlan(((8, 16, 16),) * 3, 2)


class Source:
    """Remembers which threads asked for what; a batch is what was asked for."""

    def __init__(self):
        self.threads = []

    def read(self, plan, rng, ranks):
        self.threads.append(threading.current_thread())
        if plan.batch_size > 8:
            raise MemoryError("too much")
        return plan, int(rng.integers(2**31))

    def complete(self, patches, ranks):
        return patches


@pytest.fixture
def source():
    return Source()


def cuda():
    """Draw as for a GPU; none is touched."""
    return NextBatch(5, torch.device("cuda"))


def in_turn(step, plan=PLAN):
    return NextBatch(5, torch.device("cpu")).draw(Source(), plan, step)


def test_a_batch_drawn_ahead_is_that_of_its_step(source):
    batches = cuda()
    found = []
    for step in range(4):
        found.append(batches.draw(source, PLAN, step))
        with batches.ahead(source, PLAN, step + 1):
            pass
    assert found == [in_turn(step) for step in range(4)]
    mine = threading.current_thread()
    assert [thread is mine for thread in source.threads] == [True] + [False] * 4


def test_it_is_drawn_before_the_step_ends(source):
    with cuda().ahead(source, PLAN, 1):
        pass
    assert len(source.threads) == 1


@pytest.mark.parametrize("other", ["source", "plan", "step"])
def test_what_was_drawn_for_something_else_is_not_used(source, other):
    batches = cuda()
    with batches.ahead(source, PLAN, 1):
        pass
    given = {"source": source, "plan": PLAN, "step": 1}
    changed = {"source": Source(), "plan": PatchPlan(PLAN.sizes, 3), "step": 2}
    given[other] = changed[other]
    assert batches.draw(**given) == in_turn(given["step"], given["plan"])
    assert given["source"].threads[-1] is threading.current_thread()


def test_what_fails_fails_when_it_is_asked_for(source):
    batches, plan = cuda(), PatchPlan(PLAN.sizes, 9)
    with batches.ahead(source, plan, 1):
        pass
    with pytest.raises(MemoryError, match="too much"):
        batches.draw(source, plan, 1)
    assert batches.draw(source, PLAN, 1) == in_turn(1)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_others_draw_nothing_ahead(source, device):
    with NextBatch(5, torch.device(device)).ahead(source, PLAN, 1):
        pass
    assert not source.threads


def test_what_is_forgotten_is_drawn_again(source):
    batches = cuda()
    with batches.ahead(source, PLAN, 1):
        pass
    batches.forget()
    assert batches.draw(source, PLAN, 1) == in_turn(1)
    assert len(source.threads) == 2
