"""The update rules of the ten optimizers of chapter 3 of the thesis, on one vector that joins all
parameters.

Each rule takes (theta, gradient, slots, step, lr, settings): two vectors (n,), three vectors (n,)
of memory that start at zero (a list, or a tensor (3, n)), the number of the step from 1 and the
rate as scalar tensors, and Settings; each returns the new theta and the list of slots.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from kit.training.rules import Scalar, scalar

Vector: TypeAlias = tf.Tensor  # (n,) float
Slots: TypeAlias = Sequence[Vector] | tf.Tensor  # three vectors of memory, or (3, n)
Moved: TypeAlias = tuple[Vector, list[Vector]]  # the parameters after a step, and their memory


class Settings(NamedTuple):
    """Momenta of SGD and RMSprop; everything else has PyTorch's default in both groups of
    settings.
    """

    sgd_momentum: float = 0.0
    rmsprop_momentum: float = 0.0


def like(value: Scalar, tensor: tf.Tensor) -> tf.Tensor:
    """A scalar in the dtype of `tensor`."""
    return scalar(value, tensor.dtype)


def adam(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """Adam; slots: means of gradient and squared gradient."""
    first, second, rest = _moments(gradient, slots)
    bias1, bias2 = _correction(0.9, step), _correction(0.999, step)
    moved = theta - like(scalar(lr, tf.float64) / bias1, theta) * first / (
        tf.sqrt(second) / like(tf.sqrt(bias2), theta) + 1e-8
    )
    return moved, [first, second, rest]


def adamax(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """Adam with a decaying maximum instead of the mean of squares; slots: mean of gradients,
    maximum.
    """
    first, largest, rest = _three(slots)
    first = _mean(first, gradient, 0.9)
    largest = tf.maximum(0.999 * largest, tf.abs(gradient) + 1e-8)
    return theta - like(scalar(lr, tf.float64) / _correction(0.9, step), theta) * first / largest, [
        first,
        largest,
        rest,
    ]


def nadam(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """Adam with Nesterov momentum and a momentum that grows with time; slots: two means, product of
    the momenta so far.
    """
    first, second, product = _moments(gradient, slots)
    time, rate = _time(step), scalar(lr, tf.float64)
    momentum, following = (0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)) for t in (time, time + 1))
    product = tf.where(_is_first(step), tf.ones_like(product), product) * like(momentum, theta)
    root = tf.sqrt(second / like(_correction(0.999, step), theta)) + 1e-8
    ahead = like(rate * following, theta) / (1 - product * like(following, theta))
    return theta - (
        like(rate * (1 - momentum), theta) / (1 - product) * gradient + ahead * first
    ) / root, [first, second, product]


def radam(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """Adam whose adaptive rate is rectified by its variance, and left out while that is unknown (5
    steps); slots: two means.
    """
    first, second, rest = _moments(gradient, slots)
    time, bias2 = _time(step), _correction(0.999, step)
    longest = 2 / (1 - 0.999) - 1
    length = longest - 2 * time * 0.999**time / bias2
    known = tf.maximum(length, 5.0)  # keeps the root real where it is not used
    rectified = tf.sqrt(
        (known - 4) * (known - 2) * longest / ((longest - 4) * (longest - 2) * known) * bias2
    )
    scale = tf.where(length > 5, like(rectified, theta) / (tf.sqrt(second) + 1e-8), 1.0)
    return theta - like(scalar(lr, tf.float64) / _correction(0.9, step), theta) * first * scale, [
        first,
        second,
        rest,
    ]


def sgd(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """Stochastic gradient descent; slots: momentum buffer. The rate is not part of the buffer."""
    buffer, *rest = _three(slots)
    buffer = settings.sgd_momentum * buffer + gradient
    return theta - like(lr, theta) * buffer, [buffer, *rest]


def asgd(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """PyTorch's "averaged" SGD: a shrinking of 1e-4 lr a step and a slowly falling rate; slots:
    rate of the next step, which follows from the learning rate of this one.
    """
    following, *rest = _three(slots)
    now = tf.where(_is_first(step), tf.zeros_like(theta) + like(lr, theta), following)
    moved = theta * (1 - 1e-4 * now) - now * gradient
    rate = scalar(lr, tf.float64)
    following = tf.zeros_like(theta) + like(rate / (1 + 1e-4 * rate * _time(step)) ** 0.75, theta)
    return moved, [following, *rest]


def rmsprop(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """RMSprop; slots: mean of squares (0.99), momentum buffer."""
    second, buffer, rest = _three(slots)
    second = _mean(second, tf.square(gradient), 0.99)
    buffer = settings.rmsprop_momentum * buffer + gradient / (tf.sqrt(second) + 1e-8)
    return theta - like(lr, theta) * buffer, [second, buffer, rest]


def adagrad(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """Adagrad; slots: sum of squares."""
    total, *rest = _three(slots)
    total = total + tf.square(gradient)
    return theta - like(lr, theta) * gradient / (tf.sqrt(total) + 1e-10), [total, *rest]


def rprop(
    theta: Vector, gradient: Vector, slots: Slots, step: Scalar, lr: Scalar, settings: Settings
) -> Moved:
    """Resilient propagation: steps that follow the signs alone; slots: previous gradient, step
    lengths, of which `lr` is the first.
    """
    before, length, rest = _three(slots)
    agreement = tf.sign(gradient * before)
    length = tf.where(_is_first(step), tf.zeros_like(theta) + like(lr, theta), length)
    factor = tf.where(
        agreement > 0, like(1.2, theta), tf.where(agreement < 0, like(0.5, theta), like(1.0, theta))
    )
    length = tf.clip_by_value(length * factor, 1e-6, 50.0)
    kept = tf.where(agreement < 0, tf.zeros_like(gradient), gradient)
    return theta - tf.sign(kept) * length, [kept, length, rest]


# adamw is adam; its weight decay differs: `kit.training.optimizers.decayed`, before the rule
RULES = {
    "adam": adam,
    "sgd": sgd,
    "adamax": adamax,
    "rmsprop": rmsprop,
    "adamw": adam,
    "adagrad": adagrad,
    "asgd": asgd,
    "nadam": nadam,
    "radam": radam,
    "rprop": rprop,
}


def _three(slots) -> list:
    return list(slots) if isinstance(slots, (list, tuple)) else tf.unstack(slots, num=3)


def _mean(mean, value, keep: float):
    return keep * mean + (1 - keep) * value


def _moments(gradient, slots) -> list:
    first, second, rest = _three(slots)
    return [_mean(first, gradient, 0.9), _mean(second, tf.square(gradient), 0.999), rest]


def _time(step):
    return tf.cast(step, tf.float64)


def _is_first(step):
    return tf.equal(tf.cast(step, tf.int64), 1)


def _correction(keep: float, step):
    # in float64: in float32 1 - 0.999 ** 1 has three correct digits only
    return 1 - scalar(keep, tf.float64) ** _time(step)
