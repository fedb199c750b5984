"""A published number against ours: which interval their difference has, and what follows.

What is known of the published number decides. A share of n images is a sample of its own. A mean or
a variance of printed folds has the interval of those folds. Of anything else (F1, MCC, an area) the
publication says nothing of the error; there it is taken to be ours, on equally many images.
"""

import math
from dataclasses import dataclass, replace

from kit.evaluation import agreement, answers, stats
from kit.published import numbers
from kit.published.checks import select
from kit.published.schema import Paper, Published

NO_SHARES = {"auc", "sensitivity", "specificity", "precision", "recall", "f1", "mcc"}
BELOW_ZERO = ("mcc",)
LEVELS = (0.95, 0.90)
FACTOR_TWO = math.log(2)


@dataclass(frozen=True)
class Ours:
    """What was measured here, in the unit of the published number.

    Attributes
    ----------
    estimate, low, high : float
        With the 95 % interval, None where it has none.
    n : int or None
        Test images; `groups` of them are no copies of each other.
    seeds : int or None
        Trainings behind the estimate, their mean; `seed_sd` is the standard deviation between them.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    groups: int | None = None
    seeds: int | None = None
    seed_sd: float = 0.0


def size_of_one(number: Published) -> float:
    """What 1 of the quantity is in the unit of the number: 100 for percent, n for images."""
    if number.unit in ("%", "pp"):
        return 100.0
    return float(number.n) if number.unit == "images" and number.n else 1.0


def compare(paper: Paper, number: Published, ours: Ours) -> answers.Answer | None:
    """Is ours equal to the published number, within the margin?

    Returns
    -------
    Answer or None
        The difference ours - published and the margin in the unit of the number; for a variance
        those of the natural logarithm of the ratio. None if ours has no error to judge by.
    """
    if number.statistic == "variance":
        return _variance(paper, number, ours)
    one = size_of_one(number)
    if number.n and number.statistic != "mean" and number.column not in NO_SHARES:
        pairs = [_shares(number, ours, level, one) for level in LEVELS]
    elif ours.low is None or ours.high is None:
        return None
    else:
        pairs = [_intervals(paper, number, ours, level, one) for level in LEVELS]
    (outer, published), (inner, _) = pairs
    rounding = 0.0 if number.n else numbers.half(number.decimals) / one
    found = answers.equal(outer, answers.margin_of(published).wider(rounding), inner)
    return replace(
        found,
        interval=found.interval.scaled(one),
        margin=found.margin.scaled(one),
        detectable=found.detectable * one,
    )


def _shares(number, ours, level, one):
    """Difference of two shares with the published one's own interval, as fractions."""
    _, k = numbers.reach(number.value, number.decimals, number.n, one)
    n, p, q = ours.n or number.n, ours.estimate / one, k / number.n
    distinct = min(1.0, (ours.groups or n) / n)
    spread = {"seed_sd": ours.seed_sd / one, "seeds": ours.seeds}
    mine = agreement.effective(n, p, groups=round(distinct * n), **spread)
    theirs = agreement.effective(
        number.n, q, groups=max(1, round(distinct * number.n)), single=True, **spread
    )
    interval = agreement.share_difference(p * mine, mine, q * theirs, theirs, level)
    return interval, agreement.share(k, number.n, 0.95)


def _intervals(paper, number, ours, level, one):
    """Difference of two numbers by their intervals, and the published interval if it is known."""
    mine = _interval(ours.estimate, ours.low, ours.high, ours.n).scaled(1 / one)
    if number.statistic == "mean":
        folds = [entry.value / one for entry in select(paper, number.of)]
        published = agreement.mean_over_folds(folds, number.test_over_train, 0.95)
        published = replace(published, estimate=number.value / one)
    else:
        published = None
    theirs = published or _with_seeds(_like(number, mine, one), ours, one, single=True)
    pair = (agreement.at_level(x, level) for x in (_with_seeds(mine, ours, one), theirs))
    return agreement.difference(*pair), published


def _interval(estimate, low, high, n):
    return stats.Interval(estimate, low, high, 0.95, n or 1, "stored")


def _like(number, mine, one):
    """The published number with the sides of our interval, which stands for its unknown error."""
    p, n = number.value / one, number.n or mine.n
    factor = math.sqrt(mine.n / n) if mine.n > 1 else 1.0
    least = -1.0 if number.column.endswith(BELOW_ZERO) else 0.0
    most = 1.0 if number.unit in ("%", "fraction", "mean", "images") else math.inf
    low = max(p - factor * (mine.estimate - mine.low), min(least, p))
    high = min(p + factor * (mine.high - mine.estimate), max(most, p))
    return _interval(p, low, high, n)


def _with_seeds(interval, ours, one, single=False):
    extra = agreement.seed_variance(ours.seed_sd / one, ours.seeds, of_mean=not single)
    if not extra:
        return interval
    added = 1.959964 * math.sqrt(extra)
    return replace(
        interval,
        low=interval.estimate - math.hypot(interval.estimate - interval.low, added),
        high=interval.estimate + math.hypot(interval.high - interval.estimate, added),
    )


def _variance(paper, number, ours):
    df = len(select(paper, number.of)) - 1
    if not (ours.estimate > 0 and number.value > 0):
        return None
    outer, inner = (
        _logarithm(agreement.variance_ratio(ours.estimate, df, number.value, df, level))
        for level in LEVELS
    )
    return answers.equal(outer, FACTOR_TWO, inner)


def _logarithm(ratio: stats.Interval) -> stats.Interval:
    return replace(
        ratio,
        estimate=math.log(ratio.estimate),
        low=math.log(ratio.low),
        high=math.log(ratio.high),
    )
