"""The astrocyte chapter's tables and sentences, from made-up numbers."""

import numpy as np
import pandas as pd
import pytest

from kit.published import papers
from kit.studies.astrocytes import evidence, plan, search, similarity_tables, tables

CASE = plan.Case("kvasir-v2", "mobilenetv3-large", "phantom8", "mobilenetv3_small")


def scores(off, arm, kind="moving"):
    lines = [
        {
            "case": CASE,
            "row": CASE.row,
            "title": "x",
            "arm": name,
            "seed": s,
            "run": f"{name}{s}",
            "statistics": kind,
            "accuracy": v,
            "f1": v - 0.01,
            "mcc": v - 0.1,
            "leak_free": v / 2,
            "leak_free_n": 50,
            "n": 100,
        }
        for name, values in (("off", off), ("published", arm))
        for s, v in enumerate(values)
    ]
    return pd.DataFrame(lines)


class Kept:
    """A writer that remembers and refuses unknown ids."""

    def __init__(self):
        self.said = {}

    def value(self, id, ours, *rest, **more):
        assert id in papers.load("astrocytes").values
        self.said[id] = ours


def test_means_changes_and_claims_are_stored_under_the_printed_ids():
    means = tables.means_table(scores([0.5, 0.6, 0.7], [0.6, 0.7, 0.8]), "published")
    out = Kept()
    tables.store_means({CASE.row: out}, means)
    row = f"{CASE.row}"
    assert out.said[f"table-4-7/{row}/cnn"] == pytest.approx(0.6)
    assert out.said[f"table-4-7/{row}/delta"] == pytest.approx(100 / 6)
    assert out.said[f"table-4-8/{row}/delta"] == pytest.approx(20)
    assert out.said["claims/kvasir.mobilenetv3-large.gain"] == pytest.approx(100 / 6)
    assert len(out.said) == 9
    assert tables.shown_accuracy(means)["printed CNN"].tolist() == [0.8908]
    assert len(tables.shown_rates(means)) == 1
    assert means["cnn_interval"].iloc[0][0] < 0.6 < means["cnn_interval"].iloc[0][1]
    assert means["cnn_leak_free"].iloc[0] == pytest.approx(0.3)


def test_the_printed_changes_recompute():
    values = papers.load("astrocytes").values
    for row in ("cifar-10.shufflenetv2-x1.5", "breakhis.regnety-400mf"):
        assert tables.delta(
            values[f"table-4-7/{row}/cnn"].value, values[f"table-4-7/{row}/cngn"].value
        ) == pytest.approx(values[f"table-4-7/{row}/delta"].value, abs=0.02)
    assert np.isnan(tables.delta(0.0, 0.5))


def test_a_row_without_astrocytes_left_is_no_row():
    table = scores([0.5, 0.6], [])
    assert tables.means_table(table, "published").empty
    for shown in (tables.shown_accuracy, tables.shown_rates):
        assert "diverged" in shown(pd.DataFrame())["row"].iloc[0]


class Searched:
    """A finished search."""

    def __init__(self, pairs):
        self.pairs = pairs

    def history(self):
        return pd.DataFrame(
            [
                {
                    "epoch": e,
                    "candidate": k,
                    "strong": s,
                    "weak": w,
                    "val_accuracy": 0.5 + 0.01 * (k == 3),
                    "chosen": int(k == 3),
                }
                for e, (s, w) in enumerate(self.pairs, 1)
                for k in range(9)
            ]
        )


def test_factors_stand_beside_the_printed_ones_and_are_stored():
    searches, out = {CASE: {"astrocytes": Searched([(1.25, 1.0), (1.5, 0.75)])}}, Kept()
    table = tables.factor_table("kvasir-v2", searches)
    assert table["mobilenetv3-large, ours"].tolist()[:3] == ["1.25, 1", "1.5, 0.75", "–"]
    assert table["mobilenetv3-large, printed"].iloc[1] == "1.5, 1.5"
    assert (
        tables.factor_table("breakhis", searches)["shufflenetv2-x1.5, printed"].iloc[9]
        == "-0.25, 2.75"
    )
    tables.store_factors({CASE.row: out}, searches)
    assert out.said["table-4-5/mobilenetv3-large.epoch2/str"] == 1.5
    assert len(out.said) == 4
    assert search.luck({"a": Searched([(1, 1)] * 2)})["gain (pp)"].iloc[0] == pytest.approx(
        1 - 1 / 9
    )


@pytest.mark.parametrize(
    ("off", "arm", "answer"),
    [
        ([0.5, 0.51, 0.52], [0.6, 0.612, 0.619], 0),
        ([0.5, 0.51, 0.52], [0.4, 0.412, 0.419], 1),
        ([0.5, 0.51, 0.52], [0.45, 0.6, 0.5], 2),
        ([0.5], [0.9], 3),
        ([0.5, 0.6], [0.4, 0.5], 3),
    ],
)
def test_an_effect_counts_only_beyond_the_seeds(off, arm, answer):
    table = evidence.difference_table(scores(off, arm))
    assert table["answer"].tolist() == [evidence.ANSWERS[answer]]
    assert table["difference (pp)"].iloc[0] == pytest.approx(100 * (np.mean(arm) - np.mean(off)))
    said = evidence.verdict(table, "published", "moving")
    assert ("they help", "it is harm", "no evidence", "cannot be said")[answer] in said
    assert "cannot be said" in evidence.verdict(table, "zero", "moving")


def test_the_two_kinds_of_statistics_never_mix():
    """What one kind calls harm the other may not: each has lines, means and answers of its own."""
    both = pd.concat(
        [
            scores([0.5, 0.51, 0.52], [0.1, 0.112, 0.119]),
            scores([0.5, 0.51, 0.52], [0.5, 0.512, 0.519], "recalibrated"),
        ]
    )
    means = tables.means_table(both, "published").set_index("statistics")
    assert means.loc["moving", "cngn_accuracy"] < 0.2 < means.loc["recalibrated", "cngn_accuracy"]
    table = evidence.difference_table(both)
    assert table["answer"].tolist() == [evidence.ANSWERS[1], evidence.ANSWERS[2]]
    assert "harm" in evidence.verdict(table, "published", "moving")
    assert "no evidence" in evidence.verdict(table, "published")
    out = Kept()
    tables.store_means({CASE.row: out}, means.reset_index())
    assert out.said[f"table-4-7/{CASE.row}/cngn"] < 0.2  # as printed: by moving statistics


def test_the_epoch_that_ng_divides_is_told():
    rows = {"train": np.arange(1000)}
    chosen = plan.Plan(profile="x", batch_size=50)
    said = evidence.stale_sentence(chosen, {"digits": (None, rows)})
    assert "NG = 4 divides the 20 steps" in said
    assert "10 of 10 epochs, after which the moving statistics" in said
    said = evidence.stale_sentence(chosen, {"digits": (None, {"train": np.arange(1050)})})
    assert "does not divide the 21 steps" in said
    assert "2 of 10" in said


def test_every_reading_among_the_arms_has_its_line():
    table = evidence.readings_table(plan.Plan(profile="x"))
    assert table["arm"].tolist() == [
        "published",
        "mean",
        "count",
        "norm",
        "undone",
        "epoch",
        "classes",
    ]
    assert table["line"].str.len().min() > 20
    assert table["line"].is_unique


def grid(values):
    return pd.DataFrame(
        [
            {
                "row": "r",
                "dataset": "cifar-10",
                "title": "t",
                "strong": s,
                "weak": w,
                "repetition": k,
                "epoch": 1,
                "statistics": "moving",
                "accuracy": values(s, w, k),
            }
            for s in (0.5, 1.0)
            for w in (0.5, 1.0)
            for k in range(3)
        ]
    )


def test_the_grid_is_judged_by_what_lies_between_its_cells():
    rng = np.random.default_rng(0)
    effect = evidence.grid_effect(grid(lambda s, w, k: s + 0.01 * k)).iloc[0]
    assert effect["between cells (%)"] > 99
    assert effect["p"] < 1e-6
    assert effect["rank of the control"] == 1
    assert effect["by chance (%)"] == pytest.approx(100 * 3 / 11)
    noise = evidence.grid_effect(grid(lambda s, w, k: rng.normal())).iloc[0]
    assert noise["p"] > 0.01
    assert noise["between cells (%)"] < 90
    assert np.isnan(
        evidence.grid_effect(grid(lambda s, w, k: s).query("repetition == 0")).iloc[0]["p"]
    )
    assert "in 1 of 1 maps of 4 cells" in evidence.control_sentence(
        grid(lambda s, w, k: s), "moving"
    )


def test_the_printed_table_shows_no_effect():
    table = evidence.printed_differences()
    assert len(table) == 24
    assert table["difference (pp)"].abs().max() == pytest.approx(2.75, abs=1e-6)
    assert "6 favour astrocytes and 6 do not" in evidence.printed_sentence()


def test_channels_are_averaged_only_where_images_are_few():
    features = np.arange(24.0).reshape(4, 6)
    assert similarity_tables.fewer(features).shape == (4, 2)
    assert similarity_tables.fewer(features)[0].tolist() == [
        1.0,
        4.0,
    ]
    assert similarity_tables.fewer(features.T) is not None
    assert similarity_tables.fewer(features.T).shape == (6, 4)
    dead = similarity_tables._alike(np.ones((20, 3)), np.random.default_rng(0).normal(size=(20, 3)))
    assert np.isnan(dead["pwcca"])
    assert 0 < dead["floor"] < 1
