"""From saved predictions to the numbers of a table: metrics with intervals, on all test images and
on those without a copy in training.

Nothing here sees a model. The publications report point estimates on test sets that hold copies of
training images; every number here has a 95 % interval (Wilson for proportions, bootstrap over
duplicate groups for AUC) and its value on the leak-free part. All metrics are in percent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kit.data import duplicates, registry
from kit.evaluation import agreement, metrics, resampling, stats
from kit.published import papers
from kit.report import entries

BINARY = ("accuracy", "sensitivity", "specificity", "auc")


def leak_free(predictions: pd.DataFrame, name: str, train_ids: Iterable[str]) -> pd.DataFrame:
    """The rows of `predictions` whose image has no twin among `train_ids`; `name` is the
    registered data set.
    """
    keep = duplicates.leak_free(
        registry.index(name), duplicates.groups(name), train_ids, predictions["image_id"]
    )
    return predictions[keep].reset_index(drop=True)


def groups_of(name: str, ids: Iterable[str]) -> np.ndarray:
    """Duplicate group of every image id of a registered data set, int64."""
    return duplicates.group_of(duplicates.groups(name), ids)


def interval(predictions: pd.DataFrame, metric: str, seed: int = 0) -> stats.Interval | None:
    """A binary metric in percent with its 95 % interval; None where it is undefined (no image of a
    class it needs).

    Parameters
    ----------
    predictions : pandas.DataFrame
        Binary predictions table (see :mod:`kit.evaluation.metrics`).
    metric : {"accuracy", "sensitivity", "specificity", "auc"}
    seed : int
        Of the bootstrap.
    """
    both = predictions["label"].nunique() == 2
    if len(predictions) == 0 or (metric == "auc" and not both):
        return None
    if metric == "auc":
        found = resampling.bootstrap(predictions, "auc", seed=seed).scaled(100)
        return replace(found, n=len(predictions))
    rows = _of_class(predictions, metric)
    return share_right(rows).scaled(100) if len(rows) else None


def share_right(predictions: pd.DataFrame) -> stats.Interval:
    """Share of the images whose class is right, a fraction, with Wilson's interval; copies of an
    image count as one, `n` is the number of images.
    """
    p, n = float(metrics.correct(predictions).mean()), len(predictions)
    groups = predictions["group"].tolist() if "group" in predictions else None
    k = agreement.effective(n, p, groups=groups)
    return replace(agreement.share(p * k, k), n=n)


def sample(predictions: pd.DataFrame, clean: pd.DataFrame | None = None) -> entries.Sample:
    """Images and duplicate groups behind a value, on the full test set and on the leak-free one."""
    counts = [
        (len(table), table["group"].nunique() if "group" in table else None)
        if table is not None and len(table)
        else (None, None)
        for table in (predictions, clean)
    ]
    return entries.Sample(*counts[0], *counts[1])


def rate_interval(
    predictions: pd.DataFrame, rate: str, resamples: int = 1000
) -> stats.Interval | None:
    """A multi-class rate of :mod:`kit.evaluation.metrics` as a fraction with its 95 % interval,
    Wilson's or by bootstrap; None without images.
    """
    if len(predictions) == 0:
        return None
    if rate == "accuracy":
        return share_right(predictions)
    return replace(resampling.bootstrap(predictions, rate, resamples), n=len(predictions))


def binary_table(results: dict, name: str, chosen: Sequence[str] = BINARY) -> pd.DataFrame:
    """Metrics of several results, on all images and on the leak-free ones.

    Parameters
    ----------
    results : dict
        Row name -> (predictions table, ids of the training images).
    name : str
        Registered data set.
    chosen : sequence of str
        Metrics.

    Returns
    -------
    pandas.DataFrame
        One row per result and metric: row, metric, value, low, high, n, leak_free, leak_free_low,
        leak_free_high, leak_free_n; percent. groups, leak_free_groups: images that are no copies
        of each other.
    """
    rows = []
    for row, (predictions, train_ids) in results.items():
        clean = leak_free(predictions, name, train_ids)
        for metric in chosen:
            full, free = interval(predictions, metric), interval(clean, metric)
            behind = sample(*(_of_class(table, metric) for table in (predictions, clean)))
            rows.append(
                {
                    "row": row,
                    "metric": metric,
                    **columns(full, ""),
                    **columns(free, "leak_free"),
                    "groups": behind.groups,
                    "leak_free_groups": behind.leak_free_groups,
                }
            )
    return pd.DataFrame(rows)


def _of_class(predictions: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The images that a binary metric is a share of."""
    label = {"sensitivity": 1, "specificity": 0}.get(metric)
    return predictions if label is None else predictions[predictions["label"] == label]


def columns(found: stats.Interval | None, prefix: str) -> dict:
    """An interval as the cells of a long table: value (or `prefix`), low, high and n; NaN and 0 for
    None.
    """
    names = [prefix or "value", *(f"{prefix}_{n}".strip("_") for n in ("low", "high", "n"))]
    return dict(
        zip(
            names,
            (found.estimate, found.low, found.high, found.n)
            if found
            else (np.nan, np.nan, np.nan, 0),
            strict=False,
        )
    )


def ends(line: pd.Series | Mapping[str, float], prefix: str = "", decimals: int = 3) -> str:
    """An interval of a long table's row as text, "–" where it is undefined."""
    return (
        f"{line[prefix + 'low']:.{decimals}f} to {line[prefix + 'high']:.{decimals}f}"
        if np.isfinite(line[prefix + "low"])
        else "–"
    )


def store(writers: dict, artefact: str, table: pd.DataFrame) -> None:
    """Put every number of a :func:`binary_table` that the publication prints beside it:
    ``<artefact>/<row>/<metric>``.

    Parameters
    ----------
    writers : dict
        Model key (a row's name up to the first dot) -> ``kit.report.artefacts.Artefacts``, each
        with that model's stand-in.
    artefact : str
    table : pandas.DataFrame
    """
    for row in table.itertuples():
        value_id, out = f"{artefact}/{row.row}/{row.metric}", writers[row.row.split(".")[0]]
        if value_id in papers.load(out.paper).values:
            out.value(
                value_id,
                row.value,
                interval=(row.low, row.high),
                leak_free=row.leak_free,
                leak_free_interval=(row.leak_free_low, row.leak_free_high),
                n=entries.Sample(
                    int(row.n),
                    _count(row, "groups"),
                    _count(row, "leak_free_n"),
                    _count(row, "leak_free_groups"),
                ),
            )


def _count(row, name: str) -> int | None:
    """A count of a table's row, None where it is not there."""
    found = getattr(row, name, None)
    return None if found is None or not np.isfinite(found) else int(found)


def seed_spread(a: np.ndarray, b: np.ndarray) -> dict:
    """What a difference of two methods is worth that were run with the same seeds: 95 % t interval
    over seeds, noise of a seed, answer.

    Parameters
    ----------
    a, b : numpy.ndarray
        Float (seeds,), in percent or hundredths, paired.

    Returns
    -------
    dict
        low and high of the mean of a - b and "sd of a seed (pp)" (NaN with one seed), and the
        answer.
    """
    if len(a) < 2:
        return {
            "low": np.nan,
            "high": np.nan,
            "sd of a seed (pp)": np.nan,
            "answer": "one seed: no answer",
        }
    found = stats.mean_t(a - b)
    answer = (
        "beyond seed noise"
        if found.low > 0
        else "worse, beyond seed noise"
        if found.high < 0
        else "within seed noise"
    )
    return {
        "low": found.low,
        "high": found.high,
        "sd of a seed (pp)": float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)),
        "answer": answer,
    }


def bars(table: pd.DataFrame, names: dict) -> pd.DataFrame:
    """A :func:`binary_table` in the layout of ``plots.metric_bars``: models as rows, a metric and
    its interval as columns.
    """
    wide: dict[str, dict] = {}
    for row in table.itertuples():
        wide.setdefault(names[row.row], {}).update(
            {row.metric: row.value, f"{row.metric}_low": row.low, f"{row.metric}_high": row.high}
        )
    return pd.DataFrame(wide).T
