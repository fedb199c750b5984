"""Kernels that a run calculates with: chosen by profile, asked for by the user, in its key."""

import os
import subprocess
import sys

import pytest

from kit import files, jobs, kernels, paths, record

SAYS = """
from kit import kernels
told = kernels.onednn()
from kit import compat
print(told, compat.onednn())
"""


@pytest.mark.parametrize("setting", ["0", "1", None])
def test_tensorflow_does_what_is_told_without_importing_it(setting):
    environment = {k: v for k, v in os.environ.items() if k != kernels.VARIABLE}
    environment |= {kernels.VARIABLE: setting} if setting else {}
    said = subprocess.run(
        [sys.executable, "-c", SAYS],
        cwd=paths.ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    told, does = said.stdout.split()
    assert told == does
    assert setting is None or told == str(setting == "1")


def test_the_choice_of_the_user_holds(monkeypatch):
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    assert kernels.chosen("paper") == kernels.chosen("cpu") == {kernels.VARIABLE: "1"}
    assert kernels.chosen("quick") == kernels.chosen("smoke") == {}
    monkeypatch.setenv(kernels.VARIABLE, "0")
    assert kernels.chosen("paper") == {}


def test_a_run_with_other_kernels_is_another_run(monkeypatch, tmp_path):
    monkeypatch.setenv(kernels.VARIABLE, "0")
    without = record.Run(tmp_path, "a", {"epochs": 2})
    assert without.key == files.digest({"epochs": 2})  # as before there was a choice
    assert record.environment()["onednn"] is False
    monkeypatch.setenv(kernels.VARIABLE, "1")
    assert record.Run(tmp_path, "a", {"epochs": 2}).folder != without.folder
    assert record.environment()["onednn"] is True


def test_a_notebook_is_run_again_with_other_kernels(monkeypatch):
    job = jobs.plan("cpu", "10")[0]
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    chosen = job.key()
    monkeypatch.setenv(kernels.VARIABLE, "1")
    assert job.key() == chosen
    monkeypatch.setenv(kernels.VARIABLE, "0")
    assert job.key() != chosen
