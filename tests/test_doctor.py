import os
import re
import subprocess
from collections import namedtuple
from types import SimpleNamespace

import pytest

from kit import compat, doctor, files, paths
from kit.data import registry


def of(rows):
    return {what: (mark, finding) for mark, what, finding in rows}


def test_an_old_python_and_a_missing_package_are_bad(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4))
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    rows = of(doctor.versions())
    assert rows["Python"][0] == "bad"
    assert rows["keras"] == (
        "bad",
        "not installed; the kit is made for 3.15, run run_all.sh to repair",
    )


def test_the_processor_build_of_a_package_counts_as_the_package(monkeypatch):
    def version(name):
        if name == "tensorflow-cpu":
            return "2.21.0"
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert doctor._version("tensorflow") == "2.21.0"
    assert doctor._version("keras") is None


@pytest.fixture
def machine(monkeypatch):
    """A function that sets what nvidia-smi and TensorFlow say."""

    def be(driver, seen, cuda):
        monkeypatch.setattr(
            doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if driver else None
        )
        monkeypatch.setattr(
            doctor.subprocess,
            "run",
            lambda *a, **k: subprocess.CompletedProcess(a, 0, f"{driver}\n", ""),
        )
        monkeypatch.setattr(compat.tf.config, "list_physical_devices", lambda kind: seen)
        monkeypatch.setattr(
            compat.tf.config.experimental,
            "get_device_details",
            lambda device: {"device_name": f"card {device.name}"},
        )
        monkeypatch.setattr(compat.tf.test, "is_built_with_cuda", lambda: cuda)

    return be


@pytest.mark.parametrize(
    ("driver", "cuda", "mark", "words"),
    [
        (None, False, "note", "no NVIDIA driver answers"),
        ("GPU 0: T4", False, "note", "built for processors; run KIT_EXTRA=gpu"),
        (
            "GPU 0: T4",
            True,
            "note",
            "GPU 0: T4 is there, but TensorFlow cannot load its CUDA libraries",
        ),
    ],
)
def test_it_says_why_there_is_no_gpu(machine, driver, cuda, mark, words):
    machine(driver, [], cuda)
    [(found, what, finding)] = doctor.gpu()
    assert (found, what) == (mark, "GPU")
    assert words in finding


def test_it_names_the_gpus(machine):
    machine("GPU 0", [SimpleNamespace(name="a"), SimpleNamespace(name="b")], True)
    assert doctor.gpu() == [("ok", "GPU", "card a, card b")]


def test_data_sets_are_ready_made_later_or_to_be_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_DATA", str(tmp_path))
    (tmp_path / "br35h").mkdir()
    files.write_json(
        tmp_path / "br35h" / "dataset.json",
        {"name": "br35h", "incomplete": ["yes/y1.jpg", "no/no3.jpg"]},
    )
    rows = of(doctor.data())
    assert rows["data br35h"] == ("ok", f"{registry.root('br35h')}, incomplete (2 entries absent)")
    assert rows["data phantom4"] == ("ok", "embedded, made on first use")
    assert rows["data sartaj"] == (
        "note",
        f"not prepared; python -m data_prep sartaj --to {paths.data_dir()}",
    )


def test_weights_that_are_there_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert of(doctor.weights())["weights of Keras"][0] == "note"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "resnet50v2.h5").touch()
    assert of(doctor.weights())["weights of Keras"] == ("ok", "resnet50v2.h5")
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    assert of(doctor.weights())["weights EfficientNet-Lite0"][0] == "bad"


def test_a_full_or_read_only_folder_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_DATA", str(tmp_path / "not" / "yet" / "made"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage(100e9, 98e9, 2e9))
    assert of(doctor.disk())["data folder"] == ("note", f"{paths.data_dir()}, 2 GB free")
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    mark, finding = of(doctor.disk())["data folder"]
    assert mark == "bad"
    assert "cannot be written to, choose another with KIT_DATA" in finding


def test_the_exit_code_says_whether_the_kit_can_run(monkeypatch, capsys):
    for part in ("versions", "gpu", "disk", "weights", "data"):
        monkeypatch.setattr(doctor, part, lambda part=part: [("note", part, "so so")])
    assert doctor.main() == 0
    assert capsys.readouterr().out.count("so so") == 5
    monkeypatch.setattr(doctor, "disk", lambda: [("bad", "disk", "full")])
    assert doctor.main() == 1
    assert "bad   disk" in capsys.readouterr().out


def named_variables() -> set:
    """Environment variables of the kit, Keras, KerasTuner and TensorFlow that a source names."""
    sources = [paths.ROOT / "run_all.sh", *(paths.ROOT / "notebooks").glob("*.ipynb")]
    for folder in ("kit", "data_prep", "tests"):
        sources += (paths.ROOT / folder).rglob("*.py")
    text = "\n".join(f.read_text(encoding="utf-8") for f in sources if f.name != "doctor.py")
    found = set(re.findall(r"\b(?:KIT|KERAS|KERASTUNER|TF)_[A-Z_]*[A-Z]\b", text))
    return found - set(re.findall(r"^([A-Z_]+) = ", text, re.MULTILINE))  # constants of Python


def test_every_variable_that_is_read_is_in_the_table_and_no_other():
    told = {name for name, _, _ in doctor.VARIABLES}
    found = named_variables()
    assert {"KIT_DATA", "KIT_EXTRA", "KERAS_HOME", "TF_CPP_MIN_LOG_LEVEL"} <= found
    assert found == {name for name in told if name.startswith(("KIT_", "KERAS", "TF_"))}


def test_a_variable_is_shown_with_its_value_if_set_else_its_default(monkeypatch):
    monkeypatch.setenv("KIT_DATA", "elsewhere")
    monkeypatch.delenv("KIT_OFFLINE", raising=False)
    rows = of(doctor.variables())
    assert rows["KIT_DATA"] == ("note", "set to 'elsewhere'; folder of the data sets")
    assert rows["KIT_OFFLINE"] == ("ok", "default 0; anything but 0: no weights are fetched")
