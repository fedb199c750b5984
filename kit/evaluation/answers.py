"""Four answers to "does it hold?": supported, contradicted, undecided, not comparable.

Two results agree if the 90 % interval of their difference lies within a margin (two one-sided tests
at 5 %). They differ if its 95 % interval excludes zero and the difference is larger than the
margin: proven, and large enough to matter. (To ask that the whole interval lie beyond the margin is
to ask in vain: sets of 400 to 10,000 images would then contradict nothing that is two margins
away.) Between the two nothing is decided, and the answer says which difference would have been
found. A claim about a direction is tested by the interval, never by the estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scipy import stats as sps

from kit.errors import KitError
from kit.evaluation.agreement import at_level, share
from kit.evaluation.stats import Interval

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
NOT_COMPARABLE = "not comparable"
ANSWERS = (SUPPORTED, CONTRADICTED, UNDECIDED, NOT_COMPARABLE)
DIRECTIONS = ("equal", "above", "below", "different")
POINT = 0.01
POWER = 0.8


class BadQuestion(KitError):
    """A question about a difference that has no answer."""


@dataclass(frozen=True)
class Margin:
    """How far below and above a value still counts as equal to it, both above 0."""

    below: float
    above: float

    @property
    def largest(self) -> float:
        """The wider side."""
        return max(self.below, self.above)

    def scaled(self, factor: float) -> "Margin":
        """The margin in another unit."""
        return Margin(self.below * factor, self.above * factor)

    def wider(self, by: float) -> "Margin":
        """The margin with both sides widened."""
        return Margin(self.below + by, self.above + by)


@dataclass(frozen=True)
class Answer:
    """One of `ANSWERS` on a difference.

    `interval` is the 95 % interval of the difference, `margin` what still counts as equal, and
    `detectable` the smallest true difference that data like these would have called a
    contradiction in four of five cases.
    """

    kind: str
    interval: Interval
    margin: Margin
    detectable: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the 95 % interval excludes zero."""
        return self.interval.low > 0 or self.interval.high < 0


def margin_of(published: Interval | None, least: float = POINT) -> Margin:
    """What counts as equal to a published value: `least` to either side, or the side of the
    published interval where that is wider.
    """
    if published is None:
        return Margin(least, least)
    sides = (published.estimate - published.low, published.high - published.estimate)
    return Margin(*(max(least, side) if side == side else least for side in sides))


def detectable(interval: Interval, margin: float) -> float:
    """Smallest true difference that is contradicted with a power of 80 %."""
    z = sps.norm.ppf((1 + interval.level) / 2)
    error = (interval.high - interval.low) / (2 * z)
    return float(max(margin, z * error) + sps.norm.ppf(POWER) * error)


def equal(interval: Interval, margin: float | Margin, ninety: Interval | None = None) -> Answer:
    """Are two results equal, within the margin?

    Parameters
    ----------
    interval : Interval
        95 % interval of the difference.
    margin : float or Margin
        In the unit of the difference, above 0.
    ninety : Interval, optional
        Its 90 % interval; scaled from the other one if not given.
    """
    sides = margin if isinstance(margin, Margin) else Margin(margin, margin)
    if not min(sides.below, sides.above) > 0:
        raise BadQuestion(f"A margin must be above 0, but is {margin:g}.")
    inner = ninety or at_level(interval, 0.90)
    apart = interval.estimate < -sides.below or interval.estimate > sides.above
    if -sides.below <= inner.low and inner.high <= sides.above:
        kind = SUPPORTED
    elif apart and (interval.low > 0 or interval.high < 0):
        kind = CONTRADICTED
    else:
        kind = UNDECIDED
    return Answer(kind, interval, sides, detectable(interval, sides.largest))


def directed(interval: Interval, direction: str, margin: float = POINT) -> Answer:
    """Does the first of two results lie above, below, apart from or level with the second?

    Above and below need the whole 95 % interval on that side of zero, and are contradicted by one
    on the other side. "different" is supported if it excludes zero, and contradicted by
    equivalence within the margin.
    """
    if direction not in DIRECTIONS:
        raise BadQuestion(
            f"There is no direction {direction!r}; choose one of {', '.join(DIRECTIONS)}."
        )
    if direction == "equal":
        return equal(interval, margin)
    above, below = interval.low > 0, interval.high < 0
    if direction == "different":
        level = equal(interval, margin).kind == SUPPORTED
        kind = SUPPORTED if above or below else CONTRADICTED if level else UNDECIDED
    else:
        hit, miss = (above, below) if direction == "above" else (below, above)
        kind = SUPPORTED if hit else CONTRADICTED if miss else UNDECIDED
    return Answer(kind, interval, Margin(margin, margin), detectable(interval, 0.0))


def related(interval: Interval, relation: str, value: float) -> Answer:
    """Does a quantity lie above (">") or below ("<") a printed value, by its 95 % interval?"""
    direction = {">": "above", "<": "below"}.get(relation, relation)
    shifted = Interval(
        interval.estimate - value,
        interval.low - value,
        interval.high - value,
        interval.level,
        interval.n,
        interval.method,
    )
    return directed(shifted, direction)


def every(parts: Mapping[str, Interval], direction: str, margin: float = POINT) -> dict:
    """Answers to a claim about each of several differences: ``{part: Answer}``.

    All parts have to hold, so none is corrected for their number; that one of them fails is tested
    at a level divided by it (Bonferroni).
    """
    if not parts:
        raise BadQuestion("A claim about each of several results needs at least one result.")
    found = {}
    for name, interval in parts.items():
        answer = directed(interval, direction, margin)
        if answer.kind == CONTRADICTED and len(parts) > 1:
            strict = at_level(interval, 1 - (1 - interval.level) / len(parts))
            kept = directed(strict, direction, margin).kind == CONTRADICTED
            kind = CONTRADICTED if kept else UNDECIDED
            answer = Answer(kind, answer.interval, answer.margin, answer.detectable)
        found[name] = answer
    return found


def together(answers: Mapping[str, Answer]) -> str:
    """The answer to a claim about each of several: contradicted by one, supported by all."""
    kinds = {a.kind for a in answers.values()}
    if CONTRADICTED in kinds:
        return CONTRADICTED
    return SUPPORTED if kinds == {SUPPORTED} else UNDECIDED


def allows(p: float, n: int, shift: float) -> bool:
    """Whether n images can tell a share p from one that is `shift` away, by the rule of `equal`.

    Parameters
    ----------
    p, shift : float
        Fractions.
    n : int
        Images behind each of the two.
    """
    down = p - shift >= 0
    moved, margin = p - shift if down else p + shift, margin_of(share(p * n, n))
    ours, theirs = (q * (1 - q) / n for q in (moved, p))
    beyond = max(
        margin.below if down else margin.above, sps.norm.ppf(0.975) * (ours + theirs) ** 0.5
    )
    return bool(abs(shift) - beyond >= sps.norm.ppf(POWER) * ours**0.5)
