"""How the suite is run: on how many processes, in which order, and how long a test may take.

`conftest` takes the hooks from here.
"""

import contextlib
import os
import time
from pathlib import Path

import psutil
import pytest

SHARED = "smoke"  # the session fixture that runs the notebooks; its time is nobody's in particular
ONE_WORKER = 3 * 2**30  # bytes of memory that a worker with TensorFlow may need
LIMIT = 30.0  # seconds a test may take, setup and call each
SMOKE_TIMEOUT = 2400  # seconds after which pytest-timeout ends a test that waits for the notebooks
# files that take longest, the longest first: what starts late and takes long leaves the others idle
HEAVY = (
    "test_notebooks",
    "training/test_train",
    "pbcnas/test_runs",
    "cad/test_tables",
    "cad/test_runs",
    "astrocytes/test_runs",
    "lease/test_runs",
    "gencnn/test_runs",
    "gensoup/test_runs",
    "models/test_ported_weights",
    "models/test_saved",
    "nas2d/test_search",
    "nas2d/test_lease",
    "serving/test_classifier",
    "evolution/test_tuner",
    "evolution/test_soup",
    "training/test_optimizers",
    "models/test_backbones",
    "test_runner",
    "test_app",
    "report/test_page",
    "test_data_prep",
)


def limit() -> float:
    """Seconds that the setup and the call of a test may take each: KIT_TEST_LIMIT, 0 for any."""
    return float(os.environ.get("KIT_TEST_LIMIT", LIMIT))


@contextlib.contextmanager
def counts_for_nobody(config):
    """Note how long the block took, so that it is not held against the test that came first.

    A fixture of the session says so itself: pytest asks only the plugins and the conftest of the
    root folder, not ``tests/conftest.py``, about the set-up of fixtures with that scope.
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        config.stash[SPENT] = time.perf_counter() - started


SPENT = pytest.StashKey[float]()
SETUP = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail a test that passed but took longer than `limit` and does not have the marker slow."""
    report = yield
    if call.when == "setup":
        shared = item.config.stash.get(SPENT, 0.0)
        item.config.stash[SPENT] = 0.0
        item.stash[SETUP] = call.duration - shared
    elif call.when == "call" and report.passed and limit() and "slow" not in item.keywords:
        taken = {"setup": item.stash[SETUP], "call": call.duration}
        late = [f"its {what} took {t:.1f} s" for what, t in taken.items() if t > limit()]
        if late:
            report.outcome = "failed"
            report.longrepr = (
                f"{item.nodeid} passed, but {' and '.join(late)} (limit {limit():g} "
                "s): make it quicker, mark it slow, or set KIT_TEST_LIMIT"
            )
    return report


def worker_count(arguments, cores: int, memory: int) -> int:
    """Processes for the tests that `arguments` name: no more than cores, files or memory allow.

    Parameters
    ----------
    arguments : sequence of str
        Files, folders or node ids, as pytest was given them.
    cores : int
    memory : int
        Bytes of the machine.
    """
    places = {Path(argument.partition("::")[0]) for argument in arguments}
    files = len(places) if all(place.suffix == ".py" for place in places) else cores
    return max(1, min(cores, files, memory // ONE_WORKER))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Spread the files over processes where pytest-xdist is loaded and nobody asked otherwise.

    The options stand here and not in pyproject.toml because ``-p no:xdist`` would not know them.
    A file stays on one worker, so what its fixtures compute is computed once.
    """
    option = config.option
    if not hasattr(option, "numprocesses") or hasattr(config, "workerinput"):
        return
    option.loadscopereorder = False  # keep the order of `in_order`
    if option.numprocesses is None and not (option.usepdb or option.collectonly or option.tx):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = worker_count(config.args, cores or 1, psutil.virtual_memory().total)
        option.numprocesses = count if count > 1 else None
    if option.numprocesses and option.dist == "no":
        option.dist = "loadfile"


def in_order(items: list) -> list:
    """The tests with long files first, and users of the notebooks' results when these are there.

    The users in test_notebooks come first of all, since the first of them runs the notebooks; files
    that only read the results come last, so that no worker waits for the other's notebooks.
    """
    waiting = {
        i.path for i in items if SHARED in i.fixturenames and i.path.stem != "test_notebooks"
    }

    def rank(path):
        end = path.with_suffix("").as_posix()
        return next((i for i, name in enumerate(HEAVY) if end.endswith(name)), len(HEAVY))

    def place(item):
        return (
            item.path in waiting,
            rank(item.path),
            item.path.stem == "test_notebooks" and SHARED not in item.fixturenames,
        )

    return sorted(items, key=place)


def pytest_collection_modifyitems(items):
    """Put the tests in order, and let those that wait for the notebooks wait long enough."""
    items[:] = in_order(items)
    for item in items:
        if SHARED in item.fixturenames:
            item.add_marker(pytest.mark.timeout(SMOKE_TIMEOUT))
