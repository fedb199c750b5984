"""SGD and Adam as PyTorch computes them, as pure functions on lists of tensors, and the schedules
of the searches.

The publication and the authors of DARTS train with PyTorch. Keras' optimisers of the same name
differ: its SGD keeps the learning rate inside the momentum buffer, its weight decay is decoupled,
its Adam adds epsilon at another place and 1e-7 of it. Here the gradient is clipped by its global
norm first, then L2 is added to it, then the moments are updated; a step
equals PyTorch's to rounding. Nothing is stored: what goes in comes out changed, so that a step can
be part of one traced graph, or be taken virtually.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from kit.errors import KitError

Scalar: TypeAlias = float | tf.Tensor


class BadSchedule(KitError):
    """An epoch outside of the schedule."""


class AdamState(NamedTuple):
    """Moments of :func:`adam`.

    Attributes
    ----------
    step : tf.Tensor
        Steps taken, int64 scalar.
    first, second : list of tf.Tensor
        Running means of the gradients and of their squares, one of each for every tensor.
    """

    step: tf.Tensor
    first: list
    second: list


def adam_state(arch: Sequence[tf.Tensor]) -> AdamState:
    """Return the state before the first step of :func:`adam`."""
    return AdamState(
        tf.zeros((), tf.int64), [tf.zeros_like(a) for a in arch], [tf.zeros_like(a) for a in arch]
    )


def scalar(value: Scalar, dtype: tf.DType) -> tf.Tensor:
    """Return a number or scalar tensor in another dtype (``tf.cast`` alone takes Python floats
    through float32).
    """
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)


def norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Global Euclidean norm of a list of tensors, a scalar."""
    return tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(t)) for t in tensors]))


def clipped(gradients: Sequence[tf.Tensor], most: float | None) -> list:
    """Scale gradients to a global norm of at most `most`, as ``torch.nn.utils.clip_grad_norm_``
    does (1e-6 in the denominator); None leaves them.
    """
    if most is None:
        return list(gradients)
    scale = tf.minimum(most / (norm(gradients) + 1e-6), 1.0)
    return [scale * g for g in gradients]


def sgd(
    weights: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    buffers: Sequence[tf.Tensor],
    lr: Scalar,
    momentum: float = 0.9,
    decay: float = 3e-4,
    clip: float | None = 5.0,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Take one step of stochastic gradient descent: buffer = momentum * buffer + clipped gradient +
    decay * weight; weight -= lr * buffer.

    Parameters
    ----------
    weights, gradients, buffers : list of tf.Tensor
        Same shapes and float dtype; the buffers start at zero.
    lr, momentum, decay : float or scalar tensor
    clip : float or None
        Largest global norm of the raw gradient.

    Returns
    -------
    weights, buffers : list of tf.Tensor
    """
    gradients = clipped(gradients, clip)
    buffers = [
        momentum * b + g + decay * w for w, g, b in zip(weights, gradients, buffers, strict=True)
    ]
    return [w - scalar(lr, w.dtype) * b for w, b in zip(weights, buffers, strict=False)], buffers


def adam(
    arch: Sequence[tf.Tensor],
    gradients: Sequence[tf.Tensor],
    state: AdamState,
    lr: Scalar,
    betas: Sequence[float] = (0.5, 0.999),
    decay: float = 1e-3,
    eps: float = 1e-8,
    clip: float | None = None,
) -> tuple[list[tf.Tensor], AdamState]:
    """Take one step of Adam with L2 added to the gradient before the moments (``torch.optim.Adam``,
    not AdamW).

    Parameters
    ----------
    arch, gradients : list of tf.Tensor
        Same shapes and float dtype.
    state : AdamState
    lr : float or scalar tensor
    betas : pair of float
        Decay rates of the two moments; the defaults are those of DARTS' architecture optimiser.
    decay, eps : float
    clip : float or None
        Largest global norm of the raw gradient (P-DARTS: 5).

    Returns
    -------
    arch : list of tf.Tensor
    state : AdamState
    """
    gradients = [g + decay * a for a, g in zip(arch, clipped(gradients, clip), strict=True)]
    step = state.step + 1
    first = [betas[0] * m + (1 - betas[0]) * g for m, g in zip(state.first, gradients, strict=True)]
    second = [
        betas[1] * v + (1 - betas[1]) * tf.square(g)
        for v, g in zip(state.second, gradients, strict=True)
    ]
    # in float64: in float32 1 - 0.999 ** 1 has three correct digits only
    bias = [1 - scalar(b, tf.float64) ** tf.cast(step, tf.float64) for b in betas]
    rate, root = scalar(lr, tf.float64) / bias[0], tf.sqrt(bias[1])
    moved = [
        a - tf.cast(rate, a.dtype) * m / (tf.sqrt(v) / tf.cast(root, a.dtype) + eps)
        for a, m, v in zip(arch, first, second, strict=False)
    ]
    return moved, AdamState(step, first, second)


def cosine(epoch: int, epochs: int, lr: float, lr_min: float = 0.0) -> float:
    """Learning rate of an epoch (from 0) of a cosine from `lr` to `lr_min`; the last epoch is one
    step short of `lr_min`.

    Raises
    ------
    BadSchedule
    """
    _check(epoch, epochs)
    return lr_min + (lr - lr_min) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def skip_rate(epoch: int, base: float, epochs: int = 25, warm_up: int = 10) -> float:
    """Rate of P-DARTS' dropout after the identity: falls linearly while only weights are trained,
    then starts at `base` and decays by exp(-0.2).

    Parameters
    ----------
    epoch : int
        From 0, below `epochs`.
    base : float
        Rate of the stage (0.1, 0.4 and 0.7 in the authors' instructions).
    epochs, warm_up : int
        Epochs of the stage, and those of them that leave the architecture alone.

    Raises
    ------
    BadSchedule
    """
    _check(epoch, epochs)
    return (
        base * (epochs - epoch - 1) / epochs
        if epoch < warm_up
        else base * math.exp(-0.2 * (epoch - warm_up))
    )


def drop_path(epoch: int, epochs: int, p: float) -> float:
    """Probability of dropping a path in an epoch (from 0) of the evaluation phase: rises linearly
    from 0 towards `p`.

    Raises
    ------
    BadSchedule
    """
    _check(epoch, epochs)
    return p * epoch / epochs


def _check(epoch: int, epochs: int) -> None:
    if not 0 <= epoch < epochs:
        raise BadSchedule(
            f"epoch {epoch} is not one of the {epochs} epochs of the schedule; epochs count from 0."
        )
