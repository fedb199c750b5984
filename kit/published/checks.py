"""Check kinds on proportions, class metrics and tests; the kinds about tables as tables are in
`kit.published.tables`.

A check kind is a generator ``kind(paper, **parameters of the check)`` that yields ``(severity,
value ids, sentence)``. "impossible": no data can give the printed value or the printed values
together; "inconsistent": two statements of the publication exclude each other; "unexplained": the
values hold together but not in the way that the publication says or implies.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np

from kit.errors import KitError
from kit.evaluation import metrics, stats
from kit.published import numbers

KINDS: dict[str, Callable] = {}
IMPOSSIBLE, INCONSISTENT, UNEXPLAINED = "impossible", "inconsistent", "unexplained"
CLASS_COLUMNS = ("precision", "recall", "f1")
TRIPLE = ("accuracy", "sensitivity", "specificity")


class BadCheck(KitError):
    """A check in a publication's file names an unknown kind or value."""


def kind(function):
    """Register a check kind under the function's name, without a trailing underscore."""
    KINDS[function.__name__.rstrip("_")] = function
    return function


# --- selection and wording ------------------------------------------------------------------------


def select(paper, patterns):
    """The numbers whose ids match the patterns (``*`` allowed), in the order of the file, each
    once.

    Raises
    ------
    BadCheck
        If a pattern matches nothing.
    """
    found = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        ids = [
            i
            for pool in (paper.values, paper.recorded)
            for i in pool
            if i == pattern or ("*" in pattern and fnmatchcase(i, pattern))
        ]
        if not ids:
            raise BadCheck(
                f"A check of papers/{paper.key}.yml names {pattern!r}, which matches no number; "
                "correct the id."
            )
        found.update({i: paper.number(i) for i in ids})
    return list(found.values())


def one(paper, value_id):
    """The number of one id; raises BadCheck where it does not exist."""
    return select(paper, value_id)[0]


def rows_of(paper, patterns, columns):
    """Row ids that match the patterns and have a number in every one of the columns."""
    return list(
        dict.fromkeys(
            e.id.rsplit("/", 1)[0] for p in patterns for e in select(paper, f"{p}/{columns[0]}")
        )
    )


def cells(paper, row, columns):
    """The numbers of a row."""
    return [one(paper, f"{row}/{c}") for c in columns]


def scale(entry):
    """Units of the printed value in a proportion of 1."""
    return 100.0 if entry.unit in ("%", "pp") else 1.0


def says(entry, short=False):
    """The printed value with unit, and with its id unless `short`."""
    unit = "" if entry.unit in ("", "fraction", "count", "parameters") else f" {entry.unit}"
    text = f"{entry.value:,.{entry.decimals}f}{unit}"
    return text if short else f"{entry.id} = {text}"


def spread(range_, digits=4):
    """A range in words."""
    return f"{range_.low:.{digits}f} to {range_.high:.{digits}f}"


def range_of(entry, scaled_to=None):
    """What the printed value may have been, optionally in another scale (100: percent)."""
    r = numbers.printed_range(entry.value, entry.decimals)
    return r if scaled_to is None else r.scaled(scaled_to / scale(entry))


# --- proportions ----------------------------------------------------------------------------------


@kind
def fraction(paper, values, n=None, runs=1, common=True):
    """Accuracies that are no k / n; with `runs` means over runs, so k / (n runs). `common`: look
    for an n that serves them all.

    A common n within 3 % of the stated one, found by more than chance, moves the fault from the
    values to the stated n.
    """
    entries, broken = select(paper, values), []
    for e in entries:
        cases = (n or e.n) * runs
        how, k = numbers.reach(e.value, e.decimals, cases, scale(e))
        near = f"the nearest value is {k:,}/{cases:,} = {scale(e) * k / cases:.{e.decimals + 1}f}"
        if how is None:
            broken.append((IMPOSSIBLE, [e.id], f"{says(e)} is no k/{cases:,}; {near}."))
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
def identity(paper, rows, negatives, derived=()):
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
def confusion(paper, rows, joint=False, balanced=None, columns=TRIPLE):
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
def gap(paper, rows, columns, level=1e-6):
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
def significance(paper, rows, level, claimed):
    """Fisher's exact test of two error counts, and the bounds of McNemar's, against what the text
    says.
    """
    entries = [one(paper, f"{row}/accuracy") for row in rows]
    n, level = entries[0].n, one(paper, level)
    errors = [n - numbers.reach(e.value, e.decimals, n, scale(e))[1] for e in entries]
    p, bounds = (
        stats.fisher(errors[0], n, errors[1], n).p,
        stats.mcnemar_bounds(errors[0], errors[1], n),
    )
    if (max(p, bounds.p_high) < level.value) == (claimed == "not significant"):
        yield (
            INCONSISTENT,
            [e.id for e in entries] + [level.id],
            (
                f"{errors[0]} against {errors[1]} errors of {n}: Fisher p = {p:.4f}, exact McNemar "
                f"p between {bounds.p_low:.4f} and {bounds.p_high:.4f}, "
                f"while the text calls the difference {claimed} at {level.printed}."
            ),
        )


# --- class metrics --------------------------------------------------------------------------------


@kind
def harmonic(paper, rows, macro=False, columns=CLASS_COLUMNS):
    """F1 against precision and recall. `macro`: averages over classes, where a mean of class F1 may
    lie below the harmonic mean, never above.
    """
    for row in rows_of(paper, rows, columns):
        p, r, f = cells(paper, row, columns)
        allowed, widest = (
            numbers.harmonic_range(p.value, r.value, p.decimals, units) for units in (0.5, 1.0)
        )
        if allowed.meets(range_of(f)):
            continue
        below, close = (
            macro and f.value < allowed.low,
            widest.meets(numbers.printed_range(f.value, f.decimals, 1.0)),
        )
        words = (
            "a mean of class F1 may lie below it"
            if below
            else "only truncation instead of rounding would explain it"
            if close
            else "the three exclude each other"
        )
        yield (
            UNEXPLAINED if below or close else IMPOSSIBLE,
            [f.id] if below or close else [p.id, r.id, f.id],
            (
                f"{says(f)} with precision {says(p, True)} and recall {says(r, True)}, whose "
                f"harmonic mean is {spread(allowed)}; {words}."
            ),
        )


def _confusion_matrix(paper, pattern, labels):
    return np.array(
        [[one(paper, f"{pattern.format(a)}/{b}").value for b in labels] for a in labels]
    )


def _class_table(paper, pattern, labels):
    totals = metrics.totals(_confusion_matrix(paper, pattern, labels))
    rates = {k: dict(zip(labels, v, strict=False)) for k, v in metrics.class_rates(totals).items()}
    overall = metrics.overall_rates(totals)
    for name in rates:
        rates[name]["weighted"] = float(overall[f"weighted_{name}"])
    return rates, float(overall["accuracy"]), int(totals.actual.sum() - totals.hits.sum())


@kind
def report(paper, matrices, table, labels):
    """A table of class metrics against the printed confusion matrices: `matrices` maps the table's
    model to the matrix rows (``{}``: class).
    """
    for model, pattern in matrices.items():
        rates, accuracy, _ = _class_table(paper, pattern, labels)
        for label in [*labels, "weighted"]:
            entries = cells(paper, f"{table}/{model}.{label}", CLASS_COLUMNS)
            wrong = [
                e
                for e in entries
                if numbers.prints_as(rates[e.column][label], e.value, e.decimals) != "rounded"
            ]
            if wrong:
                yield (
                    INCONSISTENT,
                    [e.id for e in wrong],
                    (
                        f"{table}/{model}.{label} prints {' / '.join(e.printed for e in entries)}; "
                        f"the confusion matrix {pattern.split('/')[0]} gives "
                        f"{' / '.join(f'{rates[e.column][label]:.4f}' for e in entries)} "
                        "(precision / recall / F1)."
                    ),
                )
        e = one(paper, f"{table}/{model}/accuracy")
        if numbers.prints_as(scale(e) * accuracy, e.value, e.decimals) != "rounded":
            yield (
                INCONSISTENT,
                [e.id],
                f"{says(e)}; the confusion matrix {pattern.split('/')[0]} gives "
                f"{scale(e) * accuracy:.4f}.",
            )


@kind
def matrix_metric(paper, matrix, labels, values):
    """Numbers in prose against a confusion matrix: `values` lists [value id, metric, class];
    metrics of `report`, "errors" or "accuracy".
    """
    rates, accuracy, errors = _class_table(paper, matrix, labels)
    for value_id, metric, label in values:
        e = one(paper, value_id)
        exact = {"errors": errors, "accuracy": scale(e) * accuracy}.get(metric)
        exact = scale(e) * rates[metric][label] if exact is None else exact
        if numbers.prints_as(exact, e.value, e.decimals) is None:
            others = [
                m
                for m in CLASS_COLUMNS
                if label
                and numbers.prints_as(scale(e) * rates[m][label], e.value, e.decimals) == "rounded"
            ]
            swap = f" It is the {others[0]} of that class." if others else ""
            name = f"{metric} of {label}" if label else f"number of {metric}"
            yield (
                INCONSISTENT,
                [e.id],
                f"{says(e)} is called the {name}, but the confusion matrix "
                f"{matrix.split('/')[0]} gives {exact:.4f}.{swap}",
            )


def _errors(entry):
    low, high = (entry.n * (1 - x) for x in reversed(range_of(entry, 1.0)))
    return range(int(np.floor(low + numbers.SLACK)), int(np.ceil(high - numbers.SLACK)) + 1)


@kind
def recall(paper, rows, supports):
    """Macro recall outside what the accuracy allows for these class sizes."""
    sizes = [int(e.value) for e in select(paper, supports)]
    for row in rows_of(paper, rows, ("accuracy",)):
        acc, rec = cells(paper, row, ("accuracy", "recall"))
        bounds = [numbers.recall_bounds(e, sizes) for e in _errors(acc)]
        allowed = numbers.Range(min(b.low for b in bounds), max(b.high for b in bounds)).scaled(
            scale(rec)
        )
        if not allowed.meets(range_of(rec)) and not range_of(acc).meets(range_of(rec)):
            yield (
                IMPOSSIBLE,
                [rec.id],
                (
                    f"{says(rec)} at accuracy {says(acc, True)}: with "
                    f"{' or '.join(map(str, _errors(acc)))} errors on classes of "
                    f"{', '.join(map(str, sizes))} "
                    f"the macro recall lies in {spread(allowed, 2)}, and weighted and micro recall "
                    "equal the accuracy."
                ),
            )


@kind
def specificity(paper, rows, supports):
    """One-against-rest specificity outside what the accuracy allows, for each way of averaging."""
    sizes = [int(e.value) for e in select(paper, supports)]
    for row in rows_of(paper, rows, ("accuracy",)):
        acc, spec = cells(paper, row, ("accuracy", "specificity"))
        bounds = [numbers.specificity_bounds(e, sizes) for e in _errors(acc)]
        allowed = {
            k: numbers.Range(min(b[k].low for b in bounds), max(b[k].high for b in bounds)).scaled(
                scale(spec)
            )
            for k in bounds[0]
        }
        outside = [name for name, r in allowed.items() if not r.meets(range_of(spec))]
        if "macro" in outside:
            every = len(outside) == len(allowed)
            words = "no average" if every else f"no {' and no '.join(outside)} average"
            detail = "; ".join(f"{name} {spread(allowed[name], 2)}" for name in outside)
            yield (
                IMPOSSIBLE if every else UNEXPLAINED,
                [spec.id],
                (
                    f"{says(spec)} at accuracy {says(acc, True)} is {words} of one-against-rest "
                    f"specificities ({detail})."
                ),
            )


@kind
def balanced_mcc(paper, accuracy, mcc, over, classes, tolerance=None):
    """MCC against accuracy on equally large classes: below the smallest or above the largest
    possible, or `tolerance` above the smallest.
    """
    for item in over:
        acc, m = one(paper, accuracy.format(item)), one(paper, mcc.format(item))
        low, high = (numbers.balanced_mcc(a, classes) for a in range_of(acc, 1.0))
        allowed, printed = numbers.Range(low.low, high.high), range_of(m)
        if not allowed.meets(printed):
            yield (
                IMPOSSIBLE,
                [m.id],
                f"{says(m)} with {says(acc)} on {classes} equally large classes: the MCC must "
                f"lie in {spread(allowed)}.",
            )
        elif tolerance and printed.low > high.low + tolerance:
            least = numbers.balanced_mcc(acc.value / scale(acc), classes).low
            yield (
                UNEXPLAINED,
                [m.id],
                (
                    f"{says(m)} is {m.value - least:.4f} above the value {least:.4f} that balanced "
                    f"predictions give at {says(acc)}; other rows stay within {tolerance}."
                ),
            )
