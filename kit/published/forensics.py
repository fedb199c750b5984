"""Which published numbers are arithmetically impossible or contradict each other, from
``papers/*.yml`` alone.

No data, no model, no run: every finding is computed from the printed values, their rounding and the
stated numbers of cases, by the ``checks`` that a publication's file lists. A check that finds
nothing is a check that the publication passes. Errors in prose that no arithmetic shows are
``slips`` in the same file and no findings.

``python -m kit.published.forensics [paper ...]`` prints the findings.
"""

import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from kit.errors import KitError
from kit.published import (  # noqa: F401  (all but papers register their kinds)
    class_metrics,
    folds,
    papers,
    proportions,
    tables,
)
from kit.published.checks import IMPOSSIBLE, INCONSISTENT, KINDS, UNEXPLAINED, BadCheck

SEVERITIES = (IMPOSSIBLE, INCONSISTENT, UNEXPLAINED)
AT_FAULT = {
    "fraction",
    "harmonic",
    "report",
    "matrix_metric",
    "balanced_mcc",
    "mean",
    "deviation",
    "t_test",
    "sum",
    "delta",
    "ratio",
    "bounds",
}
COLUMNS = ("paper", "severity", "kind", "values", "sentence")


@dataclass(frozen=True)
class Finding:
    """Something that the printed numbers of one publication show.

    Attributes
    ----------
    paper : str
        Key of the publication.
    value_ids : tuple of str
        The printed numbers it is about.
    kind : str
        The check kind that found it.
    severity : {"impossible", "inconsistent", "unexplained"}
        No data can give the values; two statements exclude each other; the values come about in
        another way than stated.
    sentence : str
        With the numbers, for a reader.
    """

    paper: str
    value_ids: tuple
    kind: str
    severity: str
    sentence: str


def run(paper: papers.Paper | str) -> list[Finding]:
    """Every finding of one publication, worst first, in the order of its checks otherwise.

    Parameters
    ----------
    paper : str or kit.published.papers.Paper

    Returns
    -------
    list of Finding

    Raises
    ------
    BadCheck
        If a check names an unknown kind, parameter or value.
    """
    paper = papers.load(paper) if isinstance(paper, str) else paper
    found = [finding for check in paper.checks for finding in _check(paper, dict(check))]
    return sorted(found, key=lambda f: SEVERITIES.index(f.severity))


def _check(paper, check):
    name = check.pop("kind")
    if name not in KINDS:
        raise BadCheck(
            f"papers/{paper.key}.yml asks for a check {name!r}, which does not exist; choose one "
            f"of {', '.join(sorted(KINDS))}."
        )
    try:
        inspect.signature(KINDS[name]).bind(paper, **check)
    except TypeError as error:
        raise BadCheck(
            f"A check {name!r} of papers/{paper.key}.yml has wrong parameters: {error}."
        ) from None
    return [
        Finding(paper.key, tuple(dict.fromkeys(ids)), name, severity, sentence)
        for severity, ids, sentence in KINDS[name](paper, **check)
    ]


def impossible_ids(paper: papers.Paper | str) -> dict[str, str]:
    """Printed numbers that no data can give, each with the first sentence that says why.

    Returns
    -------
    dict of str to str
        Value id to sentence; for the verdict "impossible as published".
    """
    sentences: dict[str, str] = {}
    for finding in run(paper):
        if finding.severity == IMPOSSIBLE:
            for value_id in finding.value_ids:
                sentences.setdefault(value_id, finding.sentence)
    return sentences


def inconsistent_ids(paper: papers.Paper | str) -> dict[str, str]:
    """Printed numbers that another statement of the publication excludes, each with the sentence;
    for the verdict "inconsistent as printed".

    Two numbers that merely differ, an order that flips and a unit that is wrong put no single
    number in doubt and are left to the findings. Where a printed confusion matrix confirms some of
    the numbers that exclude each other, the others are named alone.
    """
    found = [
        f
        for f in run(paper)
        if f.severity == INCONSISTENT
        and f.kind in AT_FAULT
        and not (f.kind == "fraction" and len(f.value_ids) > 1)  # the fault is the stated n's
    ]
    refuted = {i for f in found if f.kind == "report" for i in f.value_ids}
    sentences: dict[str, str] = {}
    for finding in found:
        narrowed = refuted & set(finding.value_ids) if finding.kind == "harmonic" else set()
        for value_id in narrowed or finding.value_ids:
            sentences.setdefault(value_id, finding.sentence)
    return sentences


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a DataFrame with the columns paper, severity, kind, values (ids joined by
    blanks) and sentence.
    """
    return pd.DataFrame(
        [(f.paper, f.severity, f.kind, " ".join(f.value_ids), f.sentence) for f in findings],
        columns=COLUMNS,
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the findings of the named publications, or of all."""
    try:
        for key in (sys.argv[1:] if arguments is None else arguments) or papers.keys():
            found = run(key)
            print(f"{key}: {len(found)} findings from {len(papers.load(key).checks)} checks")
            for finding in found:
                print(f"  {finding.severity:12} {finding.kind:14} {finding.sentence}")
    except KitError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
