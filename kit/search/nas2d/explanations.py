"""Level II of LeaSE: perturbations that change the explainer's prediction, and the images made of
them that the audience is shown.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from kit.search.nas2d.hypergradient import derivatives, differentiable
from kit.search.nas2d.lease_settings import LeaseSettings
from kit.training.rules import norm


class Explanation(NamedTuple):
    """What the explainer shows the audience.

    Attributes
    ----------
    delta : tf.Tensor
        delta', the perturbations after their step, as the images.
    shown : tf.Tensor
        The audience's training images.
    change : tf.Tensor
        O_delta, change of the prediction at the initial perturbation.
    norm : tf.Tensor
        Norm of its gradient in the perturbation.
    """

    delta: tf.Tensor
    shown: tf.Tensor
    change: tf.Tensor
    norm: tf.Tensor


class Players(NamedTuple):
    """The networks of a step, as functions.

    Attributes
    ----------
    explainer : callable
        (weights, arch, x) -> logits, for training and validation.
    audience : callable
        (audience weights, x) -> logits.
    quiet : callable
        Like `explainer`, for the perturbations: without skip dropout.
    """

    explainer: Callable
    audience: Callable
    quiet: Callable


def initial_delta(images: tf.Tensor, settings: LeaseSettings, seed: tf.Tensor) -> tf.Tensor:
    """Perturbations before their step, as the images; `seed` is an int32 tensor (2,). For
    "kept" this is each image's first.
    """
    if settings.initial == "zero":
        return tf.zeros_like(images)
    most = settings.initial_fraction * settings.tau
    return tf.random.stateless_uniform(tf.shape(images), seed, -most, most, images.dtype)


def _change(quiet, weights, arch, batch, delta, settings):
    """O_delta: cross-entropy between the predictions for perturbed and clean images (level II)."""
    x, labels = batch
    perturbed = quiet(weights, arch, x + delta)
    if settings.target == "label":
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, perturbed)
    else:
        clean = quiet(weights, arch, x)
        if settings.target == "predicted":
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.argmax(clean, -1), perturbed)
        else:
            expected = tf.nn.softmax(clean)
            expected = (
                tf.stop_gradient(expected) if settings.target == "soft_constant" else expected
            )
            losses = -tf.reduce_sum(expected * tf.nn.log_softmax(perturbed), -1)
    return tf.reduce_sum(losses) if settings.reduction == "sum" else tf.reduce_mean(losses)


def _moved(delta0, gradient, settings):
    """Equation (8): the perturbation after its step."""
    if settings.step == "sign":
        step = settings.tau * tf.sign(gradient)
    elif settings.step == "linf":
        step = gradient * tf.stop_gradient(
            settings.tau / (tf.reduce_max(tf.abs(gradient), [1, 2, 3], keepdims=True) + 1e-12)
        )
    else:
        step = gradient
    delta = delta0 + settings.sign * settings.step_rate * step
    return tf.clip_by_value(delta, -settings.tau, settings.tau) if settings.clip else delta


def shown(delta: tf.Tensor, x: tf.Tensor, settings: LeaseSettings) -> tf.Tensor:
    """The images that the audience sees: the perturbation times the image (equation 9)."""
    if settings.pixels == "standardised":
        x = (x - settings.pixel_mean) / settings.pixel_deviation
    if settings.product == "raw":
        return delta * x
    if settings.product == "normalised":
        return (
            tf.abs(delta)
            * x
            / tf.stop_gradient(tf.reduce_max(tf.abs(delta), [1, 2, 3], keepdims=True) + 1e-12)
        )
    return (tf.abs(delta) if settings.product == "absolute" else delta) / settings.tau * x


def explain(
    players: Players,
    weights: list,
    arch: list,
    batch: tuple,
    delta0: tf.Tensor,
    settings: LeaseSettings,
    *,
    product: bool = True,
) -> tuple:
    """Level II, and a function that takes the gradient in the shown images back to (E',
    architecture), exactly; None with ``product=False``, which is cheaper.
    """
    also = [*weights, *arch] if settings.through == "total" else weights

    def change(delta):
        return _change(players.quiet, weights, arch, batch, delta=delta, settings=settings)

    if product:
        value, (gradient,), times = differentiable(lambda: change(delta0), [delta0], also)
    else:
        value, (gradient,) = derivatives(lambda: change(delta0), [delta0])

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(gradient)
        delta = _moved(delta0, gradient, settings)
        images = shown(delta, batch[0], settings)

    def pull_back(vector):
        back = times(
            [
                tape.gradient(
                    images,
                    gradient,
                    output_gradients=vector,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            ]
        )
        return back[: len(weights)], back[len(weights) :]

    return Explanation(delta, images, value, norm([gradient])), pull_back if product else None
