import errno
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from kit import files, record


def test_atomic_write_leaves_nothing_behind_on_an_error(tmp_path):
    def breaks_off():
        with files.atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks_off()
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    files.write_json(file, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(files.CannotWrite, match="No space left on device; free some space"):
        files.write_json(file, {"new": 2})
    assert files.read_json(file) == {"old": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


def test_no_write_permission_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(files.CannotWrite, match=r"Cannot write .*choose another folder"):
        files.write_text(
            tmp_path / "file" / "b.txt", "x"
        )  # a file where a folder should be: refused for root too


def test_lock_is_refused_to_a_second_process_and_free_after_a_kill(tmp_path):
    script = (
        f"import time; from kit import files\nwith files.FolderLock({str(tmp_path)!r}): "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(files.FolderBusy, match="Another run is working in"),
        files.FolderLock(tmp_path),
    ):
        pass
    holder.kill()
    holder.wait()
    with files.FolderLock(tmp_path, wait=5):
        pass


def test_damaged_json_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(files.DamagedRecord, match=r"a\.json cannot be read"):
        files.read_json(tmp_path / "a.json")
    assert files.read_json(tmp_path / "absent.json", default=None) is None


def test_fingerprint_depends_on_content_not_on_order():
    table = pd.DataFrame({"image_id": ["a", "b"], "sha256": ["1", "2"]})
    assert record.fingerprint(table) == record.fingerprint(table[::-1])
    assert record.fingerprint(table) != record.fingerprint(table.assign(sha256=["1", "3"]))


def test_run_key_is_the_configuration(tmp_path):
    one, same, other = (
        record.Run(tmp_path, "cnn", c)
        for c in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3})
    )
    assert one.folder == same.folder != other.folder
    one.open(seed=0)
    assert not one.finished
    one.close("finished", 1.0)
    assert same.finished
    assert not other.finished


def test_prediction_table_gives_both_scores_of_one_unit():
    index = pd.DataFrame({"image_id": ["a", "b"], "group": [0, 1], "label": [0, 1]})
    table = record.prediction_table(index, np.array([[0.25], [0.75]]), "test")
    assert list(table.columns) == ["image_id", "group", "label", "part", "score_0", "score_1"]
    assert np.allclose(table[["score_0", "score_1"]], [[0.75, 0.25], [0.25, 0.75]])
