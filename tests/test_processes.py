"""The second process: its work, its words, its end."""

import os
import subprocess
import sys
import time

import psutil

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
    files.write_json(f"{folder}/done.json", {"left": (paths.Path(folder) / "left").exists()})


def test_it_knows_when_the_block_has_ended(tmp_path):
    with processes.running("tests.test_processes:until_over", folder=str(tmp_path)):
        (tmp_path / "left").touch()
    assert files.read_json(tmp_path / "done.json") == {"left": True}
