"""Classification metrics from a table of predictions, never from a live model.

A predictions table has one row an image: ``image_id`` (str), ``group`` (int, duplicate group),
``label`` (int, 0..C-1) and one column of class probabilities a class, ``score_0`` ..
``score_{C-1}``; ``fold`` and ``part`` are optional. A one-unit sigmoid model writes ``score_0 = 1 -
p``.

What differs from the publications: the Br35H paper prints a support-weighted recall (always equal
to the accuracy) as sensitivity, here sensitivity is TP / (TP + FN) and the weighted recall stands
beside it under its own name; the thesis prints a specificity that can exceed 1 (eq. 2.62), here it
is TN / (TN + FP); of its two macro F1 (eq. 2.65 and the mean over classes) both are given.

The confusion matrix, the ROC curve and the AUC are scikit-learn's. The rates are written out here
once, over class totals with leading axes, because the bootstrap needs the same formulas for
thousands of reweighted tables at a time; the tests hold them against scikit-learn.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from kit.errors import KitError

BINARY = (
    "accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "auc",
    "weighted_recall",
    "balanced_accuracy",
    "mcc",
)
MULTICLASS = (
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_specificity",
    "macro_f1",
    "f1_of_macros",
    "macro_auc",
    "weighted_precision",
    "weighted_recall",
    "weighted_specificity",
    "weighted_f1",
    "balanced_accuracy",
    "mcc",
    "kappa",
)


class BadPredictions(KitError):
    """The table of predictions cannot be used."""


class UnknownMetric(KitError):
    """No metric has this name."""


class UndefinedMetric(UserWarning):
    """A metric is not defined on these predictions and was set to nan, or its average leaves a
    class out.
    """


class Totals(NamedTuple):
    """What every rate is made of: per class (last axis) correct, actual and predicted images;
    leading axes are resamples.
    """

    hits: np.ndarray
    actual: np.ndarray
    predicted: np.ndarray


# --- the table ------------------------------------------------------------------------------------


def labels_and_scores(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Labels, int (n,), and score columns in class order, float64 (n, C), of a checked table.

    Raises
    ------
    BadPredictions
        If the table is empty, lacks ``label`` or a score column, or holds a label outside 0..C-1 or
        a score that is not a finite number.
    """
    if len(predictions) == 0:
        raise BadPredictions(
            "The table of predictions is empty; predict at least one image before computing "
            "metrics."
        )
    names = [
        f"score_{k}"
        for k in range(sum(str(column).startswith("score_") for column in predictions.columns))
    ]
    missing = [name for name in ["label", *names] if name not in predictions]
    if missing or len(names) < 2:
        lacking = ", ".join(missing) or "score_0, score_1"
        raise BadPredictions(
            f"The table of predictions lacks {lacking}; it needs label and score_0 .. "
            f"score_{{C-1}}."
        )
    scores, labels = predictions[names].to_numpy(dtype=float), predictions["label"].to_numpy()
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if bad:
        raise BadPredictions(
            f"{bad} of {len(scores)} predictions have a score that is not a finite number; train "
            "again with a lower learning rate."
        )
    if not np.isin(labels, np.arange(len(names))).all():
        raise BadPredictions(
            f"Labels must be 0..{len(names) - 1}, one for each score column, but range over "
            f"{labels.min()}..{labels.max()}."
        )
    return labels.astype(int), scores


def as_two_classes(
    predictions: pd.DataFrame, positive: int = 1, threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, decisions and scores of the question "class `positive` or not".

    Returns
    -------
    (labels, decided, scores)
        int (n,) 0/1, int (n,) 0/1 with 1 where the score is strictly above `threshold` (as in
        Keras), float (n,).
    """
    labels, scores = labels_and_scores(predictions)
    if positive not in range(scores.shape[1]):
        raise BadPredictions(
            f"The positive class {positive} is none of the table's classes "
            f"0..{scores.shape[1] - 1}."
        )
    score = scores[:, positive]
    return (labels == positive).astype(int), (score > threshold).astype(int), score


def correct(predictions: pd.DataFrame) -> np.ndarray:
    """Whether the class with the highest score is the label, bool (n,), e.g. for
    `kit.evaluation.stats.mcnemar_exact`; ties go to the lower class.
    """
    labels, scores = labels_and_scores(predictions)
    return scores.argmax(1) == labels


def confusion(
    labels: np.ndarray | Sequence[int], predicted: np.ndarray | Sequence[int], n_classes: int
) -> np.ndarray:
    """Confusion matrix, int (n_classes, n_classes), rows = true, columns = predicted; absent
    classes keep their row and column.
    """
    if len(labels) == 0:
        raise BadPredictions("A confusion matrix needs at least one label.")
    return confusion_matrix(labels, predicted, labels=np.arange(n_classes))


# --- rates from class totals, leading axes allowed ------------------------------------------------


def totals(matrix: ArrayLike) -> Totals:
    """Class totals of confusion matrices (..., C, C), rows = true."""
    matrix = np.asarray(matrix, dtype=float)
    return Totals(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1), matrix.sum(-2))


def _ratio(numerator, denominator, xp=np):
    defined = denominator != 0
    return xp.where(defined, xp.divide(numerator, xp.where(defined, denominator, 1)), np.nan)


def class_rates(t: Totals, xp: ModuleType = np) -> dict[str, np.ndarray]:
    """Recall, precision, F1 and specificity per class, each (..., C).

    nan where a rate has no meaning (recall, precision and F1 of a class without images, specificity
    of a class that is the whole set); the precision of a class that has images but is never
    predicted is 0, as in scikit-learn. `xp`: see `overall_rates`.
    """
    present, n = t.actual > 0, xp.sum(t.actual, -1, keepdims=True)
    return {
        "precision": xp.where(present, xp.nan_to_num(_ratio(t.hits, t.predicted, xp)), np.nan),
        "recall": _ratio(t.hits, t.actual, xp),
        "f1": xp.where(present, _ratio(2 * t.hits, t.actual + t.predicted, xp), np.nan),
        "specificity": _ratio(n - t.actual - t.predicted + t.hits, n - t.actual, xp),
    }


def _macro(rate, present, xp=np):
    return _ratio(xp.sum(xp.where(present, rate, 0), -1), xp.sum(present, -1), xp)


def overall_rates(t: Totals, absent: str = "skip", xp: ModuleType = np) -> dict[str, np.ndarray]:
    """Averages and whole-matrix coefficients, each with the leading axes of `t`.

    Parameters
    ----------
    t : Totals
    absent : {"skip", "zero"}
        Macro averages leave classes without images out ("skip"), or count them, and every undefined
        rate, as 0 ("zero": the released code of the thesis). The two agree whenever every class has
        an image.
    xp : module
        What computes: ``numpy``, or ``keras.ops`` for totals that are tensors of a graph
        (`kit.training.streaming`).

    Notes
    -----
    ``f1_of_macros`` is eq. 2.65 of the thesis, ``mcc`` its eq. 2.66 (Gorodkin's; 0 where the
    denominator is 0).
    """
    rates, n = class_rates(t, xp), xp.sum(t.actual, -1)
    present = t.actual > 0
    if absent == "zero":
        rates, present = (
            {name: xp.nan_to_num(rate) for name, rate in rates.items()},
            xp.ones_like(present),
        )
    macro = {f"macro_{name}": _macro(rate, present, xp) for name, rate in rates.items()}
    weighted = {
        f"weighted_{name}": _ratio(xp.sum(xp.where(t.actual > 0, rate, 0) * t.actual, -1), n, xp)
        for name, rate in rates.items()
    }
    product = macro["macro_precision"] * macro["macro_recall"]
    agreement, by_chance = (
        _ratio(xp.sum(t.hits, -1), n, xp),
        _ratio(xp.sum(t.actual * t.predicted, -1), n**2, xp),
    )
    spread = xp.sqrt((n**2 - xp.sum(t.predicted**2, -1)) * (n**2 - xp.sum(t.actual**2, -1)))
    return {
        "accuracy": agreement,
        **macro,
        "f1_of_macros": xp.nan_to_num(
            _ratio(2 * product, macro["macro_precision"] + macro["macro_recall"], xp)
        ),
        **weighted,
        "balanced_accuracy": macro["macro_recall"],
        "mcc": xp.nan_to_num(_ratio((agreement - by_chance) * n**2, spread, xp)),
        "kappa": _ratio(agreement - by_chance, 1 - by_chance, xp),
    }


def two_class_rates(t: Totals) -> dict[str, np.ndarray]:
    """The binary metrics but the AUC, each with the leading axes of `t`, whose last axis is
    (negative, positive).
    """
    rates, overall = class_rates(t), overall_rates(t)
    named = {"sensitivity": rates["recall"][..., 1], "specificity": rates["recall"][..., 0]}
    named |= {"precision": rates["precision"][..., 1], "f1": rates["f1"][..., 1]}
    return named | {
        name: overall[name] for name in ("accuracy", "weighted_recall", "balanced_accuracy", "mcc")
    }


# --- metrics of a table ---------------------------------------------------------------------------


def _warn_absent(actual: np.ndarray) -> None:
    absent = np.flatnonzero(actual == 0)
    if len(actual) - len(absent) == 1:
        only = int(np.argmax(actual))
        text = (
            f"All {int(actual.sum())} images are of class {only}; the AUC and the rates of the "
            "other classes are undefined (nan)."
        )
        warnings.warn(text, UndefinedMetric, 3)
    elif len(absent):
        which = ", ".join(map(str, absent))
        warnings.warn(
            f"No image is of class {which}; its rates are undefined (nan) and macro averages "
            "leave it out.",
            UndefinedMetric,
            3,
        )


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else float("nan")


def binary_metrics(predictions: pd.DataFrame, positive: int = 1, threshold: float = 0.5) -> dict:
    """Metrics of class `positive` against the rest.

    Returns
    -------
    dict
        TP, FP, TN, FN, n (int) and accuracy, sensitivity, specificity, precision, f1, auc,
        weighted_recall, balanced_accuracy (fractions in [0, 1]) and mcc (in [-1, 1]); nan with an
        `UndefinedMetric` warning where one of the two classes has no image.
    """
    labels, decided, scores = as_two_classes(predictions, positive, threshold)
    (tn, fp), (fn, tp) = matrix = confusion(labels, decided, 2)
    _warn_absent(matrix.sum(1))
    rates = two_class_rates(totals(matrix)) | {"auc": _auc(labels, scores)}
    return {"TP": int(tp), "FP": int(fp), "TN": int(tn), "FN": int(fn), "n": len(labels)} | {
        name: float(rates[name]) for name in BINARY
    }


def multiclass_metrics(predictions: pd.DataFrame, absent: str = "skip") -> dict:
    """Metrics of the class with the highest score.

    Returns
    -------
    dict
        ``classes``: one dict a class (label, precision, recall, f1, specificity, auc
        one-versus-rest, support); then every name of `MULTICLASS` and ``n``. ``macro_auc`` is the
        unweighted mean of the one-versus-rest AUCs. `absent`: see `overall_rates`.
    """
    labels, scores = labels_and_scores(predictions)
    t = totals(confusion(labels, scores.argmax(1), scores.shape[1]))
    _warn_absent(t.actual)
    rates = class_rates(t) | {
        "auc": np.array([_auc(labels == k, scores[:, k]) for k in range(scores.shape[1])])
    }
    overall = overall_rates(t, absent) | {"macro_auc": _macro(rates["auc"], t.actual > 0)}
    classes = [
        {
            "label": k,
            **{name: float(rate[k]) for name, rate in rates.items()},
            "support": int(t.actual[k]),
        }
        for k in range(scores.shape[1])
    ]
    return (
        {"classes": classes}
        | {name: float(overall[name]) for name in MULTICLASS}
        | {"n": len(labels)}
    )


def class_table(predictions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Table of classes (rows `names`, then macro and weighted average) by precision, recall, f1,
    specificity and support.
    """
    result, columns = multiclass_metrics(predictions), ["precision", "recall", "f1", "specificity"]
    table = pd.DataFrame(result["classes"], index=list(names))[[*columns, "support"]]
    for average in ("macro", "weighted"):
        table.loc[f"{average} average"] = [
            *(result[f"{average}_{name}"] for name in columns),
            result["n"],
        ]
    return table.astype({"support": int})


def roc_points(predictions: pd.DataFrame, positive: int = 1) -> pd.DataFrame:
    """ROC curve of class `positive` against the rest: columns fpr, tpr (fractions) and threshold
    (the first is inf).
    """
    labels, _, scores = as_two_classes(predictions, positive)
    if not 0 < labels.sum() < len(labels):
        raise BadPredictions(
            f"A ROC curve needs images of both classes, but all {len(labels)} are on one side of "
            f"class {positive}."
        )
    return pd.DataFrame(
        dict(zip(("fpr", "tpr", "threshold"), roc_curve(labels, scores), strict=True))
    )


# --- the same metrics for many reweighted tables at once ------------------------------------------


def weighted_auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike) -> np.ndarray:
    """AUC under image weights: P(score of a positive > score of a negative) + P(tie) / 2.

    Parameters
    ----------
    labels : (n,) 0/1
    scores : (n,)
    weights : (R, n), non-negative

    Returns
    -------
    float64 (R,), nan where a class has no weight.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(np.asarray(scores)[order]) > 0])
    weights, positive = np.asarray(weights, float)[:, order], np.asarray(labels, bool)[order]
    up = np.add.reduceat(weights * positive, starts, axis=1)
    down = np.add.reduceat(weights * ~positive, starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    return _ratio((up * below).sum(1), up.sum(1) * down.sum(1))


def _weighted_totals(labels, decided, n_classes, weights) -> Totals:
    one_hot = np.eye(n_classes)
    hits = weights @ (one_hot[labels] * (labels == decided)[:, None])
    return Totals(hits, weights @ one_hot[labels], weights @ one_hot[decided])


def reweighted(
    predictions: pd.DataFrame, metric: str, positive: int = 1, threshold: float = 0.5
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from image weights (R, n) to the values (R,) of one metric: the bootstrap's fast
    path.

    A name that is in both lists means the two-class metric on two-class tables, else the one of the
    highest score.

    Raises
    ------
    UnknownMetric
        If `metric` is in neither `BINARY` nor `MULTICLASS`.
    """
    labels, scores = labels_and_scores(predictions)
    n_classes = scores.shape[1]
    if metric in BINARY and (n_classes == 2 or metric not in MULTICLASS):
        labels, decided, score = as_two_classes(predictions, positive, threshold)
        if metric == "auc":
            return lambda weights: weighted_auc(labels, score, weights)
        return lambda weights: two_class_rates(_weighted_totals(labels, decided, 2, weights))[
            metric
        ]
    if metric == "macro_auc":
        return lambda weights: _reweighted_macro_auc(labels, scores, weights)
    if metric not in MULTICLASS:
        raise UnknownMetric(
            f"No metric is called {metric!r}; choose from "
            f"{', '.join(sorted({*BINARY, *MULTICLASS}))}."
        )
    decided = scores.argmax(1)
    return lambda weights: overall_rates(_weighted_totals(labels, decided, n_classes, weights))[
        metric
    ]


def _reweighted_macro_auc(labels, scores, weights) -> np.ndarray:
    each = np.stack(
        [weighted_auc(labels == k, scores[:, k], weights) for k in range(scores.shape[1])], axis=1
    )
    return _macro(each, np.isfinite(each))


# --- calibration ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Reliability bins (DataFrame: low, high, n, score, frequency; empty bins left out) and the
    expected calibration error in [0, 1].
    """

    bins: pd.DataFrame
    ece: float
    n: int


def calibration(
    predictions: pd.DataFrame, positive: int | None = None, n_bins: int = 10
) -> Calibration:
    """Reliability of the scores in equal-width bins.

    Parameters
    ----------
    predictions : table of predictions whose scores are probabilities
    positive : class index or None
        None compares the highest score with how often it is right (top-label calibration); a class
        compares its score with how often the label is that class.
    n_bins : int

    Raises
    ------
    BadPredictions
        If a score lies outside [0, 1].
    """
    labels, scores = labels_and_scores(predictions)
    if scores.min() < 0 or scores.max() > 1:
        raise BadPredictions(
            "Calibration needs probabilities in [0, 1]; apply the sigmoid or the softmax before "
            "saving scores."
        )
    score = scores.max(1) if positive is None else scores[:, positive]
    outcome = labels == (scores.argmax(1) if positive is None else positive)
    which = np.clip(np.ceil(score * n_bins).astype(int) - 1, 0, n_bins - 1)
    table = pd.DataFrame(
        {"bin": which, "score": score, "frequency": outcome.astype(float)}
    ).groupby("bin")
    table = table.agg(n=("score", "size"), score=("score", "mean"), frequency=("frequency", "mean"))
    table.insert(0, "low", table.index / n_bins)
    table.insert(1, "high", (table.index + 1) / n_bins)
    table = table.reset_index(drop=True)
    ece = float((table["n"] * (table["score"] - table["frequency"]).abs()).sum() / len(labels))
    return Calibration(table, ece, len(labels))
