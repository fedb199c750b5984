"""Differences of two results with their intervals: shares, paired shares, means of folds, areas
under curves, variances.

Every interval stays within the range that the quantity has. Shares use Newcombe's hybrid score
interval (Statistics in Medicine 17, 1998, 873 and 2635), independent by statsmodels and paired by
his method 10; other quantities combine their own two intervals in the same way (the method of
variance estimates recovery of Zou and Donner, 2008). Copies of an image count as one: `effective`
turns images in duplicate groups into Kish's effective number, and the spread between seeds is added
to the sampling variance there too.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as sps
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from kit.evaluation.stats import BadSample, Interval


def share(k: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval of k / n; both may be fractional, as effective numbers are."""
    if not (n > 0 and -1e-9 <= k <= n * (1 + 1e-9)):
        raise BadSample(f"A proportion needs 0 <= k <= n and n > 0, but k = {k} and n = {n}.")
    low, high = proportion_confint(min(max(k, 0), n), n, alpha=1 - level, method="wilson")
    low, high = max(float(low), 0.0), min(float(high), 1.0)
    return Interval(k / n, low, high, level=level, n=round(n), method="Wilson")


def effective(
    n: float,
    p: float,
    *,
    groups: Iterable | int | None = None,
    seed_sd: float = 0.0,
    seeds: int | None = None,
    single: bool = False,
) -> float:
    """Number of independent images that would give a share its variance.

    Parameters
    ----------
    n : int
        Images.
    p : float
        The share, a fraction.
    groups : iterable of labels, or int, optional
        The duplicate group of every image: the n images then count as n^2 / sum of squared group
        sizes (Kish). An int is the number of groups where the sizes are not known.
    seed_sd : float
        Standard deviation between the results of single seeds, a fraction.
    seeds : int, optional
        Number of seeds behind `seed_sd`, which is widened by Student's t, for few seeds tell
        little about it.
    single : bool
        The share is that of one run, not the mean over the seeds.

    Returns
    -------
    float
        At most n, more than 0.
    """
    if isinstance(groups, int):
        n = min(n, groups)
    elif groups is not None:
        n = n**2 / sum(size**2 for size in Counter(groups).values())
    smoothed = (p * n + 2) / (n + 4)  # keeps a variance at a share of 0 or 1
    extra = seed_variance(seed_sd, seeds, of_mean=not single)
    return n / (1 + extra * n / (smoothed * (1 - smoothed)))


def seed_variance(seed_sd: float, seeds: int | None, of_mean: bool = True) -> float:
    """Variance that the spread between seeds adds to the mean over them (or to a single run), by
    the normal quantile that the t quantile of seeds - 1 degrees corresponds to.
    """
    if not seed_sd or not seeds or seeds < 2:
        return 0.0
    widened = seed_sd * sps.t.ppf(0.975, seeds - 1) / sps.norm.ppf(0.975)
    return float(widened**2 / (seeds if of_mean else 1))


def at_level(interval: Interval, level: float) -> Interval:
    """The interval at another level, its two sides scaled by the normal quantiles."""
    factor = sps.norm.ppf((1 + level) / 2) / sps.norm.ppf((1 + interval.level) / 2)
    down, up = interval.estimate - interval.low, interval.high - interval.estimate
    return replace(
        interval,
        low=interval.estimate - factor * down,
        high=interval.estimate + factor * up,
        level=level,
    )


# --- differences ----------------------------------------------------------------------------------


def share_difference(k1: float, n1: float, k2: float, n2: float, level: float = 0.95) -> Interval:
    """k1 / n1 - k2 / n2 on different images, or on images whose pairing is not known."""
    share(k1, n1)
    share(k2, n2)
    low, high = confint_proportions_2indep(
        k1, n1, k2, n2, method="newcomb", compare="diff", alpha=1 - level
    )
    return Interval(
        estimate=k1 / n1 - k2 / n2,
        low=float(max(low, -1)),
        high=float(min(high, 1)),
        level=level,
        n=round(n1 + n2),
        method="Newcombe",
    )


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, groups: Sequence | None = None, level: float = 0.95
) -> Interval:
    """Share of a minus share of b on the same images, Newcombe's method 10.

    Parameters
    ----------
    correct_a, correct_b : (n,) bool
    groups : (n,) labels, optional
        Duplicate groups; the four counts are scaled to Kish's effective number.
    level : float
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise BadSample(
            f"A paired comparison needs two equally long lists, but they have {a.size} and "
            f"{b.size} entries."
        )
    factor = effective(len(a), 0.5, groups=groups) / len(a)
    both, only_a, only_b = (float(x.sum()) * factor for x in (a & b, a & ~b, ~a & b))
    low, high = paired_ends(both, only_a, only_b, float((~a & ~b).sum()) * factor, level)
    return Interval(
        float(a.mean() - b.mean()), low, high, level=level, n=len(a), method="Newcombe, paired"
    )


def paired_ends(
    both: float, only_a: float, only_b: float, neither: float, level: float = 0.95
) -> tuple[float, float]:
    """Ends of Newcombe's method 10 from the four counts of a paired table."""
    n = both + only_a + only_b + neither
    first, second = share(both + only_a, n, level), share(both + only_b, n, level)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    cross = both * neither - only_a * only_b
    cross = cross if cross < 0 else max(cross - n / 2, 0.0)  # his continuity correction
    phi = cross / np.sqrt(margins) if margins else 0.0
    return _combined_ends(first, second, phi)


def _combined_ends(first: Interval, second: Interval, phi: float = 0.0) -> tuple[float, float]:
    down, up = first.estimate - first.low, first.high - first.estimate
    other_down, other_up = second.estimate - second.low, second.high - second.estimate
    difference = first.estimate - second.estimate
    low = difference - np.sqrt(max(down**2 - 2 * phi * down * other_up + other_up**2, 0.0))
    high = difference + np.sqrt(max(up**2 - 2 * phi * up * other_down + other_down**2, 0.0))
    return float(low), float(high)


def difference(first: Interval, second: Interval) -> Interval:
    """first - second of two independent results from their own intervals (equal levels); what lies
    within the range of the quantity stays within the range of its differences.
    """
    if first.level != second.level:
        raise BadSample(
            f"Intervals of one level are needed, but they have {first.level} and {second.level}."
        )
    low, high = _combined_ends(first, second)
    return Interval(
        first.estimate - second.estimate,
        low,
        high,
        level=first.level,
        n=first.n + second.n,
        method=f"{first.method} and {second.method}",
    )


# --- folds, areas, variances ----------------------------------------------------------------------


def mean_over_folds(
    values: ArrayLike,
    test_over_train: float,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
    n: int | None = None,
) -> Interval:
    """Mean over folds or resampled splits, whose training parts overlap.

    The variance is Nadeau and Bengio's, s^2 (1 / k + test_over_train), with k - 1 degrees; the
    interval is taken on the logit scale of `bounds` and so never leaves them.

    Parameters
    ----------
    values : (k,) one a fold, within `bounds`
    test_over_train : float
        Images of a test part over images of its training part (1/2 for three folds; 0 for seeds).
    n : int, optional
        Images in all. Where the folds do not vary, or end at a bound, Wilson's interval of n
        images stands in; without n it is undefined there (nan).
    """
    v, (least, most) = np.asarray(values, float).ravel(), bounds
    if len(v) < 2 or not ((least <= v) & (v <= most)).all() or test_over_train < 0:
        raise BadSample(
            f"A mean of folds needs two or more values from {least:g} to {most:g} and a ratio of "
            f"at least 0, but there are {len(v)} and {test_over_train:g}."
        )
    p, k = (v.mean() - least) / (most - least), len(v)
    spread = 0.0 if np.allclose(v, v[0], rtol=1e-12, atol=1e-15) else v.std(ddof=1)
    if spread == 0 or p in (0.0, 1.0):
        low, high = (share(p * n, n, level).low, share(p * n, n, level).high) if n else [np.nan] * 2
    else:
        error = spread / (most - least) * np.sqrt(1 / k + test_over_train) / (p * (1 - p))
        half = sps.t.ppf((1 + level) / 2, k - 1) * error
        low, high = (1 / (1 + np.exp(-(np.log(p / (1 - p)) + s * half))) for s in (-1, 1))
    return Interval(
        estimate=float(v.mean()),
        low=float(least + (most - least) * low),
        high=float(least + (most - least) * high),
        level=level,
        n=k if n is None else n,
        method="corrected resampled, logit",
    )


def auc(labels: ArrayLike, scores: ArrayLike, level: float = 0.95) -> Interval:
    """Area under the ROC curve with DeLong's variance, on the logit scale; ties count one half.

    Parameters
    ----------
    labels : (n,) 0/1
    scores : (n,) of class 1
    """
    labels = np.asarray(labels, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if min(positives, negatives) < 2:
        raise BadSample(
            f"An area needs two images of each class, but there are {positives} positive and "
            f"{negatives} negative."
        )
    area, variance = placements(labels, np.asarray(scores, float))
    if variance == 0 or area in (0.0, 1.0):  # no pair is out of order: the least certain class
        low = share(min(positives, negatives), min(positives, negatives), level).low
        low, high = (low, 1.0) if area > 0.5 else (0.0, 1 - low)
    else:
        half = sps.norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
        low, high = (1 / (1 + np.exp(-(np.log(area / (1 - area)) + s * half))) for s in (-1, 1))
    return Interval(area, float(low), float(high), level=level, n=len(labels), method="DeLong")


def placements(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve and its variance by DeLong, from ranks."""
    m, n = int(labels.sum()), int((~labels).sum())
    everyone = sps.rankdata(scores)
    v10 = (everyone[labels] - sps.rankdata(scores[labels])) / n
    v01 = 1 - (everyone[~labels] - sps.rankdata(scores[~labels])) / m
    return float(v10.mean()), float(v10.var(ddof=1) / m + v01.var(ddof=1) / n)


def variance(value: float, df: int, level: float = 0.95) -> Interval:
    """A sample variance with its chi-square interval."""
    if value < 0 or df < 1:
        raise BadSample(f"A variance is not below 0 and has a degree, but {value} has {df}.")
    tail = (1 - level) / 2
    low, high = (df * value / sps.chi2.ppf(q, df) for q in (1 - tail, tail))
    return Interval(value, float(low), float(high), level=level, n=df + 1, method="chi-square")


def variance_ratio(
    first: float, df1: int, second: float, df2: int, level: float = 0.95
) -> Interval:
    """first / second of two sample variances, from the F distribution; nan over a variance of 0."""
    variance(first, df1)
    variance(second, df2)
    ratio, tail = (first / second if second else np.nan), (1 - level) / 2
    low, high = (ratio / sps.f.ppf(q, df1, df2) for q in (1 - tail, tail))
    return Interval(ratio, float(low), float(high), level=level, n=df1 + df2 + 2, method="F")
