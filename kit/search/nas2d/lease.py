"""Learning by self-explanation (LeaSE): the architecture gradient through an explainer, its
explanations and an audience taught by them.

Four levels, each reduced to one virtual step (equations 7 to 10): the explainer E takes a training
step; a perturbation delta of the images is moved to change the prediction of E'; the audience W
takes a training step on delta' times the images; the architecture is judged by the validation
losses of E' and W'. The paper prints the derivatives as a chain of matrix products approximated by
central differences. The chain is evaluated from the right, so that it needs three products with
vectors; the last, in the explainer, is shared by both terms. The first two are always exact, by
differentiating their stage once more: their differences, for which the paper prints no radius, are
mostly noise in float32 (ReLU and BatchNorm flip within any step that rounding survives). The last,
equation 12, is exact by default and a difference of the printed radius with `mode="finite"`.

No code of the authors is known and the paper leaves twenty questions open;
`LeaseSettings` names them and says how they are answered by default. Two matter most: the
perturbation must not start at zero, where the printed gradient vanishes together with the
audience's influence, and it ascends, as the text says and the printed minus contradicts.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

# the usual way in
from kit.search.nas2d.explanations import (  # noqa: F401
    Explanation,
    Players,
    explain,
    initial_delta,
)
from kit.search.nas2d.hypergradient import (
    Unrolled,
    check_mode,
    cross_entropy,
    derivatives,
    differentiable,
    unroll,
)

# the usual way in
from kit.search.nas2d.lease_settings import BadLease, LeaseSettings  # noqa: F401
from kit.training.rules import norm, scalar


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


def teach(  # noqa: PLR0913 (two networks, their states and batches)
    explainer: Callable,
    audience: Callable,
    weights: list,
    audience_weights: list,
    arch: list,
    train: tuple,
    delta0: tf.Tensor,
    settings: LeaseSettings,
    *,
    lr: float | tf.Tensor,
    buffers: list | None = None,
    momentum: float = 0.9,
    decay: float = 3e-4,
    quiet: Callable | None = None,
    lecture: tuple | None = None,
) -> Lesson:
    """The audience's step alone, for the epochs that leave the architecture alone; arguments
    as :func:`lease_gradient`.
    """
    players = _players(explainer, audience, quiet, settings)
    step = _virtual_step(
        explainer,
        weights,
        arch,
        train,
        settings=settings,
        lr=lr,
        buffers=buffers,
        momentum=momentum,
        decay=decay,
        mode="finite",
    )
    batch = lecture or train
    explanation, _ = explain(
        players, step.weights, arch, batch, delta0=delta0, settings=settings, product=False
    )
    loss, gradients = derivatives(
        lambda: cross_entropy(audience(audience_weights, explanation.shown), batch[1]),
        audience_weights,
    )
    return Lesson(loss, gradients, explanation)


def lease_gradient(  # noqa: PLR0913 (two networks, their states and batches)
    explainer: Callable,
    audience: Callable,
    weights: list,
    audience_weights: list,
    arch: list,
    train: tuple,
    val: tuple,
    delta0: tf.Tensor,
    settings: LeaseSettings,
    gamma: float | tf.Tensor,
    *,
    lr: float | tf.Tensor,
    audience_lr: float | tf.Tensor,
    buffers: list | None = None,
    momentum: float = 0.9,
    decay: float = 3e-4,
    order: int = 2,
    explainer_weight: float | tf.Tensor = 1.0,
    mode: str = "exact",
    quiet: Callable | None = None,
    lecture: tuple | None = None,
    separate: bool = False,
    plain: Callable | None = None,
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
        How the product in the explainer is taken; "finite" is equation 12.
    quiet : callable or None
        The explainer without skip dropout; None: there is none.
    lecture : pair or None
        Batch for the perturbations and the audience's step, if not `train`.
    separate : bool
        Second order: keep the two terms apart, at the price of one more product.
    plain : callable or None
        `explainer` without ``tf.function``, for the passes that are differentiated twice; `quiet`
        and `audience` should have none.

    Returns
    -------
    LeaseGradient

    Raises
    ------
    kit.search.nas2d.hypergradient.UnknownMode
    """
    check_mode(mode)
    players, batch = (
        _players(plain or explainer, audience, quiet, settings),
        lecture or train,
    )
    step = _virtual_step(
        explainer,
        weights,
        arch,
        train,
        settings=settings,
        lr=lr,
        buffers=buffers,
        momentum=momentum,
        decay=decay,
        mode=mode,
        plain=plain,
    )
    second = (settings.explainer_order or order) == 2
    loss, direct, vector = _judge(explainer, step.weights if second else weights, arch, val, second)
    explanation, pull_back = explain(
        players, step.weights, arch, batch, delta0=delta0, settings=settings
    )
    lesson, audience_loss, to_shown = _lesson(
        players,
        audience_weights,
        arch,
        step=step,
        batch=batch,
        val=val,
        delta0=delta0,
        explanation=explanation,
        settings=settings,
        audience_lr=audience_lr,
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


def _virtual_step(  # noqa: PLR0913 (as `unroll`)
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
        lr=rate,
        buffers=buffers,
        momentum=momentum,
        decay=decay,
        mode=mode,
        r=settings.radius,
        plain=plain,
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


def _lesson(  # noqa: PLR0913 (what levels I and II hand on)
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
):
    """Levels III and IV of the audience: its step, the validation loss of W', and that loss'
    gradient in the shown images.
    """
    labels, shown = batch[1], explanation.shown

    def loss_at(weights):
        return cross_entropy(players.audience(weights, shown), labels)

    loss, gradients, product = differentiable(
        lambda: loss_at(audience_weights), audience_weights, [shown]
    )
    rate = scalar(
        audience_lr if settings.virtual_audience_lr is None else settings.virtual_audience_lr,
        shown.dtype,
    )
    moved = [w - rate * g for w, g in zip(audience_weights, gradients, strict=True)]
    seen = val[0]
    if settings.validation == "explained":
        seen = tf.stop_gradient(
            explain(
                players,
                step.weights,
                arch,
                val,
                delta0=delta0[: tf.shape(val[0])[0]],
                settings=settings,
                product=False,
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
