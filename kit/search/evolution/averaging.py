"""Averages of networks' weights: equation 5.1 of the thesis, and the uniform, greedy and weighted
soups of Wortsman et al. (2022), as pure functions.

Weights are lists of arrays as ``model.get_weights()`` gives them, moving statistics included: the
thesis does not say whether it averages those; averaging a PyTorch state dict does. Sums are taken
in double precision. Averaged moving variances are too large, because the averaged network's
activations vary less (the true ones were measured as 0.5 to 0.8 of them);
:meth:`kit.training.short.Trainer.recalibrate` measures them anew. Beside the thesis the path
between two networks can be followed: where scores fall between two parents, their average is no
better than either.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kit.errors import KitError
from kit.search.evolution.operators import normalised, shares


class BadSoup(KitError):
    """Weights that cannot be averaged: other shapes, no members, or shares that do not add up."""


def average(members: Iterable[list[np.ndarray]], weights: ArrayLike) -> list[np.ndarray]:
    """Weighted mean of networks.

    Parameters
    ----------
    members : sequence of lists of numpy.ndarray
        Weights of networks of one architecture.
    weights : sequence of float
        One a member, not negative, adding up to 1; members of weight 0 are not looked at.

    Returns
    -------
    list of numpy.ndarray
        In the members' types. Integers (counters, random states) are the first member's.

    Raises
    ------
    BadSoup
    """
    members, weights = list(members), np.asarray(weights, float)
    if (
        not members
        or weights.shape != (len(members),)
        or not np.all(weights >= 0)
        or abs(weights.sum() - 1) > 1e-9
    ):
        raise BadSoup(
            f"{len(members)} networks need as many shares that are not negative and add up to 1."
        )
    if any(
        [np.shape(w) for w in member] != [np.shape(w) for w in members[0]] for member in members[1:]
    ):
        raise BadSoup(
            "The networks have weights of different shapes; average networks of one architecture."
        )
    kept = [(member, share) for member, share in zip(members, weights, strict=True) if share > 0]
    return [
        _mean([np.asarray(member[k]) for member, _ in kept], [share for _, share in kept])
        for k in range(len(members[0]))
    ]


def _mean(arrays, weights):
    if not np.issubdtype(arrays[0].dtype, np.floating):
        return arrays[0].copy()
    total = sum(
        share * array.astype(np.float64) for array, share in zip(arrays, weights, strict=True)
    )
    return total.astype(arrays[0].dtype)


def fitness_average(
    first: list[np.ndarray], second: list[np.ndarray], evaluations: Sequence[float]
) -> list[np.ndarray]:
    """Weights of an offspring (eq. 5.1): the parents' mean weighted by their normalised fitness;
    the plain mean where both are 0.
    """
    pair = shares(np.array(evaluations[:1], float), np.array(evaluations[1:], float))[0]
    return average([first, second], pair)


def uniform(members: Iterable[list[np.ndarray]]) -> list[np.ndarray]:
    """Plain mean of all members."""
    members = list(members)
    return average(members, np.full(len(members), 1 / max(len(members), 1)))


def proportions(scores: ArrayLike, rule: str = "normalised") -> np.ndarray:
    """Shares of a weighted soup.

    Parameters
    ----------
    scores : sequence of float
    rule : {"normalised", "score"}
        In proportion to the fitness of eq. 3.4, by which the worst member counts nothing, or to the
        score itself, which must be positive. A member whose score is NaN has failed and counts
        nothing.

    Raises
    ------
    BadSoup
    """
    scores = np.asarray(scores, float)
    parts = normalised(scores) if rule == "normalised" else np.nan_to_num(scores)
    if (
        rule not in ("normalised", "score")
        or not len(scores)
        or (parts < 0).any()
        or parts.sum() <= 0
    ):
        raise BadSoup(
            'Shares need scores that are not negative, not all 0, and the rule "normalised" or '
            '"score".'
        )
    return parts / parts.sum()


def weighted(
    members: Iterable[list[np.ndarray]], scores: ArrayLike, rule: str = "normalised"
) -> list[np.ndarray]:
    """Mean of all members by their scores, see :func:`proportions`."""
    return average(members, proportions(scores, rule))


def greedy(
    members: Iterable[list[np.ndarray]], score_of: Callable
) -> tuple[list, list, pd.DataFrame]:
    """Greedy soup: from the best member on, each is added once if the running mean's score rises
    strictly.

    Members and means are judged by one function, so that the soup is never worse than its best
    ingredient; members of equal score keep their order.

    Parameters
    ----------
    members : sequence of lists of numpy.ndarray
    score_of : callable
        Weights -> score on held-out images; NaN where the weights give no numbers.

    Returns
    -------
    (weights, ingredients, trials)
        The soup; numbers of its members in the order added; and a table of trials: member, score,
        kept.
    """
    members = list(members)
    if not members:
        raise BadSoup("A soup needs at least one network.")
    scores = np.nan_to_num(np.array([score_of(member) for member in members], float), nan=-np.inf)
    order = np.argsort(-scores, kind="stable").tolist()
    ingredients, soup, best, trials = order[:1], uniform([members[order[0]]]), scores[order[0]], []
    for candidate in order[1:]:
        trial = uniform([members[k] for k in [*ingredients, candidate]])
        score = score_of(trial)
        kept = bool(score > best)
        trials.append({"member": candidate, "score": float(score), "kept": kept})
        if kept:
            ingredients, soup, best = [*ingredients, candidate], trial, score
    return soup, ingredients, pd.DataFrame(trials, columns=["member", "score", "kept"])


def path(
    first: list[np.ndarray], second: list[np.ndarray], score_of: Callable, points: int = 11
) -> pd.DataFrame:
    """Scores on the straight line between two networks.

    Parameters
    ----------
    first, second : lists of numpy.ndarray
    score_of : callable
        Weights -> score.
    points : int
        At least 2, the ends included.

    Returns
    -------
    pandas.DataFrame
        share (of the second network, 0 to 1), score.
    """
    steps = np.linspace(0, 1, max(points, 2))
    return pd.DataFrame(
        {
            "share": steps,
            "score": [float(score_of(average([first, second], [1 - t, t]))) for t in steps],
        }
    )


def barrier(curve: pd.DataFrame) -> float:
    """How far a :func:`path` falls below the line between its ends at the most; 0 where it never
    does.
    """
    share, score = curve["share"].to_numpy(), curve["score"].to_numpy()
    return float(np.max((1 - share) * score[0] + share * score[-1] - score))
