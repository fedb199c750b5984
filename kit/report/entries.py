"""What is stored of a number and of the evidence for a conclusion: plain dictionaries for
values.json and evidence.json.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kit.errors import KitError
from kit.evaluation import agreement
from kit.evaluation.stats import Interval
from kit.published import comparison
from kit.published.schema import Published

LEVEL = "all test images"
Ends = tuple[float | None, float | None]  # low and high of an interval
NUMBERS = ("estimate", "low", "high")


class BadEvidence(KitError):
    """What a notebook stores for a conclusion is no estimate with an interval."""


@dataclass(frozen=True)
class Sample:
    """What stands behind a stored value.

    Attributes
    ----------
    n, leak_free_n : int or None
        Test images, on the full test set and without copies of training images.
    groups, leak_free_groups : int or None
        How many of them are no copies of each other.
    seeds : int
        Trainings whose mean it is; `seed_sd` is the standard deviation between them, in the unit of
        the value.
    """

    n: int | None = None
    groups: int | None = None
    leak_free_n: int | None = None
    leak_free_groups: int | None = None
    seeds: int = 1
    seed_sd: float = 0.0


def finite(number: float | None) -> float | None:
    """A finite float, or None: JSON has no NaN."""
    return None if number is None or not math.isfinite(number) else float(number)


def value(
    number: Published | None,
    ours: float | None,
    interval: Ends | None,
    leak_free: float | None,
    leak_free_interval: Ends | None,
    sample: Sample,
) -> dict:
    """The measured part of an entry of values.json.

    A result that is a share of so many images gets its interval here where the caller gives none
    (Wilson's, by the images that are no copies).
    """
    if number is not None and interval is None:
        interval = share_ends(number, finite(ours), sample)
    ends = interval or (None, None), leak_free_interval or (None, None)
    numbers = {
        "ours": ours,
        "low": ends[0][0],
        "high": ends[0][1],
        "leak_free": leak_free,
        "leak_free_low": ends[1][0],
        "leak_free_high": ends[1][1],
    }
    counts = {
        "n": sample.n,
        "groups": sample.groups,
        "leak_free_n": sample.leak_free_n,
        "leak_free_groups": sample.leak_free_groups,
    }
    return {
        **{key: finite(x) for key, x in numbers.items()},
        **{key: None if x is None else int(x) for key, x in counts.items()},
        "seeds": int(sample.seeds),
        "seed_sd": finite(sample.seed_sd) or 0.0,
        "level": LEVEL,
        "unit": number.unit if number else "",
        "kind": number.kind if number else "",
    }


def share_ends(number: Published, ours: float | None, sample: Sample) -> tuple[float, float] | None:
    """Ends of the interval of a result that is a share of images, None for everything else."""
    n = sample.n or number.n
    share = number.kind == "result" and number.n and number.column not in comparison.NO_SHARES
    if ours is None or not n or not share or number.statistic:
        return None
    one = comparison.size_of_one(number)
    if not 0 <= ours <= one:
        return None
    k = agreement.effective(
        n, ours / one, groups=sample.groups, seed_sd=sample.seed_sd / one, seeds=sample.seeds
    )
    found = agreement.share(ours / one * k, k).scaled(one)
    return found.low, found.high


def evidence(
    parts: Mapping[str, Interval] | Interval, seeds: int, groups: int | None, facts: Mapping
) -> dict:
    """The entry of evidence.json.

    Parameters
    ----------
    parts : Interval, or mapping of name -> Interval
        First minus second (or over it) with the 95 % interval and n images, in the conclusion's
        unit; several for a claim about each of several.
    seeds : int
        Trainings behind each estimate.
    groups : int or None
        Images that are no copies of each other.
    facts : mapping
        Data, stand-in and reductions.

    Raises
    ------
    BadEvidence
        If an estimate or an end is not finite, or the level is not 95 %.
    """
    named = {"": parts} if isinstance(parts, Interval) else dict(parts)
    for name, part in named.items():
        if part.level != 0.95 or any(finite(getattr(part, x)) is None for x in NUMBERS):
            raise BadEvidence(
                f"Evidence{f' on {name}' if name else ''} needs an estimate with a finite 95 % "
                f"interval, but has {part.estimate:g} ({part.low:g} to {part.high:g}) at "
                f"{part.level:g}."
            )
    if not named:
        raise BadEvidence("Evidence needs at least one estimate with its interval.")
    return {
        "parts": {
            name: {**{x: float(getattr(part, x)) for x in NUMBERS}, "n": int(part.n)}
            for name, part in named.items()
        },
        "method": " / ".join(dict.fromkeys(part.method for part in named.values())),
        "seeds": int(seeds),
        "groups": groups,
        "level": LEVEL,
        **facts,
    }
