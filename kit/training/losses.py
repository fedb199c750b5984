"""The five losses that Gen-CNN and Gen-Soup choose among, one value a sample, on logits and one-hot
or soft targets.

The thesis names the losses but prints no formulas; these follow its released code, whose
constants they keep. Three things differ. The released code takes exponentials of the logits as they
are, which is infinite from logits of 89 on in float32; here nothing overflows that is finite. Its
logit normalisation divides by zero when all logits are 0; here the norm is kept above
`SMALLEST_NORM`. Its logit penalty charges every sample with the norm of the batch's first one; here
each is charged with its own, and ``compat=True`` gives the released behaviour. The label smoothing
is the released one: 1 / (1 - alpha) times the usual, so about 11 % larger.

A search picks the loss by a gene, so :func:`selected` takes it as an integer tensor: one traced
step serves all five.
"""

from typing import Any

import keras
import tensorflow as tf

from kit.errors import KitError
from kit.training.names import LOSSES as NAMES

ALPHA, BETA, TAU = (
    0.1,
    4e-4,
    0.04,
)  # the released constants of label smoothing, logit penalty and logit normalisation
SMALLEST_NORM = 1e-4


class UnknownLoss(KitError):
    """No loss has this name or number."""


class BadTargets(KitError):
    """Targets and logits do not have the same shape (samples, classes)."""


def index(name: str) -> int:
    """Place of a loss in `NAMES`; blanks and hyphens in the name may stand for underscores.

    Raises
    ------
    UnknownLoss
    """
    spelled = str(name).lower().replace(" ", "_").replace("-", "_")
    if spelled not in NAMES:
        raise UnknownLoss(f"No loss is called {name!r}; choose from {', '.join(NAMES)}.")
    return NAMES.index(spelled)


def cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the softmax.

    Parameters
    ----------
    targets : (N, K) float
        One-hot rows, or rows of shares that add up to 1 (CutMix, MixUp).
    logits : (N, K) float
        Half precision is computed in float32.

    Returns
    -------
    (N,) float32, or float64 for float64 logits

    Raises
    ------
    BadTargets
        As far as shapes are known before the graph runs.
    """
    targets, logits = _checked(targets, logits)
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def label_smoothing(targets: tf.Tensor, logits: tf.Tensor, alpha: float = ALPHA) -> tf.Tensor:
    """Cross-entropy against (1 - `alpha`) targets + `alpha` / K, divided by 1 - `alpha` as in the
    released code; see :func:`cross_entropy`.
    """
    targets, logits = _checked(targets, logits)
    smooth = (1 - alpha) * targets + alpha / tf.cast(tf.shape(logits)[-1], logits.dtype)
    return tf.nn.softmax_cross_entropy_with_logits(smooth, logits) / (1 - alpha)


def logit_penalty(
    targets: tf.Tensor, logits: tf.Tensor, beta: float = BETA, compat: bool = False
) -> tf.Tensor:
    """Cross-entropy + `beta` times the squared norm of the sample's logits; see
    :func:`cross_entropy`.

    Parameters
    ----------
    beta : float
        The publication that the thesis cites halves it in its code; the thesis' code does not.
    compat : bool
        Every sample is charged with the norm of the batch's first sample, as in the released code.
    """
    targets, logits = _checked(targets, logits)
    squares = tf.reduce_sum(tf.square(logits[:1] if compat else logits), axis=-1)
    return cross_entropy(targets, logits) + beta * squares


def logit_normalization(targets: tf.Tensor, logits: tf.Tensor, tau: float = TAU) -> tf.Tensor:
    """Cross-entropy of logits / (`tau` * norm of the sample's logits), which lie in [-1 / tau, 1 /
    tau]; see :func:`cross_entropy`.

    The norm is sqrt(sum of squares + `SMALLEST_NORM` ** 2), so that value and gradient are finite
    at zero logits.
    """
    targets, logits = _checked(targets, logits)
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(logits), axis=-1, keepdims=True))
    scale = tf.maximum(scale, SMALLEST_NORM)  # cancels out; keeps the squares from overflowing
    scaled = logits / scale
    norm = tf.sqrt(
        tf.reduce_sum(tf.square(scaled), axis=-1, keepdims=True) + tf.square(SMALLEST_NORM / scale)
    )
    return cross_entropy(targets, scaled / (tau * norm))


def sigmoid_cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Sum over the classes of the binary cross-entropies (not their mean: K times Keras'); see
    :func:`cross_entropy`.
    """
    targets, logits = _checked(targets, logits)
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


FUNCTIONS = dict(
    zip(
        NAMES,
        (cross_entropy, label_smoothing, logit_penalty, logit_normalization, sigmoid_cross_entropy),
        strict=True,
    )
)


def selected(
    number: int | tf.Tensor | tf.Variable,
    targets: tf.Tensor,
    logits: tf.Tensor,
    compat: bool = False,
) -> tf.Tensor:
    """The loss whose place in `NAMES` is `number`, chosen while the graph runs; only that loss is
    computed and differentiated.

    Parameters
    ----------
    number : int or int32 scalar tensor or variable
    targets, logits, compat
        See :func:`cross_entropy` and :func:`logit_penalty`.

    Returns
    -------
    (N,) float32, or float64 for float64 logits
        nan for a number that the graph finds to be none of the five.

    Raises
    ------
    UnknownLoss
        If `number` is a Python integer that is none of the five.
    """
    if isinstance(number, int) and number not in range(len(NAMES)):
        raise UnknownLoss(
            f"Loss {number} does not exist; the losses are numbered 0..{len(NAMES) - 1}: "
            f"{', '.join(NAMES)}."
        )
    targets, logits = _checked(targets, logits)
    branches = [lambda name=name: _named(name, targets, logits, compat) for name in NAMES]

    def nothing():
        return tf.fill(tf.shape(logits)[:1], tf.constant(float("nan"), logits.dtype))

    return tf.switch_case(
        tf.cast(tf.convert_to_tensor(number), tf.int32), branches, default=nothing
    )


def _named(name: str, targets, logits, compat: bool) -> tf.Tensor:
    options = {"compat": compat} if name == "logit_penalty" else {}
    return FUNCTIONS[name](targets, logits, **options)


def _checked(targets, logits):
    logits = tf.convert_to_tensor(logits)
    if logits.dtype not in (tf.float32, tf.float64):
        logits = tf.cast(logits, tf.float32)
    targets = tf.cast(targets, logits.dtype)
    if not targets.shape.is_compatible_with(logits.shape) or (logits.shape.rank or 2) != 2:
        shapes = f"{tuple(targets.shape)} and {tuple(logits.shape)}"
        raise BadTargets(
            f"Targets and logits have the shapes {shapes}; both must be (samples, classes), so "
            "one-hot encode integer labels."
        )
    return targets, logits


@keras.saving.register_keras_serializable(package="kit")
class ThesisLoss(keras.losses.Loss):
    """One of the five losses for ``model.compile``; the model must end in logits.

    Parameters
    ----------
    loss : str
        One of `NAMES`.
    compat : bool
        See :func:`logit_penalty`; the other losses are the same either way.
    reduction, name, dtype
        As for every Keras loss; the mean over the batch by default.

    Raises
    ------
    UnknownLoss
    """

    def __init__(
        self,
        loss: str,
        compat: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        self.loss, self.compat = NAMES[index(loss)], bool(compat)
        super().__init__(name=name or self.loss, reduction=reduction, dtype=dtype)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Losses (N,) of targets and logits (N, K)."""
        return _named(self.loss, y_true, y_pred, self.compat)

    def get_config(self) -> dict[str, Any]:
        """What the loss is made again from."""
        return {**super().get_config(), "loss": self.loss, "compat": self.compat}


def get(name: str, compat: bool = False) -> ThesisLoss:
    """The loss of this name as a Keras loss; see :class:`ThesisLoss`."""
    return ThesisLoss(name, compat)
