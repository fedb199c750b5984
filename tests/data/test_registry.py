import multiprocessing

import pytest

from kit import doctor, files, record
from kit.data import registry


def test_every_entry_can_be_read():
    assert {
        "phantom4",
        "phantom-binary",
        "phantom8",
        "phantom3d",
        "digits",
        "br35h",
        "sartaj",
        "nickparvar",
    } <= set(registry.names())
    for name in registry.names():
        data = registry.get(name)
        assert len(data.display) == len(data.classes) >= 2, name
        assert data.title, name
        assert data.licence, name
        assert data.task == ("binary" if len(data.classes) == 2 else "multiclass"), name
        assert data.kind in ("images", "volumes"), name


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(registry.UnknownDataSet, match=r"'brtumor'.*phantom4.*data_prep folder"):
        registry.get("brtumor")


def test_a_real_set_that_is_absent_names_the_command():
    with pytest.raises(registry.DatasetMissing, match="python -m data_prep br35h --to"):
        registry.ensure("br35h")


def _make(name):
    return registry.facts(name)["fingerprint"]


def test_two_processes_that_need_the_same_embedded_set_make_it_once(private_folders):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert len(set(pool.map(_make, ["digits", "digits"]))) == 1
    index = registry.index("digits")
    assert len(index) == 1797
    assert index["label"].nunique() == 10
    assert index["image_id"].is_monotonic_increasing
    assert registry.facts("digits")["fingerprint"] == record.fingerprint(index)


def test_an_interrupted_embedded_set_is_made_anew(private_folders):
    registry.ensure("digits")
    root = registry.root("digits")
    before = files.read_json(root / "dataset.json")["fingerprint"]
    (root / "dataset.json").unlink()
    next(root.glob("3/*.png")).unlink()
    assert registry.facts("digits")["fingerprint"] == before


def test_doctor_finds_the_pinned_versions_and_tells_how_to_get_data(capsys):
    assert doctor.main() == 0
    said = capsys.readouterr().out
    assert "tensorflow" in said
    assert "2.21" in said
    assert "python -m data_prep br35h" in said
    assert "EfficientNet-Lite0" in said


def test_doctor_calls_a_wrong_version_bad(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: {"tensorflow": "2.15.0"}.get(package))
    rows = {what: (mark, finding) for mark, what, finding in doctor.versions()}
    assert rows["tensorflow"][0] == "bad"
    assert "made for 2.21" in rows["tensorflow"][1]
    assert rows["keras"][0] == "bad"
