"""The tables of the Br35H paper: results by fold and on the hold-out, comparisons of two models,
costs.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from kit import files
from kit.data.split import Split
from kit.evaluation import agreement, metrics, stats
from kit.published import papers
from kit.report.artefacts import Artefacts


def fold_results(runs: dict, split: Split) -> dict:
    """Predictions of the folds' validation parts: row "<model>.fold<i>" -> (predictions, training
    ids), for :func:`binary_table`.

    Parameters
    ----------
    runs : dict
        Model key -> (fold runs, final run) from ``train.cross_validate``.
    split : kit.data.split.Split
    """
    return {
        f"{model}.fold{i}": (run.predictions(), train_ids)
        for model, (folds, _) in runs.items()
        for i, (run, (train_ids, _)) in enumerate(zip(folds, split.folds(), strict=True), 1)
    }


def test_results(runs: dict, split: Split) -> dict:
    """Predictions of the hold-out by the final models: row "<model>" -> (predictions, training
    ids); arguments as :func:`fold_results`.
    """
    return {model: (final.predictions(), split.development) for model, (_, final) in runs.items()}


def fold_table(table: pd.DataFrame, models: dict) -> pd.DataFrame:
    """The layout of the Br35H paper's Table 1: folds, then mean, sample variance and sample
    standard deviation, by model.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`binary_table`, rows named "<model>.fold<i>".
    models : dict
        Model key -> name to print.

    Returns
    -------
    pandas.DataFrame
        Columns model, fold and one a metric. Percent; the variance is in squared percentage points.
    """
    wide = table.pivot(index="row", columns="metric", values="value")[
        list(dict.fromkeys(table["metric"]))
    ]
    blocks = []
    for key, shown in models.items():
        folds = wide[wide.index.str.startswith(f"{key}.fold")]
        moments = pd.DataFrame(
            {
                "mean": folds.mean(),
                "variance (pp²)": folds.var(ddof=1),
                "SD (pp)": folds.std(ddof=1),
            }
        ).T
        block = pd.concat([folds.set_axis([f"fold {i + 1}" for i in range(len(folds))]), moments])
        blocks.append(block.reset_index(names="fold").assign(model=shown))
    joined = pd.concat(blocks, ignore_index=True).rename_axis(columns=None)
    return joined[["model", "fold", *wide.columns]]


def store_moments(writers: dict, artefact: str, table: pd.DataFrame) -> None:
    """Put the mean and the sample variance of each model's folds beside the published ones, with
    intervals that know that folds share training images; arguments as :func:`store`.
    """
    for model, out in writers.items():
        folds = table[table["row"].str.startswith(f"{model}.fold")]
        for metric, values in folds.groupby("metric"):
            mean, free = over_folds(values), values["leak_free"].dropna()
            if f"{artefact}/{model}.mean/{metric}" in papers.load(out.paper).values:
                out.value(
                    f"{artefact}/{model}.mean/{metric}",
                    mean.estimate,
                    (mean.low, mean.high),
                    free.mean() if len(free) else None,
                    n=images_of(values),
                )
                variance = agreement.variance(values["value"].var(ddof=1), len(values) - 1)
                out.value(
                    f"{artefact}/{model}.variance/{metric}",
                    variance.estimate,
                    (variance.low, variance.high),
                    free.var(ddof=1) if len(free) > 1 else None,
                    n=images_of(values),
                )


def images_of(values: pd.DataFrame) -> int | None:
    """Images of all folds together; None where the table does not count them."""
    return int(values["n"].sum()) if "n" in values else None


def over_folds(values: pd.DataFrame) -> stats.Interval:
    """Mean over folds, percent, with the interval of the corrected resampled variance."""
    ratio = 1 / max(1, len(values) - 1)
    return agreement.mean_over_folds(values["value"], ratio, bounds=(0, 100), n=images_of(values))


def pick_shared(a: pd.DataFrame, b: pd.DataFrame, label: int) -> str:
    """Image id of class `label` that both models get right: the one whose less confident score is
    the median of its kind.

    The publication shows two images without saying how they were chosen; the median is neither the
    best nor the worst case. Where no image is right in both, the one with the highest smaller score
    is taken.
    """
    column = f"score_{label}"
    both = a.merge(b[["image_id", column]], on="image_id", suffixes=("", "_b")).query(
        "label == @label"
    )
    both = both.assign(least=both[[column, f"{column}_b"]].min(axis=1)).sort_values(
        ["least", "image_id"], ignore_index=True
    )
    right = both[both["least"] > 0.5]
    return right["image_id"].iloc[len(right) // 2] if len(right) else both["image_id"].iloc[-1]


def compare_folds(
    table: pd.DataFrame,
    first: str,
    second: str,
    metric: str = "accuracy",
    test_over_train: float = 0.5,
) -> pd.DataFrame:
    """Every t test that could be meant by "t test on the fold accuracies", and the right one first.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`binary_table`.
    first, second : str
        Model keys; differences are first minus second, in percentage points.
    test_over_train : float
        Validation over training images of a fold, 1/(k-1).

    Returns
    -------
    pandas.DataFrame
        Columns test, statistic, df, p, difference (pp), note.
    """
    a, b = (
        table[table["row"].str.startswith(f"{m}.fold") & (table["metric"] == metric)][
            "value"
        ].to_numpy()
        for m in (first, second)
    )
    notes = {
        "paired t": "same folds for both models: the test to read",
        "corrected resampled t": "Nadeau-Bengio, for overlapping training folds",
        "pooled t": "the authors' variant: treats the folds as independent",
        "Welch t": "independent, unequal variances",
    }
    tests = [
        stats.paired_t(a, b),
        stats.corrected_resampled_t(a - b, test_over_train),
        stats.pooled_t(a, b),
        stats.welch_t(a, b),
        stats.wilcoxon(a, b),
    ]
    return tests_table(tests, notes)


def compare_on_test(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Paired tests of two models on the same test images: exact McNemar, DeLong, and the paired
    bootstrap over duplicate groups.

    Parameters
    ----------
    a, b : pandas.DataFrame
        Binary predictions tables of the same images in the same order.
    """
    right_a, right_b = metrics.correct(a), metrics.correct(b)
    tests = [
        stats.mcnemar_exact(right_a, right_b),
        stats.fisher(int((~right_a).sum()), len(a), int((~right_b).sum()), len(b)),
    ]
    if a["label"].nunique() == 2:
        tests.append(
            stats.delong(a["label"].to_numpy(), a["score_1"].to_numpy(), b["score_1"].to_numpy())
        )
    table = tests_table(tests, {"Fisher exact": "ignores that both models saw the same images"})
    table["difference (pp)"] = [
        np.nan if t.name == "Fisher exact" else 100 * t.estimate for t in tests
    ]  # Fisher estimates an odds ratio
    return table


def tests_table(
    tests: Iterable[stats.Test],
    notes: dict | None = None,  # noqa: PT028  no test of pytest
) -> pd.DataFrame:
    """Tests as rows: test, statistic, df, p, difference (pp), note."""
    notes = notes or {}
    return pd.DataFrame(
        [
            {
                "test": t.name,
                "statistic": t.statistic,
                "df": t.df,
                "p": t.p,
                "difference (pp)": t.estimate,
                "note": notes.get(t.name, t.note) if np.isfinite(t.p) else t.note,
            }
            for t in tests
        ]
    )


def store_comparison(out: Artefacts, folds: pd.DataFrame, tests: pd.DataFrame) -> None:
    """Put our fold means, standard deviations and the authors' kind of t statistic beside those
    that the paper's text states.
    """
    authors = tests.set_index("test").loc["pooled t"]
    out.value("claims/t-test.t", abs(authors["statistic"]))
    for model in folds["row"].str.split(".").str[0].unique():
        values = folds[
            folds["row"].str.startswith(f"{model}.fold") & (folds["metric"] == "accuracy")
        ]
        mean = over_folds(values)
        out.value(f"claims/t-test.{model}-mean", mean.estimate, (mean.low, mean.high))
        out.value(f"claims/t-test.{model}-sd", values["value"].std(ddof=1))


def costs(runs: dict, names: dict) -> pd.DataFrame:
    """Training time of every run: model, run, epochs, seconds and device. Times differ from run to
    run, so they stand outside the tables.

    Parameters
    ----------
    runs : dict
        Model key -> (fold runs, final run).
    names : dict
        Model key -> name to print.
    """
    rows = []
    for model, (folds, final) in runs.items():
        for label, run in [*((f"fold {i}", r) for i, r in enumerate(folds, 1)), ("final", final)]:
            history = run.history()
            rows.append(
                {
                    "model": names[model],
                    "run": label,
                    "epochs": len(history),
                    "seconds": round(history["seconds"].sum(), 1),
                    "device": files.read_json(run.folder / "environment.json")["device"],
                }
            )
    return pd.DataFrame(rows)
