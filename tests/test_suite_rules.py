"""The rules of the suite: the time limit on a tiny suite of one's own, the processes, the order."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import suite_rules

TINY = """
import time
import pytest
from suite_rules import counts_for_nobody

@pytest.fixture
def late():
    time.sleep(0.6)

@pytest.fixture(scope="session")
def smoke(request):
    with counts_for_nobody(request.config):
        time.sleep(0.6)

def test_quick(): pass
def test_long_call(): time.sleep(0.6)
def test_long_setup(late): pass
def test_shared(smoke): pass
def test_shared_and_late(smoke, late): pass
def test_wrong(): time.sleep(0.6); assert False
@pytest.mark.slow
def test_slow(): time.sleep(0.6)
"""


def tiny(folder, *arguments, limit="0.4"):
    """The end of what pytest says of the tiny suite under the time limit, and its exit code."""
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "test_tiny.py").write_text(TINY)
    hooks = "pytest_cmdline_main, pytest_collection_modifyitems, pytest_runtest_makereport"
    (folder / "tests" / "conftest.py").write_text(f"from suite_rules import {hooks}\n")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    here = str(Path(suite_rules.__file__).parent)
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": here,
        "KIT_TEST_LIMIT": limit,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # nbmake alone takes seconds to import
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return done.stdout, done.returncode


@pytest.mark.parametrize(
    "arguments",
    [("-p", "xdist", "-n", "2"), ("-p", "xdist", "-n", "0"), ("-p", "no:xdist")],
    ids=str,
)
def test_a_test_above_the_limit_fails_unless_it_is_slow(tmp_path, arguments):
    said, code = tiny(tmp_path, *arguments)
    assert code == 1, said
    assert "4 failed, 3 passed" in said, said
    assert "test_long_call passed, but its call took 0.6 s (limit 0.4 s)" in said
    assert "test_long_setup passed, but its setup took 0.6 s" in said
    assert "test_shared_and_late passed, but its setup took 0.6 s" in said
    assert "test_wrong passed" not in said
    assert "test_shared passed, but" not in said


def test_the_limit_can_be_raised_and_switched_off(tmp_path):
    for limit in ("30", "0"):
        said, code = tiny(tmp_path, limit=limit)
        assert code == 1, said
        assert "1 failed, 6 passed" in said, said


@pytest.mark.parametrize(
    ("arguments", "cores", "memory", "count"),
    [
        (["tests"], 2, 16, 2),
        (["tests"], 8, 16, 5),
        (["tests"], 2, 2, 1),
        (["tests"], 1, 16, 1),
        (["tests/test_a.py"], 2, 16, 1),
        (["test_a.py::one", "test_a.py::two"], 2, 16, 1),
        (["test_a.py::one", "test_b.py"], 4, 16, 2),
        (["tests", "other/test_a.py"], 2, 16, 2),
    ],
)
def test_as_many_workers_as_cores_files_and_memory_allow(arguments, cores, memory, count):
    assert suite_rules.worker_count(arguments, cores, memory * 2**30) == count


def test_the_notebooks_start_first_and_those_that_read_their_results_last():
    def item(stem, *fixtures):
        return SimpleNamespace(path=Path(f"{stem}.py"), fixturenames=fixtures)

    reads, small = item("cad/test_tables", "smoke"), item("data/test_split")
    heavy = item("training/test_train")
    form, first = item("test_notebooks"), item("test_notebooks", "smoke")
    beside = item("cad/test_tables")  # stays with the rest of its file
    items = [reads, small, beside, form, heavy, first]
    assert suite_rules.in_order(items) == [first, form, heavy, small, reads, beside]


def test_the_limit_is_half_a_minute_where_nothing_else_is_said(monkeypatch):
    monkeypatch.delenv("KIT_TEST_LIMIT", raising=False)
    assert suite_rules.limit() == 30
