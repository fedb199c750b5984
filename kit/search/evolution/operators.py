"""The operators of the genetic algorithm as pure functions: thesis equations 3.4 and 3.5,
Algorithms 1 and 2, with every random draw an argument.

They follow the text; where text and released code leave a case open (two worst parents, a
generation of equals), the case is settled as told in :mod:`kit.search.evolution.genetic`, which
draws for them.
"""

import numpy as np
from numpy.typing import ArrayLike


def normalised(fitness: ArrayLike, failed: ArrayLike | None = None) -> np.ndarray:
    """Evaluations (eq. 3.4): fitness minus the generation's lowest, over its range; all 1 where all
    are equal.

    An individual that failed has no fitness: it gets 0 and takes no part in the range, which the
    number that is written for it (-1) would stretch until the others are alike.

    Parameters
    ----------
    fitness : array-like
        (n,) float; higher is better.
    failed : array-like, optional
        (n,) bool; default: whose fitness is not finite.

    Returns
    -------
    numpy.ndarray
        (n,) float in [0, 1].
    """
    fitness = np.asarray(fitness, float)
    good = np.isfinite(fitness) if failed is None else ~np.asarray(failed, bool)
    found = np.zeros_like(fitness)
    if good.any():
        own = fitness[good]
        spread = own.max() - own.min()
        found[good] = 1.0 if spread == 0 else (own - own.min()) / spread
    return found


def tournament(
    evaluations: ArrayLike, contestants: ArrayLike, opponents: ArrayLike, ties: str = "opponent"
) -> np.ndarray:
    """Rows that survive (Algorithm 1).

    Parameters
    ----------
    evaluations : array-like
        (n,) float.
    contestants : array-like
        (m,) int rows that are defended one after the other.
    opponents : array-like
        (m, k) int rows that challenge each.
    ties : str
        Who survives a tie, "opponent" or "self".

    Returns
    -------
    numpy.ndarray
        (m,) int.
    """
    evaluations, selected = np.asarray(evaluations), np.array(contestants)
    for challengers in np.asarray(opponents).T:
        kept, new = evaluations[selected], evaluations[challengers]
        selected = np.where(
            kept > new if ties == "opponent" else kept >= new, selected, challengers
        )
    return selected


def shares(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Weights of two parents in a blend: their evaluations over the sum, one half each where both
    are 0. Shapes (n,) and (n,) to (n, 2).
    """
    pair = np.stack([np.asarray(first, float), np.asarray(second, float)], axis=1)
    total = pair.sum(1, keepdims=True)
    return np.where(total > 0, pair / np.where(total > 0, total, 1.0), 0.5)


def offspring(
    first: np.ndarray,
    second: np.ndarray,
    weights: ArrayLike,
    crossed: ArrayLike,
    mutated: ArrayLike,
    values: ArrayLike,
) -> np.ndarray:
    """Genes of the offspring (Algorithm 2).

    Parameters
    ----------
    first, second : array-like
        (m, genes) float, genes of the parents.
    weights : array-like
        (m, 2) float, see :func:`shares`.
    crossed, mutated : array-like
        (m, genes) bool: blend the parents' gene (else the first parent's is kept); then draw it
        anew.
    values : array-like
        (m, genes) float in [0, 1], what a mutated gene becomes.

    Returns
    -------
    numpy.ndarray
        (m, genes) float in [0, 1].
    """
    weights = np.asarray(weights)[:, :, None]
    blend = weights[:, 0] * first + weights[:, 1] * second
    return np.clip(np.where(mutated, values, np.where(crossed, blend, first)), 0.0, 1.0)
