"""Check kinds on tables as tables: values that should agree, add up, be ordered, lie within bounds
or follow from one another.

Severities and the form of a kind are those of `kit.published.checks`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from kit.published import numbers
from kit.published.checks import (
    INCONSISTENT,
    UNEXPLAINED,
    kind,
    one,
    range_of,
    says,
    select,
    spread,
)
from kit.published.papers import Paper


def _base(paper, value_id):
    entry = one(paper, value_id)
    return entry, range_of(entry, 1.0)


@kind
def same(paper: Paper, groups: Sequence[Sequence[str]]) -> Iterator[tuple[str, list[str], str]]:
    """The same quantity printed (or recorded) more than once with values that exclude each
    other.
    """
    for group in groups:
        entries = select(paper, group)
        apart = [
            (a, b)
            for a, b in combinations(entries, 2)
            if not range_of(a, 1.0).meets(range_of(b, 1.0))
        ]
        if apart:
            ids = list(dict.fromkeys(e.id for pair in apart for e in pair))
            yield (
                INCONSISTENT,
                ids,
                f"The same quantity has several values: {'; '.join(says(e) for e in entries)}.",
            )


@kind
def order(
    paper: Paper,
    pairs: Sequence[Sequence[str]],
    over: Sequence[str] = ("",),
    severity: str = INCONSISTENT,
) -> Iterator[tuple[str, list[str], str]]:
    """Two pairs of values that should be ordered alike but are not, beyond rounding; for each name
    that `over` puts in place of ``{}``.
    """
    for item in over:
        ids = [[i.format(item) for i in pair] for pair in pairs]
        (a, ra), (b, rb), (c, rc), (d, rd) = (_base(paper, i) for pair in ids for i in pair)
        signs = [
            0 if x.meets(y) else (1 if x.low > y.high else -1) for x, y in ((ra, rb), (rc, rd))
        ]
        if signs[0] * signs[1] < 0:
            yield (
                severity,
                [*ids[0], *ids[1]],
                f"The order flips: {says(a)} against {says(b)}, but {says(c)} against {says(d)}.",
            )


@kind
def less(
    paper: Paper, pairs: Sequence[Sequence[str]], claim: str
) -> Iterator[tuple[str, list[str], str]]:
    """Pairs of which the publication says that the first value is the smaller one."""
    for pair in pairs:
        (a, ra), (b, rb) = (_base(paper, i) for i in pair)
        if ra.low > rb.high:
            yield INCONSISTENT, [a.id, b.id], f"{says(a)} is not below {says(b)}, although {claim}."


@kind
def extreme(
    paper: Paper, value: str, among: str | Sequence[str], claim: str, sense: str = "largest"
) -> Iterator[tuple[str, list[str], str]]:
    """A value that the publication calls the largest (or smallest) of several."""
    e, r = _base(paper, value)
    sign = 1 if sense == "largest" else -1
    beyond = [
        o
        for o in select(paper, among)
        if o.id != e.id and min(sign * x for x in range_of(o, 1.0)) > max(sign * x for x in r)
    ]
    if beyond:
        yield (
            INCONSISTENT,
            [e.id],
            f"{says(e)} is not the {sense}, although {claim}: "
            f"{', '.join(says(o) for o in beyond)}.",
        )


@kind
def outside(
    paper: Paper, values: str | Sequence[str], within: str | Sequence[str]
) -> Iterator[tuple[str, list[str], str]]:
    """A value outside the range of values that should be alike (a hold-out result beyond every
    fold).
    """
    others = select(paper, within)
    low, high = min(others, key=lambda e: e.value), max(others, key=lambda e: e.value)
    for e in select(paper, values):
        if not numbers.Range(range_of(low).low, range_of(high).high).meets(range_of(e)):
            gap = e.value - high.value if e.value > high.value else low.value - e.value
            side = "above the largest" if e.value > high.value else "below the smallest"
            yield (
                UNEXPLAINED,
                [e.id],
                f"{says(e)} lies {gap:.{e.decimals}f} {side} of the {len(others)} values "
                f"{says(low, True)} to {says(high, True)}.",
            )


@kind
def sum_(paper: Paper, totals: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[str], str]]:
    """A total against its parts: `totals` maps the total's id to patterns of the parts (the total
    itself is left out).
    """
    for total, parts in totals.items():
        e = one(paper, total)
        entries = [p for p in select(paper, parts) if p.id != e.id]
        room = sum(numbers.half(p.decimals) for p in entries if p.decimals) + (
            numbers.half(e.decimals) if e.decimals else 0
        )
        found = sum(p.value for p in entries)
        if abs(found - e.value) > room + numbers.SLACK:
            yield (
                INCONSISTENT,
                [e.id],
                f"{says(e)}, but its {len(entries)} parts add up to {found:,.{e.decimals}f}.",
            )


@kind
def delta(
    paper: Paper, rows: Sequence[str], before: str, after: str, printed: str, relative: bool = True
) -> Iterator[tuple[str, list[str], str]]:
    """A printed change against the two values that it is the change of; percent of the first if
    `relative`.
    """
    for row in rows:
        b, a, d = (one(paper, pattern.format(row)) for pattern in (before, after, printed))
        allowed = numbers.change_range(b.value, a.value, b.decimals, relative)
        if not allowed.meets(range_of(d)):
            gap = min(abs(x - d.value) for x in allowed)
            middle = sum(allowed) / 2
            severity = INCONSISTENT if gap > 5 * numbers.half(d.decimals) else UNEXPLAINED
            said = (
                f"{says(b)} and {says(a)} give {middle:+.2f} ({spread(allowed, 2)} within rounding)"
            )
            yield severity, [d.id, b.id, a.id], f"{says(d)}, but {said}."


@kind
def bounds(
    paper: Paper,
    values: str | Sequence[str],
    what: str,
    low: float | str | None = None,
    high: float | str | None = None,
    severity: str = INCONSISTENT,
) -> Iterator[tuple[str, list[str], str]]:
    """Values outside stated bounds; `low` and `high` are numbers or ids of numbers, in the values'
    unit.
    """
    ends = [one(paper, x).value if isinstance(x, str) else x for x in (low, high)]
    for e in select(paper, values):
        r = range_of(e)
        if (ends[0] is not None and r.high < ends[0]) or (ends[1] is not None and r.low > ends[1]):
            yield (
                severity,
                [e.id],
                f"{says(e)} is outside {_interval(ends)}, "
                f"{what}{f' ({e.note})' if e.note else ''}.",
            )


def _interval(ends):
    low, high = (None if x is None else f"{x:,.6g}" for x in ends)
    return (
        f"{low} to {high}"
        if low and high
        else (f"the upper bound {high}" if high else f"the lower bound {low}")
    )


@kind
def ratio(
    paper: Paper,
    printed: str,
    top: str,
    bottom: str,
    factor: float = 1.0,
    round_first: tuple[float, int] | None = None,
    note: str = "",
) -> Iterator[tuple[str, list[str], str]]:
    """A printed ratio against the two numbers behind it; `round_first` ([unit, decimals]) names a
    rounding of both that may explain it.
    """
    e, t, b = one(paper, printed), one(paper, top), one(paper, bottom)
    allowed = numbers.Range(
        range_of(t).low / range_of(b).high, range_of(t).high / range_of(b).low
    ).scaled(factor)
    if allowed.meets(range_of(e)):
        return
    text = (
        f"{says(e)}, but {says(t)} over {says(b)} is {factor * t.value / b.value:.{e.decimals}f}."
    )
    if round_first:
        unit, digits = round_first
        x, y = round(t.value / unit, digits), round(b.value / unit, digits)
        if y and numbers.prints_as(factor * x / y, e.value, e.decimals) == "rounded":
            text += f" It is {x:.{digits}f} over {y:.{digits}f}: both were rounded first."
    yield INCONSISTENT, [e.id], f"{text} {note}".strip()


@kind
def near(
    paper: Paper,
    pairs: Sequence[str],
    tolerance: float,
    divide: float = 1.0,
    over: Sequence[str] = ("",),
    note: str = "",
) -> Iterator[tuple[str, list[str], str]]:
    """Printed values that differ from recorded ones (over `divide`) by more than a relative
    tolerance.
    """
    for item in over:
        e, r = (one(paper, i.format(item)) for i in pairs)
        if abs(e.value * divide / r.value - 1) > tolerance:
            yield (
                UNEXPLAINED,
                [e.id],
                (
                    f"{says(e)}, but {says(r)}: {e.value * divide / r.value:.2f} times as much. "
                    f"{note}"
                ).strip(),
            )


@kind
def matches(
    paper: Paper, alternatives: Mapping[str, Sequence[tuple[str, str]]], divide: float = 1.0
) -> Iterator[tuple[str, list[str], str]]:
    """A printed column against several exact ones, rounded or truncated: which one is it?
    `alternatives` maps a name to [[printed, exact], ...].
    """
    table = {}
    for name, pairs in alternatives.items():
        for how in ("rounded", "truncated"):
            found = [(one(paper, p), one(paper, x).value / divide) for p, x in pairs]
            table[f"{name} {how}"] = [
                (e, exact) for e, exact in found if not _prints(exact, e, how)
            ]
    if all(table.values()):
        best = min(table, key=lambda k: len(table[k]))
        wrong = ", ".join(f"{says(e)} against {exact:.4f}" for e, exact in table[best])
        yield (
            UNEXPLAINED,
            [e.id for e, _ in table[best]],
            f"No single source gives the whole column; the nearest is '{best}', which misses "
            f"{wrong}.",
        )


def _prints(exact, entry, how):
    if how == "truncated":
        return (
            -numbers.SLACK <= exact - entry.value < 2 * numbers.half(entry.decimals) - numbers.SLACK
        )
    return numbers.prints_as(exact, entry.value, entry.decimals) == "rounded"


@kind
def steps(
    paper: Paper,
    rows: Sequence[str],
    columns: Sequence[str],
    length: int,
    start: Sequence[float],
    step: float,
    claim: str | None = None,
) -> Iterator[tuple[str, list[str], str]]:
    """A path in several columns that moves by at most `step` a row from `start`; `claim`: the text
    says that one column moves at a time.
    """
    both, moves, ids = 0, 0, []
    for pattern in rows:
        last = dict(zip(columns, start, strict=False))
        for i in range(1, length + 1):
            now = {c: one(paper, f"{pattern.format(i)}/{c}") for c in columns}
            change = [abs(e.value - last[c]) for c, e in now.items()]
            moves, both = moves + 1, both + (sum(x > numbers.SLACK for x in change) > 1)
            if max(change) > step + numbers.SLACK:
                yield (
                    INCONSISTENT,
                    [e.id for e in now.values()],
                    f"{pattern.format(i)} moves by {max(change):.2f}, more than the step {step}.",
                )
            last = {c: e.value for c, e in now.items()}
        ids.append(pattern.split("/")[0])
    if claim and both:
        where = ", ".join(dict.fromkeys(ids))
        yield (
            INCONSISTENT,
            [claim],
            (
                f"{both} of {moves} moves in {where} change {' and '.join(columns)} together, "
                "although the text says one at a time."
            ),
        )


@kind
def missing_unit(
    paper: Paper, value: str, below: str, units: Mapping[str, float]
) -> Iterator[tuple[str, list[str], str]]:
    """A value printed without unit that is said to lie below another one: which units allow that?
    `units` maps a unit to its size in seconds.
    """
    e, other = one(paper, value), one(paper, below)
    size = other.value * units[other.unit]
    fits = [u for u, seconds in units.items() if e.value * seconds < size]
    if not e.unit and len(fits) < len(units):
        within, beyond = (
            [f"{e.printed} {u}" for u in units if (u in fits) == wanted] for wanted in (True, False)
        )
        yield (
            UNEXPLAINED,
            [e.id],
            (
                f"{says(e)} has no unit and is said to lie below {says(other)}: only "
                f"{' or '.join(within) or 'no unit'} would, {' and '.join(beyond)} would not."
            ),
        )
