"""The verdict on one published number, as a pure function of what is printed and what is stored.

A result is compared with ours as one sample with another (`kit.published.comparison`); a count has
to round to the printed one; costs, settings and repetitions of other printed values are shown and
not judged. A number that was measured on other data, on a part or a smaller copy of the data, with
a stand-in or with reduced settings answers another question and is not comparable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kit.evaluation import answers
from kit.evaluation.stats import Interval
from kit.published import comparison
from kit.published.comparison import Ours
from kit.published.schema import Paper, Published

JUDGED = (*answers.ANSWERS, "inconsistent as printed", "impossible as published", "missing")
KINDS = (*JUDGED, "not judged")
NOT_JUDGED = {
    "cost": "A time or a size in memory depends on the machine.",
    "setting": "Chosen by the authors or found by their search, not measured on test images.",
    "repeat": "Follows from other printed values or from a conclusion, which are judged.",
    "citation": "Quoted from another publication.",
    "axis": "Belongs to a drawing.",
}
UNITS = {"%": " pp", "": "", "fraction": "", "count": "", "ratio": "", "mean": ""}
TIMES = {"ns", "us", "ms", "s", "min", "h", "d"}


@dataclass(frozen=True)
class Verdict:
    """One of `KINDS`, and the sentence that says why."""

    kind: str
    why: str


@dataclass(frozen=True)
class Circumstances:
    """What decides on a number before ours is looked at.

    Attributes
    ----------
    impossible, inconsistent : str
        The sentence of `kit.published.forensics`, if no data can give the printed number, or if
        another statement of the publication excludes it.
    missing : str
        Why there is no value of ours.
    hurdles : tuple of str
        Clauses on what keeps ours from being the published experiment.
    relation : {"=", ">", "<"}
        ">" or "<" where the publication only says on which side of the number a quantity lies.
    """

    impossible: str = ""
    inconsistent: str = ""
    missing: str = ""
    hurdles: tuple[str, ...] = ()
    relation: str = "="


def verdict(
    paper: Paper,
    number: Published,
    ours: Ours | None,
    around: Circumstances = Circumstances(),
    leak_free: Ours | None = None,
) -> Verdict:
    """Judge one published number.

    Parameters
    ----------
    paper, number
        The publication and the number as printed.
    ours, leak_free : Ours or None
        What was measured on the full test set, and on the part without copies of training images.
    around : Circumstances

    Returns
    -------
    Verdict
        Tested in this order: impossible as published, inconsistent as printed, not judged, missing,
        not comparable; then one of supported, contradicted and undecided.
    """
    if around.impossible:
        return Verdict("impossible as published", around.impossible)
    if around.inconsistent:
        return Verdict("inconsistent as printed", around.inconsistent)
    if number.kind in NOT_JUDGED:
        return Verdict("not judged", NOT_JUDGED[number.kind])
    if ours is None:
        return Verdict("missing", sentence(around.missing or "no value was stored"))
    if around.hurdles:
        return Verdict(answers.NOT_COMPARABLE, sentence("; ".join(around.hurdles)))
    if number.kind == "count":
        return _count(number, ours)
    if around.relation != "=":
        return _relation(number, ours, around.relation)
    found = _result(paper, number, ours)
    return Verdict(found.kind, found.why + _without_copies(paper, number, ours, leak_free, found))


def hurdles(paper: Paper, entry: Mapping, resized: str = "") -> tuple[str, ...]:
    """What keeps a stored value from being the published experiment, as clauses.

    Parameters
    ----------
    paper : Paper
    entry : mapping
        Of values.json: data, embedded, stand_in_for, incomplete, stand_in, reductions, unit.
    resized : str
        The size of the data set's images where a copy was resized before it got here.
    """
    name, missing = entry.get("data"), entry.get("incomplete") or ()
    found = []
    if entry.get("embedded"):
        found.append(f"measured on embedded data ({name}), not on the published data")
    elif entry.get("stand_in_for"):
        found.append(f"measured on {name}, which stands in for {entry['stand_in_for']}")
    elif name and name not in paper.data:
        found.append(f"measured on {name}, while the publication used {' and '.join(paper.data)}")
    if missing:
        found.append(f"the copy of {name} is incomplete: {_listed(missing)}")
    if resized:
        found.append(f"the copy of {name} was resized to {resized}")
    if entry.get("stand_in"):
        found.append(f"with a stand-in: {entry['stand_in']}")
    if entry.get("reductions"):
        found.append("reduced settings: " + ", ".join(entry["reductions"]))
    if entry.get("unit") in TIMES:
        found.append("a time depends on the machine")
    return tuple(found)


def _listed(missing: Sequence[str], most: int = 3) -> str:
    more = len(missing) - most
    return f"{', '.join(missing[:most])}{f' and {more} more' if more > 0 else ''}"


def sentence(text: str) -> str:
    """A clause as a sentence."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


# --- words ----------------------------------------------------------------------------------------


def said(number: Published, value: float) -> str:
    """A value in the unit and with the decimals of the number."""
    unit = "" if number.unit in UNITS and number.unit != "%" else f" {number.unit}"
    return f"{value:.{number.decimals}f}{unit}"


def span(number: Published, ours: Ours) -> str:
    """A value of ours with its interval."""
    if ours.low is None or ours.high is None:
        return said(number, ours.estimate)
    places = number.decimals
    return f"{said(number, ours.estimate)} ({ours.low:.{places}f} to {ours.high:.{places}f})"


def gap(number: Published, difference: float) -> str:
    """The size of a difference in the unit of the number, with enough decimals not to be 0."""
    places = number.decimals if round(abs(difference), number.decimals) else number.decimals + 2
    return f"{abs(difference):.{places}f}{UNITS.get(number.unit, f' {number.unit}')}"


def _ends(number: Published, interval: Interval) -> str:
    places = max(number.decimals, 1 if number.unit in ("%", "pp") else 3)
    unit = UNITS.get(number.unit, f" {number.unit}")
    return f"{interval.low:+.{places}f} to {interval.high:+.{places}f}{unit}"


def _margin(number: Published, margin: answers.Margin) -> str:
    below, above = (gap(number, side) for side in (margin.below, margin.above))
    return below if below == above else f"{below} below and {above} above"


# --- the rules ------------------------------------------------------------------------------------


def _count(number: Published, ours: Ours) -> Verdict:
    half = 0.5 * 10.0**-number.decimals * (1 + 1e-9)
    if abs(ours.estimate - number.value) <= half:
        return Verdict(answers.SUPPORTED, f"Ours is the published {said(number, number.value)}.")
    side = "above" if ours.estimate > number.value else "below"
    return Verdict(
        answers.CONTRADICTED,
        f"Ours is {said(number, ours.estimate)}, {gap(number, ours.estimate - number.value)} "
        f"{side} the published {said(number, number.value)}.",
    )


def _relation(number: Published, ours: Ours, relation: str) -> Verdict:
    side = "above" if relation == ">" else "below"
    claim = f"{side} {said(number, number.value)}"
    if ours.low is None or ours.high is None:
        why = f"Ours is {span(number, ours)} and has no interval, so {claim} is not tested."
        return Verdict(answers.UNDECIDED, why)
    interval = Interval(ours.estimate, ours.low, ours.high, 0.95, ours.n or 1, "stored")
    kind = answers.related(interval, relation, number.value).kind
    words = {
        answers.SUPPORTED: f"as a whole {claim} as published",
        answers.CONTRADICTED: f"as a whole not {claim}",
        answers.UNDECIDED: f"and so does not decide whether it lies {claim}",
    }
    return Verdict(kind, f"Ours is {span(number, ours)}, {words[kind]}.")


def _result(paper: Paper, number: Published, ours: Ours) -> Verdict:
    answer = comparison.compare(paper, number, ours)
    if answer is None:
        why = f"Ours is {span(number, ours)} and has no interval to compare it by."
        return Verdict(answers.UNDECIDED, why)
    if number.statistic == "variance":
        return _spread(number, ours, answer)
    difference = ours.estimate - number.value
    side = "above" if difference > 0 else "below"
    apart = "" if abs(difference) < 1e-12 else f", {gap(number, difference)} {side}"
    joint = " equal to" if not apart else ""
    published = f"the published {said(number, number.value)}"
    head = f"Ours is {span(number, ours)}{apart}{joint} {published}"
    ends, margin = _ends(number, answer.interval), _margin(number, answer.margin)
    if answer.kind == answers.SUPPORTED:
        return Verdict(answer.kind, f"{head}: equal within {margin}, two one-sided tests at 5 %.")
    if answer.kind == answers.CONTRADICTED:
        return Verdict(
            answer.kind,
            f"{head}: not equal within {margin}, and not by chance (95 % interval of the "
            f"difference {ends}).",
        )
    chance = "apart beyond chance but not by more than that " if answer.beyond_chance else ""
    seen = gap(number, answer.detectable)
    return Verdict(
        answer.kind,
        f"{head}: not shown to be equal within {margin}, {chance or 'nor to be apart '}(95 % "
        f"interval of the difference {ends}); a difference of {seen} would have been seen.",
    )


def _spread(number: Published, ours: Ours, answer: answers.Answer) -> Verdict:
    low, high, seen = (
        2.718281828459045**x for x in (answer.interval.low, answer.interval.high, answer.detectable)
    )
    words = {
        answers.SUPPORTED: "equal within a factor of 2",
        answers.CONTRADICTED: "more than a factor of 2 apart and not by chance",
        answers.UNDECIDED: f"a factor of {seen:.3g} would have been seen",
    }
    return Verdict(
        answer.kind,
        f"Ours is {ours.estimate:.{number.decimals}f}, {ours.estimate / number.value:.2f} times "
        f"the published {number.value:.{number.decimals}f} (F interval of the ratio {low:.3g} to "
        f"{high:.3g}): {words[answer.kind]}.",
    )


def _without_copies(paper, number, ours, leak_free, found: Verdict) -> str:
    """The sentence on the test set without copies, and whether the answer turns there."""
    if leak_free is None or number.statistic == "variance":
        return ""
    change = leak_free.estimate - ours.estimate
    moved = (
        "unchanged"
        if round(abs(change), number.decimals + 2) == 0
        else f"{gap(number, change)} {'higher' if change > 0 else 'lower'}"
    )
    there = (
        found.kind
        if leak_free.low is None and ours.low is not None
        else _result(paper, number, leak_free).kind
    )
    turn = f"; there the published number is {there}" if there != found.kind else ""
    return f" On the leak-free test set {span(number, leak_free)}, {moved}{turn}."
