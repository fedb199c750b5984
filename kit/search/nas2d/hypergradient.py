"""Architecture gradients of DARTS, of first and second order, for any network that is a pure
function of its weights.

The second order differentiates the validation loss through one virtual training step (equation 11
of the LeaSE paper). The authors' code approximates the product of second derivatives that this
takes by central differences with a radius of 0.01 in weight space. In networks with ReLU and max
pooling these steps cross kinks, and on small networks the difference is off by more than its size
(163 % of the whole gradient in the tiny DARTS supernet of the tests). Here the product is exact by
default, by differentiating the weight gradient once more along the one vector that is needed, which
costs no more than the two passes of the difference; `mode="finite"` is the published approximation.
Weights that are tensors, not variables, may be virtual.

A `forward` wrapped in ``tf.function`` is traced, and its derivatives are built, once for all the
passes of one step. Only the pass that is differentiated twice should not be: TensorFlow then copies
the function with every intermediate result as an output, which took minutes where the plain
function took 10 s. Give it as `plain`.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from kit.errors import KitError
from kit.training.rules import norm, scalar

MODES = ("exact", "finite")
RADIUS = 0.01


class UnknownMode(KitError):
    """There is no such way to take second derivatives."""


class ArchGradient(NamedTuple):
    """Gradient of the validation loss in the architecture; a NamedTuple, so that a ``tf.function``
    can return it.

    Attributes
    ----------
    gradients : list of tf.Tensor
        As `arch`.
    loss : tf.Tensor
        Validation loss, at the virtual weights for the second order.
    norm : tf.Tensor
        Global norm of `gradients`.
    direct : list of tf.Tensor
        Part of `gradients` that does not go through the weights; all of it for the first order.
    train_loss, vector_norm : tf.Tensor or None
        Training loss at the given weights, and norm of the validation loss' gradient in the virtual
        weights; second order only.
    """

    gradients: list
    loss: tf.Tensor
    norm: tf.Tensor
    direct: list
    train_loss: tf.Tensor | None = None
    vector_norm: tf.Tensor | None = None


class Unrolled(NamedTuple):
    """A virtual training step and its derivative in the architecture.

    Attributes
    ----------
    weights : list of tf.Tensor
        After the step.
    loss : tf.Tensor
        Training loss before it.
    gradients : list of tf.Tensor
        Of the training loss in the weights, not clipped.
    pull_back : callable
        (vector as `weights`) -> list as `arch`: how the weights after the step depend on the
        architecture, transposed, times the vector.
    """

    weights: list
    loss: tf.Tensor
    gradients: list
    pull_back: Callable


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy of logits (N, classes) against int labels (N,)."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def derivatives(function: Callable, at: list) -> tuple:
    """Value of a function without arguments and its gradients in the tensors of `at` (zeros where
    it does not depend on them).
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(at)
        value = function()
    return value, tape.gradient(value, at, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def differentiable(function: Callable, at: list, also: list) -> tuple:
    """Like :func:`derivatives`, with a third result: vector as `at` -> the mixed second derivatives
    (at, also) times it, exactly, as `also`.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
        outer.watch(also)
        value, gradients = derivatives(function, at)
    return (
        value,
        gradients,
        lambda v: outer.gradient(
            gradients, also, output_gradients=v, unconnected_gradients=tf.UnconnectedGradients.ZERO
        ),
    )


def central_difference(
    gradients_at: Callable, point: list, vector: list, radius: float = RADIUS
) -> list:
    """Approximate the derivative of gradients along a vector; zeros where the vector is zero.

    Parameters
    ----------
    gradients_at : callable
        (list as `point`) -> list of tensors.
    point, vector : list of tf.Tensor
    radius : float
        Length of the step to either side, whatever the vector's length.
    """
    length = norm(vector)
    moves = length > 0
    step = radius / tf.where(moves, length, tf.ones_like(length))
    ahead = gradients_at([p + step * v for p, v in zip(point, vector, strict=True)])
    behind = gradients_at([p - step * v for p, v in zip(point, vector, strict=True)])
    factor = tf.where(moves, 0.5 / step, tf.zeros_like(step))
    return [factor * (a - b) for a, b in zip(ahead, behind, strict=True)]


def check_mode(mode: str) -> None:
    """Raise `UnknownMode` for anything but "exact" and "finite"."""
    if mode not in MODES:
        raise UnknownMode(f"mode is {mode!r}; choose one of {', '.join(MODES)}.")


def first_order(forward: Callable, weights: list, arch: list, val: tuple) -> ArchGradient:
    """Gradient of the validation loss at the given weights.

    Parameters
    ----------
    forward : callable
        (weights, arch, x) -> logits (N, classes).
    weights, arch : list of tf.Tensor
    val : pair
        Images (N, H, W, C) and int labels (N,).

    Returns
    -------
    ArchGradient
    """
    loss, gradients = derivatives(
        lambda: cross_entropy(forward(weights, arch, val[0]), val[1]), arch
    )
    return ArchGradient(gradients, loss, norm(gradients), gradients)


def unroll(  # noqa: PLR0913 (the state of an optimiser, as in its formula)
    forward: Callable,
    weights: list,
    arch: list,
    train: tuple,
    lr: float | tf.Tensor,
    buffers: list | None = None,
    momentum: float = 0.9,
    decay: float = 3e-4,
    mode: str = "exact",
    r: float = RADIUS,
    plain: Callable | None = None,
) -> Unrolled:
    """Take a virtual step of SGD, of which only the gradient depends on the architecture; arguments
    as :func:`second_order`.
    """
    check_mode(mode)
    network = plain if plain and mode == "exact" else forward

    def loss_at(weights):
        return cross_entropy(network(weights, arch, train[0]), train[1])

    if mode == "exact":
        loss, gradients, product = differentiable(lambda: loss_at(weights), weights, arch)
    else:
        loss, gradients = derivatives(lambda: loss_at(weights), weights)

        def product(v):
            return central_difference(
                lambda point: derivatives(lambda: loss_at(point), arch)[1], weights, v, r
            )

    rate = scalar(lr, weights[0].dtype)
    steps = [g + decay * w for g, w in zip(gradients, weights, strict=True)]
    if buffers is not None:
        steps = [s + momentum * b for s, b in zip(steps, buffers, strict=True)]
    moved = [w - rate * s for w, s in zip(weights, steps, strict=False)]
    return Unrolled(moved, loss, gradients, lambda v: [-rate * p for p in product(v)])


def second_order(  # noqa: PLR0913 (the state of an optimiser, as in its formula)
    forward: Callable,
    weights: list,
    arch: list,
    train: tuple,
    val: tuple,
    lr: float | tf.Tensor,
    buffers: list | None = None,
    momentum: float = 0.9,
    decay: float = 3e-4,
    mode: str = "exact",
    r: float = RADIUS,
    plain: Callable | None = None,
) -> ArchGradient:
    """Gradient of the validation loss after one virtual training step w' = w - lr * (momentum *
    buffer + gradient + decay * w).

    Parameters
    ----------
    forward, weights, arch, val : see :func:`first_order`
    train : pair
        Images and labels of the virtual step.
    lr : float or scalar tensor
    buffers : list of tf.Tensor or None
        Momentum buffers of the weight optimiser; None for zeros.
    momentum, decay : float
        Constants with respect to the architecture; the gradient is not clipped here, as in the
        authors' code.
    mode : {"exact", "finite"}
    r : float
        Radius of the central difference.
    plain : callable or None
        `forward` without ``tf.function``, for the pass that the exact mode differentiates twice.

    Returns
    -------
    ArchGradient

    Raises
    ------
    UnknownMode
    """
    step = unroll(
        forward,
        weights,
        arch,
        train,
        lr=lr,
        buffers=buffers,
        momentum=momentum,
        decay=decay,
        mode=mode,
        r=r,
        plain=plain,
    )
    loss, gradients = derivatives(
        lambda: cross_entropy(forward(step.weights, arch, val[0]), val[1]), [*arch, *step.weights]
    )
    direct, vector = gradients[: len(arch)], gradients[len(arch) :]
    total = [d + p for d, p in zip(direct, step.pull_back(vector), strict=False)]
    return ArchGradient(
        total, loss, norm(total), direct, train_loss=step.loss, vector_norm=norm(vector)
    )
