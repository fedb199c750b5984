"""Learning by self-explanation (LeaSE): the architecture gradient through an explainer, its
explanations and an audience taught by them.

Four levels, each reduced to one virtual step (card section 6): the explainer E takes a training
step; a perturbation delta of the images is moved to change the prediction of E'; the audience W
takes a training step on delta' times the images; the architecture is judged by the validation
losses of E' and W'. The paper prints the derivatives as a chain of matrix products approximated by
central differences. The chain is evaluated from the right, so that it needs three products with
vectors; the last, in the explainer, is shared by both terms. All three are exact by default, by
differentiating each stage once more, which costs no more than the differences.

No code of the authors is known and the paper leaves twenty questions open (A1 to A20 of the card);
`LeaseSettings` answers them by default with the card's recommendations. Two matter most: the
perturbation must not start at zero, where the printed gradient vanishes together with the
audience's influence, and it ascends, as the text says and the printed minus contradicts.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from kit.search.nas2d.hypergradient import (
    Unrolled,
    central_difference,
    check_mode,
    cross_entropy,
    derivatives,
    differentiable,
    unroll,
)

# the usual way in
from kit.search.nas2d.lease_settings import BadLease, LeaseSettings  # noqa: F401
from kit.training.rules import norm, scalar


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


class Lesson(NamedTuple):
    """The audience's training step: loss and gradient (not clipped) in its weights, and what it was
    shown.
    """

    loss: tf.Tensor
    gradients: list
    explanation: Explanation


class LeaseGradient(NamedTuple):
    """Architecture gradient of LeaSE and what is worth logging of it; a NamedTuple, so that a
    ``tf.function`` can return it.

    Attributes
    ----------
    gradients : list of tf.Tensor
        As `arch`: weight of the explainer times its term, plus gamma times that of the audience.
    explainer, audience : list of tf.Tensor or None
        The two terms without their weights; None where both share one product (second order, not
        `separate`).
    ratio : tf.Tensor
        Norm of the audience's term, times gamma, over that of the explainer's; where they share a
        product, of the vectors that enter it.
    loss, audience_loss : tf.Tensor
        Validation losses of E' (first order: E) and W'.
    train_loss : tf.Tensor
        Training loss of E.
    lesson : Lesson
        The audience's step; its gradient serves the real step too.
    """

    gradients: list
    explainer: list | None
    audience: list | None
    ratio: tf.Tensor
    loss: tf.Tensor
    audience_loss: tf.Tensor
    train_loss: tf.Tensor
    lesson: Lesson


class Players(NamedTuple):
    """The networks of a step, as functions.

    Attributes
    ----------
    explainer : callable
        (weights, arch, x) -> logits, for training and validation.
    audience : callable
        (audience weights, x) -> logits.
    quiet : callable
        Like `explainer`, for the perturbations: without skip dropout (A18).
    """

    explainer: Callable
    audience: Callable
    quiet: Callable


def initial_delta(images, settings: LeaseSettings, seed) -> tf.Tensor:
    """Perturbations before their step (A2), as the images; `seed` is an int32 tensor (2,). For
    "kept" this is each image's first.
    """
    if settings.initial == "zero":
        return tf.zeros_like(images)
    most = settings.initial_fraction * settings.tau
    return tf.random.stateless_uniform(tf.shape(images), seed, -most, most, images.dtype)


def teach(
    explainer,
    audience,
    weights,
    audience_weights,
    arch,
    train,
    delta0,
    settings: LeaseSettings,
    *,
    lr,
    buffers=None,
    momentum=0.9,
    decay=3e-4,
    quiet=None,
    lecture=None,
) -> Lesson:
    """The audience's step alone, for the epochs that leave the architecture alone (A19); arguments
    as :func:`lease_gradient`.
    """
    players = _players(explainer, audience, quiet, settings)
    step = _virtual_step(
        explainer, weights, arch, train, settings, lr, buffers, momentum, decay, "finite"
    )
    batch = lecture or train
    explanation, _ = _explain(
        players, step.weights, arch, batch, delta0, settings, "finite"
    )  # no product is asked for: the cheaper to build
    loss, gradients = derivatives(
        lambda: cross_entropy(audience(audience_weights, explanation.shown), batch[1]),
        audience_weights,
    )
    return Lesson(loss, gradients, explanation)


def lease_gradient(
    explainer,
    audience,
    weights,
    audience_weights,
    arch,
    train,
    val,
    delta0,
    settings: LeaseSettings,
    gamma,
    *,
    lr,
    audience_lr,
    buffers=None,
    momentum=0.9,
    decay=3e-4,
    order=2,
    explainer_weight=1.0,
    mode="exact",
    quiet=None,
    lecture=None,
    separate=False,
    plain=None,
) -> LeaseGradient:
    """Architecture gradient of equation (10).

    Parameters
    ----------
    explainer : callable
        (weights, arch, x) -> logits (N, classes).
    audience : callable
        (audience weights, x) -> logits (N, classes).
    weights, audience_weights, arch : list of tf.Tensor
    train, val : pair
        Images (N, H, W, C), pixels in [0, 1], and int labels (N,).
    delta0 : tf.Tensor
        Perturbations before their step, as the images they are for; see :func:`initial_delta`.
    settings : LeaseSettings
    gamma, explainer_weight : float or scalar tensor
        Weights of the audience's and of the explainer's validation loss; tensors, to serve all
        gammas, the base method (0, 1) and the audience alone (1, 0) with one trace.
    lr, audience_lr : float or scalar tensor
        Current rates, for the virtual steps.
    buffers, momentum, decay : see :func:`kit.search.nas2d.hypergradient.second_order`
    order : {1, 2}
        Of the explainer's term in the base method. The first order takes it at E, as PC-DARTS and
        P-DARTS do, the second at E'; the audience's term goes through E' always.
    mode : {"exact", "finite"}
    quiet : callable or None
        The explainer without skip dropout; None: there is none.
    lecture : pair or None
        Batch for the perturbations and the audience's step, if not `train` (A15).
    separate : bool
        Second order: keep the two terms apart, at the price of one more product.
    plain : callable or None
        `explainer` without ``tf.function``, for the pass that the exact mode differentiates twice;
        `quiet` and `audience` should have none in this mode.

    Returns
    -------
    LeaseGradient

    Raises
    ------
    kit.search.nas2d.hypergradient.UnknownMode
    """
    check_mode(mode)
    players, batch = (
        _players(plain if plain and mode == "exact" else explainer, audience, quiet, settings),
        lecture or train,
    )
    step = _virtual_step(
        explainer, weights, arch, train, settings, lr, buffers, momentum, decay, mode, plain
    )
    second = (settings.explainer_order or order) == 2
    loss, direct, vector = _judge(explainer, step.weights if second else weights, arch, val, second)
    explanation, pull_back = _explain(players, step.weights, arch, batch, delta0, settings, mode)
    lesson, audience_loss, to_shown = _lesson(
        players,
        audience_weights,
        arch,
        step,
        batch,
        val,
        delta0,
        explanation,
        settings,
        audience_lr,
        mode,
    )
    through_weights, through_arch = pull_back(to_shown)
    weigh = _Weighing(
        step.pull_back,
        direct,
        scalar(explainer_weight, direct[0].dtype),
        scalar(gamma, direct[0].dtype),
    )
    combined = (
        weigh.merged(vector, through_weights, through_arch)
        if second and not separate
        else weigh.apart(vector, through_weights, through_arch)
    )
    return LeaseGradient(*combined, loss, audience_loss, step.loss, lesson)


def _players(explainer, audience, quiet, settings) -> Players:
    return Players(
        explainer, audience, quiet if quiet and settings.quiet_explanations else explainer
    )


def _virtual_step(
    explainer, weights, arch, train, settings, lr, buffers, momentum, decay, mode, plain=None
) -> Unrolled:
    rate = lr if settings.virtual_explainer_lr is None else settings.virtual_explainer_lr
    if not settings.virtual_momentum:
        buffers, decay = None, 0.0
    return unroll(
        explainer,
        weights,
        arch,
        train,
        rate,
        buffers,
        momentum,
        decay,
        mode,
        settings.radius,
        plain,
    )


def _judge(explainer, weights, arch, val, second):
    """Validation loss, its gradient in the architecture and, for the second order, in the
    weights.
    """
    loss, gradients = derivatives(
        lambda: cross_entropy(explainer(weights, arch, val[0]), val[1]),
        [*arch, *weights] if second else arch,
    )
    return loss, gradients[: len(arch)], gradients[len(arch) :] or None


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


def _shown(delta, x, settings):
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


def _explain(players, weights, arch, batch, delta0, settings, mode):
    """Level II, and a function that takes the gradient in the shown images back to (E',
    architecture).
    """
    also = [*weights, *arch] if settings.through == "total" else weights

    def change(delta):
        return _change(players.quiet, weights, arch, batch, delta, settings)

    if mode == "exact":
        value, (gradient,), product = differentiable(lambda: change(delta0), [delta0], also)
    else:
        value, (gradient,) = derivatives(lambda: change(delta0), [delta0])
        product = lambda v: central_difference(
            lambda at: derivatives(lambda: change(at[0]), also)[1], [delta0], v, settings.radius
        )
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(gradient)
        delta = _moved(delta0, gradient, settings)
        shown = _shown(delta, batch[0], settings)

    def pull_back(vector):
        back = product(
            [
                tape.gradient(
                    shown,
                    gradient,
                    output_gradients=vector,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            ]
        )
        return back[: len(weights)], back[len(weights) :]

    return Explanation(delta, shown, value, norm([gradient])), pull_back


def _lesson(
    players,
    audience_weights,
    arch,
    step,
    batch,
    val,
    delta0,
    explanation,
    settings,
    audience_lr,
    mode,
):
    """Levels III and IV of the audience: its step, the validation loss of W', and that loss'
    gradient in the shown images.
    """
    labels, shown = batch[1], explanation.shown

    def loss_at(weights):
        return cross_entropy(players.audience(weights, shown), labels)

    if mode == "exact":
        loss, gradients, product = differentiable(
            lambda: loss_at(audience_weights), audience_weights, [shown]
        )
    else:
        loss, gradients = derivatives(lambda: loss_at(audience_weights), audience_weights)
        product = lambda v: central_difference(
            lambda at: derivatives(lambda: loss_at(at), [shown])[1],
            audience_weights,
            v,
            settings.radius,
        )
    rate = scalar(
        audience_lr if settings.virtual_audience_lr is None else settings.virtual_audience_lr,
        shown.dtype,
    )
    moved = [w - rate * g for w, g in zip(audience_weights, gradients, strict=True)]
    seen = val[0]
    if settings.validation == "explained":
        seen = tf.stop_gradient(
            _explain(
                players, step.weights, arch, val, delta0[: tf.shape(val[0])[0]], settings, "finite"
            )[0].shown
        )
    audience_loss, vector = derivatives(
        lambda: cross_entropy(players.audience(moved, seen), val[1]), moved
    )
    (back,) = product(vector)
    return Lesson(loss, gradients, explanation), audience_loss, -rate * back


class _Weighing(NamedTuple):
    """Puts the terms of level IV together."""

    pull_back: Callable
    direct: list
    explainer_weight: tf.Tensor
    gamma: tf.Tensor

    def merged(self, vector, through_weights, through_arch):
        """One product for both terms, which is linear in its vector."""
        entering = [
            self.explainer_weight * v + self.gamma * g
            for v, g in zip(vector, through_weights, strict=True)
        ]
        total = [
            self.explainer_weight * d + p
            for d, p in zip(self.direct, self.pull_back(entering), strict=False)
        ]
        if through_arch:
            total = [t + self.gamma * a for t, a in zip(total, through_arch, strict=True)]
        return total, None, None, self._ratio(vector, through_weights)

    def apart(self, vector, through_weights, through_arch):
        """A product for each term; none for an explainer's term of first order, whose `vector` is
        None.
        """
        explainer = (
            self.direct
            if vector is None
            else [d + p for d, p in zip(self.direct, self.pull_back(vector), strict=False)]
        )
        audience = self.pull_back(through_weights)
        if through_arch:
            audience = [p + a for p, a in zip(audience, through_arch, strict=True)]
        total = [
            self.explainer_weight * e + self.gamma * a
            for e, a in zip(explainer, audience, strict=False)
        ]
        return total, explainer, audience, self._ratio(explainer, audience)

    def _ratio(self, explainer, audience):
        return self.gamma * norm(audience) / norm(explainer)
