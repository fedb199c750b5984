"""Arithmetic on printed numbers: what a value that was rounded to d decimals can, and cannot, have
been before.

Every function takes plain numbers in the unit in which they are printed. A printed value stands for
an interval, half a unit of the last digit to either side, both ends included; ranges of computed
quantities are taken over those intervals, so that nothing is called impossible because of rounding.
`SLACK` absorbs binary representation only.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import optimize

SLACK = 1e-9


class Range(NamedTuple):
    """A closed interval."""

    low: float
    high: float

    def meets(self, other: "Range") -> bool:
        """Whether the two intervals share a point."""
        return self.low <= other.high + SLACK and other.low <= self.high + SLACK

    def scaled(self, factor: float) -> "Range":
        """The interval in another unit (`factor` > 0)."""
        return Range(self.low * factor, self.high * factor)


class Confusion(NamedTuple):
    """A two-class confusion matrix with its class counts."""

    P: int
    N: int
    TP: int
    FN: int
    TN: int
    FP: int


def half(decimals: int) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0**-decimals


def printed_range(value: float, decimals: int, units: float = 0.5) -> Range:
    """What the exact value may have been, `units` of the last digit to either side (0.5: rounded;
    1: rounded or truncated).
    """
    return Range(value - 2 * units * half(decimals), value + 2 * units * half(decimals))


def prints_as(exact: float, value: float, decimals: int) -> str | None:
    """How `exact` becomes the printed `value`: "rounded", "truncated", "rounded twice", or None if
    in no way.

    Ties may go either way. "Rounded twice": first to one digit more, then to `decimals`.
    """
    difference, slack = exact - value, SLACK * max(1.0, abs(value))
    if abs(difference) <= half(decimals) + slack:
        return "rounded"
    if -slack <= difference < 2 * half(decimals) - slack:
        return "truncated"
    return "rounded twice" if abs(difference) <= 1.1 * half(decimals) + slack else None


# --- proportions ----------------------------------------------------------------------------------


def reach(value: float, decimals: int, n: int, scale: float = 100.0) -> tuple[str | None, int]:
    """Whether a proportion of n cases prints as `value`.

    Parameters
    ----------
    value, decimals : printed proportion, in units of 1 / `scale` (100: percent)
    n : int
        Number of cases.

    Returns
    -------
    (str or None, int)
        As `prints_as`, and the k of that proportion; without one, the k nearest to the value.
    """
    nearest = round(value * n / scale)
    for k in (nearest, nearest - 1, nearest + 1):
        if 0 <= k <= n and (how := prints_as(scale * k / n, value, decimals)):
            return how, k
    return None, min(max(nearest, 0), n)


def common_denominators(
    values: Sequence[float], decimals: int, start: int, stop: int, scale: float = 100.0
) -> np.ndarray:
    """Every n in start..stop for which all `values` are k / n after rounding, as an int array."""
    n = np.arange(start, stop + 1)[:, None]
    v = np.asarray(values, dtype=float)[None, :]
    exact = scale * np.round(v * n / scale) / n
    return n[(np.abs(exact - v) <= half(decimals) + SLACK).all(axis=1), 0]


# --- confusion matrices ---------------------------------------------------------------------------


def _counts(value, decimals, total):
    low, high = (x * total / 100 for x in printed_range(value, decimals))
    return range(max(0, math.ceil(low - SLACK)), min(total, math.floor(high + SLACK)) + 1)


def reconstruct(
    accuracy: float, sensitivity: float, specificity: float, n: int, decimals: int = 2
) -> list[Confusion]:
    """Every confusion matrix of n cases that gives the three printed percentages, by exhaustive
    search over all splits into P and N.

    Returns
    -------
    list of Confusion
        Empty: no confusion matrix has these values.
    """
    found = []
    right = _counts(accuracy, decimals, n)
    for positives in range(1, n):
        negatives = n - positives
        for hits in _counts(sensitivity, decimals, positives):
            found += [
                Confusion(
                    P=positives,
                    N=negatives,
                    TP=hits,
                    FN=positives - hits,
                    TN=rejections,
                    FP=negatives - rejections,
                )
                for rejections in _counts(specificity, decimals, negatives)
                if hits + rejections in right
            ]
    return found


def largest_negative_share(
    accuracy: float, sensitivity: float, specificity: float, decimals: int = 2
) -> float:
    """Largest share of negative cases at which a sensitivity printed like the accuracy goes with
    another specificity.

    From accuracy = p sensitivity + (1 - p) specificity: 1 - p is at most the rounding room of
    accuracy - sensitivity over the distance of the specificity. 1.0 where the three are equal
    within rounding.
    """
    room = abs(accuracy - sensitivity) + 2 * half(decimals)
    distance = abs(specificity - sensitivity) - 2 * half(decimals)
    return 1.0 if distance <= room else room / distance


def harmonic_range(precision: float, recall: float, decimals: int, units: float = 0.5) -> Range:
    """Range of the F1 of one class from its printed precision and recall, each uncertain by `units`
    of the last digit (1: also truncated).
    """
    ends = [
        [max(v + s * 2 * units * half(decimals), 0.0) for v in (precision, recall)] for s in (-1, 1)
    ]
    return Range(*(2 * p * r / (p + r) if p + r else 0.0 for p, r in ends))


def recall_bounds(errors: int, supports: Sequence[int]) -> Range:
    """Smallest and largest macro recall of a classifier with that many errors, for the given class
    sizes.
    """

    def after(order):
        left, loss = errors, 0.0
        for size in order:
            taken = min(left, size)
            loss, left = loss + taken / size, left - taken
        return 1 - loss / len(supports)

    return Range(after(sorted(supports)), after(sorted(supports, reverse=True)))


def specificity_bounds(errors: int, supports: Sequence[int]) -> dict[str, Range]:
    """Necessary bounds of one-against-rest specificity at that many errors.

    Every error is one false positive of one class, so the average loss is the number of errors over
    the negatives of that class, times its weight.

    Returns
    -------
    dict of str to Range
        For "macro", "support-weighted" and "micro" averages.
    """
    sizes = np.asarray(supports, dtype=float)
    negatives = sizes.sum() - sizes
    weights = {
        "macro": np.full(len(sizes), 1 / len(sizes)),
        "support-weighted": sizes / sizes.sum(),
    }
    bounds = {
        name: Range(1 - errors * (w / negatives).max(), 1 - errors * (w / negatives).min())
        for name, w in weights.items()
    }
    micro = 1 - errors / ((len(sizes) - 1) * sizes.sum())
    return {**bounds, "micro": Range(micro, micro)}


def balanced_mcc(accuracy: float, classes: int) -> Range:
    """Smallest and largest multiclass MCC at an accuracy, on equally large classes.

    MCC = (a - 1/K) / sqrt((1 - 1/K)(1 - sum q^2)) with q the predicted shares: smallest for
    balanced predictions, largest when all errors fall on one class and empty the others one by one.
    """
    share, wrong = 1 / classes, 1 - accuracy
    emptied = min(int(wrong / share + SLACK), classes - 1)
    rest = wrong - emptied * share
    squares = (share + wrong) ** 2 + (classes - 1 - emptied) * share**2
    if rest > 0 and emptied < classes - 1:
        squares += (share - rest) ** 2 - share**2
    top = accuracy - share
    one_sided = math.sqrt((1 - share) * max(1 - squares, SLACK))
    return Range(*sorted((top / (1 - share), top / one_sided)))


# --- means, spreads, changes ----------------------------------------------------------------------


def mean_range(values: Sequence[float], decimals: int) -> "Range":
    """Range of the mean of printed values."""
    return printed_range(float(np.mean(values)), decimals)


def variance_range(values: Sequence[float], decimals: int, ddof: int = 1) -> "Range":
    """Range of the variance (ddof 1: sample) of printed values: largest at a corner of the box,
    smallest with all drawn to one point.
    """
    v, h = np.asarray(values, dtype=float), half(decimals)
    largest = max(
        np.var(v + h * np.asarray(signs), ddof=ddof) for signs in product((-1, 1), repeat=len(v))
    )
    drawn = optimize.minimize_scalar(
        lambda c: np.var(np.clip(c, v - h, v + h), ddof=ddof),
        bounds=(v.min() - h, v.max() + h),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return Range(float(drawn.fun), float(largest))


def change_range(before: float, after: float, decimals: int, relative: bool = True) -> "Range":
    """Range of after - before, in percent of `before` if `relative`."""
    h = half(decimals)
    if not relative:
        return Range(after - before - 2 * h, after - before + 2 * h)
    return Range(100 * ((after - h) / (before + h) - 1), 100 * ((after + h) / (before - h) - 1))


def statistic_range(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    samples: Sequence[Sequence[float]],
    decimals: int,
    means: Sequence[Range] | None = None,
) -> "Range":
    """Range of a statistic of two samples over the rounding of their values.

    Parameters
    ----------
    statistic : callable
        Takes two arrays, gives a number.
    samples : two sequences of the printed values
    means : two Ranges, optional
        Printed means that the exact values must give as well.

    Returns
    -------
    Range
        By constrained optimisation (SLSQP) from the printed values and from both sides of the box.
    """
    sizes, x0, h = (
        [len(s) for s in samples],
        np.concatenate([np.asarray(s, float) for s in samples]),
        half(decimals),
    )

    def split(x):
        return x[: sizes[0]], x[sizes[0] :]

    def room(x, i, mean):
        return [split(x)[i].mean() - mean.low, mean.high - split(x)[i].mean()]

    def signed(x, sign):
        return sign * statistic(*split(x))

    inside = [partial(room, i=i, mean=mean) for i, mean in enumerate(means or ())]
    found = [float(statistic(*split(x0)))]
    for sign, side in product((1, -1), (0.0, 0.9, -0.9)):
        start = x0 + side * h * np.concatenate([np.ones(sizes[0]), -np.ones(sizes[1])])
        result = optimize.minimize(
            partial(signed, sign=sign),
            start,
            bounds=list(zip(x0 - h, x0 + h, strict=False)),
            constraints=[{"type": "ineq", "fun": fun} for fun in inside],
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 300},
        )
        if all((np.asarray(fun(result.x)) > -1e-7).all() for fun in inside):
            found.append(float(sign * result.fun))
    return Range(min(found), max(found))
