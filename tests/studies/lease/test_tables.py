"""The LeaSE paper's tables: metrics from predictions, rows of the paper, differences over seeds."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from kit.evaluation import metrics
from kit.published import papers
from kit.search.nas2d import baselines
from kit.studies.lease import plan, tables


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    labels = np.repeat(range(4), [100, 115, 105, 74])
    scores = rng.dirichlet(np.ones(4), len(labels))
    scores[np.arange(len(labels)), labels] += 0.4
    scores /= scores.sum(1, keepdims=True)
    table = pd.DataFrame(
        {
            "image_id": [f"t{i}" for i in range(len(labels))],
            "group": range(len(labels)),
            "label": labels,
            "part": "test",
        }
    )
    return table.assign(**{f"score_{k}": scores[:, k] for k in range(4)})


def test_the_six_metrics_are_scikit_learns(predictions):
    labels, scores = metrics.labels_and_scores(predictions)
    said = scores.argmax(1)
    precision, recall = (
        100 * f(labels, said, average="macro") for f in (precision_score, recall_score)
    )
    expected = {
        "accuracy": 100 * (labels == said).mean(),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "auc": 100 * roc_auc_score(labels, scores, multi_class="ovr"),
        "specificity": np.mean([100 * (said[labels != k] != k).mean() for k in range(4)]),
    }
    for name, value in expected.items():
        found = tables.interval(predictions, name, 200)
        assert found.estimate == pytest.approx(value)
        assert found.low < value < found.high


def test_a_class_without_images_is_left_out_and_one_class_has_no_auc(predictions):
    rest = predictions[predictions["label"] != 2].reset_index(drop=True)
    labels, scores = metrics.labels_and_scores(rest)
    assert tables.interval(rest, "recall", 50).estimate == pytest.approx(
        100 * np.mean([(scores[labels == k].argmax(1) == k).mean() for k in (0, 1, 3)])
    )
    assert tables.interval(predictions[predictions["label"] == 0], "auc") is None
    assert tables.interval(predictions[:0], "accuracy") is None


def test_every_printed_row_has_a_method():
    values = papers.load("lease").values
    assert {key.split("/")[1] for key in values if key.startswith("table-3/")} == set(plan.TABLE_3)
    for artefact, rows in (("table-4", plan.TABLE_4), ("table-5", plan.TABLE_5)):
        assert {key.split("/")[1] for key in values if key.startswith(f"{artefact}/")} == set(rows)
        assert set(rows.values()) <= set(plan.TITLES)
    assert len(plan.SEARCHES) == 12
    assert len(plan.BASELINES) == 6


class Kept:
    """A writer that remembers."""

    paper = "lease"

    def __init__(self):
        self.said = {}

    def value(self, id, ours, *rest, exact=False, **more):
        assert id in papers.load("lease").values or id.startswith("claims/")
        self.said[id] = (ours, exact)


def test_numbers_and_claims_are_stored_under_the_papers_ids(predictions, monkeypatch):
    monkeypatch.setattr(
        tables.report_results, "leak_free", lambda table, name, ids: table[table["label"] != 2]
    )
    rows = {
        row: (predictions, [])
        for row in ("darts", "lease-darts", "lease-pcdarts.gamma0.5", "resnet101")
    }
    long, out = tables.result_table(rows, "phantom4", 50), Kept()
    writers = {**{row.split(".")[0]: out for row in plan.TITLES}, "data": out}
    tables.store(writers, long)
    sizes = {
        "lease-darts": 3_750_000,
        "resnet101": baselines.entry("resnet101").parameters,
        "darts": 12_345,
    }
    tables.store_parameters(writers, sizes)
    tables.store_claims(writers, long, sizes, 3264)
    accuracy = 100 * metrics.correct(predictions).mean()
    assert (
        out.said["table-3/lease-pcdarts.gamma0.5/accuracy"][0]
        == out.said["table-4/lease-darts.both/accuracy"][0]
        == pytest.approx(accuracy)
    )
    assert (
        out.said["table-5/lease-darts.resnet18/accuracy"][0]
        == out.said["claims/abstract.accuracy"][0]
        == pytest.approx(accuracy)
    )
    assert out.said["table-3/resnet101/parameters"] == (42.561028, True)
    assert out.said["table-3/darts/parameters"] == (0.012345, False)
    assert "table-4/lease-pdarts.both/accuracy" not in out.said
    assert out.said["claims/dataset.images"][0] == 3264
    wide = tables.wide(long, {**sizes, "lease-pcdarts.gamma0.5": 1})
    assert wide["method"].tolist() == [
        "DARTS",
        "LeaSE+DARTS",
        "LeaSE+PC-DARTS, γ = 0.5",
        "ResNet-101",
    ]
    assert (wide["leak-free n"] == 289).all()
    assert tables.short(long, plan.TABLE_4)["method"].tolist() == ["LeaSE+DARTS"]
    assert tables.short(long, {}).empty


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        ([90, 91, 92], "within seed noise"),
        ([95, 96.1, 97.2], "beyond seed noise"),
        ([80, 81.1, 82.2], "worse, beyond seed noise"),
    ],
)
def test_a_difference_counts_only_beyond_the_spread_of_the_seeds(first, answer):
    base = {0: 90.5, 1: 91.0, 2: 91.4}
    table = tables.difference_table(
        {"lease-pcdarts.gamma1": dict(enumerate(first)), "pcdarts": base}
    )
    assert table["answer"].tolist() == [answer]
    assert table["seeds"].tolist() == [3]
    assert table["difference (pp)"].iloc[0] == pytest.approx(
        np.mean(first) - np.mean(list(base.values()))
    )
    assert (
        "in 1 of 1 comparison " if answer == "beyond seed noise" else "in 0 of 1 comparison "
    ) in tables.verdict(table)


def test_one_seed_gives_no_answer():
    table = tables.difference_table({"lease-darts": {0: 91.0}, "darts": {0: 80.0}})
    assert table["answer"].tolist() == ["one seed: no answer"]
    assert "cannot be said" in tables.verdict(table)
    assert "cannot be said" in tables.verdict(tables.difference_table({}))


def test_counts_are_those_of_the_folders():
    counts = tables.count_table("phantom4")
    assert counts.loc["total", "train"] == counts["train"].iloc[:-1].sum()
    assert (counts["test_leak_free"] <= counts["test"]).all()
    assert "healthy" in counts.index
    assert counts.loc["total", "test_leak_free"] < counts.loc["total", "test"]
