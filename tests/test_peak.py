"""Peak memory is that of the work alone, however often it is measured."""

import pytest

from kit import compat, peak


def test_each_piece_of_work_is_measured_by_itself():
    found = peak.of_each(
        "numpy:ones", [{"shape": [size]} for size in (40_000_000, 10_000_000, 40_000_000)]
    )
    assert found == pytest.approx([320e6, 80e6, 320e6], rel=0.1)


def test_what_fails_or_is_killed_has_no_peak_and_the_rest_has():
    found = peak.of_each("numpy:ones", [{"shape": [-1]}, {"shape": [10_000_000]}])
    assert found[0] is None
    assert found[1] > 60e6
    assert peak.of_each("os:_exit", [{"status": 9}]) == [None]
    assert peak.of_each("no_such_module:x", [{}, {}]) == [None, None]
    assert peak.of_each("numpy:ones", []) == []


def test_a_system_that_does_not_tell_gives_none(monkeypatch):
    monkeypatch.setattr(peak, "FIELDS", "/no/such/file")
    assert peak.of_each("numpy:ones", [{"shape": [2]}]) == [None]


def test_on_a_gpu_the_allocator_is_asked(monkeypatch):
    import tensorflow as tf

    held = {"current": 5, "peak": 5}

    def work(size):
        if size > 99:
            raise tf.errors.ResourceExhaustedError(None, None, "too much")
        held["peak"] = held["current"] + size

    monkeypatch.setattr(compat, "use_xla", lambda: True)
    monkeypatch.setattr(
        tf.config.experimental,
        "reset_memory_stats",
        lambda device: held.update(peak=held["current"]),
    )
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda device: dict(held))
    monkeypatch.setattr(peak.beside, "named", lambda function: work)
    assert peak.of_each("some:work", [{"size": 30}, {"size": 7}, {"size": 100}]) == [30, 7, None]
