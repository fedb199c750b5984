"""Has a search left the uniform architecture? If not, its cells are as good as drawn at random.

Every search derives cells, also one that learnt nothing: some operation always weighs most. What a
search without direction would do is known: Adam moves each weight by about its rate, whatever the
size of the gradient, so gradients of random sign make a random walk. The cells that such walks end
with are random ones, and their spread of entropy (of an edge's operation weights) and of margin (of
the chosen operation over the next) is what a search must leave. No publication reports either.
"""

import functools

import numpy as np

from kit.search.nas2d import genotype

INITIAL = 1e-3  # standard deviation of the initial architecture weights
WALKS = 400


def facts(arch: list) -> dict:
    """Mean entropy and margin over the edges of each cell.

    Parameters
    ----------
    arch : list of numpy.ndarray
        Architecture weights; the first two are (14, operations) of the normal and the reduction
        cell.

    Returns
    -------
    dict
        entropy: (normal, reduction), in units of that of equal weights; margin: the same, weight of
        the strongest operation other than none minus that of the next, in units of an equal weight.
    """
    return {
        "entropy": tuple(_entropy(alpha) for alpha in arch[:2]),
        "margin": tuple(_margin(alpha) for alpha in arch[:2]),
    }


def _entropy(alpha) -> float:
    p = genotype.softmax(alpha)
    if p.shape[-1] == 1:
        return 0.0
    return float(-(p * np.log(np.maximum(p, 1e-300))).sum(-1).mean() / np.log(p.shape[-1]))


def _margin(alpha) -> float:
    p = genotype.softmax(alpha)
    shown = np.sort(p[:, 1:] if p.shape[-1] == len(genotype.PRIMITIVES) else p, axis=-1)
    if shown.shape[-1] == 1:
        return 0.0
    return float((shown[:, -1] - shown[:, -2]).mean() * p.shape[-1])


@functools.cache
def undirected(updates: int, rate: float, operations: int = 8) -> dict:
    """Spread of what searches without direction end with.

    Parameters
    ----------
    updates : int
        Steps of the architecture's optimizer.
    rate : float
        Its learning rate.
    operations : int
        On an edge.

    Returns
    -------
    dict
        entropy: 2.5th percentile; margin: 97.5th percentile, of one cell of fourteen edges.
    """
    rng = np.random.default_rng(0)
    sd = np.sqrt(INITIAL**2 + updates * rate**2)
    cells = [rng.normal(0, sd, (14, operations)) for _ in range(WALKS)]
    return {
        "entropy": float(np.percentile([_entropy(cell) for cell in cells], 2.5)),
        "margin": float(np.percentile([_margin(cell) for cell in cells], 97.5)),
    }


def left(entropy: float, margin: float, updates: int, rate: float, operations: int = 8) -> bool:
    """Whether a cell is further from uniform than searches without direction come: lower in entropy
    and larger in margin than 97.5 % of them.
    """
    limits = undirected(int(updates), float(rate), int(operations))
    return bool(entropy < limits["entropy"] and margin > limits["margin"])
