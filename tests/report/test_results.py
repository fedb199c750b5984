import numpy as np
import pandas as pd
import pytest

from kit import files
from kit.data import duplicates, registry
from kit.evaluation.metrics import binary_metrics
from kit.published import papers
from kit.report import artefacts, results
from kit.studies.br35h import tables


def predictions(labels, scores, groups=None):
    scores = np.asarray(scores, float)
    return pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(len(labels))],
            "group": range(len(labels)) if groups is None else groups,
            "label": labels,
            "score_0": 1 - scores,
            "score_1": scores,
        }
    )


@pytest.fixture
def holdout():
    """The transfer model's reconstructed hold-out: TP 292, FN 5, TN 296, FP 7."""
    return predictions([1] * 297 + [0] * 303, [0.9] * 292 + [0.1] * 5 + [0.2] * 296 + [0.8] * 7)


def test_intervals_of_the_published_hold_out(holdout):
    accuracy = results.interval(holdout, "accuracy")
    assert (round(accuracy.estimate, 2), round(accuracy.low, 2), round(accuracy.high, 2)) == (
        98.0,
        96.54,
        98.85,
    )
    sensitivity, specificity = (
        results.interval(holdout, m) for m in ("sensitivity", "specificity")
    )
    assert (sensitivity.n, specificity.n) == (297, 303)
    assert sensitivity.estimate == pytest.approx(98.3165, abs=1e-4)
    assert specificity.estimate == pytest.approx(97.6898, abs=1e-4)


def test_undefined_metrics_are_none_not_a_crash(holdout):
    only_sick = holdout[holdout["label"] == 1]
    assert results.interval(only_sick, "auc") is None
    assert results.interval(only_sick, "specificity") is None
    assert results.interval(only_sick, "sensitivity").n == 297
    assert results.interval(only_sick, "accuracy").n == 297
    assert results.interval(holdout[:0], "accuracy") is None


def test_leak_free_values_drop_the_copies_of_training_images(monkeypatch):
    table = predictions([1, 1, 0, 0], [0.9, 0.4, 0.1, 0.2])
    ids = [*table["image_id"], "train1"]
    monkeypatch.setattr(registry, "index", lambda name: pd.DataFrame({"image_id": ids}))
    monkeypatch.setattr(
        duplicates,
        "groups",
        lambda name: pd.DataFrame(
            {
                "image_id": ids,
                "exact_group": range(5),
                "pixel_group": range(5),
                "near_group": [0, 1, 2, 3, 1],
                "twin_group": [0, 1, 2, 3, 1],
            }
        ),
    )
    rows = results.binary_table({"cnn": (table, ["train1"])}, "any", ["accuracy"]).iloc[0]
    assert (rows["value"], rows["n"]) == (75.0, 4)
    assert (rows["leak_free"], rows["leak_free_n"]) == (
        100.0,
        3,
    )


def test_fold_table_has_the_published_moments():
    """Table 1's accuracies give the sample variances computed apart."""
    values = {"cnn": [97.94, 97.34, 97.70], "tl": [98.26, 97.78, 97.25]}
    table = pd.DataFrame(
        [
            {"row": f"{m}.fold{i}", "metric": "accuracy", "value": v, "leak_free": np.nan}
            for m, vs in values.items()
            for i, v in enumerate(vs, 1)
        ]
    )
    shown = tables.fold_table(table, {"cnn": "CNN", "tl": "TL"}).set_index(["model", "fold"])[
        "accuracy"
    ]
    assert shown["CNN", "mean"] == pytest.approx(97.66)
    assert shown["CNN", "variance (pp²)"] == pytest.approx(0.0912)
    assert shown["TL", "variance (pp²)"] == pytest.approx(0.2552, abs=5e-5)
    tests = tables.compare_folds(table, "tl", "cnn").set_index("test")
    assert tests.loc["paired t", "statistic"] == pytest.approx(0.37060, abs=5e-6)
    assert tests.loc["corrected resampled t", "statistic"] == pytest.approx(0.23439, abs=5e-6)
    assert tests.loc["pooled t", "statistic"] == pytest.approx(0.30408, abs=5e-6)


def test_the_picked_image_is_right_in_both_models_and_the_median():
    a, b = (
        predictions([1, 1, 1, 1, 0], [0.9, 0.8, 0.7, 0.4, 0.1]),
        predictions([1, 1, 1, 1, 0], [0.6, 0.9, 0.9, 0.9, 0.3]),
    )
    assert tables.pick_shared(a, b, 1) == "i2"
    assert tables.pick_shared(a, b, 0) == "i4"
    wrong = predictions([1, 1], [0.2, 0.3])
    assert tables.pick_shared(wrong, wrong, 1) == "i1"


def test_paired_tests_see_the_same_images(holdout):
    better = holdout.assign(
        score_0=np.where(holdout["label"] == 1, 0.1, 0.9),
        score_1=np.where(holdout["label"] == 1, 0.9, 0.1),
    )
    tests = tables.compare_on_test(better, holdout).set_index("test")
    assert tests.loc["McNemar exact", "p"] == pytest.approx(2 * 0.5**12)
    assert tests.loc["Fisher exact", "p"] < 0.001


def test_values_are_stored_only_under_published_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    out = artefacts.Artefacts("br35h", "smoke", "10_br35h_cnn_vs_resnet50v2", data=None)
    row = {
        "row": "cnn.fold1",
        "value": 97.0,
        "low": 95.0,
        "high": 98.0,
        "n": 800,
        "leak_free": 96.0,
        "leak_free_low": 94.0,
        "leak_free_high": 97.0,
    }
    results.store(
        {"cnn": out},
        "table-1",
        pd.DataFrame([{**row, "metric": "accuracy"}, {**row, "metric": "auc"}]),
    )
    stored = files.read_json(tmp_path / "smoke/br35h/values.json")
    assert list(stored) == ["table-1/cnn.fold1/accuracy"]
    assert stored["table-1/cnn.fold1/accuracy"]["leak_free"] == 96.0


def test_departures_name_what_the_paper_states_otherwise():
    paper = papers.load("br35h")
    assert papers.departures(paper, {"epochs": 30, "learning_rate": 1e-4, "batch_size": 8}) == []
    assert papers.departures(paper, {"epochs": 6, "image_size": [64, 64]}) == [
        "epochs 6 instead of 30",
        "image size [64, 64] instead of [240, 240]",
    ]
    with pytest.raises(papers.UnknownValue, match="'epoch'"):
        papers.departures(paper, {"epoch": 6})


def test_weighted_recall_is_accuracy(holdout):
    assert binary_metrics(holdout)["weighted_recall"] == pytest.approx(
        binary_metrics(holdout)["accuracy"]
    )
