"""Normalisations and activations of the 3D networks, each one pass forward and one back; they have
the weights of Keras' own layers.

Keras composes GroupNormalization, the BatchNormalization of volumes and Mish of a dozen TensorFlow
operations, and on a processor each reads and writes all maps: up to a fifth of a step in networks
of 3x3x3 convolutions (`kit.benchmarks.nas3d`). Here a normalisation and the activation behind it
are one layer with the gradient written out; XLA compiles the two formulas, about 0.3 s once for a
shape and an activation, whatever the network. On a GPU nothing is compiled here, since
`kit.compat.use_xla` leaves the whole step to XLA there.
"""

import functools
import math
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from kit import compat

ACTIVATIONS = ("linear", "relu", "mish")
COMPILED_VOXELS = 16**3  # of a volume
_SPACE = (1, 2, 3)


def _activate(z, activation: str):
    """Value and slope of an activation."""
    if activation == "linear":
        return z, tf.ones_like(z)
    if activation == "relu":
        return tf.nn.relu(z), tf.cast(z > 0, z.dtype)
    e = tf.exp(tf.minimum(z, 20.0))  # tanh(log(1 + e)) = n / (n + 2), n = e (e + 2)
    n = e * (e + 2.0)
    ratio = n / (n + 2.0)
    return z * ratio, ratio + z * (4.0 * e * (e + 1.0) / tf.square(n + 2.0))


@functools.cache
def _compiled(function):
    return tf.function(function, jit_compile=not compat.use_xla(), autograph=False)


def _chosen(function, x):
    """The function, compiled where volumes are large enough for that to pay: 0.3 s for every shape,
    which small volumes never win back.
    """
    return _compiled(function) if math.prod(x.shape[1:4]) >= COMPILED_VOXELS else function


def _normalised(x, gamma, beta, epsilon: float, axes: tuple, activation: str):
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=True)
    root = tf.math.rsqrt(variance + epsilon)
    return _activate((x - mean) * (root * gamma) + beta, activation)[0], mean, variance, root


def _normalised_gradient(dy, x, mean, root, gamma, beta, axes: tuple, activation: str):
    """Gradients to x, gamma and beta, by the usual formula on the gradient behind the
    activation.
    """
    scaled = (x - mean) * root
    dz = dy * _activate(scaled * gamma + beta, activation)[1]
    along, whole = (tf.reduce_mean(part, axes, keepdims=True) for part in (dz * scaled, dz))
    count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
    dx = root * gamma * (dz - whole - scaled * along)
    return (
        dx,
        tf.reduce_sum(along, (0, *_SPACE)) * count,
        tf.reduce_sum(whole, (0, *_SPACE)) * count,
    )


def normalise(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
    axes: tuple,
    activation: str = "linear",
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise over some axes, scale, shift and activate.

    Parameters
    ----------
    x : tensor (N, D, H, W, C)
    gamma, beta : tensor (C,)
    epsilon : float
        Added to the biased variance.
    axes : tuple of int
        (1, 2, 3) for instances, (0, 1, 2, 3) for batches.
    activation : {"linear", "relu", "mish"}

    Returns
    -------
    y, mean, variance : tensor
        As x; the moments keep the axes with length 1 and carry no gradient.
    """

    @tf.custom_gradient
    def run(x, gamma, beta):
        y, mean, variance, root = _chosen(_normalised, x)(
            x, gamma, beta, epsilon=epsilon, axes=axes, activation=activation
        )
        return (y, mean, variance), lambda dy, *_: _chosen(_normalised_gradient, x)(
            dy, x, mean, root, gamma, beta=beta, axes=axes, activation=activation
        )

    y, mean, variance = run(x, gamma, beta)
    return y, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _value(x, activation: str):
    return _activate(x, activation)[0]


def _slope(dy, x, activation: str):
    return dy * _activate(x, activation)[1]


def _affine(x, scale, shift, activation: str):
    return _activate(x * scale + shift, activation)[0]


def activate(x: tf.Tensor, activation: str) -> tf.Tensor:
    """An activation that keeps nothing but its input for the gradient."""
    if activation != "mish":
        return _value(x, activation)
    return tf.custom_gradient(
        lambda x: (
            _chosen(_value, x)(x, activation),
            lambda dy: _chosen(_slope, x)(dy, x, activation),
        )
    )(x)


class _Activated:
    """What the layers share: the name of an activation and the shape."""

    def _take(self, activation: str) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {activation!r}; choose one of {', '.join(ACTIVATIONS)}."
            )
        self.activation = activation

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        of_layer = super().get_config()  # type: ignore[misc]  # beside a layer in the classes
        return {**of_layer, "activation": self.activation}


@keras.saving.register_keras_serializable(package="kit")
class InstanceNorm(_Activated, layers.Layer):
    """Affine instance normalisation of volumes (N, D, H, W, C), then an activation; `gamma` and
    `beta` as in ``GroupNormalization(groups=-1)``.

    Parameters
    ----------
    epsilon : float
        Added to the biased variance.
    activation : {"linear", "relu", "mish"}
    """

    def __init__(self, epsilon: float = 1e-5, activation: str = "linear", **options: Any) -> None:
        super().__init__(**options)
        self.epsilon = float(epsilon)
        self._take(activation)

    def build(self, input_shape: tuple) -> None:
        self.gamma = self.add_weight(name="gamma", shape=input_shape[-1:], initializer="ones")
        self.beta = self.add_weight(name="beta", shape=input_shape[-1:], initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return normalise(
            inputs,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
            axes=_SPACE,
            activation=self.activation,
        )[0]

    def get_config(self) -> dict:
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="kit")
class BatchNorm(_Activated, layers.BatchNormalization):
    """Keras' `BatchNormalization` of volumes (N, D, H, W, C), then an activation; centre, scale and
    channels last as by default, no masks.
    """

    def __init__(self, activation: str = "linear", **options: Any) -> None:
        super().__init__(**options)
        self._take(activation)

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        if training and self.trainable:
            y, *moments = normalise(
                inputs,
                gamma,
                beta,
                epsilon=self.epsilon,
                axes=(0, *_SPACE),
                activation=self.activation,
            )
            for moving, now in zip((self.moving_mean, self.moving_variance), moments, strict=True):
                moving.assign(
                    moving * self.momentum + tf.reshape(now, (-1,)) * (1.0 - self.momentum)
                )
            return y
        scale = gamma * tf.math.rsqrt(tf.convert_to_tensor(self.moving_variance) + self.epsilon)
        return _affine(
            inputs, scale, beta - tf.convert_to_tensor(self.moving_mean) * scale, self.activation
        )


@keras.saving.register_keras_serializable(package="kit")
class Activate(_Activated, layers.Layer):
    """An activation of `ACTIVATIONS`."""

    def __init__(self, activation: str = "linear", **options: Any) -> None:
        super().__init__(**options)
        self._take(activation)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return activate(inputs, self.activation)
