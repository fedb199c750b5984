"""Check kinds on the metrics of single classes and on what is computed from a printed confusion
matrix.

Severities and the form of a kind are those of `kit.published.checks`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kit.evaluation import metrics
from kit.published import numbers
from kit.published.checks import (
    CLASS_COLUMNS,
    IMPOSSIBLE,
    INCONSISTENT,
    UNEXPLAINED,
    cells,
    kind,
    one,
    range_of,
    rows_of,
    says,
    scale,
    select,
    spread,
)
from kit.published.papers import Paper


@kind
def harmonic(
    paper: Paper, rows: Sequence[str], macro: bool = False, columns: Sequence[str] = CLASS_COLUMNS
) -> Iterator[tuple[str, list[str], str]]:
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
            UNEXPLAINED if below or close else INCONSISTENT,
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
def report(
    paper: Paper, matrices: Mapping[str, str], table: str, labels: Sequence[str]
) -> Iterator[tuple[str, list[str], str]]:
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
def matrix_metric(
    paper: Paper, matrix: str, labels: Sequence[str], values: Sequence[tuple[str, str, str | None]]
) -> Iterator[tuple[str, list[str], str]]:
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
def recall(
    paper: Paper, rows: Sequence[str], supports: str | Sequence[str]
) -> Iterator[tuple[str, list[str], str]]:
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
def specificity(
    paper: Paper, rows: Sequence[str], supports: str | Sequence[str]
) -> Iterator[tuple[str, list[str], str]]:
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
def balanced_mcc(
    paper: Paper,
    accuracy: str,
    mcc: str,
    over: Sequence[str],
    classes: int,
    tolerance: float | None = None,
) -> Iterator[tuple[str, list[str], str]]:
    """MCC against accuracy on equally large classes: below the smallest or above the largest
    possible, or `tolerance` above the smallest. Impossible only where one table prints both.
    """
    for item in over:
        acc, m = one(paper, accuracy.format(item)), one(paper, mcc.format(item))
        low, high = (numbers.balanced_mcc(a, classes) for a in range_of(acc, 1.0))
        allowed, printed = numbers.Range(low.low, high.high), range_of(m)
        if not allowed.meets(printed):
            yield (
                IMPOSSIBLE if m.artefact == acc.artefact else INCONSISTENT,
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
