"""What a check kind is, and what the kinds share: how they choose printed values and speak of them.

A check kind is a generator ``kind(paper, **parameters of the check)`` that yields ``(severity,
value ids, sentence)``. "impossible": no data can give the printed value or the printed values
together; "inconsistent": two statements of the publication exclude each other; "unexplained": the
values hold together but not in the way that the publication says or implies.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from kit.errors import KitError
from kit.published import numbers
from kit.published.papers import Paper, Published

KINDS: dict[str, Callable] = {}
IMPOSSIBLE, INCONSISTENT, UNEXPLAINED = "impossible", "inconsistent", "unexplained"
CLASS_COLUMNS = ("precision", "recall", "f1")
TRIPLE = ("accuracy", "sensitivity", "specificity")


class BadCheck(KitError):
    """A check in a publication's file names an unknown kind or value."""


def kind(function: Callable) -> Callable:
    """Register a check kind under the function's name, without a trailing underscore."""
    KINDS[function.__name__.rstrip("_")] = function
    return function


# --- selection and wording ------------------------------------------------------------------------


def select(paper: Paper, patterns: str | Sequence[str]) -> list:
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


def one(paper: Paper, value_id: str) -> Any:
    """The number of one id; raises BadCheck where it does not exist."""
    return select(paper, value_id)[0]


def rows_of(paper: Paper, patterns: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Row ids that match the patterns and have a number in every one of the columns."""
    return list(
        dict.fromkeys(
            e.id.rsplit("/", 1)[0] for p in patterns for e in select(paper, f"{p}/{columns[0]}")
        )
    )


def cells(paper: Paper, row: str, columns: Sequence[str]) -> list:
    """The numbers of a row."""
    return [one(paper, f"{row}/{c}") for c in columns]


def scale(entry: Published) -> float:
    """Units of the printed value in a proportion of 1."""
    return 100.0 if entry.unit in ("%", "pp") else 1.0


def says(entry: Published, short: bool = False) -> str:
    """The printed value with unit, and with its id unless `short`."""
    unit = "" if entry.unit in ("", "fraction", "count", "parameters") else f" {entry.unit}"
    text = f"{entry.value:,.{entry.decimals}f}{unit}"
    return text if short else f"{entry.id} = {text}"


def spread(range_: numbers.Range, digits: int = 4) -> str:
    """A range in words."""
    return f"{range_.low:.{digits}f} to {range_.high:.{digits}f}"


def range_of(entry: Published, scaled_to: float | None = None) -> numbers.Range:
    """What the printed value may have been, optionally in another scale (100: percent)."""
    r = numbers.printed_range(entry.value, entry.decimals)
    return r if scaled_to is None else r.scaled(scaled_to / scale(entry))
