"""How alike the features of two networks are: projection-weighted CCA and debiased linear CKA (thesis section 4, Figure 4.4).

Canonical correlations are weighted by how much of the (centred) features of one side each canonical direction carries (Morcos et al. 2018). The
google/svcca package, which the thesis used, computes something else: its directions leave out the whitening matrix and get the channel means added
back, so that its value changes when a channel is shifted or scaled, and it stops with an IndexError when the first side has more channels. Here the
definition is the default and ``mode="svcca"`` gives the package's numbers where it has any. Both come from one product of the joined features with
themselves (in float64, each channel scaled by its deviation) and small triangular factors; nothing of the size of the data is decomposed unless the
features are almost dependent. PWCCA of unrelated features is far from 0 (0.71 for 960 channels and 1,600 images), hence :func:`null_floor`; debiased
CKA has no such floor. Measured at 960 channels and 10,000 images on 2 shared cores: see :func:`benchmark`.
"""

import sys
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg

from kit.errors import KitError

MODES, SIDES = ("definition", "svcca"), ("x", "y", "mean")
RANK = 1e-12  # singular values below this part of the largest are no directions
SAFE = 1e-5  # smallest diagonal of a triangular factor of correlations for which squaring the features costs no visible digits


class BadFeatures(KitError):
    """Two sets of features cannot be compared."""


@dataclass(frozen=True)
class Correlations:
    """Canonical correlations of two sets of features, and how much each counts.

    Attributes
    ----------
    correlations : numpy.ndarray
        Falling, 0 to 1; as many as the side with fewer directions has.
    weights_x, weights_y : numpy.ndarray or None
        Of the correlations, sum 1, by the features of each side. In mode "svcca" those of the package with that side as first argument, which are
        the second's by mistake where more channels of the first are alive; None where the package fails.
    """

    correlations: np.ndarray
    weights_x: np.ndarray | None
    weights_y: np.ndarray | None

    @property
    def mean(self) -> float:
        """Unweighted mean of the correlations (mean CCA)."""
        return float(self.correlations.mean())

    def pwcca(self, weights_from="mean") -> float:
        """Weighted mean of the correlations; weights of "x", "y", or the mean of the two results."""
        if weights_from not in SIDES:
            raise BadFeatures(f"There are no weights from {weights_from!r}; choose among {', '.join(SIDES)}.")
        chosen = {"x": [self.weights_x], "y": [self.weights_y], "mean": [self.weights_x, self.weights_y]}[weights_from]
        if any(w is None for w in chosen):
            raise BadFeatures("The svcca package fails when its first argument has more channels; take the weights from the other side, or mode 'definition'.")
        return float(np.mean([w @ self.correlations for w in chosen]))


class Floor(NamedTuple):
    """PWCCA of unrelated features: mean, lowest and highest of the repeats."""

    mean: float
    low: float
    high: float


def _checked(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise BadFeatures(f"Features of shapes {x.shape} and {y.shape} cannot be compared; give (images, channels) of the same images.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadFeatures("The features contain infinite or missing numbers; look for a diverged network.")
    return x, y


def _enough(x, y):
    if len(x) <= max(x.shape[1], y.shape[1]):
        raise BadFeatures(f"{len(x)} images are too few for CCA of {max(x.shape[1], y.shape[1])} channels; give more images than channels, or pool channels.")


def _standardised(x):
    """Centred columns of deviation 1 without the dead ones, and the deviations: a rescaling that keeps the correlations and the conditioning."""
    centred = x - x.mean(0)
    scale = np.sqrt(np.einsum("ij,ij->j", centred, centred))
    alive = scale > RANK * scale.max(initial=0) + 16 * np.finfo(float).eps * np.abs(x).max(0, initial=0) * np.sqrt(len(x))
    if not alive.any():
        raise BadFeatures("All channels of one side are constant; there is nothing to correlate.")
    return centred[:, alive] / scale[alive], scale[alive]


def _basis(features):
    """Orthonormal basis of the columns, (n, r), and its products with them, (r, c); for almost dependent columns."""
    u, s, vt = linalg.svd(features, full_matrices=False, check_finite=False)
    rank = int((s > RANK * s[0]).sum())
    return u[:, :rank], s[:rank, None] * vt[:rank]


def _definition(x, y) -> Correlations:
    """By the definition: cosines between the two column spaces, weighted by |<canonical variate, channel>|."""
    (x, scale_x), (y, scale_y) = _standardised(x), _standardised(y)
    joined, split = np.concatenate([x, y], axis=1), x.shape[1]
    product = joined.T @ joined
    try:
        lower = [linalg.cholesky(p, lower=True, check_finite=False) for p in (product[:split, :split], product[split:, split:])]
    except linalg.LinAlgError:
        lower = None
    if lower and min(np.diag(factor).min() for factor in lower) > SAFE:
        half = linalg.solve_triangular(lower[0], product[:split, split:], lower=True, check_finite=False)
        between = linalg.solve_triangular(lower[1], half.T, lower=True, check_finite=False).T
        loads = [factor.T for factor in lower]
    else:
        (basis_x, load_x), (basis_y, load_y) = _basis(x), _basis(y)
        between, loads = basis_x.T @ basis_y, [load_x, load_y]
    u, rho, vt = linalg.svd(between, full_matrices=False, check_finite=False)
    alpha = [np.abs(w @ load) @ scale for w, load, scale in ((u.T, loads[0], scale_x), (vt, loads[1], scale_y))]
    return Correlations(np.clip(rho, 0, 1), *(a / a.sum() for a in alpha))


def _inverse_root(matrix):
    """Inverse square root of a symmetric matrix; directions that a pseudo-inverse drops stay zero."""
    values, vectors = linalg.eigh(matrix, check_finite=False)
    kept = values > 1e-15 * values[-1]
    return (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T


def _svcca_weights(rotation, covariance, means, count):
    """Weights of the package from moments alone: QR of the rotated features with their means, by the triangular factor of their product.

    Rows of the directions are rotation.T @ centred + means; centred features sum to zero, so all mixed terms vanish.
    """
    shift = count * np.outer(means, means)
    loads = rotation.T @ (covariance * (count - 1))
    try:
        lower = linalg.cholesky(loads @ rotation + shift[:len(loads), :len(loads)], lower=True, check_finite=False)
    except linalg.LinAlgError as error:
        raise BadFeatures("The svcca package's directions are dependent here, its value would be noise; give epsilon=1e-10 or mode 'definition'.") from error
    weights = np.abs(linalg.solve_triangular(lower, loads + shift[:len(loads)], lower=True, check_finite=False)).sum(1)
    return weights / weights.sum()


def _svcca_mistaken(rotation, first, second, means):
    """Weights of the package when more channels of the first side than of the second are alive: it rotates the first side's by the second's rotation."""
    basis, _ = linalg.qr((first - means) @ rotation + means, mode="economic", check_finite=False)
    weights = np.abs(basis.T @ second).sum(1)
    return weights / weights.sum()


def _svcca(x, y, epsilon) -> Correlations:
    """As the svcca package computes it: epsilon drops channels and is added to the variances, after each side is divided by its largest covariance."""
    count, means = len(x), (x.mean(0), y.mean(0))
    joined, split = np.concatenate([x - means[0], y - means[1]], axis=1), x.shape[1]
    covariance = joined.T @ joined / (count - 1)
    blocks = [covariance[:split, :split], covariance[split:, split:]]
    most = [np.abs(b).max() for b in blocks]
    if not min(most) > 0:
        raise BadFeatures("All channels of one side are constant; there is nothing to correlate.")
    kept = [np.diag(b) / m >= epsilon for b, m in zip(blocks, most)]
    roots = [_inverse_root(b[np.ix_(k, k)] / m + epsilon * np.eye(k.sum())) for b, k, m in zip(blocks, kept, most)]
    between = covariance[:split, split:][np.ix_(*kept)] / np.sqrt(most[0] * most[1])
    u, rho, vt = linalg.svd(roots[0] @ between @ roots[1], full_matrices=False, check_finite=False)
    weights = []
    for mine, other, rotation, other_rotation in ((0, 1, u, vt.T), (1, 0, vt.T, u)):
        k, theirs = kept[mine], kept[other]
        if k.sum() <= theirs.sum():
            weights.append(_svcca_weights(rotation, blocks[mine][np.ix_(k, k)], means[mine][k], count))
        elif len(k) == len(theirs):
            features = ((x, y)[mine][:, theirs], (x, y)[other][:, theirs])
            weights.append(_svcca_mistaken(other_rotation, *features, means[other][theirs]))
        else:
            weights.append(None)
    return Correlations(rho, *weights)


def cca(x, y, mode="definition", epsilon=None) -> Correlations:
    """Canonical correlations of two sets of features of the same images, with the weights of both sides.

    Parameters
    ----------
    x, y : numpy.ndarray
        (images, channels), any float dtype; more images than channels.
    mode : {"definition", "svcca"}
    epsilon : float, optional
        Of mode "svcca" only: what the package calls epsilon; default 1e-10, its tutorials' value (the package's own default of 0 keeps dead channels).

    Raises
    ------
    BadFeatures
        Shapes that do not match, too few images, numbers that are not finite, nothing but constant channels.
    """
    if mode not in MODES:
        raise BadFeatures(f"There is no PWCCA mode {mode!r}; choose among {', '.join(MODES)}.")
    if mode == "definition" and epsilon is not None:
        raise BadFeatures("Only mode 'svcca' takes an epsilon; the definition drops dependent directions by itself.")
    x, y = _checked(x, y)
    _enough(x, y)
    return _definition(x, y) if mode == "definition" else _svcca(x, y, 1e-10 if epsilon is None else float(epsilon))


def pwcca(x, y, mode="definition", weights_from="mean", epsilon=None) -> float:
    """Projection-weighted CCA of two sets of features, 0 to 1.

    Parameters
    ----------
    x, y, mode, epsilon
        As of :func:`cca`, which gives both directions at once.
    weights_from : {"x", "y", "mean"}
        Side whose features weight the correlations. The thesis does not say; the package takes the first argument's.

    Raises
    ------
    BadFeatures
    """
    return cca(x, y, mode, epsilon).pwcca(weights_from)


def debiased_cka(x, y) -> float:
    """Linear centred kernel alignment with the unbiased estimator of HSIC (Song et al. 2012): 0 on average for unrelated features, 1 for the same.

    Computed from the channels' products, not from the (images, images) kernels. May be slightly negative; more channels than images are allowed.

    Parameters
    ----------
    x, y : numpy.ndarray
        (images, channels), at least 4 images.

    Raises
    ------
    BadFeatures
    """
    x, y = _checked(x, y)
    count = len(x)
    if count < 4:
        raise BadFeatures(f"{count} images are too few for debiased CKA; give at least 4.")
    x, y = x - x.mean(0), y - y.mean(0)
    norms = [np.einsum("ij,ij->i", f, f) for f in (x, y)]

    def hsic(a, b, norms_a, norms_b):
        # the diagonals of both kernels are left out; centred kernels have rows that sum to zero
        return (np.square(a.T @ b).sum() - count / (count - 2) * (norms_a @ norms_b) + norms_a.sum() * norms_b.sum() / ((count - 1) * (count - 2)))

    own = hsic(x, x, norms[0], norms[0]), hsic(y, y, norms[1], norms[1])
    if not min(own) > 0:
        raise BadFeatures("All channels of one side are constant; there is nothing to align.")
    return float(hsic(x, y, *norms) / np.sqrt(own[0] * own[1]))


def null_floor(n: int, channels, seed: int = 0, repeats: int = 3) -> Floor:
    """PWCCA (definition, mean of both sides) of unrelated Gaussian features: what `n` images and so many channels give with no relation at all.

    Parameters
    ----------
    n : int
        Images.
    channels : int or pair of int
        Of both sides, or of each.
    seed, repeats : int

    Raises
    ------
    BadFeatures
    """
    left, right = (channels, channels) if np.ndim(channels) == 0 else channels
    values = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat, n, left, right])
        values.append(pwcca(rng.standard_normal((n, left)), rng.standard_normal((n, right))))
    return Floor(float(np.mean(values)), min(values), max(values))


def svcca_procedure(x, y, epsilon=1e-10) -> float:
    """The package's chain of computations step by step, for :func:`benchmark` only: two pseudo-inverses, their roots, an SVD and a QR of all images."""
    split, means = x.shape[1], x.mean(0)
    covariance = np.cov(x, y, rowvar=False)
    blocks = [covariance[:split, :split], covariance[split:, split:]]
    most = [np.abs(b).max() for b in blocks]
    roots = []
    for block, largest in zip(blocks, most):
        values, vectors = np.linalg.eigh(np.linalg.pinv(block / largest + epsilon * np.eye(len(block))))
        roots.append(vectors @ np.diag(np.sqrt(values)) @ vectors.T)
    u, rho, _ = np.linalg.svd(roots[0] @ (covariance[:split, split:] / np.sqrt(most[0] * most[1]) @ roots[1]))
    basis, _ = np.linalg.qr((u.T @ (x - means).T + means[:, None]).T)
    weights = np.abs(basis.T @ x).sum(1)
    return float(weights @ rho / weights.sum())


def benchmark(channels: int = 960, n: int = 10_000, seed: int = 0, rounds: int = 3) -> dict:
    """Seconds (best of the rounds) of the package's procedure, of :func:`cca` in both modes, and of the one matrix product that no way can avoid.

    Returns
    -------
    dict
        seconds by name, "speedup" (procedure / definition) and "difference" (of the two svcca results).
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, channels))
    y = 0.7 * x + 0.3 * rng.standard_normal((n, channels))
    joined = np.concatenate([x, y], axis=1)
    ways = {"procedure": lambda: svcca_procedure(x, y), "svcca": lambda: pwcca(x, y, "svcca", "x"), "definition": lambda: pwcca(x, y),
            "product": lambda: joined.T @ joined}
    seconds, values = dict.fromkeys(ways, np.inf), {}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            values[name] = way()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return {**seconds, "speedup": seconds["procedure"] / seconds["definition"], "difference": abs(values["procedure"] - values["svcca"])}


def _main(arguments) -> None:
    if arguments != ["--benchmark"]:
        raise SystemExit("Usage: python -m kit.similarity --benchmark")
    print({name: round(value, 12 if name == "difference" else 3) for name, value in benchmark().items()})


if __name__ == "__main__":
    _main(sys.argv[1:])
