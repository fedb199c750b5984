"""Intervals and tests: what may be said about a difference, given so many images, folds and seeds.

What differs from the publications: the Br35H paper compares two models on three folds by an
independent two-sample t test whose statistic does not follow from its table; models trained on the
same folds are paired, and folds share training images, so the paired test and the corrected
resampled test of Nadeau and Bengio stand first here and the independent tests are kept as the
authors' variant. No publication gives an interval; here proportions have Wilson's, everything else
a bootstrap over duplicate groups, because copies of one slice are not independent observations.

Distributions and the elementary tests are scipy's. Every function is pure and returns a small
frozen dataclass.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as sps

from kit.errors import KitError


class BadSample(KitError):
    """A test or an interval was asked of numbers that do not allow it."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval.

    `n`: independent units behind it (images, groups, folds or seeds). `undefined`: bootstrap
    resamples on which the metric was nan.
    """

    estimate: float
    low: float
    high: float
    level: float
    n: int
    method: str
    undefined: int = 0

    def scaled(self, factor: float) -> "Interval":
        """The same interval in another unit, e.g. ``scaled(100)`` for percent."""
        return replace(
            self, estimate=self.estimate * factor, low=self.low * factor, high=self.high * factor
        )


@dataclass(frozen=True)
class Test:
    """A two-sided test: `statistic`, `df` (None if it has none), `p`, `estimate` (the difference a
    - b, or the odds ratio), `n` units.
    """

    __test__ = False  # not a pytest class

    name: str
    statistic: float
    df: float | None
    p: float
    estimate: float
    n: int
    note: str = ""


@dataclass(frozen=True)
class McNemarBounds:
    """Smallest and largest exact McNemar p over every number of errors that the two models may
    share.
    """

    p_low: float
    p_high: float
    shared_low: int
    shared_high: int


def _sample(values, least: int = 2) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    if len(values) < least or not np.isfinite(values).all():
        raise BadSample(
            f"At least {least} finite values are needed, but {int(np.isfinite(values).sum())} of "
            f"{len(values)} given are finite."
        )
    return values


def _pair(a, b, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    a, b = _sample(a, least), _sample(b, least)
    if len(a) != len(b):
        raise BadSample(
            f"Paired samples must have equal length, but have {len(a)} and {len(b)}; give one "
            "value per shared fold or image."
        )
    return a, b


# --- intervals ------------------------------------------------------------------------------------


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of the proportion k / n."""
    if not (n > 0 and 0 <= k <= n):
        raise BadSample(f"A proportion needs 0 <= k <= n and n > 0, but k = {k} and n = {n}.")
    low, high = sps.binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
    return Interval(
        estimate=k / n, low=float(low), high=float(high), level=level, n=int(n), method="Wilson"
    )


def mean_t(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of independent runs (seeds) with its t interval."""
    values = _sample(values)
    half = sps.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(
        estimate=values.mean().item(),
        low=(values.mean() - half).item(),
        high=(values.mean() + half).item(),
        level=level,
        n=len(values),
        method="t",
    )


# --- tests on folds or seeds ----------------------------------------------------------------------


def _t_of(name: str, difference: float, error: float, df: float, n: int) -> Test:
    if error == 0:
        return Test(
            name,
            statistic=np.nan,
            df=df,
            p=np.nan,
            estimate=difference,
            n=n,
            note="The differences do not vary, so the test is undefined.",
        )
    t = difference / error
    return Test(
        name,
        statistic=float(t),
        df=float(df),
        p=float(2 * sps.t.sf(abs(t), df)),
        estimate=float(difference),
        n=n,
    )


def paired_t(a: ArrayLike, b: ArrayLike) -> Test:
    """Paired t test of a - b; one value per shared fold, df = n - 1."""
    a, b = _pair(a, b)
    return corrected_resampled_t(a - b, 0.0, "paired t")


def corrected_resampled_t(
    differences: ArrayLike, test_over_train: float, name: str = "corrected resampled t"
) -> Test:
    """Nadeau and Bengio's t test of differences over k resampled splits.

    Parameters
    ----------
    differences : (k,) metric of a minus metric of b, per split
    test_over_train : float
        Size of a test part over the size of its training part (1/2 in 3-fold cross-validation). It
        inflates the variance of the mean from s^2 / k to s^2 (1 / k + test_over_train), because the
        training parts overlap.
    """
    d = _sample(differences)
    if test_over_train < 0:
        raise BadSample(
            f"The ratio of test to training images cannot be negative, but is {test_over_train}."
        )
    return _t_of(
        name, d.mean(), _deviation(d) * np.sqrt(1 / len(d) + test_over_train), len(d) - 1, len(d)
    )


def _deviation(values: np.ndarray) -> float:
    """Sample standard deviation; 0 where the values differ by rounding of floats only."""
    same = np.allclose(values, values[0], rtol=1e-12, atol=1e-15)
    return 0.0 if same else float(values.std(ddof=1))


def t_from_summary(
    mean1: float, sd1: float, n1: int, mean2: float, sd2: float, n2: int, equal_var: bool = True
) -> Test:
    """Independent two-sample t test from means and sample standard deviations (ddof 1): pooled, or
    Welch's if not `equal_var`.
    """
    if min(n1, n2) < 2 or min(sd1, sd2) < 0:
        raise BadSample(
            f"Both samples need two values and a standard deviation >= 0, but n = {n1}, {n2} and "
            f"sd = {sd1}, {sd2}."
        )
    v1, v2 = sd1**2 / n1, sd2**2 / n2
    if equal_var:
        df: float = n1 + n2 - 2
        error = np.sqrt(((n1 - 1) * sd1**2 + (n2 - 1) * sd2**2) / df * (1 / n1 + 1 / n2))
        return _t_of("pooled t", mean1 - mean2, error, df, n1 + n2)
    df = (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1)) if v1 + v2 else np.nan
    return _t_of("Welch t", mean1 - mean2, np.sqrt(v1 + v2), df, n1 + n2)


def _independent(a, b, equal_var: bool) -> Test:
    a, b = _sample(a), _sample(b)
    return t_from_summary(
        a.mean(),
        _deviation(a),
        n1=len(a),
        mean2=b.mean(),
        sd2=_deviation(b),
        n2=len(b),
        equal_var=equal_var,
    )


def pooled_t(a: ArrayLike, b: ArrayLike) -> Test:
    """Student's independent two-sample t test of a - b (equal variances); the authors' variant for
    fold accuracies.
    """
    return _independent(a, b, True)


def welch_t(a: ArrayLike, b: ArrayLike) -> Test:
    """Welch's independent two-sample t test of a - b."""
    return _independent(a, b, False)


def wilcoxon(a: ArrayLike, b: ArrayLike) -> Test:
    """Wilcoxon's signed-rank test of a - b, exact for small samples; with k pairs p cannot fall
    below 2 / 2^k.
    """
    a, b = _pair(a, b)
    if np.array_equal(a, b):
        return Test(
            "Wilcoxon",
            statistic=np.nan,
            df=None,
            p=np.nan,
            estimate=0.0,
            n=len(a),
            note="All differences are 0, so the test is undefined.",
        )
    result = sps.wilcoxon(a, b)
    return Test(
        "Wilcoxon",
        statistic=float(result.statistic),
        df=None,
        p=float(result.pvalue),
        estimate=float(np.median(a - b)),
        n=len(a),
    )


# --- tests on images ------------------------------------------------------------------------------


def mcnemar_exact(correct_a: ArrayLike, correct_b: ArrayLike) -> Test:
    """Exact McNemar test of two models on the same images.

    Parameters
    ----------
    correct_a, correct_b : (n,) bool

    Returns
    -------
    Test
        `statistic`: images that only `a` gets right; `estimate`: accuracy of a minus accuracy of b.
    """
    a, b = _pair(correct_a, correct_b, least=1)
    only_a, only_b = int(((a > 0) & (b == 0)).sum()), int(((a == 0) & (b > 0)).sum())
    note = f"{only_a} images only the first model gets right, {only_b} only the second."
    return Test(
        "McNemar exact",
        statistic=only_a,
        df=None,
        p=_mcnemar_p(only_a, only_b),
        estimate=(only_a - only_b) / len(a),
        n=len(a),
        note=note,
    )


def _mcnemar_p(only_a: int, only_b: int) -> float:
    return float(sps.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def mcnemar_bounds(errors_a: int, errors_b: int, n: int) -> McNemarBounds:
    """Bounds of the exact McNemar p when only the error counts of two models on the same n images
    are known.
    """
    if not (0 <= errors_a <= n and 0 <= errors_b <= n and n > 0):
        raise BadSample(
            f"Error counts must lie in 0..n, but are {errors_a} and {errors_b} of n = {n}."
        )
    p = {
        shared: _mcnemar_p(errors_b - shared, errors_a - shared)
        for shared in range(max(0, errors_a + errors_b - n), min(errors_a, errors_b) + 1)
    }
    low, high = min(p, key=lambda k: p[k]), max(p, key=lambda k: p[k])
    return McNemarBounds(p[low], p[high], low, high)


def fisher(errors_a: int, n_a: int, errors_b: int, n_b: int) -> Test:
    """Fisher's exact test of two error counts, for models tested on different images; `estimate` is
    the sample odds ratio.
    """
    if not (0 <= errors_a <= n_a and 0 <= errors_b <= n_b and n_a > 0 and n_b > 0):
        raise BadSample(
            f"Error counts must lie in 0..n, but are {errors_a} of {n_a} and {errors_b} of {n_b}."
        )
    ratio, p = sps.fisher_exact([[errors_a, n_a - errors_a], [errors_b, n_b - errors_b]])
    return Test(
        "Fisher exact",
        statistic=float(ratio),
        df=None,
        p=float(p),
        estimate=float(ratio),
        n=n_a + n_b,
    )


def delong(labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike) -> Test:
    """DeLong's z test of AUC(a) - AUC(b) on the same images; ties count one half.

    Parameters
    ----------
    labels : (n,) 0/1
    scores_a, scores_b : (n,) scores of class 1
    """
    labels = np.asarray(labels, dtype=bool)
    m, n = int(labels.sum()), int((~labels).sum())
    if min(m, n) < 2:
        raise BadSample(
            f"DeLong's test needs two images of each class, but there are {m} positive and {n} "
            "negative."
        )
    scores = np.stack(_pair(scores_a, scores_b))
    everyone = sps.rankdata(scores, axis=1)
    v10 = (everyone[:, labels] - sps.rankdata(scores[:, labels], axis=1)) / n
    v01 = 1 - (everyone[:, ~labels] - sps.rankdata(scores[:, ~labels], axis=1)) / m
    difference = v10[0].mean() - v10[1].mean()
    error = np.sqrt((v10[0] - v10[1]).var(ddof=1) / m + (v01[0] - v01[1]).var(ddof=1) / n)
    if error == 0:
        return Test(
            "DeLong",
            statistic=np.nan,
            df=None,
            p=np.nan,
            estimate=float(difference),
            n=m + n,
            note="Both models rank every image alike, so the test is undefined.",
        )
    return Test(
        "DeLong",
        statistic=float(difference / error),
        df=None,
        p=float(2 * sps.norm.sf(abs(difference / error))),
        estimate=float(difference),
        n=m + n,
    )


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down adjusted p values, in the given order; nan stays nan and is not counted as a
    test.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted, order = np.full(p.shape, np.nan), np.argsort(p)[: np.isfinite(p).sum()]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
