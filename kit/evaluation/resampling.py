"""Bootstrap intervals of a metric, and of a difference of two, over images or groups of images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from kit.evaluation import metrics
from kit.evaluation.stats import BadSample, Interval


def _units(predictions: pd.DataFrame, by_group: bool) -> tuple[np.ndarray, int]:
    """Number of the resampling unit of every image, and how many units there are."""
    if not by_group:
        return np.arange(len(predictions)), len(predictions)
    if "group" not in predictions:
        raise BadSample(
            "The predictions have no column group; add the duplicate groups or ask for "
            "by_group=False."
        )
    codes, names = pd.factorize(predictions["group"])
    return codes, len(names)


def _draws(strata: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each unit is drawn, float32 (resamples, units); units are drawn with replacement
    within each stratum.
    """
    counts = np.zeros((resamples, len(strata)), np.float32)
    rows = np.arange(resamples)[:, None]
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        flat = rows * len(members) + rng.integers(len(members), size=(resamples, len(members)))
        counts[:, members] = np.bincount(flat.ravel(), minlength=resamples * len(members)).reshape(
            resamples, -1
        )
    return counts


def _slow(metric: Callable, predictions: pd.DataFrame) -> Callable:
    rows = np.arange(len(predictions))
    return lambda weights: np.array(
        [metric(predictions.iloc[np.repeat(rows, w.astype(int))]) for w in weights], dtype=float
    )


def _resampled(
    tables: list[pd.DataFrame], metric, resamples, seed, by_group, stratified, **options
) -> tuple[np.ndarray, np.ndarray, int]:
    """Point values (len(tables),), resampled values (len(tables), resamples) under shared draws,
    and the number of units.
    """
    labels, _ = metrics.labels_and_scores(tables[0])
    codes, n_units = _units(tables[0], by_group)
    strata = np.zeros(n_units, int)
    if stratified:
        strata[codes[::-1]] = labels[::-1]  # a group's stratum is the label of its first image
    functions = [
        _slow(metric, t) if callable(metric) else metrics.reweighted(t, metric, **options)
        for t in tables
    ]
    rng, step = np.random.default_rng(seed), max(1, 4_000_000 // len(codes))
    values = []
    for start in range(0, resamples, step):
        weights = _draws(strata, min(step, resamples - start), rng)[:, codes]
        values.append(np.stack([function(weights) for function in functions]))
    point = np.array([function(np.ones((1, len(codes)), np.float32))[0] for function in functions])
    return point, np.concatenate(values, axis=1), n_units


def _percentile(point: float, values: np.ndarray, level: float, n: int, method: str) -> Interval:
    defined = values[np.isfinite(values)]
    tail = (1 - level) / 2
    low, high = (
        np.quantile(defined, [tail, 1 - tail])
        if len(defined) > len(values) / 2
        else (np.nan, np.nan)
    )
    return Interval(
        estimate=float(point),
        low=float(low),
        high=float(high),
        level=level,
        n=n,
        method=method,
        undefined=len(values) - len(defined),
    )


def bootstrap_mean(
    tables: list[pd.DataFrame],
    metric: str | Callable[..., float] = "accuracy",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    **options: Any,
) -> Interval:
    """Percentile bootstrap interval of the mean of a metric over several predictions of the same
    images, for instance of several seeds, under shared draws of duplicate groups; it says nothing
    of what another seed would give.

    Parameters
    ----------
    tables : list of tables of predictions (see `kit.evaluation.metrics`)
        Of the same images in the same order.
    metric, resamples, seed, level, options : see :func:`bootstrap`

    Raises
    ------
    BadSample
        If the tables are of different images.
    """
    first = tables[0]["image_id"].tolist()
    if any(table["image_id"].tolist() != first for table in tables[1:]):
        raise BadSample("The mean over predictions needs the same images in every table.")
    point, values, units = _resampled(tables, metric, resamples, seed, True, False, **options)
    return _percentile(
        float(point.mean()), values.mean(axis=0), level, units, "bootstrap of the mean"
    )


def bootstrap(
    predictions: pd.DataFrame,
    metric: str | Callable[..., float] = "accuracy",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    by_group: bool = True,
    stratified: bool = False,
    **options: Any,
) -> Interval:
    """Percentile bootstrap interval of a metric.

    Parameters
    ----------
    predictions : table of predictions (see `kit.evaluation.metrics`)
    metric : str or callable
        A name of `metrics.BINARY` or `metrics.MULTICLASS` (vectorised), or a function from a table
        to a number (one call a resample).
    by_group : bool
        Draw duplicate groups (cluster bootstrap) instead of single images.
    stratified : bool
        Keep the number of units of each class; a group counts for the label of its first image.
    options
        ``positive`` and ``threshold`` of `metrics.reweighted`.

    Notes
    -----
    A metric at its bound (no errors at all) has a bootstrap interval of width 0; use `wilson`
    there.
    """
    point, values, n = _resampled(
        [predictions],
        metric,
        resamples=resamples,
        seed=seed,
        by_group=by_group,
        stratified=stratified,
        **options,
    )
    return _percentile(
        point[0], values[0], level, n, "bootstrap by group" if by_group else "bootstrap"
    )


def bootstrap_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str | Callable[..., float] = "accuracy",
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    by_group: bool = True,
    stratified: bool = False,
    **options: Any,
) -> Interval:
    """Percentile bootstrap interval of metric(a) - metric(b) for two models on the same images,
    resampled together.
    """
    b = _aligned(a, b)
    point, values, n = _resampled(
        [a, b],
        metric,
        resamples=resamples,
        seed=seed,
        by_group=by_group,
        stratified=stratified,
        **options,
    )
    return _percentile(
        point[0] - point[1],
        values[0] - values[1],
        level,
        n,
        "paired bootstrap by group" if by_group else "paired bootstrap",
    )


def _aligned(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    if a["image_id"].duplicated().any() or sorted(a["image_id"]) != sorted(b["image_id"]):
        raise BadSample(
            "A paired comparison needs two tables of the same images, each once; take the same "
            "split for both models."
        )
    return b.set_index("image_id").loc[a["image_id"]].reset_index()
