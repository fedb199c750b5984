"""The second process: its work, its words, its end; and the peak memory of work, which is that of
the work alone, however often it is measured.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kit import files, paths, processes


def work(folder, pause=0.0):
    """What the second process is asked to do in these tests."""
    files.write_json(f"{folder}/pid.json", os.getpid())
    print("working")
    time.sleep(pause)
    files.write_json(f"{folder}/done.json", {"at": folder})


def fail():
    raise ValueError("no such work")


def test_its_files_and_its_words_are_there_when_the_block_ends(tmp_path, capsys):
    with processes.running("tests.test_processes:work", folder=str(tmp_path)):
        pass
    assert files.read_json(tmp_path / "done.json") == {"at": str(tmp_path)}
    assert files.read_json(tmp_path / "pid.json") != os.getpid()
    assert capsys.readouterr().out == "working\n"


def test_its_failure_is_shown_and_does_not_stop_the_caller(capsys):
    with processes.running("tests.test_processes:fail"):
        pass
    assert "no such work" in capsys.readouterr().out


def test_an_error_here_ends_it(tmp_path):
    try:
        with processes.running(
            "tests.test_processes:work", folder=str(tmp_path), pause=60
        ) as process:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert process.poll() is not None
    assert not (tmp_path / "done.json").exists()


def test_it_ends_with_a_killed_parent(tmp_path):
    program = (
        "from kit import processes\nwith processes.running('tests.test_processes:work', "
        f"folder={str(tmp_path)!r}, pause=60): pass"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=paths.ROOT)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    child = psutil.Process(files.read_json(tmp_path / "pid.json"))
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def until_over(folder):
    """Ends only once the first process has left its block."""
    processes.over.wait(60)
    files.write_json(f"{folder}/done.json", {"left": (Path(folder) / "left").exists()})


def test_it_knows_when_the_block_has_ended(tmp_path):
    with processes.running("tests.test_processes:until_over", folder=str(tmp_path)):
        (tmp_path / "left").touch()
    assert files.read_json(tmp_path / "done.json") == {"left": True}


def test_each_piece_of_work_is_measured_by_itself():
    found = processes.peaks(
        "numpy:ones", [{"shape": [size]} for size in (40_000_000, 10_000_000, 40_000_000)]
    )
    assert found == pytest.approx([320e6, 80e6, 320e6], rel=0.1)


def test_what_fails_or_is_killed_has_no_peak_and_the_rest_has():
    found = processes.peaks("numpy:ones", [{"shape": [-1]}, {"shape": [10_000_000]}])
    assert found[0] is None
    assert found[1] > 60e6
    assert processes.peaks("os:_exit", [{"status": 9}]) == [None]
    assert processes.peaks("no_such_module:x", [{}, {}]) == [None, None]
    assert processes.peaks("numpy:ones", []) == []


def test_a_system_that_does_not_tell_gives_none(monkeypatch):
    monkeypatch.setattr(processes, "FIELDS", Path("/no/such/file"))
    assert processes.peaks("numpy:ones", [{"shape": [2]}]) == [None]


def test_on_a_gpu_the_allocator_is_asked(monkeypatch):
    import tensorflow as tf

    held = {"current": 5, "peak": 5}

    def work(size):
        if size > 99:
            raise tf.errors.ResourceExhaustedError(None, None, "too much")
        held["peak"] = held["current"] + size

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(
        tf.config.experimental,
        "reset_memory_stats",
        lambda device: held.update(peak=held["current"]),
    )
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda device: dict(held))
    monkeypatch.setattr(processes, "named", lambda function: work)
    assert processes.peaks("some:work", [{"size": 30}, {"size": 7}, {"size": 100}]) == [30, 7, None]
