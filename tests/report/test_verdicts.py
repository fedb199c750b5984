"""The rules that turn a published number and ours into a verdict, and the tables made of them."""

import pandas as pd
import pytest

from kit import files
from kit.published import papers
from kit.report import artefacts, plots, verdicts
from kit.report.verdicts import verdict

NOTEBOOK = "10_br35h_cnn_vs_resnet50v2"


def percent(*numbers, **more):
    return verdict(97.94, *numbers, decimals=2, unit="%", **more)


def test_no_value_is_missing_with_its_reason():
    assert percent(missing="notebook 10 has not run") == verdicts.Verdict(
        "missing", "Notebook 10 has not run."
    )


def test_reproduced_inside_the_interval():
    found = percent(96.5, 95.0, 98.0)
    assert found.kind == "reproduced"
    assert found.why == "The published 97.94 % lies in our 95 % interval (95.00 to 98.00)."


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (97.94, "reproduced"),
        (97.9351, "reproduced"),
        (97.9449, "reproduced"),
        (97.946, "not reproduced"),
        (97.934, "not reproduced"),
    ],
)
def test_without_interval_ours_must_round_to_the_published_number(ours, kind):
    assert percent(ours).kind == kind


@pytest.mark.parametrize(("low", "kind"), [(97.944, "reproduced"), (97.95, "not reproduced")])
def test_the_published_number_stands_for_its_rounding_range(low, kind):
    assert percent(98.5, low, 99.0).kind == kind


def test_not_reproduced_names_gap_direction_and_interval():
    assert percent(95.1, 93.4, 96.5) == verdicts.Verdict(
        "not reproduced", "Ours is 95.10 % (93.40 to 96.50), 2.84 pp below the published 97.94 %."
    )


def test_gap_in_the_papers_own_unit():
    assert (
        verdict(0.9, 0.95, decimals=2, unit="fraction").why
        == "Ours is 0.95, 0.05 above the published 0.90."
    )
    assert (
        verdict(7023, 7019, decimals=0, unit="images").why
        == "Ours is 7019 images, 4 images below the published 7023 images."
    )


def test_a_change_below_the_printed_decimals_is_not_printed_as_zero():
    assert percent(97.5, 96, 98.5, leak_free=97.498).why.endswith("97.50 %, 0.0020 pp lower.")


def test_leak_free_value_is_told_and_turns_the_sentence():
    kept = percent(97.5, 96.0, 98.5, leak_free=97.0, leak_free_low=95.5, leak_free_high=98.2)
    assert kept.kind == "reproduced"
    assert kept.why.endswith("On the leak-free test set 97.00 % (95.50 to 98.20), 0.50 pp lower.")
    lost = percent(97.5, 96.0, 98.5, leak_free=94.4, leak_free_low=93, leak_free_high=96)
    assert lost.kind == "reproduced"
    assert lost.why.endswith("3.10 pp lower; there the published number no longer holds.")
    won = percent(99.0, 98.5, 99.5, leak_free=97.9, leak_free_low=97, leak_free_high=98.4)
    assert won.kind == "not reproduced"
    assert won.why.endswith("there the published number holds.")
    same = percent(97.5, 96.0, 98.5, leak_free=97.5)
    assert "97.50 %, unchanged" in same.why


@pytest.mark.parametrize(
    ("circumstance", "words"),
    [
        ({"data_embedded": True, "data": "phantom-binary"}, "embedded data (phantom-binary)"),
        (
            {"other_data": "measured on br35h-like, which stands in for br35h"},
            "Measured on br35h-like, which stands in for br35h.",
        ),
        ({"stand_in": "EfficientNet-Lite0 for ResNet50V2"}, "EfficientNet-Lite0 for ResNet50V2"),
        ({"reductions": ["2 epochs instead of 30", "96 px"]}, "2 epochs instead of 30, 96 px"),
    ],
)
def test_not_comparable_even_if_the_numbers_agree(circumstance, words):
    found = percent(97.94, 97, 98, **circumstance)
    assert found.kind == "not comparable"
    assert words in found.why


def test_every_hurdle_is_named():
    why = percent(
        97.94, data_embedded=True, data="phantom4", stand_in="A for B", reductions=["1 epoch"]
    ).why
    assert all(part in why for part in ("phantom4", "A for B", "1 epoch"))


def test_times_are_never_compared():
    assert verdict(20, 20, decimals=0, unit="min").kind == "not comparable"


def test_impossible_goes_first_whatever_else_holds():
    for more in ({}, {"missing": "x"}, {"data_embedded": True}):
        assert percent(97.94, 97, 98, impossible="No k/800.", **more) == verdicts.Verdict(
            "impossible as published", "No k/800."
        )
    assert percent(impossible="No k/800.").kind == "impossible as published"


@pytest.mark.parametrize(
    ("ours", "relation", "kind"),
    [
        (0.75, ">", "reproduced"),
        (0.01, ">", "not reproduced"),
        (0.01, "<", "reproduced"),
        (0.05, "<", "not reproduced"),
    ],
)
def test_one_sided_claims(ours, relation, kind):
    found = verdict(0.05, ours, decimals=2, relation=relation)
    assert found.kind == kind
    assert ("not " in found.why) == (kind == "not reproduced")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder in which notebook 10 has stored a few values measured on the
    published data.
    """
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("KIT_DATA", str(tmp_path / "data"))
    for name, stand_in_for in (("br35h", None), ("br35h-like", "br35h"), ("sartaj", None)):
        files.write_json(
            tmp_path / f"data/{name}/dataset.json",
            {"name": name, "embedded": False, "fingerprint": name, "stand_in_for": stand_in_for},
        )
    out = artefacts.Artefacts("br35h", "quick", NOTEBOOK, "br35h")
    out.table("table-1", pd.DataFrame({"a": [1]}))
    out.failed("graphic-4", "it broke")
    out.value("table-1/tl.fold1/specificity", 98.4, (97, 99), leak_free=97.0)
    out.value("table-1/tl.fold2/specificity", 90.0, (89, 91))
    out.value("table-1/tl.fold3/specificity", 98.74, data="br35h-like")
    out.value("table-1/cnn.fold1/specificity", 96.34, data="sartaj")
    out.value("table-1/cnn.fold2/specificity", 97.4, data="phantom-binary")
    out.value("claims/t-test.p-above", 0.75, exact=True)
    return tmp_path / "results"


def test_verdict_table_of_a_paper(results):
    table = verdicts.verdict_table("br35h", "quick").set_index("value")
    kinds = table["verdict"]
    assert kinds["table-1/tl.fold1/specificity"] == "reproduced"
    assert kinds["table-1/tl.fold2/specificity"] == "not reproduced"
    assert kinds["claims/t-test.p-above"] == "reproduced"
    for key, words in (
        ("tl.fold3", "stands in for br35h"),
        ("cnn.fold1", "measured on sartaj"),
        ("cnn.fold2", "embedded"),
    ):
        row = table.loc[f"table-1/{key}/specificity"]
        assert row["verdict"] == "not comparable"
        assert words in row["why"].lower()
    assert kinds["table-1/cnn.fold1/accuracy"] == "impossible as published"
    assert (
        table.loc["graphic-4/cnn/specificity", "why"]
        == f"Graphic-4 failed in notebook {NOTEBOOK}: it broke."
    )
    assert (
        table.loc["table-1/cnn.fold3/specificity", "why"]
        == f"Notebook {NOTEBOOK} has run but stored no such value."
    )
    assert table.loc["table-1/tl.fold1/specificity", "published"] == "98.48"
    assert not any(key.startswith("claims/literature") for key in table.index)


def test_missing_values_say_whether_their_notebook_ran(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    key = "table-1/cnn.fold3/specificity"

    def why():
        return verdicts.verdict_table("br35h", "p").set_index("value").loc[key, "why"]

    assert why() == f"Notebook {NOTEBOOK} has not run."
    files.write_json(
        tmp_path / f"p/notebooks/{NOTEBOOK}.status.json",
        {"state": "failed", "reason": "out of memory"},
    )
    assert why() == f"Notebook {NOTEBOOK} failed: out of memory."
    files.write_json(tmp_path / f"p/notebooks/{NOTEBOOK}.status.json", {"state": "finished"})
    assert why() == f"Notebook {NOTEBOOK} has run but stored no such value."
    key = "claims/time-per-fold.cnn"
    assert (
        why()
        == f"Notebook {NOTEBOOK} has run; times differ from run to run and stand in costs.csv."
    )


@pytest.mark.parametrize("key", papers.keys())
def test_without_results_every_number_is_missing_or_impossible(key, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    table = verdicts.verdict_table(key, "none")
    assert set(table["verdict"]) <= {"missing", "impossible as published"}
    assert table["value"].is_unique
    assert list(table["value"]) == [v for v in papers.load(key).values if v in set(table["value"])]


def test_printed_uses_the_publications_decimals(results):
    text = verdicts.printed(verdicts.verdict_table("br35h", "quick")).set_index("value")
    row = text.loc["table-1/tl.fold1/specificity"]
    assert (row["ours"], row["interval"], row["leak_free"], row["leak_free_interval"]) == (
        "98.40",
        "97.00 to 99.00",
        "97.00",
        "–",
    )
    assert text.loc["claims/t-test.t", "ours"] == "–"


def test_coverage_counts_add_up(results):
    counts = verdicts.coverage("quick").set_index("paper")
    row = counts.loc["br35h"]
    assert (row["written"], row["failed"], row["missing"]) == (1, 1, 8)
    assert (row["reproduced"], row["not reproduced"], row["not comparable"]) == (2, 1, 3)
    for _, line in counts.iterrows():
        assert line["artefacts"] == line[["written", "missing", "failed"]].sum()
        assert line["numbers"] == line[[*verdicts.KINDS[:-1], "no value"]].sum()
    assert (counts.drop("all").sum() == counts.loc["all"]).all()
    assert "summary" not in counts.index


def test_gaps_hold_what_may_be_compared(results):
    rows = verdicts.gaps(verdicts.verdict_table("br35h", "quick"))
    assert list(rows.index) == ["table-1/tl.fold1/specificity", "table-1/tl.fold2/specificity"]
    assert rows.loc["table-1/tl.fold2/specificity", ["published", "ours", "low"]].round(
        2
    ).tolist() == [0, -8.22, -9.22]
    assert plots.forest(rows).axes


def test_bars_show_every_count(results):
    counts = verdicts.coverage("quick")
    fig = plots.bars(counts)
    texts = [t.get_text() for t in fig.axes[0].texts]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == papers_in(counts)
    assert str(counts.set_index("paper").loc["pbcnas", "no value"]) in texts


def papers_in(counts):
    known = papers.keys()
    return [key for key in counts["paper"] if key in known]
