"""Metrics against scikit-learn, against the reconstructed matrices of the Br35H paper and against
values of the thesis' formulas that were computed apart from the kit.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk

from kit.evaluation import metrics


def table(labels, scores) -> pd.DataFrame:
    scores = np.asarray(scores, float)
    if scores.ndim == 1:
        scores = np.stack([1 - scores, scores], axis=1)
    columns = {f"score_{k}": column for k, column in enumerate(scores.T)}
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(len(labels))],
            "group": np.arange(len(labels)),
            "label": labels,
            **columns,
        }
    )


def from_matrix(matrix) -> pd.DataFrame:
    """Predictions table with exactly this confusion matrix."""
    matrix = np.asarray(matrix)
    labels, decided = (
        np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape)
    )
    return table(labels, np.eye(len(matrix))[decided] * 0.8 + 0.2 / len(matrix))


@pytest.fixture
def multi():
    rng = np.random.default_rng(3)
    labels = rng.choice(4, 300, p=[0.5, 0.3, 0.15, 0.05])
    return table(
        labels,
        rng.dirichlet(np.ones(4), 300) * 0.6 + 0.4 * np.eye(4)[labels] * rng.random((300, 1)),
    )


@pytest.mark.parametrize(
    ("tn", "fp", "fn", "tp", "accuracy", "sensitivity", "specificity"),
    [(296, 7, 5, 292, 0.98, 0.983165, 0.976898), (301, 2, 0, 297, 0.996667, 1.0, 0.993399)],
)
def test_reconstructed_hold_out_matrices(tn, fp, fn, tp, accuracy, sensitivity, specificity):
    result = metrics.binary_metrics(from_matrix([[tn, fp], [fn, tp]]))
    assert (result["TN"], result["FP"], result["FN"], result["TP"], result["n"]) == (
        tn,
        fp,
        fn,
        tp,
        600,
    )
    assert result["accuracy"] == pytest.approx(accuracy, abs=5e-7)
    assert result["sensitivity"] == pytest.approx(sensitivity, abs=5e-7)
    assert result["specificity"] == pytest.approx(specificity, abs=5e-7)


def test_weighted_recall_is_accuracy_but_sensitivity_is_not(multi):
    result = metrics.binary_metrics(from_matrix([[296, 7], [25, 272]]))
    assert result["weighted_recall"] == pytest.approx(result["accuracy"], abs=1e-15)
    assert abs(result["sensitivity"] - result["accuracy"]) > 0.01
    result = metrics.multiclass_metrics(multi)
    assert result["weighted_recall"] == pytest.approx(result["accuracy"], abs=1e-15)


def test_binary_metrics_agree_with_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.round(np.clip(0.3 * labels + 0.7 * rng.random(200), 0, 1), 2)
    result, decided = metrics.binary_metrics(table(labels, scores), threshold=0.6), scores > 0.6
    expected = {
        "accuracy": sk.accuracy_score(labels, decided),
        "sensitivity": sk.recall_score(labels, decided),
        "specificity": sk.recall_score(labels, decided, pos_label=0),
        "precision": sk.precision_score(labels, decided),
        "f1": sk.f1_score(labels, decided),
        "auc": sk.roc_auc_score(labels, scores),
        "mcc": sk.matthews_corrcoef(labels, decided),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, decided),
        "weighted_recall": sk.recall_score(labels, decided, average="weighted"),
    }
    assert set(expected) == set(metrics.BINARY)
    assert {name: result[name] for name in metrics.BINARY} == pytest.approx(expected, abs=1e-12)


def test_multiclass_metrics_agree_with_sklearn(multi):
    scores = multi.filter(like="score_").to_numpy()
    labels, decided = multi["label"], scores.argmax(1)
    result = metrics.multiclass_metrics(multi)
    for average in ("macro", "weighted"):
        expected = sk.precision_recall_fscore_support(labels, decided, average=average)[:3]
        assert [
            result[f"{average}_{name}"] for name in ("precision", "recall", "f1")
        ] == pytest.approx(expected, abs=1e-12)
    assert result["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, decided), abs=1e-12)
    assert result["kappa"] == pytest.approx(sk.cohen_kappa_score(labels, decided), abs=1e-12)
    assert result["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(labels, decided), abs=1e-12
    )
    probabilities = scores / scores.sum(1, keepdims=True)
    ranked = metrics.multiclass_metrics(
        multi.assign(**{f"score_{k}": probabilities[:, k] for k in range(4)})
    )
    assert ranked["macro_auc"] == pytest.approx(
        sk.roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-12
    )
    specificity = [sk.recall_score(labels == k, decided == k, pos_label=False) for k in range(4)]
    assert [c["specificity"] for c in result["classes"]] == pytest.approx(specificity, abs=1e-12)


# accuracy, macro specificity, macro precision, macro recall, F1 of eq. 2.65, mean F1, MCC
THESIS = [
    (
        [[18, 1, 0, 1], [1, 7, 0, 1], [1, 0, 10, 1], [1, 4, 2, 12]],
        (0.783333, 0.928031, 0.768452, 0.785673, 0.776967, 0.770983, 0.708378),
    ),
    (
        [[73, 0, 0], [7, 5, 0], [2, 0, 3]],
        (0.9, 0.823529, 0.963415, 0.672222, 0.791898, 0.760057, 0.657691),
    ),
    ([[5, 0, 0], [3, 0, 0], [2, 0, 0]], (0.5, 0.666667, 0.166667, 0.333333, 0.222222, 0.222222, 0)),
    ([[5, 0, 0], [0, 3, 0], [0, 0, 2]], (1, 1, 1, 1, 1, 1, 1)),
    (
        [[4, 1, 1], [0, 0, 0], [0, 0, 0]],
        (0.666667, 0.555556, 0.333333, 0.222222, 0.266667, 0.266667, 0),
    ),
    ([[0, 2], [2, 0]], (0, 0, 0, 0, 0, 0, -1)),
]


@pytest.mark.parametrize(("matrix", "expected"), THESIS)
def test_thesis_oracle(matrix, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetric)
        result = metrics.multiclass_metrics(from_matrix(matrix), absent="zero")
    names = (
        "accuracy",
        "macro_specificity",
        "macro_precision",
        "macro_recall",
        "f1_of_macros",
        "macro_f1",
        "mcc",
    )
    assert [result[name] for name in names] == pytest.approx(expected, abs=6e-7)


def test_class_table_of_a_published_matrix():
    matrix = [
        [295, 5, 0, 0],
        [2, 301, 3, 0],
        [4, 1, 400, 0],
        [0, 2, 0, 298],
    ]  # the CAD paper's ResNet-50
    rows = metrics.class_table(
        from_matrix(matrix), ["glioma", "meningioma", "notumor", "pituitary"]
    )
    assert rows.loc["glioma", ["precision", "recall", "f1"]].tolist() == pytest.approx(
        [0.9801, 0.9833, 0.9817], abs=5e-5
    )
    assert rows["specificity"].tolist()[:4] == pytest.approx(
        [0.9941, 0.9920, 0.9967, 1.0], abs=5e-5
    )
    assert rows.loc["macro average", ["precision", "recall", "f1"]].tolist() == pytest.approx(
        [0.9867, 0.9870, 0.9868], abs=5e-5
    )
    assert rows.loc["weighted average", ["precision", "recall", "f1"]].tolist() == pytest.approx(
        [0.9871, 0.9870, 0.9871], abs=5e-5
    )
    assert rows["support"].tolist() == [300, 306, 405, 300, 1311, 1311]


def test_absent_class_is_named_and_left_out(multi):
    kept = multi[multi["label"] != 3]
    with pytest.warns(metrics.UndefinedMetric, match="No image is of class 3;"):
        result = metrics.multiclass_metrics(kept)
    assert np.isnan(
        [result["classes"][3][name] for name in ("recall", "precision", "f1", "auc")]
    ).all()
    assert result["macro_recall"] == pytest.approx(
        np.mean([c["recall"] for c in result["classes"][:3]])
    )
    assert np.isfinite([result[name] for name in metrics.MULTICLASS]).all()


def test_single_class_fold_gives_nan_and_a_sentence():
    with pytest.warns(metrics.UndefinedMetric, match="All 3 images are of class 1"):
        result = metrics.binary_metrics(table([1, 1, 1], [0.9, 0.8, 0.2]))
    assert np.isnan(result["auc"])
    assert np.isnan(result["specificity"])
    assert result["sensitivity"] == pytest.approx(2 / 3)
    with pytest.raises(metrics.BadPredictions, match="both classes"):
        metrics.roc_points(table([1, 1, 1], [0.9, 0.8, 0.2]))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda t: t.iloc[:0], "is empty"),
        (lambda t: t.drop(columns="label"), "lacks label"),
        (lambda t: t.drop(columns="score_0"), "lacks score_0"),
        (lambda t: t.drop(columns=["score_0", "score_1"]), "lacks score_0, score_1"),
        (lambda t: t.assign(label=2), r"Labels must be 0\.\.1"),
        (
            lambda t: t.assign(score_1=np.nan),
            "2 of 2 predictions have a score that is not a finite number",
        ),
    ],
)
def test_unusable_table_gets_one_sentence(spoil, sentence):
    with pytest.raises(metrics.BadPredictions, match=sentence) as caught:
        metrics.binary_metrics(spoil(table([0, 1], [0.2, 0.7])))
    assert str(caught.value).count(".\n") == 0
    assert str(caught.value).endswith(".")


def test_threshold_is_strict_and_positive_class_can_be_any():
    tie = table([1, 0], [0.5, 0.5])
    assert metrics.binary_metrics(tie)["TP"] == 0
    flipped = metrics.binary_metrics(table([0, 0, 1], [0.1, 0.7, 0.9]), positive=0)
    assert (flipped["TP"], flipped["FN"], flipped["TN"]) == (1, 1, 1)
    with pytest.raises(metrics.BadPredictions, match="positive class 5"):
        metrics.binary_metrics(tie, positive=5)


def test_correct_marks_hits(multi):
    assert metrics.correct(multi).mean() == pytest.approx(
        metrics.multiclass_metrics(multi)["accuracy"]
    )
    assert metrics.correct(from_matrix([[1, 1], [1, 2]])).tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]


def test_confusion_keeps_absent_classes():
    assert metrics.confusion([0, 0, 2], [0, 2, 2], 4).tolist() == [
        [1, 0, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]
    with pytest.raises(metrics.BadPredictions, match="at least one label"):
        metrics.confusion([], [], 2)


def test_roc_points_enclose_the_auc():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 150)
    predictions = table(labels, np.round(np.clip(0.25 * labels + 0.7 * rng.random(150), 0, 1), 1))
    points = metrics.roc_points(predictions)
    assert np.trapezoid(points["tpr"], points["fpr"]) == pytest.approx(
        metrics.binary_metrics(predictions)["auc"], abs=1e-12
    )
    assert points[["fpr", "tpr"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]


def test_reweighted_equals_the_metric_of_the_repeated_table(multi):
    rng = np.random.default_rng(2)
    binary = table(
        multi["label"].clip(upper=1), np.round(multi["score_1"] / multi["score_1"].max(), 2)
    )
    weights = rng.integers(0, 3, (2, 300)).astype(float)
    for data, names, compute in (
        (binary, metrics.BINARY, metrics.binary_metrics),
        (multi, metrics.MULTICLASS, metrics.multiclass_metrics),
    ):
        repeated = [compute(data.iloc[np.repeat(np.arange(300), w.astype(int))]) for w in weights]
        for name in names:
            assert metrics.reweighted(data, name)(weights) == pytest.approx(
                [r[name] for r in repeated], abs=1e-12
            ), name


def test_weighted_auc_agrees_with_sklearn():
    rng = np.random.default_rng(4)
    labels, scores, weights = (
        rng.integers(0, 2, 80),
        np.round(rng.random(80), 1),
        rng.random((3, 80)),
    )
    expected = [sk.roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    assert metrics.weighted_auc(labels, scores, weights) == pytest.approx(expected, abs=1e-12)


def test_unknown_metric_lists_the_names():
    with pytest.raises(metrics.UnknownMetric, match="'acuracy'; choose from accuracy, auc"):
        metrics.reweighted(table([0, 1], [0.2, 0.7]), "acuracy")


def test_calibration_of_honest_and_boastful_scores():
    rng = np.random.default_rng(5)
    p = rng.random(20000)
    labels = (rng.random(20000) < p).astype(int)
    honest, boastful = (
        metrics.calibration(table(labels, p), positive=1),
        metrics.calibration(table(labels, np.round(p)), positive=1),
    )
    assert honest.ece < 0.02
    assert len(honest.bins) == 10
    assert honest.bins["n"].sum() == honest.n == 20000
    assert boastful.ece == pytest.approx(0.25, abs=0.01)
    assert boastful.bins["n"].tolist() == pytest.approx([10000, 10000], rel=0.05)
    top = metrics.calibration(table(labels, p))
    assert top.bins["low"].min() == 0.5
    assert top.ece < 0.02
    with pytest.raises(metrics.BadPredictions, match="probabilities in"):
        metrics.calibration(table([0, 1], [3.0, -2.0]))
