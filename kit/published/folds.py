"""Check kinds on values of folds: t statistics, means, variances and standard deviations against
the printed values that they summarise.

Severities and the form of a kind are those of `kit.published.checks`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from kit.evaluation import stats
from kit.published import numbers
from kit.published.checks import INCONSISTENT, kind, one, range_of, says, select, spread
from kit.published.papers import Paper


@kind
def t_test(
    paper: Paper,
    a: str | Sequence[str],
    b: str | Sequence[str],
    printed: str,
    means: Sequence[str] | None = None,
    summary: Sequence[Sequence[str]] | None = None,
    test_to_train: float | None = None,
) -> Iterator[tuple[str, list[str], str]]:
    """A t statistic against the printed folds (paired, pooled, Welch, corrected) and against
    printed means and standard deviations.
    """
    a, b, t = select(paper, a), select(paper, b), one(paper, printed)
    x, y, decimals = [e.value for e in a], [e.value for e in b], a[0].decimals
    tests: dict[str, Callable] = {
        "paired": stats.paired_t,
        "pooled": stats.pooled_t,
        "Welch": stats.welch_t,
    }
    if test_to_train:
        tests["corrected resampled"] = lambda p, q: stats.corrected_resampled_t(
            np.subtract(p, q), test_to_train
        )
    within = [range_of(one(paper, m)) for m in means] if means else None
    results = {
        name: (
            f(x, y),
            numbers.statistic_range(partial(_statistic, f), (x, y), decimals, within),
        )
        for name, f in tests.items()
    }
    if any(r.meets(range_of(t)) for _, r in results.values()):
        return
    words = ", ".join(
        f"{name} {r.statistic:.4f} ({spread(rng, 3)}, p = {r.p:.2f})"
        for name, (r, rng) in results.items()
    )
    more = _from_summary(paper, summary, t, len(x))
    yield (
        INCONSISTENT,
        [t.id],
        f"{says(t)} is no t statistic of the printed folds, not even within their rounding: "
        f"{words}.{more}",
    )


def _statistic(test: Callable, a: np.ndarray, b: np.ndarray) -> float:
    return test(a, b).statistic


def _from_summary(paper, summary, t, n):
    if not summary:
        return ""
    (m1, s1), (m2, s2) = [[one(paper, i) for i in pair] for pair in summary]
    test = stats.t_from_summary(m1.value, s1.value, n, mean2=m2.value, sd2=s2.value, n2=n)
    ends = [
        stats.t_from_summary(m1.value, r1, n, mean2=m2.value, sd2=r2, n2=n).statistic
        for r1, r2 in zip(range_of(s1), range_of(s2), strict=False)
    ]
    verb = "gives" if numbers.Range(*sorted(ends)).meets(range_of(t)) else "does not give"
    return (
        f" An independent test of the printed means and standard deviations ({m1.printed}, "
        f"{s1.printed} and {m2.printed}, {s2.printed}; n = {n} each) "
        f"{verb} it: t = {test.statistic:.4f}, df {test.df:.0f}, p = {test.p:.3f}."
    )


def _columns(paper, of, printed, columns):
    for column in columns or ("",):
        entries = select(paper, [p.format(column) for p in of])
        yield [e.value for e in entries], entries, one(paper, printed.format(column))


@kind
def mean(
    paper: Paper, of: Sequence[str], printed: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, list[str], str]]:
    """A printed mean against the mean of the printed values."""
    for values, entries, e in _columns(paper, of, printed, columns):
        allowed = numbers.mean_range(values, entries[0].decimals)
        if not allowed.meets(range_of(e)):
            yield (
                INCONSISTENT,
                [e.id],
                f"{says(e)}, but the mean of the {len(values)} printed values is "
                f"{np.mean(values):.4f}.",
            )


@kind
def variance(
    paper: Paper, of: Sequence[str], printed: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[str, list[str], str]]:
    """A printed variance against sample and population variance of the printed values, and its
    unit.
    """
    for values, entries, e in _columns(paper, of, printed, columns):
        ranges = {
            name: numbers.variance_range(values, entries[0].decimals, ddof)
            for name, ddof in (("sample", 1), ("population", 0))
        }
        fits = [name for name, r in ranges.items() if r.meets(range_of(e))]
        v = np.var(values, ddof=1)
        if not fits:
            yield (
                INCONSISTENT,
                [e.id],
                f"{says(e)}, but the printed values have sample variance {v:.4f} and population "
                f"variance {np.var(values):.4f}.",
            )
        elif e.unit == entries[0].unit and e.unit:
            yield (
                INCONSISTENT,
                [e.id],
                (
                    f"{says(e)} is the {fits[0]} variance of the printed values ({v:.4f}), so its "
                    f"unit is {_square(e.unit)}; the standard deviation is "
                    f"{np.sqrt(v):.3f} {e.unit}."
                ),
            )


def _square(unit):
    return "squared percentage points" if unit == "%" else f"squared {unit}"


@kind
def deviation(
    paper: Paper, of: Sequence[str], printed: str
) -> Iterator[tuple[str, list[str], str]]:
    """A printed standard deviation against those of the printed values."""
    for values, entries, e in _columns(paper, of, printed, None):
        ranges = [
            numbers.Range(*np.sqrt(numbers.variance_range(values, entries[0].decimals, ddof)))
            for ddof in (1, 0)
        ]
        if not any(r.meets(range_of(e)) for r in ranges):
            yield (
                INCONSISTENT,
                [e.id],
                (
                    f"{says(e)}, but the printed values have standard deviation "
                    f"{np.std(values, ddof=1):.3f} (sample, {spread(ranges[0], 3)} within "
                    "rounding) "
                    f"or {np.std(values):.3f} (population)."
                ),
            )
