"""Publishing a run: what is copied, what is left out, what is replaced."""

import pytest

from kit import files as kit_files
from kit import reference
from kit.report import page


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    for name in (
        "cpu/br35h/tables/table-1.csv",
        "cpu/br35h/runs/a-1/predictions.csv",
        "cpu/br35h/runs/a-1/model.keras",
        "cpu/br35h/.lock",
        "cpu/br35h/runs/a-1/state.npz",
        "cpu/br35h/searches/b-1/trial_0001/rates.json",
        "cpu/notebooks/10.status.json",
        "cpu/notebooks/10.ipynb",
        "cpu/notebooks/.locks/10/.lock",
        "reference/br35h/tables/old.csv",
        "reference/cad/tables/table-2.csv",
        "reference/notebooks/20.status.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}" if name.endswith("json") else "a,b\n1,2\n")
    return tmp_path


def test_tables_and_predictions_are_copied_and_weights_are_not(results):
    reference.publish("cpu")
    files = {
        f.relative_to(results / "reference").as_posix()
        for f in (results / "reference").rglob("*")
        if f.is_file()
    }
    assert {
        "br35h/tables/table-1.csv",
        "br35h/runs/a-1/predictions.csv",
        "notebooks/10.status.json",
        "index.html",
    } <= files
    assert not any(
        f.endswith((".keras", ".npz", ".ipynb")) or ".lock" in f or ".tmp-" in f or "trial_" in f
        for f in files
    )


def test_a_publication_is_replaced_whole_and_others_stay(results):
    reference.publish("cpu")
    assert not (results / "reference/br35h/tables/old.csv").exists()
    assert (results / "reference/cad/tables/table-2.csv").exists()
    assert (results / "reference/notebooks/20.status.json").exists()


def test_publishing_twice_gives_the_same_files(results):
    def files():
        return {
            f.relative_to(results).as_posix(): f.read_bytes()
            for f in (results / "reference").rglob("*")
            if f.is_file()
        }

    reference.publish("cpu")
    first = files()
    reference.publish("cpu")
    assert files() == first


@pytest.mark.parametrize("profile", ["paper", "reference"])
def test_nothing_to_publish_is_one_sentence(results, profile, capsys):
    with pytest.raises(page.NoResults, match=r"run_all\.sh"):
        reference.publish(profile)
    assert reference.main([profile]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_again_recomputes_what_is_published_without_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    assert reference.main(["--again"]) == 2
    assert "There are no results" in capsys.readouterr().err
    key = "table-3-1/convnext-tiny/flops"
    path = tmp_path / "reference/gencnn/values.json"
    kit_files.write_json(path, {key: {"ours": 4455.5, "unit": "MFLOPs"}})
    assert reference.main(["--again"]) == 0
    assert kit_files.read_json(path)[key]["unit"] == "GFLOPs"
    assert (tmp_path / "reference/index.html").exists()


@pytest.mark.parametrize("arguments", [[], ["cpu", "--again"]])
def test_either_a_profile_or_again(arguments):
    with pytest.raises(SystemExit):
        reference.main(arguments)
