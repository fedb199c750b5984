"""Check kinds on proportions: shares of n cases, and the confusion matrix that several of them
need.

Severities and the form of a kind are those of `kit.published.checks`.
"""

from collections.abc import Iterator, Sequence

from kit.evaluation import stats
from kit.published import numbers
from kit.published.checks import (
    IMPOSSIBLE,
    INCONSISTENT,
    TRIPLE,
    UNEXPLAINED,
    cells,
    kind,
    one,
    rows_of,
    says,
    scale,
    select,
)
from kit.published.papers import Paper


@kind
def fraction(
    paper: Paper,
    values: str | Sequence[str],
    n: int | None = None,
    runs: int = 1,
    common: bool = True,
    inferred: str = "",
) -> Iterator[tuple[str, list[str], str]]:
    """Accuracies that are no k / n; with `runs` means over runs, so k / (n runs). `common`: look
    for an n that serves them all.

    `inferred` says where n comes from if the publication does not state it for these values; then
    they are inconsistent with that n, not impossible.

    A common n within 3 % of the stated one, found by more than chance, moves the fault from the
    values to the stated n.
    """
    entries, broken = select(paper, values), []
    for e in entries:
        cases = (n or e.n) * runs
        how, k = numbers.reach(e.value, e.decimals, cases, scale(e))
        near = f"the nearest value is {k:,}/{cases:,} = {scale(e) * k / cases:.{e.decimals + 1}f}"
        if how is None:
            severity = INCONSISTENT if inferred else IMPOSSIBLE
            source = f" ({inferred})" if inferred else ""
            broken.append((severity, [e.id], f"{says(e)} is no k/{cases:,}{source}; {near}."))
        elif how == "rounded twice":
            yield (
                UNEXPLAINED,
                [e.id],
                f"{says(e)} is {k:,}/{cases:,} only if it was rounded twice; {near}.",
            )
    other = _other_size(entries, (n or entries[0].n) * runs) if common and len(broken) > 1 else None
    if other:
        stated = (n or entries[0].n) * runs
        yield (
            INCONSISTENT,
            [e.id for e in entries],
            (
                f"{len(broken)} of {len(entries)} values are no k/{stated:,}, but all are k/n for "
                f"n = {other:,}: the set had another size than stated."
            ),
        )
        return
    yield from broken
    if common and len(broken) > 1:
        yield from _no_size(entries, (n or entries[0].n) * runs)


def _other_size(entries, cases):
    values, e = sorted({x.value for x in entries}), entries[0]
    low, high = int(0.97 * cases), int(1.03 * cases)
    found = numbers.common_denominators(values, e.decimals, low, high, scale(e))
    by_chance = (high - low) * min(1.0, 2 * numbers.half(e.decimals) * cases / scale(e)) ** len(
        values
    )
    return int(found[0]) if len(found) == 1 and by_chance < 0.01 else None


def _no_size(entries, cases):
    found = numbers.common_denominators(
        [e.value for e in entries], entries[0].decimals, 2, 20 * cases, scale(entries[0])
    )
    first = f"below {found[0]:,}" if len(found) else f"up to {20 * cases:,}"
    yield (
        UNEXPLAINED,
        [e.id for e in entries],
        (
            f"No number of cases {first} turns all {len(entries)} values into proportions, so they "
            "are no plain proportions of one such set."
        ),
    )


@kind
def identity(
    paper: Paper, rows: Sequence[str], negatives: float, derived: Sequence[str] = ()
) -> Iterator[tuple[str, list[str], str]]:
    """Sensitivity printed like the accuracy with another specificity, which needs almost no
    negative cases.

    `negatives` is their share in the data; a random part of hundreds of cases keeps it within 0.1.
    """
    broken = []
    for row in rows_of(paper, rows, TRIPLE):
        acc, sens, spec = cells(paper, row, TRIPLE)
        share = numbers.largest_negative_share(acc.value, sens.value, spec.value, acc.decimals)
        if sens.value == acc.value and share < negatives - 0.1:
            broken.append(sens.id)
            yield (
                IMPOSSIBLE,
                [sens.id],
                (
                    f"{row} has sensitivity and accuracy {says(acc, True)} but specificity "
                    f"{says(spec, True)}. Accuracy is the mean of the two weighted by "
                    f"the class counts, so at most {100 * share:.1f} % of the cases could be "
                    f"negative, against {100 * negatives:.0f} % of the data."
                ),
            )
    if broken and derived:
        ids = [e.id for e in select(paper, derived)]
        yield (
            IMPOSSIBLE,
            ids,
            f"Mean or variance of sensitivities that are impossible themselves ({len(broken)} "
            "rows).",
        )


@kind
def confusion(
    paper: Paper,
    rows: Sequence[str],
    joint: bool = False,
    balanced: int | None = None,
    columns: Sequence[str] = TRIPLE,
) -> Iterator[tuple[str, list[str], str]]:
    """Accuracy, sensitivity and specificity that no confusion matrix of n cases has; `joint`: all
    rows share the class counts.
    """
    matrices = {}
    for row in rows:
        acc, sens, spec = entries = cells(paper, row, columns)
        matrices[row] = numbers.reconstruct(
            acc.value * 100 / scale(acc),
            sens.value * 100 / scale(sens),
            spec.value * 100 / scale(spec),
            n=acc.n,
            decimals=acc.decimals - (scale(acc) == 1) * 2,
        )
        if not matrices[row]:
            yield (
                IMPOSSIBLE,
                [e.id for e in entries],
                (
                    f"No confusion matrix of {acc.n} cases gives {says(acc)}, sensitivity "
                    f"{says(sens, True)} and specificity {says(spec, True)} together."
                ),
            )
    shared = set.intersection(*({c.P for c in found} for found in matrices.values()))
    ids = [f"{row}/{c}" for row in rows for c in columns]
    if joint and all(matrices.values()) and not shared:
        yield (
            IMPOSSIBLE,
            ids,
            "The rows fit confusion matrices only with different class counts, though they share "
            "one test set.",
        )
    for row, found in matrices.items():
        fit = [c for c in found if c.P in shared]
        if joint and balanced and fit and balanced not in shared:
            many = (
                f"{len(found)} confusion matrices"
                if len(found) > 1
                else "one confusion matrix only"
            )
            yield (
                UNEXPLAINED,
                [f"{row}/{c}" for c in columns],
                (
                    f"{row} fits {many}; with the shared class counts {_matrix(fit[0])}. The "
                    "hold-out set was therefore not stratified into "
                    f"{balanced} and {balanced}."
                ),
            )


def _matrix(c):
    return f"P = {c.P}, N = {c.N}, TP = {c.TP}, FN = {c.FN}, TN = {c.TN}, FP = {c.FP}"


@kind
def gap(
    paper: Paper, rows: Sequence[str], columns: Sequence[str], level: float = 1e-6
) -> Iterator[tuple[str, list[str], str]]:
    """Two parts of one data set whose accuracies differ more than random parts do (Fisher's exact
    test).
    """
    found = []
    for row in rows:
        a, b = cells(paper, row, columns)
        errors = [round(e.n * (1 - e.value / scale(e))) for e in (a, b)]
        if stats.fisher(errors[0], a.n, errors[1], b.n).p < level:
            found += [a, b]
    if found:
        gaps = [
            (b.value - a.value) / scale(a) * 100
            for a, b in zip(found[::2], found[1::2], strict=False)
        ]
        yield (
            UNEXPLAINED,
            [e.id for e in found],
            (
                f"In {len(gaps)} of {len(rows)} rows {columns[1]} differs from {columns[0]} by "
                f"{min(gaps):+.1f} to {max(gaps):+.1f} points "
                f"(Fisher p < {level:g} each), although both are random parts of the same data."
            ),
        )


@kind
def significance(
    paper: Paper, rows: Sequence[str], level: str, claimed: str
) -> Iterator[tuple[str, list[str], str]]:
    """Fisher's exact test of two error counts, and the bounds of McNemar's, against what the text
    says.
    """
    entries = [one(paper, f"{row}/accuracy") for row in rows]
    n, said = entries[0].n, one(paper, level)
    errors = [n - numbers.reach(e.value, e.decimals, n, scale(e))[1] for e in entries]
    p, bounds = (
        stats.fisher(errors[0], n, errors[1], n).p,
        stats.mcnemar_bounds(errors[0], errors[1], n),
    )
    if (max(p, bounds.p_high) < said.value) == (claimed == "not significant"):
        yield (
            INCONSISTENT,
            [e.id for e in entries] + [said.id],
            (
                f"{errors[0]} against {errors[1]} errors of {n}: Fisher p = {p:.4f}, exact McNemar "
                f"p between {bounds.p_low:.4f} and {bounds.p_high:.4f}, "
                f"while the text calls the difference {claimed} at {said.printed}."
            ),
        )
