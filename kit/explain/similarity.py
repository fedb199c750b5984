"""How alike the features of two networks are: projection-weighted CCA and debiased linear CKA
(thesis section 4, Figure 4.4).

Canonical correlations are weighted by how much of the (centred) features of one side each canonical
direction carries (Morcos et al. 2018). The google/svcca package, which the thesis used, computes
something else: its directions leave out the whitening matrix and get the channel means added back,
so that its value changes when a channel is shifted or scaled, and it stops with an IndexError when
the first side has more channels. Here the definition is the default and ``mode="svcca"`` gives the
package's numbers where it has any. Both come from one product of the joined features with
themselves (in float64, each channel scaled by its deviation) and small triangular factors; nothing
of the size of the data is decomposed unless the features are almost dependent. PWCCA of unrelated
features is far from 0 (0.71 for 960 channels and 1,600 images), hence :func:`null_floor`; debiased
CKA has no such floor. Measured at 960 channels and 10,000 images, seconds of one core
(:func:`kit.benchmarks.similarity.benchmark`): the definition with both sides' weights 1.4, of which
0.8 are the products of the features, the floor of any way; the package's procedure, one side's
weights a call, 5.7 to 6.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg

from kit.errors import KitError

MODES, SIDES = ("definition", "svcca"), ("x", "y", "mean")
RANK = 1e-12  # singular values below this part of the largest are no directions
# smallest diagonal of a triangular factor of correlations for which squaring the features costs no
# visible digits
SAFE = 1e-5
# squared mean over variance up to which a sum of squares keeps twelve digits of the variance
OFFSET = 1e4
SMALL = 1e-3  # singular values above it are found from their squares to full precision, near enough


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
        Of the correlations, sum 1, by the features of each side. In mode "svcca" those of the
        package with that side as first argument, which are the second's by mistake where more
        channels of the first are alive; None where the package fails.
    """

    correlations: np.ndarray
    weights_x: np.ndarray | None
    weights_y: np.ndarray | None

    @property
    def mean(self) -> float:
        """Unweighted mean of the correlations (mean CCA)."""
        return float(self.correlations.mean())

    def pwcca(self, weights_from: str = "mean") -> float:
        """Weighted mean of the correlations; weights of "x", "y", or the mean of the two
        results.
        """
        if weights_from not in SIDES:
            raise BadFeatures(
                f"There are no weights from {weights_from!r}; choose among {', '.join(SIDES)}."
            )
        chosen = {
            "x": [self.weights_x],
            "y": [self.weights_y],
            "mean": [self.weights_x, self.weights_y],
        }[weights_from]
        if any(w is None for w in chosen):
            raise BadFeatures(
                "The svcca package fails when its first argument has more channels; take the "
                "weights from the other side, or mode 'definition'."
            )
        return float(np.mean([w @ self.correlations for w in chosen]))


class Floor(NamedTuple):
    """PWCCA of unrelated features: mean, lowest and highest of the repeats."""

    mean: float
    low: float
    high: float


def _checked(x, y):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise BadFeatures(
            f"Features of shapes {x.shape} and {y.shape} cannot be compared; give (images, "
            "channels) of the same images."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadFeatures(
            "The features contain infinite or missing numbers; look for a diverged network."
        )
    return x, y


def _enough(x, y):
    if len(x) <= max(x.shape[1], y.shape[1]):
        raise BadFeatures(
            f"{len(x)} images are too few for CCA of {max(x.shape[1], y.shape[1])} channels; give "
            "more images than channels, or pool channels."
        )


def _centred(x, y):
    """Both sides side by side without their means."""
    return np.concatenate([x - x.mean(0), y - y.mean(0)], axis=1)


def _products(x, y):
    """Products of all centred columns with each other; the means are taken off afterwards where
    that costs no digits, which saves copies of the data.
    """
    split, means = x.shape[1], np.concatenate([x.mean(0), y.mean(0)])
    product = np.empty((len(means), len(means)))
    product[:split, :split], product[split:, split:], product[:split, split:] = (
        x.T @ x,
        y.T @ y,
        x.T @ y,
    )
    product[split:, :split] = product[:split, split:].T
    product -= len(x) * np.outer(means, means)
    if (len(x) * means**2 > OFFSET * np.diag(product)).any():
        joined = _centred(x, y)
        product = joined.T @ joined
    return product, means


def _svd(matrix):
    """Singular values and vectors of a matrix, by the eigenvalues of its smaller square where no
    value is small: a third of the time.
    """
    if matrix.shape[0] > matrix.shape[1]:
        left, values, right = _svd(matrix.T)
        return right.T, values, left.T
    squares, u = linalg.eigh(matrix @ matrix.T, check_finite=False, driver="evd")
    if not squares[0] > SMALL**2:
        return linalg.svd(matrix, full_matrices=False, check_finite=False)
    u, values = u[:, ::-1], np.sqrt(squares[::-1])
    return u, values, (matrix.T @ u / values).T


def _basis(features):
    """Orthonormal basis of the columns, (n, r), and its products with them, (r, c); for almost
    dependent columns.
    """
    u, s, vt = linalg.svd(features, full_matrices=False, check_finite=False)
    rank = int((s > RANK * s[0]).sum())
    return u[:, :rank], s[:rank, None] * vt[:rank]


def _factors(product, split):
    """Triangular factors of both sides' correlations and what is between the sides; None where a
    side is almost dependent.
    """
    try:
        lower = [
            linalg.cholesky(p, lower=True, check_finite=False)
            for p in (product[:split, :split], product[split:, split:])
        ]
    except linalg.LinAlgError:
        return None
    if min(np.diag(factor).min() for factor in lower) < SAFE:
        return None
    half = linalg.solve_triangular(
        lower[0], product[:split, split:], lower=True, check_finite=False
    )
    between = linalg.solve_triangular(lower[1], half.T, lower=True, check_finite=False).T
    return between, lower[0].T, lower[1].T


def _definition(x, y) -> Correlations:
    """By the definition: cosines between the two column spaces, weighted by |<canonical variate,
    channel>|.

    Channels are scaled to deviation 1 on the way, which keeps the correlations and makes the
    product as well conditioned as it can be.
    """
    (product, means), split = _products(x, y), x.shape[1]
    scale, rounding = (
        np.sqrt(np.diag(product)),
        16 * np.finfo(float).eps * np.sqrt(len(x)) * np.abs(means),
    )
    most = np.repeat(
        [scale[:split].max(initial=0), scale[split:].max(initial=0)], [split, len(scale) - split]
    )
    alive = np.flatnonzero(scale > rounding + RANK * most)
    split, scale = int((alive < split).sum()), scale[alive]
    if split in (0, len(alive)):
        raise BadFeatures("All channels of one side are constant; there is nothing to correlate.")
    found = _factors(product[np.ix_(alive, alive)] / np.outer(scale, scale), split)
    if found is None:
        joined = _centred(x, y)[:, alive] / scale
        (basis_x, load_x), (basis_y, load_y) = _basis(joined[:, :split]), _basis(joined[:, split:])
        found = basis_x.T @ basis_y, load_x, load_y
    between, load_x, load_y = found
    u, rho, vt = _svd(between)
    alpha = np.abs(u.T @ load_x) @ scale[:split], np.abs(vt @ load_y) @ scale[split:]
    return Correlations(np.clip(rho, 0, 1), *(a / a.sum() for a in alpha))


def _inverse_root(matrix):
    """Inverse square root of a symmetric matrix; directions that a pseudo-inverse drops
    stay zero.
    """
    values, vectors = linalg.eigh(matrix, check_finite=False)
    kept = values > 1e-15 * values[-1]
    return (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T


def _svcca_weights(rotation, covariance, means, count):
    """Weights of the package from moments alone: QR of the rotated features with their means, by
    the triangular factor of their product.

    Rows of the directions are rotation.T @ centred + means; centred features sum to zero, so all
    mixed terms vanish.
    """
    shift = count * np.outer(means, means)
    loads = rotation.T @ (covariance * (count - 1))
    try:
        lower = linalg.cholesky(
            loads @ rotation + shift[: len(loads), : len(loads)], lower=True, check_finite=False
        )
    except linalg.LinAlgError as error:
        raise BadFeatures(
            "The svcca package's directions are dependent here, its value would be noise; give "
            "epsilon=1e-10 or mode 'definition'."
        ) from error
    weights = np.abs(
        linalg.solve_triangular(lower, loads + shift[: len(loads)], lower=True, check_finite=False)
    ).sum(1)
    return weights / weights.sum()


def _svcca_mistaken(rotation, first, second, means):
    """Weights of the package when more channels of the first side than of the second are alive: it
    rotates the first side's by the second's rotation.
    """
    basis, _ = linalg.qr((first - means) @ rotation + means, mode="economic", check_finite=False)
    weights = np.abs(basis.T @ second).sum(1)
    return weights / weights.sum()


def _svcca(x, y, epsilon) -> Correlations:
    """As the svcca package computes it: epsilon drops channels and is added to the variances, after
    each side is divided by its largest covariance.
    """
    (covariance, means), count, split = _products(x, y), len(x), x.shape[1]
    covariance, means = covariance / (count - 1), (means[:split], means[split:])
    blocks = [covariance[:split, :split], covariance[split:, split:]]
    most = [np.abs(b).max() for b in blocks]
    if not min(most) > 0:
        raise BadFeatures("All channels of one side are constant; there is nothing to correlate.")
    kept = [np.diag(b) / m >= epsilon for b, m in zip(blocks, most, strict=False)]
    roots = [
        _inverse_root(b[np.ix_(k, k)] / m + epsilon * np.eye(k.sum()))
        for b, k, m in zip(blocks, kept, most, strict=False)
    ]
    between = covariance[:split, split:][np.ix_(*kept)] / np.sqrt(most[0] * most[1])
    u, rho, vt = linalg.svd(roots[0] @ between @ roots[1], full_matrices=False, check_finite=False)
    weights = []
    for mine, other, rotation, other_rotation in ((0, 1, u, vt.T), (1, 0, vt.T, u)):
        k, theirs = kept[mine], kept[other]
        if k.sum() <= theirs.sum():
            weights.append(
                _svcca_weights(rotation, blocks[mine][np.ix_(k, k)], means[mine][k], count)
            )
        elif len(k) == len(theirs):
            features = ((x, y)[mine][:, theirs], (x, y)[other][:, theirs])
            weights.append(_svcca_mistaken(other_rotation, *features, means[other][theirs]))
        else:
            weights.append(None)
    return Correlations(rho, *weights)


def cca(
    x: np.ndarray, y: np.ndarray, mode: str = "definition", epsilon: float | None = None
) -> Correlations:
    """Canonical correlations of two sets of features of the same images, with the weights of both
    sides.

    Parameters
    ----------
    x, y : numpy.ndarray
        (images, channels), any float dtype; more images than channels.
    mode : {"definition", "svcca"}
    epsilon : float, optional
        Of mode "svcca" only: what the package calls epsilon; default 1e-10, its tutorials' value
        (the package's own default of 0 keeps dead channels).

    Raises
    ------
    BadFeatures
        Shapes that do not match, too few images, numbers that are not finite, nothing but constant
        channels.
    """
    if mode not in MODES:
        raise BadFeatures(f"There is no PWCCA mode {mode!r}; choose among {', '.join(MODES)}.")
    if mode == "definition" and epsilon is not None:
        raise BadFeatures(
            "Only mode 'svcca' takes an epsilon; the definition drops dependent directions by "
            "itself."
        )
    x, y = _checked(x, y)
    _enough(x, y)
    return (
        _definition(x, y)
        if mode == "definition"
        else _svcca(x, y, 1e-10 if epsilon is None else float(epsilon))
    )


def pwcca(
    x: np.ndarray,
    y: np.ndarray,
    mode: str = "definition",
    weights_from: str = "mean",
    epsilon: float | None = None,
) -> float:
    """Projection-weighted CCA of two sets of features, 0 to 1.

    Parameters
    ----------
    x, y, mode, epsilon
        As of :func:`cca`, which gives both directions at once.
    weights_from : {"x", "y", "mean"}
        Side whose features weight the correlations. The thesis does not say; the package takes the
        first argument's.

    Raises
    ------
    BadFeatures
    """
    return cca(x, y, mode, epsilon).pwcca(weights_from)


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment with the unbiased estimator of HSIC (Song et al. 2012): 0 on
    average for unrelated features, 1 for the same.

    Computed from the channels' products, not from the (images, images) kernels. May be slightly
    negative; more channels than images are allowed.

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
        return (
            np.square(a.T @ b).sum()
            - count / (count - 2) * (norms_a @ norms_b)
            + norms_a.sum() * norms_b.sum() / ((count - 1) * (count - 2))
        )

    own = hsic(x, x, norms[0], norms[0]), hsic(y, y, norms[1], norms[1])
    if not min(own) > 0:
        raise BadFeatures("All channels of one side are constant; there is nothing to align.")
    return float(hsic(x, y, *norms) / np.sqrt(own[0] * own[1]))


def null_floor(n: int, channels: int | Sequence[int], seed: int = 0, repeats: int = 3) -> Floor:
    """PWCCA (definition, mean of both sides) of unrelated Gaussian features: what `n` images and so
    many channels give with no relation at all.

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
    left, right = (channels, channels) if isinstance(channels, int | np.integer) else channels
    values = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat, n, left, right])
        values.append(pwcca(rng.standard_normal((n, left)), rng.standard_normal((n, right))))
    return Floor(float(np.mean(values)), min(values), max(values))


def svcca_procedure(x: np.ndarray, y: np.ndarray, epsilon: float = 1e-10) -> float:
    """The package's chain of computations step by step, for :mod:`kit.benchmarks.similarity` only:
    two pseudo-inverses, their roots, an SVD and a QR of all images.
    """
    split, means = x.shape[1], x.mean(0)
    covariance = np.cov(x, y, rowvar=False)
    blocks = [covariance[:split, :split], covariance[split:, split:]]
    most = [np.abs(b).max() for b in blocks]
    roots = []
    for block, largest in zip(blocks, most, strict=False):
        values, vectors = np.linalg.eigh(
            np.linalg.pinv(block / largest + epsilon * np.eye(len(block)))
        )
        roots.append(vectors @ np.diag(np.sqrt(values)) @ vectors.T)
    u, rho, _ = np.linalg.svd(
        roots[0] @ (covariance[:split, split:] / np.sqrt(most[0] * most[1]) @ roots[1])
    )
    basis, _ = np.linalg.qr((u.T @ (x - means).T + means[:, None]).T)
    weights = np.abs(basis.T @ x).sum(1)
    return float(weights @ rho / weights.sum())
