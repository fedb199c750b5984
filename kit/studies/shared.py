"""What all studies do with their results: trainings that may fail, rates on all and on leak-free
test images, differences over seeds, and settings as published beside those of a run.

Pure functions of tables and dictionaries; which words and columns a study prints is its own.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats as sps

from kit.evaluation import agreement, metrics, resampling, stats
from kit.report import artefacts, refreshed
from kit.report import results as report_results


def attempted(
    jobs: Mapping[Hashable, Callable[[], object]],
    failures: type[Exception] | tuple[type[Exception], ...],
    label: Callable[[Hashable], str] | None = None,
) -> dict:
    """Results of the jobs that did not fail, in their order; the others are reported.

    Parameters
    ----------
    jobs : mapping
        Key -> function without arguments.
    failures : exception class or tuple of them
        What is reported; every other error ends the study.
    label : callable, optional
        Of a key: what the report calls the job, where the error does not name it.
    """
    finished = {}
    for key, job in jobs.items():
        try:
            finished[key] = job()
        except failures as error:
            print(f"left out: {label(key) + ': ' if label else ''}{error}", flush=True)
    return finished


# --- rates on the test images ---------------------------------------------------------------------


def rate_cells(whole: stats.Interval | None, free: stats.Interval | None) -> dict:
    """A rate on all images and on the leak-free ones as cells of a long table: value, low, high, n
    and leak_free, leak_free_low, leak_free_high, leak_free_n.
    """
    return {**report_results.columns(whole, ""), **report_results.columns(free, "leak_free")}


def rate_lines(
    labels: Mapping[str, object],
    predictions: pd.DataFrame,
    clean: pd.DataFrame,
    metrics: Iterable[str],
    interval: Callable[[pd.DataFrame, str], stats.Interval | None],
) -> list[dict]:
    """One line a metric: the labels, the metric and :func:`rate_cells`.

    Parameters
    ----------
    labels : mapping
        Column -> value, the same on all lines.
    predictions, clean : pandas.DataFrame
        Of all test images, and of the leak-free ones.
    metrics : iterable of str
    interval : callable
        Of predictions and metric: the rate with its interval, None where it is undefined.
    """
    return [
        {
            **labels,
            "metric": metric,
            **rate_cells(interval(predictions, metric), interval(clean, metric)),
        }
        for metric in metrics
    ]


def result_table(
    results: Mapping[str, tuple[pd.DataFrame, str, Sequence[str]]],
    metrics: Iterable[str],
    interval: Callable[[pd.DataFrame, str], stats.Interval | None],
) -> pd.DataFrame:
    """Rates of several results, long: row, metric and :func:`rate_cells`.

    Parameters
    ----------
    results : mapping
        Row -> (predictions, registered data set, ids of the training images).
    metrics, interval : see :func:`rate_lines`
    """
    lines = []
    for row, (predictions, name, train_ids) in results.items():
        clean = report_results.leak_free(predictions, name, train_ids)
        lines += rate_lines({"row": row}, predictions, clean, metrics, interval)
    return pd.DataFrame(lines)


# --- differences over seeds -----------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """What is said of a difference whose interval lies above zero, below it, across it, or is not
    there.
    """

    better: str
    worse: str
    within: str
    undecided: str


def judged(differences: Sequence[float], words: Words, least: float = 2) -> dict:
    """Mean of paired differences over seeds with its 95 % t interval, and what it says.

    Parameters
    ----------
    differences : sequence of float
        One a seed.
    words : Words
    least : float
        Seeds for an answer; infinity for differences that allow none.

    Returns
    -------
    dict
        difference, low, high (NaN with fewer seeds than `least`), answer.
    """
    values = pd.Series(differences, dtype=float)
    if len(values) < least:
        return {
            "difference": float(values.mean()),
            "low": np.nan,
            "high": np.nan,
            "answer": words.undecided,
        }
    found = stats.mean_t(values)
    answer = words.better if found.low > 0 else words.worse if found.high < 0 else words.within
    return {"difference": found.estimate, "low": found.low, "high": found.high, "answer": answer}


def difference(
    first: Mapping[int, float],
    second: Mapping[int, float],
    scale: float = 1.0,
    column: str = "difference",
) -> dict:
    """The first of two methods minus the second over the seeds that both have: seeds, their mean
    difference (in `column`) and :func:`kit.report.results.seed_spread`; empty without common seeds.

    Parameters
    ----------
    first, second : mapping
        Seed -> value.
    scale : float
        Factor on the values, e.g. 100 for hundredths.
    column : str
        What the mean difference is called.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return {}
    a, b = (scale * np.array([values[s] for s in seeds], float) for values in (first, second))
    return {
        "seeds": len(seeds),
        column: float((a - b).mean()),
        **report_results.seed_spread(a, b),
    }


def difference_table(
    pairs: Iterable[tuple[Mapping[str, object], Mapping[int, float], Mapping[int, float]]],
    labels: Sequence[str],
    scale: float = 1.0,
    column: str = "difference",
) -> pd.DataFrame:
    """A line for every pair of methods with common seeds: its labels and :func:`difference`.

    Parameters
    ----------
    pairs : iterable
        (label column -> value, seed -> value of the first method, and of the second).
    labels : sequence of str
        The label columns, for a table without lines.
    scale, column : see :func:`difference`
    """
    lines = [
        {**names, **found}
        for names, first, second in pairs
        if (found := difference(first, second, scale, column))
    ]
    spread = ["low", "high", "sd of a seed (pp)", "answer"]
    return pd.DataFrame(lines, columns=[*labels, "seeds", column, *spread])


# --- settings -------------------------------------------------------------------------------------


def settings_table(lines: Iterable[Sequence[object]], columns: Sequence[str]) -> pd.DataFrame:
    """Settings as published beside those of a run, all cells as text.

    Parameters
    ----------
    lines : iterable of sequences
        A setting's name, then its values.
    columns : sequence of str
        As many as a line has cells.
    """
    return pd.DataFrame([[plain(cell) for cell in line] for line in lines], columns=list(columns))


def plain(value: object, between: str = ", ") -> str:
    """A setting as text: the parts of lists joined by `between`, floats without idle zeros."""
    if isinstance(value, list | tuple):
        return between.join(plain(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- evidence for the publications' conclusions ---------------------------------------------------


def paired_shares(first: pd.DataFrame, second: pd.DataFrame) -> stats.Interval:
    """Accuracy of the first of two models minus that of the second on the same images, in points,
    with Newcombe's paired interval; copies of an image count as one.

    Parameters
    ----------
    first, second : pandas.DataFrame
        Predictions tables of the same images, in any order.
    """
    second = second.set_index("image_id").loc[first["image_id"]].reset_index()
    groups = first["group"].tolist() if "group" in first else None
    return agreement.paired_difference(
        metrics.correct(first), metrics.correct(second), groups
    ).scaled(100)


def paired_areas(
    first: pd.DataFrame, second: pd.DataFrame, resamples: int = 1000
) -> stats.Interval | None:
    """Area under the ROC curve of the first minus that of the second of two binary models on the
    same images, in points, by a bootstrap over duplicate groups; None with one class.
    """
    if first["label"].nunique() < 2:
        return None
    found = resampling.bootstrap_difference(
        first, second, "auc", resamples=resamples, by_group="group" in first
    )
    return replace(found, n=len(first)).scaled(100)


def over_folds(differences: Sequence[float], test_over_train: float = 0.0) -> stats.Interval:
    """Mean of paired differences with its 95 % t interval: over folds or resampled splits, whose
    training parts overlap (`test_over_train` above 0), or over independent seeds.

    Ends are NaN with one difference, or where all are the same.
    """
    values = np.asarray(differences, float).ravel()
    if len(values) < 2:
        mean = float(values.mean()) if len(values) else np.nan
        return stats.Interval(mean, np.nan, np.nan, 0.95, len(values), "no interval")
    test = stats.corrected_resampled_t(values, test_over_train)
    error = abs(test.estimate / test.statistic) if test.statistic else 0.0
    if test.statistic == 0:
        error = float(values.std(ddof=1) * np.sqrt(1 / len(values) + test_over_train))
    half = float(sps.t.ppf(0.975, len(values) - 1)) * error
    return stats.Interval(
        test.estimate,
        test.estimate - half,
        test.estimate + half,
        level=0.95,
        n=len(values),
        method="corrected resampled t" if test_over_train else "paired t",
    )


def over_ratios(first: Sequence[float], second: Sequence[float]) -> stats.Interval:
    """Geometric mean of first over second, paired, with the t interval of its logarithm."""
    found = over_folds(np.log(np.asarray(first, float) / np.asarray(second, float)))
    low, middle, high = (float(np.exp(x)) for x in (found.low, found.estimate, found.high))
    return stats.Interval(middle, low, high, level=0.95, n=found.n, method="t of the logarithm")


def store_evidence(
    out: artefacts.Artefacts | refreshed.Evidence,
    conclusion: str,
    parts: Mapping[str, stats.Interval | None] | stats.Interval | None,
    **more,
) -> None:
    """Store what a run found on a conclusion; parts without a finite interval are left out, and the
    conclusion with a printed sentence if none is left.

    Parameters
    ----------
    out : kit.report.artefacts.Artefacts
        Writer with the data, stand-ins and reductions of the comparison.
    conclusion : str
        Its id in the publication's file.
    parts : Interval, or mapping of name -> Interval
        First minus second in the unit of the conclusion.
    more
        seeds, groups, data, exact of :meth:`kit.report.artefacts.Artefacts.evidence`.
    """
    named = dict(parts) if isinstance(parts, Mapping) else {"": parts}
    known = {
        name: part
        for name, part in named.items()
        if part is not None and np.isfinite([part.estimate, part.low, part.high]).all()
    }
    if not known:
        print(f"no evidence on {conclusion}: no interval could be computed", flush=True)
        return
    out.evidence(conclusion, known, **more)
