"""The writer of tables, figures and values: what is on disk after every call, and what it says
about itself.
"""

import threading

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from kit import files, paths
from kit.published import papers
from kit.report import artefacts, cells

NOTEBOOK = "10_br35h_cnn_vs_resnet50v2"
VALUE = "table-1/cnn.fold1/accuracy"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Private results and data folders; a real-looking Br35H with two images missing."""
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("KIT_DATA", str(tmp_path / "data"))
    files.write_json(
        tmp_path / "data/br35h/dataset.json",
        {
            "name": "br35h",
            "embedded": False,
            "fingerprint": "f" * 64,
            "stand_in_for": None,
            "incomplete": ["a", "b"],
        },
    )
    return tmp_path / "results"


def writer(**options):
    return artefacts.Artefacts("br35h", "quick", NOTEBOOK, **{"data": "phantom-binary", **options})


def entries(folders, paper="br35h"):
    return {
        e["id"]: e for e in files.read_json(folders / f"quick/{paper}/artefacts.json")["artefacts"]
    }


def small():
    return pd.DataFrame(
        {"model": ["CNN", "TL"], "accuracy": [97.123456789, np.nan], "errors": [3, 4]}
    )


def drawn():
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([1, 3, 2])
    ax.set(xlabel="epoch", ylabel="loss")
    return fig


def test_every_artefact_of_the_paper_is_listed_as_missing_at_once(folders):
    writer()
    listed = entries(folders)
    assert list(listed) == [a.id for a in papers.load("br35h").artefacts]
    assert {e["status"] for e in listed.values()} == {"missing"}
    assert listed["table-1"]["reason"] == f"notebook {NOTEBOOK} has not written it yet"


def test_artefacts_of_another_notebook_say_which_has_not_run(folders):
    artefacts.Artefacts("br35h", "quick", "some_other_notebook")
    assert entries(folders)["table-1"]["reason"] == f"notebook {NOTEBOOK} has not run"


def test_contract_keys_of_an_entry(folders):
    writer().table("table-1", small())
    content = files.read_json(folders / "quick/br35h/artefacts.json")
    assert (content["paper"], content["profile"]) == ("br35h", "quick")
    entry = content["artefacts"][0]
    assert entry["files"] == ["tables/table-1.csv", "tables/table-1.md", "tables/table-1.tex"]
    assert (entry["status"], entry["data"], entry["reason"]) == ("written", "phantom-binary", None)
    assert all((folders / "quick/br35h" / name).stat().st_size for name in entry["files"])


def test_csv_keeps_full_precision_and_names_its_data(folders):
    given = small()
    assert writer(stand_in="A for B", reductions=["1 epoch"]).table("table-1", given) is given
    read = pd.read_csv(folders / "quick/br35h/tables/table-1.csv")
    assert list(read) == ["model", "accuracy", "errors", "data"]
    assert read["accuracy"][0] == 97.123456789
    assert np.isnan(read["accuracy"][1])
    assert set(read["data"]) == {"phantom-binary (embedded, stand-in, reduced)"}


def test_a_column_called_data_is_not_overwritten(folders):
    writer().table("extra-sets", pd.DataFrame({"data": ["sartaj"]}))
    assert list(pd.read_csv(folders / "quick/br35h/tables/extra-sets.csv")) == [
        "data",
        "provenance",
    ]


@pytest.mark.parametrize("suffix", ["md", "tex"])
def test_caption_tells_embedded_data_stand_in_and_reductions(folders, suffix):
    writer(
        stand_in="EfficientNet-Lite0 for ResNet50V2", reductions=["2 epochs instead of 30"]
    ).table("table-1", small(), note="In percent.")
    text = (folders / f"quick/br35h/tables/table-1.{suffix}").read_text()
    for part in (
        "In percent.",
        "Embedded data set phantom-binary",
        "EfficientNet-Lite0 for ResNet50V2",
        "2 epochs instead of 30",
    ):
        assert part in text
    assert "97.12" in text
    assert "97.1234" not in text
    assert "–" in text


def test_real_data_has_no_caveat_but_what_it_lacks(folders):
    writer(data="br35h").table("table-1", small())
    entry = entries(folders)["table-1"]
    assert artefacts.caveat(entry) == "The data set br35h is incomplete, absent: a, b."
    assert (entry["embedded"], entry["fingerprint"]) == (False, "f" * 64)
    assert set(pd.read_csv(folders / "quick/br35h/tables/table-1.csv")["data"]) == {
        "br35h (incomplete)"
    }


def test_latex_and_markdown_escape_what_they_must(folders):
    table = pd.DataFrame({"a_b": ["50 % & more", "x|y\nz", "{\\#$^~}"]})
    writer().table("extra-signs", table, title="Costs 5 % & #1_a")
    tex = (folders / "quick/br35h/tables/extra-signs.tex").read_text()
    assert r"a\_b" in tex
    assert r"50 \% \& more" in tex
    assert r"\caption{Costs 5 \% \& \#1\_a." in tex
    assert r"\{\textbackslash{}\#\$\textasciicircum{}\textasciitilde{}\}" in tex
    md = (folders / "quick/br35h/tables/extra-signs.md").read_text()
    assert r"x\|y z" in md


def test_index_and_column_levels_become_plain_columns(folders):
    table = pd.DataFrame(
        [[1, 2]],
        index=pd.Index(["cnn"], name="model"),
        columns=pd.MultiIndex.from_tuples([("fold", 1), ("fold", 2)]),
    )
    writer().table("table-1", table)
    assert list(pd.read_csv(folders / "quick/br35h/tables/table-1.csv"))[:3] == [
        "model",
        "fold 1",
        "fold 2",
    ]


def test_long_and_empty_tables(folders):
    out = writer()
    out.table("extra-long", pd.DataFrame({"n": range(60)}))
    out.table("extra-empty", pd.DataFrame({"n": []}))
    assert r"\begin{longtable}{r}" in (folders / "quick/br35h/tables/extra-long.tex").read_text()
    assert len(pd.read_csv(folders / "quick/br35h/tables/extra-empty.csv")) == 0


def test_two_runs_write_the_same_bytes_without_a_date(folders):
    def run():
        out = writer()
        out.table("table-1", small())
        out.figure("graphic-1", drawn())
        out.value(VALUE, 97.5, (96, 99))
        return {p.name: p.read_bytes() for p in (folders / "quick/br35h").rglob("*") if p.is_file()}

    first, second = run(), run()
    assert first == second
    assert len(first) == 8
    assert b"CreationDate" not in first["graphic-1.pdf"]
    assert b"Software" not in first["graphic-1.png"]


def test_figure_is_closed_and_carries_its_caveat(folders):
    plain, marked = drawn(), drawn()
    height = marked.get_size_inches()[1]
    writer(data="br35h", reductions=[]).figure("graphic-1", plain)
    assert writer().figure("graphic-2", marked) is marked
    assert not plt.get_fignums()
    assert "Embedded" in " ".join(t.get_text().replace("\n", " ") for t in marked.texts)
    assert marked.get_size_inches()[1] > height


def test_what_was_written_stays_when_the_notebook_stops_half_way(folders):
    writer().table("table-1", small())
    writer()  # the next run, which gets no further
    listed = entries(folders)
    assert listed["table-1"]["status"] == "written"
    assert listed["graphic-1"]["status"] == "missing"


def test_an_entry_whose_file_is_gone_is_missing_again(folders):
    writer().table("table-1", small())
    (folders / "quick/br35h/tables/table-1.tex").unlink()
    writer()
    assert entries(folders)["table-1"]["status"] == "missing"


def test_failure_is_listed_and_leaves_no_old_files(folders):
    out = writer()
    out.figure("figure-6", drawn())
    out.failed("figure-6", ValueError("no such\n layer"))
    entry = entries(folders)["figure-6"]
    assert (entry["status"], entry["reason"], entry["files"]) == ("failed", "no such layer", [])
    assert not list((folders / "quick/br35h/figures").glob("figure-6.*"))
    out.figure("figure-6", drawn())
    assert entries(folders)["figure-6"]["status"] == "written"


def test_extras_of_an_earlier_run_leave_the_list_but_not_those_of_another_notebook(folders):
    writer().table("extra-mine", small())
    artefacts.Artefacts("br35h", "quick", "another").table("extra-theirs", small())
    writer()
    assert "extra-mine" not in entries(folders)
    assert entries(folders)["extra-theirs"]["status"] == "written"


def test_unknown_ids_are_refused_with_the_nearest_one(folders):
    out = writer()
    with pytest.raises(artefacts.UnknownArtefact, match=r"did you mean 'table-1'"):
        out.table("table1", small())
    with pytest.raises(
        artefacts.UnknownArtefact, match=r"did you mean 'table-1/cnn\.fold1/accuracy'"
    ):
        out.value("table-1/cnn.fold1/acuracy", 1.0)
    assert not (folders / "quick/br35h/values.json").exists()


def test_values_are_plain_numbers_in_the_publications_order(folders):
    out = writer(reductions=["1 epoch"])
    out.value("claims/t-test.t", np.float64("nan"))
    out.value(
        VALUE,
        np.float32(97.5),
        (96.0, np.inf),
        leak_free=95,
        leak_free_interval=(93, 97),
        n=np.int64(800),
    )
    stored = files.read_json(folders / "quick/br35h/values.json")
    assert list(stored) == [VALUE, "claims/t-test.t"]
    assert (
        stored[VALUE]
        | {
            "ours": 97.5,
            "low": 96.0,
            "high": None,
            "leak_free": 95.0,
            "leak_free_high": 97.0,
            "n": 800,
            "unit": "%",
        }
        == stored[VALUE]
    )
    assert stored["claims/t-test.t"]["ours"] is None
    assert stored[VALUE]["reductions"] == ["1 epoch"]
    assert stored[VALUE]["embedded"]


def test_an_exact_value_carries_no_caveat(folders):
    writer(stand_in="A for B", reductions=["1 epoch"]).value("claims/t-test.t", 0.3041, exact=True)
    entry = files.read_json(folders / "quick/br35h/values.json")["claims/t-test.t"]
    assert artefacts.caveat(entry) == ""
    assert entry["data"] is None


def test_writers_at_the_same_time_lose_nothing(folders):
    out = writer()
    threads = [threading.Thread(target=out.table, args=(f"extra-{i}", small())) for i in range(12)]
    threads += [
        threading.Thread(target=out.value, args=(key, 1.0))
        for key in list(papers.load("br35h").values)[:12]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(key.startswith("extra-") for key in entries(folders)) == 12
    assert len(files.read_json(folders / "quick/br35h/values.json")) == 12


def test_expected_covers_every_paper_and_the_notebooks_own(folders):
    everything = artefacts.all_expected()
    assert {e["paper"] for e in everything} >= set(papers.keys()) | {"summary"}
    assert len({(e["paper"], e["id"]) for e in everything}) == len(everything)
    assert [e["id"] for e in artefacts.expected(NOTEBOOK)] == [
        a.id for a in papers.load("br35h").artefacts if a.notebook == NOTEBOOK
    ]
    assert {e["id"] for e in artefacts.expected("90_tables_and_figures")} == {
        "table-coverage",
        "figure-verdicts",
        "table-conclusions",
        "table-forensics",
        "table-verdicts",
    }
    assert artefacts.expected("no_such_notebook") == []


def test_a_folder_of_no_publication_takes_any_value(folders):
    out = artefacts.Artefacts("own", "quick", "unknown_notebook")
    out.table("anything", small())
    out.value("free/form", 1.0)
    assert entries(folders, "own")["anything"]["title"] == "anything"
    assert list(pd.read_csv(folders / "quick/own/tables/anything.csv")) == [
        "model",
        "accuracy",
        "errors",
    ]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (97.94, "97.94"),
        (100.0, "100"),
        (0.74651, "0.7465"),
        (2.5e-7, "2.5e-07"),
        (0.0, "0"),
        (1234.56, "1234.6"),
        (7, "7"),
        ("a", "a"),
        (float("-inf"), "−∞"),
        (np.float64(0.5), "0.5000"),
    ],
)
def test_shown(cell, text):
    assert cells.shown(cell) == text


def test_readable_gives_a_column_one_number_of_decimals():
    text = cells.readable(
        pd.DataFrame({"p": [0.5, 3e-6, np.nan], "acc": [97.5, 100.0, 9.123], "n": [1, 2, 3]})
    )
    assert text["p"].tolist() == ["0.5000", "3.0e-06", "–"]
    assert text["acc"].tolist() == ["97.50", "100.00", "9.12"]
    assert text["n"].tolist() == [
        "1",
        "2",
        "3",
    ]


def test_results_folder_is_the_environments(folders):
    writer()
    assert (paths.results_dir() / "quick/br35h/artefacts.json").is_file()
    assert paths.results_dir() == folders.resolve()
