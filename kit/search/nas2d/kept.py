"""Traced steps, kept for later searches of the same shapes and dropped before they fill the memory.

A graph of TensorFlow holds about a third of a megabyte for every operation on every edge and pass.
P-DARTS makes new networks in each stage of each search, whose graphs nobody calls again: at the
published size some gigabytes a search. So what is kept is bounded by a share of the memory that is
free, the graphs of the network at work are never dropped, and of the others the one longest unused
goes first.
"""

import functools
import gc
from collections.abc import Callable
from typing import Any, NamedTuple

from kit.search.nas2d import memory

SHARE = 0.1  # of the free memory


class Entry(NamedTuple):
    """A traced step: the function that made it with its arguments, its network, estimated bytes."""

    made: Any
    space: Any
    size: int


_ENTRIES: dict = {}  # (function's name, arguments) -> Entry, the one used last at the end


def by_memory(passes: Callable[..., float]) -> Callable:
    """Decorate a function that traces a step, so that equal arguments get the step made before.

    Parameters
    ----------
    passes : callable
        Arguments of the function -> forward and backward passes that its graph lays out.

    Returns
    -------
    callable
        The decorator; one of the function's arguments is a network's
        :class:`kit.search.nas2d.space.Space`, or has it as ``space``. What it returns has
        ``cache_clear()``, and ``kept()``, the number of its steps that are kept.
    """

    def decorate(function):
        name = function.__qualname__

        @functools.wraps(function)
        def remembered(*given):
            key = (name, given)
            if key in _ENTRIES:
                _ENTRIES[key] = _ENTRIES.pop(key)
            else:
                space = next(s for g in given if (s := _space(g)) is not None)
                size = round(memory.graph(space, passes(*given)))
                _make_room(space, size)
                _ENTRIES[key] = Entry(function(*given), space, size)
            return _ENTRIES[key].made

        def clear():
            for key in [key for key in _ENTRIES if key[0] == name]:
                del _ENTRIES[key]

        remembered.cache_clear = clear
        remembered.kept = lambda: sum(key[0] == name for key in _ENTRIES)
        return remembered

    return decorate


def held() -> int:
    """Bytes that all kept graphs take, estimated."""
    return sum(entry.size for entry in _ENTRIES.values())


def _space(argument):
    return argument if hasattr(argument, "family") else getattr(argument, "space", None)


def _make_room(space, size: int) -> None:
    """Drop graphs of other networks until the new one fits, the longest unused first."""
    limit, dropped = SHARE * memory.available(), False
    for key in [key for key, entry in _ENTRIES.items() if entry.space != space]:
        if held() + size <= limit:
            break
        del _ENTRIES[key]
        dropped = True
    if dropped:
        gc.collect()  # graphs refer to themselves
