"""The LeaSE paper's tables: metrics from predictions, rows of the paper, differences over seeds."""

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from kit import files
from kit.evaluation import metrics
from kit.published import papers
from kit.search.nas2d import baselines, lease_settings
from kit.studies.lease import choices, plan, runs, tables


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


def searched(tmp_path, name, entropy, margin, ratios=None, found=None):
    """A stand-in for a finished search of 90 updates at a rate of 0.005, after two epochs of
    warm-up.
    """
    folder = tmp_path / name
    folder.mkdir()
    files.write_json(folder / "genotype.json", {"survivors": None})
    if found:
        files.write_json(folder / "hypergradient.json", found)
    history = pd.DataFrame(
        {
            "val_accuracy": 0.5,
            "skips_normal": 1,
            "skips_reduce": 0,
            "collapse": False,
            "moved": [0, 0, 4.0, 1.0, 0.0],
            "updates": [0, 0, 45, 90, 90],
            **{f"entropy_{cell}": entropy for cell in ("normal", "reduce")},
            **{f"margin_{cell}": margin for cell in ("normal", "reduce")},
            **({} if ratios is None else {"ratio": ratios}),
        }
    )
    return SimpleNamespace(folder=folder, history=lambda: history, config={"arch_lr": 0.005})


def test_what_a_search_did_is_told_over_the_epochs_that_moved_it(tmp_path):
    """The published numbers of one search: entropy .9998 after 90 updates, and ratios of 61 and 20
    where the architecture moved, of .03 at the end.
    """
    lease = searched(
        tmp_path,
        "lease",
        0.99977,
        0.02,
        ratios=[137.0, 73.0, 61.0, 20.0, 0.03],
        found={"cosine": 0.9, "audience_cosine": 0.6, "audience_cosine_float64": 0.4},
    )
    darts = searched(tmp_path, "darts", 0.99, 0.5)
    table = tables.search_table({"lease-pcdarts.gamma1": {0: lease}, "darts": {0: darts}})
    first, second = table.iloc[0], table.iloc[1]
    assert first["architecture"] == "has not left uniform"
    assert second["architecture"] == "has left uniform"
    assert first["audience / explainer"] == pytest.approx((4 * 61 + 20) / 5)
    assert first["audience / explainer, lowest epoch"] == 20
    assert first["audience / explainer, highest epoch"] == 61
    assert (first["cosine with exact"], first["cosine with float64"]) == (0.6, 0.4)
    assert second[["audience / explainer", "cosine with exact"]].isna().all()


def test_one_cell_alone_may_have_left_uniform(tmp_path):
    run = searched(tmp_path, "one", 0.99, 0.5)
    history = run.history()
    history["entropy_reduce"] = 0.9999
    table = tables.search_table({"darts": {0: run}})
    assert table["architecture"].tolist() == ["the reduction cell has not left uniform"]


def test_every_open_question_is_a_line_with_the_run_s_answer():
    config = runs.search_configs(plan.Plan(profile="x", dataset="sartaj"), "lease-darts")[0]
    table = choices.choice_table(config)
    assert table["number"].tolist() == list(range(1, 21))
    answered = {name for _, names, _ in choices.OPEN for name in names}
    assert {field.name for field in fields(lease_settings.LeaseSettings)} <= answered
    text = table.set_index("number")["this run"]
    assert text[1] == "sign 1"
    assert text[2] == "initial uniform; initial_fraction 0.1"
    assert "mode exact" in text[17]
    assert "width 64" in text[20]
    other = choices.choice_table(replace(config, lease={"sign": -1}, mode="finite"))
    assert other["this run"].iloc[0] == "sign -1"
    assert "mode finite" in other["this run"].iloc[16]


def test_searches_are_compared_with_random_cells():
    accuracies = {"pcdarts": {0: 70.0, 1: 71.0}, "random": {0: 72.0, 1: 75.0}}
    table = tables.difference_table(accuracies, plan.AGAINST_RANDOM)
    assert len(table) == 1
    assert table["difference (pp)"].item() == -3
