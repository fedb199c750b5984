"""The rules that turn a published number and ours into a verdict, and the tables made of them."""

from dataclasses import replace

import pandas as pd
import pytest

from kit import files
from kit.published import papers
from kit.published.comparison import Ours
from kit.report import artefacts, plots, verdicts
from kit.report.verdict_rules import KINDS, Circumstances, Verdict, hurdles, verdict

NOTEBOOK = "10_br35h_cnn_vs_resnet50v2"
PAPER = papers.load("cad")
ACCURACY = PAPER.number("table-4/vgg19/accuracy")


def percent(*ours, around=None, number=ACCURACY, free=None, **more):
    """The verdict on 97.18 % of 1,311 images."""
    mine = Ours(*ours, **more) if ours else None
    return verdict(PAPER, number, mine, Circumstances(**(around or {})), free)


def test_no_value_is_missing_with_its_reason():
    assert percent(around={"missing": "notebook 20 has not run"}) == Verdict(
        "missing", "Notebook 20 has not run."
    )


def test_supported_is_shown_by_two_one_sided_tests():
    found = percent(97.18, 96.1, 98.0, n=1311)
    assert found.kind == "undecided"  # 1,311 images cannot show equality to a point
    assert "a difference of" in found.why
    many = replace(ACCURACY, n=100_000)
    found = percent(97.2, 97.1, 97.3, n=100_000, number=many)
    assert found.kind == "supported"
    assert found.why == (
        "Ours is 97.20 % (97.10 to 97.30), 0.02 pp above the published 97.18 %: equal within "
        "1.00 pp, two one-sided tests at 5 %."
    )


def test_contradicted_names_gap_direction_interval_and_margin():
    found = percent(92.0, 90.4, 93.4, n=1311)
    assert found.kind == "contradicted"
    assert found.why.startswith(
        "Ours is 92.00 % (90.40 to 93.40), 5.18 pp below the published 97.18 %: not equal "
    )
    assert "and not by chance (95 % interval of the difference -6.9" in found.why


def test_a_difference_beyond_chance_within_the_margin_is_named():
    found = percent(96.9, 96.8, 97.0, n=100_000, number=replace(ACCURACY, n=3000))
    assert found.kind in ("undecided", "supported")
    apart = percent(96.55, n=200_000, number=replace(ACCURACY, n=9000))
    assert apart.kind in ("supported", "undecided")
    mild = percent(96.3, n=200_000, number=replace(ACCURACY, n=9000))
    assert mild.kind == "undecided"
    assert "apart beyond chance but not by more than that" in mild.why


def test_without_any_error_a_result_is_undecided():
    f1 = PAPER.number("table-4/vgg19.glioma/f1")
    assert percent(0.95, number=f1).why == ("Ours is 0.95 and has no interval to compare it by.")
    assert percent(0.95, number=f1).kind == "undecided"


@pytest.mark.parametrize(
    ("ours", "kind"),
    [(2.2, "supported"), (2.2449, "supported"), (2.26, "contradicted"), (2.14, "contradicted")],
)
def test_counts_must_agree_to_the_printed_digit(ours, kind):
    number = PAPER.number("table-5/mobilenetv2/parameters")
    assert percent(ours, number=number).kind == kind
    images = PAPER.number("table-2/glioma/train")
    assert percent(1059.0, number=images).why == (
        "Ours is 1059 images, 1 images below the published 1060 images."
    )


@pytest.mark.parametrize(
    ("value_id", "words"),
    [
        ("table-6/vgg19/avg", "depends on the machine"),
        ("figure-8/vgg19.glioma/glioma", "Follows from other printed values"),
        ("figure-12/axis.accuracy/low", "drawing"),
        ("table-7/celik-2023/accuracy", "Quoted"),
    ],
)
def test_costs_repetitions_citations_and_axes_are_not_judged(value_id, words):
    for ours in ((), (1.0, 0.5, 2.0)):
        found = percent(*ours, number=PAPER.number(value_id))
        assert found.kind == "not judged"
        assert words in found.why


def test_leak_free_value_is_told_and_turns_the_sentence():
    lost = percent(97.2, 96.1, 98.0, n=1311, free=Ours(91.0, 89, 93, n=900))
    assert lost.kind == "undecided"
    assert lost.why.endswith(
        "On the leak-free test set 91.00 % (89.00 to 93.00), 6.20 pp lower; there the published "
        "number is contradicted."
    )
    same = percent(97.2, 96.1, 98.0, n=1311, free=Ours(97.2, 96, 98.1, n=1000))
    assert same.why.endswith("On the leak-free test set 97.20 % (96.00 to 98.10), unchanged.")
    tiny = percent(97.2, 96.1, 98.0, n=1311, free=Ours(97.198))
    assert tiny.why.endswith("97.20 %, 0.0020 pp lower.")


ENTRY = {"data": "nickparvar", "unit": "%"}


@pytest.mark.parametrize(
    ("circumstance", "words"),
    [
        ({"embedded": True, "data": "phantom4"}, "embedded data (phantom4)"),
        ({"data": "x", "stand_in_for": "nickparvar"}, "on x, which stands in for nickparvar"),
        ({"data": "sartaj"}, "measured on sartaj, while the publication used nickparvar"),
        ({"stand_in": "EfficientNet-Lite0 for VGG19"}, "EfficientNet-Lite0 for VGG19"),
        ({"reductions": ["2 epochs instead of 25", "96 px"]}, "2 epochs instead of 25, 96 px"),
        (
            {"incomplete": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]},
            "incomplete: a.jpg, b.jpg, c.jpg and 1",
        ),
        ({"unit": "min"}, "depends on the machine"),
    ],
)
def test_not_comparable_even_if_the_numbers_agree(circumstance, words):
    found = hurdles(PAPER, ENTRY | circumstance)
    assert len(found) == 1
    assert words in found[0]
    assert percent(97.18, 96, 98, around={"hurdles": found}).kind == "not comparable"


def test_nothing_keeps_the_published_data_in_full_size_from_a_comparison():
    assert hurdles(PAPER, ENTRY) == ()
    assert hurdles(PAPER, ENTRY, "224 px") == ("the copy of nickparvar was resized to 224 px",)


def test_a_resized_copy_is_known_by_its_fingerprint():
    print_ = "ec10fbe11fb8022b91b444ec194481dc5ae3cbfdb155a202de1ae63c0c06d700"
    assert artefacts.resized("nickparvar", print_) == "224 px"
    assert artefacts.resized("nickparvar", "0" * 64) == ""
    assert artefacts.resized(None, None) == artefacts.resized("mine", print_) == ""


def test_every_hurdle_is_named():
    entry = {"embedded": True, "data": "phantom4", "stand_in": "A for B", "reductions": ["1 epoch"]}
    why = percent(97.18, 96, 98, around={"hurdles": hurdles(PAPER, entry)}).why
    assert all(part in why for part in ("phantom4", "A for B", "1 epoch"))


def test_impossible_goes_first_then_inconsistent_whatever_else_holds():
    for more in ({}, {"missing": "x"}, {"hurdles": ("y",)}):
        both = {**more, "impossible": "No k/1311.", "inconsistent": "Table 5."}
        assert percent(97.18, 96, 98, around=both) == Verdict(
            "impossible as published", "No k/1311."
        )
        assert percent(around={**more, "inconsistent": "Table 5."}) == Verdict(
            "inconsistent as printed", "Table 5."
        )


@pytest.mark.parametrize(
    ("ours", "relation", "kind"),
    [
        ((98.0, 97.4, 98.5), ">", "supported"),
        ((98.0, 96.9, 98.9), ">", "undecided"),
        ((96.0, 95.0, 97.0), ">", "contradicted"),
        ((96.0, 95.0, 97.0), "<", "supported"),
        ((98.0, 97.4, 98.5), "<", "contradicted"),
        ((98.0,), ">", "undecided"),
    ],
)
def test_a_claim_of_a_side_is_tested_by_the_interval(ours, relation, kind):
    found = percent(*ours, around={"relation": relation})
    assert found.kind == kind
    assert ("above 97.18 %" if relation == ">" else "below 97.18 %") in found.why


def test_a_variance_is_compared_by_its_ratio():
    paper = papers.load("br35h")
    number = paper.number("table-1/cnn.variance/accuracy")
    found = verdict(paper, number, Ours(0.0912))
    assert found.kind == "undecided"
    assert found.why.startswith("Ours is 0.091, 0.99 times the published 0.092 (F interval")


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
    out.value("table-1/tl.fold1/specificity", 98.4, (97, 99), leak_free=97.0, n=400)
    out.value("table-1/tl.fold2/specificity", 90.0, (89, 91), n=400)
    out.value("table-1/tl.fold3/specificity", 98.74, data="br35h-like")
    out.value("table-1/cnn.fold1/specificity", 96.34, data="sartaj")
    out.value("table-1/cnn.fold2/specificity", 97.4, data="phantom-binary")
    out.value("claims/t-test.p-above", 0.75, exact=True)
    return tmp_path / "results"


def test_verdict_table_of_a_paper(results):
    table = verdicts.verdict_table("br35h", "quick").set_index("value")
    kinds = table["verdict"]
    assert kinds["table-1/tl.fold1/specificity"] == "undecided"
    assert kinds["table-1/tl.fold2/specificity"] == "contradicted"
    assert kinds["claims/t-test.p-above"] == "not judged"
    for key, words in (
        ("tl.fold3", "stands in for br35h"),
        ("cnn.fold1", "measured on sartaj"),
        ("cnn.fold2", "embedded"),
    ):
        row = table.loc[f"table-1/{key}/specificity"]
        assert row["verdict"] == "not comparable"
        assert words in row["why"].lower()
    assert kinds["table-1/cnn.fold1/accuracy"] == "inconsistent as printed"
    assert kinds["table-1/cnn.fold1/sensitivity"] == "impossible as published"
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
    assert why() == "A time or a size in memory depends on the machine."


@pytest.mark.parametrize("key", papers.keys())
def test_without_results_nothing_is_judged_but_by_arithmetic(key, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    table = verdicts.verdict_table(key, "none")
    assert set(table["verdict"]) <= set(KINDS[4:])
    assert not set(table["kind"]) & {"citation", "axis"}
    judged = table[table["verdict"].isin(["missing"])]
    assert set(judged["kind"]) <= {"result", "count"}
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
    assert (row["undecided"], row["contradicted"], row["not comparable"]) == (1, 1, 3)
    assert (row["results"], row["counts"], row["other"]) == (38, 0, 10)
    for _, line in counts.iterrows():
        assert line["artefacts"] == line[["written", "missing", "failed"]].sum()
        assert line["results"] == line[[*verdicts.JUDGED[:-1], "no value"]].sum()
        assert line["conclusions"] >= line["answered"] >= line["decided"]
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
