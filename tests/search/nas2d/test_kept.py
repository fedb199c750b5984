"""What is kept of traced steps: bounded by memory, never at the cost of the network at work."""

import gc
import weakref

import pytest

from kit.search.nas2d import kept, memory, supernet

STAGES = [
    supernet.Space("pdarts", 16, 17, normal=cell, reduce=cell)
    for first in (1, 2, 3)
    for cell in [((first, 4, 6),) * 14]
]


class Step:
    """Stands for a traced step; can be watched."""


@pytest.fixture
def trace(monkeypatch):
    """Functions that trace a step of a network, in place of all that is kept."""
    monkeypatch.setattr(kept, "_ENTRIES", {})

    @kept.by_memory(lambda space: 8)
    def step(space):
        return Step()

    @kept.by_memory(lambda space, size: 2)
    def network(space, size):
        return Step()

    return step, network


def test_the_graphs_of_a_published_pdarts_search_stay_within_their_share(trace, monkeypatch):
    """By number, 24 of them, they came to about 11 GB."""
    step, network = trace
    free = 8 * 2**30
    monkeypatch.setattr(memory, "available", lambda: free)
    one = memory.graph(STAGES[0], 8)
    assert 24 * one > free
    first = weakref.ref(step(STAGES[0]))
    for space in STAGES:
        made = network(space, 64)
        assert step(space) is step(space)
        assert network(space, 64) is made  # what is at work is not dropped for its own next step
        assert kept.held() <= max(kept.SHARE * free, memory.graph(space, 10))
    gc.collect()
    assert first() is None


def test_without_want_of_memory_equal_steps_are_made_once(trace, monkeypatch):
    step, network = trace
    monkeypatch.setattr(memory, "available", lambda: 2**40)
    made = [step(space) for space in STAGES]
    assert [step(space) for space in STAGES] == made
    assert step.kept() == 3
    network(STAGES[0], 64)
    step.cache_clear()
    assert step.kept() == 0
    assert network.kept() == 1
    assert step(STAGES[0]) is not made[0]


def test_the_longest_unused_goes_first(trace, monkeypatch):
    step, _ = trace
    size = memory.graph(STAGES[0], 8)
    monkeypatch.setattr(memory, "available", lambda: 2.5 * size / kept.SHARE)
    first, second = step(STAGES[0]), step(STAGES[1])
    assert step(STAGES[0]) is first
    step(STAGES[2])
    assert step(STAGES[0]) is first
    assert step(STAGES[1]) is not second
