import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from kit import files, paths, runner

WRITE = """from kit import files, paths
folder = paths.results_dir() / profile / "trial"
files.write_text(folder / "tables/table-1.csv", str(number))
entry = {"id": "table-1", "title": "t", "status": "written", "files": ["tables/table-1.csv"]}
entry |= {"data": None, "reason": None}
listed = {"paper": "trial", "profile": profile, "artefacts": [entry]}
files.write_json(folder / "artefacts.json", listed)
print("epoch 1/1")
"""
PARAMETERS = 'profile: str = "smoke"  # results folder\nnumber: int = 1  # what is written\n'


def notebook(folder, name, source, artefacts=None):
    def cell(text, *tags):
        return {
            "cell_type": "code",
            "id": f"c{len(text)}",
            "metadata": {"tags": list(tags)},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }

    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    meta |= {"kit": {"folder": "trial", "artefacts": artefacts}} if artefacts else {}
    content = {
        "cells": [cell(PARAMETERS, "parameters"), cell(source)],
        "metadata": meta,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (folder / f"{name}.ipynb").write_text(json.dumps(content))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of notebooks of one's own, and an empty results folder."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "profiles" / "smoke").mkdir(parents=True)
    monkeypatch.setattr(paths, "notebooks_dir", lambda: tmp_path / "notebooks")
    monkeypatch.setattr(paths, "profiles_dir", lambda: tmp_path / "profiles")
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path / "results"))
    return tmp_path


def detached(place, *arguments, interrupt=signal.SIG_DFL):
    """The runner as a process of its own, over the notebooks of `place`; `interrupt` is what it
    does about SIGINT, whatever started these tests.
    """
    script = (
        "import sys, pathlib; from kit import paths, runner; place = "
        f"pathlib.Path({str(place)!r}); paths.notebooks_dir = lambda: place / 'notebooks'; "
        "paths.profiles_dir = lambda: place / 'profiles'; "
        f"sys.exit(runner.main({list(arguments)!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
    )


def status(place, name):
    return files.read_json(
        place / "results" / "smoke" / "notebooks" / f"{name}.status.json", default={}
    )


def test_a_notebook_runs_once_and_again_only_if_something_changed(place, capsys):
    notebook(place / "notebooks", "11_good", WRITE, {"table-1": "t"})
    assert runner.main(["--profile", "smoke"]) == 0
    first = status(place, "11_good")
    assert first["state"] == "finished"
    assert first["peak_mb"] > 10
    assert first["parameters"] == {"profile": "smoke", "number": 1}
    assert "1/1" in capsys.readouterr().out
    assert runner.main(["--profile", "smoke"]) == 0
    assert "up to date" in capsys.readouterr().out
    assert status(place, "11_good") == first
    assert runner.main(["--profile", "smoke", "--set", "number=7"]) == 0
    table = place / "results" / "smoke" / "trial" / "tables" / "table-1.csv"
    assert table.read_text() == "7"
    table.unlink()
    assert runner.main(["--profile", "smoke", "--set", "number=7"]) == 0
    assert table.read_text() == "7"


def test_a_failed_a_killed_and_an_empty_notebook_are_told_apart_and_the_rest_goes_on(place, capsys):
    notebook(place / "notebooks", "11_bad", "raise ValueError('no such tumour')")
    notebook(
        place / "notebooks", "12_dead", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    notebook(place / "notebooks", "13_idle", "pass", {"table-9": "never written"})
    notebook(place / "notebooks", "14_good", WRITE)
    assert runner.main(["--profile", "smoke", "--jobs", "2"]) == 1
    assert "ValueError: no such tumour" in status(place, "11_bad")["reason"]
    assert status(place, "12_dead")["exit_code"] == 138
    assert status(place, "12_dead")["reason"].startswith("out of memory")
    assert status(place, "13_idle")["state"] == "finished"
    assert status(place, "14_good")["state"] == "finished"
    assert "13_idle: trial table-9 missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--set", "numbre=2"],
            r"numbre: no chosen notebook has this parameter.*number: int = 1  what is written",
        ),
        (["--set", "number=two"], "number is int, and 'two' is not"),
        (["--only", "99"], "No notebook begins with '99'"),
        (["--profile", "fast"], "no profile 'fast'"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_starts(place, capsys, arguments, sentence):
    notebook(place / "notebooks", "11_good", WRITE)
    assert runner.main(["--profile", "smoke", *arguments]) == 2
    message = capsys.readouterr().err
    assert pytest.importorskip("re").search(sentence, message.replace("\n", " "))
    assert "Traceback" not in message
    assert not (place / "results").exists()


def started(place, name, seconds=60):
    """Wait until a notebook's kernel has printed its first line; return the processes of the
    runner's children.
    """
    log = place / "results" / "smoke" / "notebooks" / f"{name}.log"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if log.exists() and "ready" in log.read_text():
            return
        time.sleep(0.1)
    pytest.fail("the notebook did not start")


@pytest.mark.parametrize(
    ("sent", "code", "interrupt"),
    [
        (signal.SIGINT, 130, signal.SIG_DFL),
        (signal.SIGTERM, 130, signal.SIG_DFL),
        (signal.SIGKILL, -9, signal.SIG_DFL),
        (signal.SIGTERM, 130, signal.SIG_IGN),
    ],
)  # the last: started in the background by a script
def test_an_ended_runner_leaves_no_process_and_no_lock(place, sent, code, interrupt):
    notebook(
        place / "notebooks", "11_slow", "print('ready', flush=True)\nimport time\ntime.sleep(100)"
    )
    process = detached(place, "--profile", "smoke", interrupt=interrupt)
    started(place, "11_slow")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    second = detached(place, "--profile", "smoke")
    assert second.wait(60) == 2
    assert "Another run is working in" in second.stderr.read()
    os.kill(process.pid, sent)
    process.wait(20)
    assert process.returncode == code
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert status(place, "11_slow") == {}
    with files.FolderLock(place / "results" / "smoke" / "notebooks" / ".locks" / "11_slow"):
        pass


def test_fresh_deletes_what_the_notebook_left(place):
    notebook(place / "notebooks", "11_good", WRITE, {"table-1": "t"})
    runner.main(["--profile", "smoke"])
    stale = place / "results" / "smoke" / "trial" / "runs" / "old"
    stale.mkdir(parents=True)
    assert runner.main(["--profile", "smoke", "--fresh"]) == 0
    assert not stale.exists()
    assert status(place, "11_good")["state"] == "finished"


def test_the_runner_needs_no_tensorflow():
    script = (
        "import sys; import kit.runner; sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=paths.ROOT).returncode == 0


def test_the_kernel_is_this_interpreter():
    runner.install_kernel()
    spec = files.read_json(
        paths.Path(sys.prefix) / "share/jupyter/kernels" / runner.KERNEL / "kernel.json"
    )
    assert spec["argv"][0] == sys.executable
