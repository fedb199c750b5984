"""What a publication concludes: the claims that its numbers are printed for, and how each is
tested.

A conclusion compares a first quantity with a second one, in a direction that the file states before
any run. `as_printed` asks what the printed numbers alone say of it: two shares of so many images
have an interval of their own, whoever measured them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kit.evaluation import agreement, answers
from kit.evaluation.stats import Interval
from kit.published import comparison, numbers
from kit.published.schema import Conclusion, Paper


@dataclass(frozen=True)
class Judged:
    """An answer to a conclusion, and the answer on each of its parts."""

    answer: str
    parts: Mapping[str, answers.Answer]


def judge(conclusion: Conclusion, parts: Mapping[str, Interval]) -> Judged:
    """Answer a conclusion by evidence.

    Parameters
    ----------
    conclusion : Conclusion
    parts : mapping
        Name of a part (a data set, a base method; one part where the claim is about one) -> first
        minus second (or over it) with the 95 % interval, in the conclusion's unit.

    Returns
    -------
    Judged
        Supported only if every part is; contradicted if one part is, corrected for their number.
    """
    shifted = {
        name: replace(
            part,
            estimate=part.estimate - conclusion.neutral,
            low=part.low - conclusion.neutral,
            high=part.high - conclusion.neutral,
        )
        for name, part in parts.items()
    }
    found = answers.every(shifted, conclusion.direction, conclusion.margin)
    return Judged(answers.together(found), found)


def as_printed(paper: Paper, conclusion: Conclusion) -> str:
    """What the printed numbers alone say of a conclusion, a sentence; "" without pairs."""
    pairs = [tuple(paper.number(i) for i in pair) for pair in conclusion.printed]
    if not pairs:
        return ""
    signs = [_sign(a, b) for a, b in pairs]
    wanted = {"above": (1,), "below": (-1,), "different": (1, -1), "equal": (0,)}
    hits = sum(sign in wanted[conclusion.direction] for sign in signs)
    relation = {"equal": "equal to"}.get(conclusion.direction, conclusion.direction)
    relation = "different from" if relation == "different" else relation
    head = f"As printed, the first is {relation} the second in {hits} of {len(pairs)} comparisons"
    shares = {
        f"{a.id} - {b.id}": _difference(a, b)
        for a, b in pairs
        if a.n and b.n and a.column not in comparison.NO_SHARES
    }
    if not shares:
        return f"{head}."
    margin = conclusion.margin / (100.0 if conclusion.unit in ("pp", "%") else 1.0)
    found = answers.every(shares, conclusion.direction, margin)
    shown = sum(a.kind == answers.SUPPORTED for a in found.values())
    against = sum(a.kind == answers.CONTRADICTED for a in found.values())
    return (
        f"{head}; as independent samples of the stated numbers of images they show it in {shown} "
        f"of {len(found)} and the contrary in {against}."
    )


def _sign(a, b) -> int:
    gap = a.value / comparison.size_of_one(a) - b.value / comparison.size_of_one(b)
    room = numbers.half(a.decimals) / comparison.size_of_one(a)
    return 0 if abs(gap) <= room else (1 if gap > 0 else -1)


def _difference(a, b) -> Interval:
    shares = [v.value / comparison.size_of_one(v) for v in (a, b)]
    return agreement.share_difference(shares[0] * a.n, a.n, shares[1] * b.n, b.n)
