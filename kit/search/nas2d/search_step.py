"""The steps of a search, each traced once and kept for every later search of the same shapes.

The reference codes run eagerly. A traced step pays only if it is used often, and tracing a supernet
takes longer than a quick search, so the steps are pure functions of tensors that know neither
method nor seed: learning rates, gamma, dropout rate and seeds are arguments, and a step is kept by
what changes its graph. The supernet is traced by itself, once for all passes of all steps; the
weight step serves DARTS and every LeaSE on it, the LeaSE step every gamma, and also the ablation
without the explainer's loss, whose weight is an argument too. Nothing of this is in a publication.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kit.search.nas2d import audience, hypergradient, kept, lease, memory, supernet
from kit.search.nas2d.hypergradient import cross_entropy
from kit.search.nas2d.lease_settings import LeaseSettings
from kit.training import rules


class Rates(NamedTuple):
    """Scalars of a step, float32 but for the int32 (2,) seed of the dropout.

    `own` is the weight of the explainer's validation loss (0 for the audience alone); `moving` is 0
    where the architecture is frozen, else 1.
    """

    lr: tf.Tensor
    audience_lr: tf.Tensor
    arch_lr: tf.Tensor
    skip_rate: tf.Tensor
    gamma: tf.Tensor
    own: tf.Tensor
    moving: tf.Tensor
    seed: tf.Tensor


@dataclass(frozen=True)
class Kind:
    """Everything that changes the graph of a step; for the attributes see
    :class:`kit.search.nas2d.search_config.SearchConfig`.

    `scale` brings uint8 images to [0, 1]; `sgd` is (momentum, decay, clip); `adam` is (betas,
    decay, clip).
    """

    space: supernet.Space
    size: int
    scale: float
    sgd: tuple
    adam: tuple
    order: int = 1
    mode: str = "exact"
    separate: bool = False
    lease: LeaseSettings | None = None
    audience: str = ""
    options: tuple = ()
    traced: bool = True


def _passes(kind: Kind) -> float:
    """Passes that the graph of an architecture step lays out."""
    if kind.lease is not None:
        return memory.PASSES[f"lease_{kind.mode}"]
    return memory.PASSES["first" if kind.order == 1 else kind.mode]


@kept.by_memory(lambda space, size: 2)
def explainer(space: supernet.Space, size: int) -> Callable:
    """The supernet (weights, arch, x, skip_rate, seed) -> logits, traced by itself: its derivatives
    too are built once for all passes of all steps.
    """
    arguments = [
        [tf.TensorSpec(shape) for _, shape in supernet.weight_shapes(space)],
        [tf.TensorSpec(a.shape) for a in supernet.initial_arch(space, 0)],
        tf.TensorSpec((None, size, size, space.input_channels)),
        tf.TensorSpec(()),
        tf.TensorSpec((2,), tf.int32),
    ]

    def forward(weights, arch, x, skip_rate, seed):
        dropped = {"skip_rate": skip_rate, "seed": seed} if space.family == "pdarts" else {}
        return supernet.forward(space, weights, arch, x, **dropped)

    return tf.function(forward, input_signature=arguments, autograph=False)


@kept.by_memory(lambda *_: 0)
def listener(name: str, size: int, space: supernet.Space, options: tuple) -> Callable:
    """The audience (weights, x) -> logits, traced by itself."""
    arguments = [
        _audience_specs(name, size, space, options),
        tf.TensorSpec((None, size, size, space.input_channels)),
    ]
    return tf.function(
        lambda weights, x: audience.forward(name, weights, x),
        input_signature=arguments,
        autograph=False,
    )


def _audience_specs(name, size, space, options) -> list:
    return [
        tf.TensorSpec(shape)
        for _, shape in audience.weight_shapes(name, space.classes, size, **dict(options))
    ]


def _forward(kind: Kind, rates: Rates | None = None):
    """The supernet as (weights, arch, x) -> logits; without `rates` nothing is dropped."""
    network = explainer(kind.space, kind.size)
    rate, seed = (
        (tf.zeros(()), tf.zeros((2,), tf.int32)) if rates is None else (rates.skip_rate, rates.seed)
    )
    return lambda weights, arch, x: network(list(weights), list(arch), x, rate, seed)


def _plain(kind: Kind, rates: Rates | None = None):
    """Like `_forward`, but not traced by itself: for passes that are differentiated twice, for
    which TensorFlow would lay the traced one out anew.
    """
    dropped = (
        {"skip_rate": rates.skip_rate, "seed": rates.seed}
        if rates is not None and kind.space.family == "pdarts"
        else {}
    )
    return lambda weights, arch, x: supernet.forward(
        kind.space, list(weights), list(arch), x, **dropped
    )


def _listener(kind: Kind):
    """The audience; not traced by itself, for it is differentiated twice, see `_plain`."""
    return lambda weights, x: audience.forward(kind.audience, list(weights), x)


def _pixels(kind: Kind, batch, dtype=tf.float32):
    return tf.cast(batch[0], dtype) * kind.scale, batch[1]


def _correct(logits, labels):
    return tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, -1, tf.int32), labels), tf.float32))


def _specs(kind: Kind) -> dict:
    """TensorSpecs of the arguments of the steps."""
    space, scalar, seed = kind.space, tf.TensorSpec(()), tf.TensorSpec((2,), tf.int32)
    weights, arch = (
        [tf.TensorSpec(shape) for _, shape in supernet.weight_shapes(space)],
        [tf.TensorSpec(a.shape) for a in supernet.initial_arch(space, 0)],
    )
    told = _audience_specs(kind.audience, kind.size, space, kind.options) if kind.lease else []
    images = (None, kind.size, kind.size, space.input_channels)
    return {
        "weights": weights,
        "buffers": weights,
        "arch": arch,
        "moments": rules.AdamState(tf.TensorSpec((), tf.int64), arch, arch),
        "told": told,
        "told_buffers": told,
        "train": (tf.TensorSpec(images, tf.uint8), tf.TensorSpec((None,), tf.int32)),
        "rates": Rates(*[scalar] * 7, seed),
        "delta": tf.TensorSpec(images),
    }


def _traced(kind: Kind, step, names: str):
    """The step as one graph; or, for a few steps, operation by operation around the traced
    networks, without the half minute that TensorFlow takes to lay out a graph of fourteen passes.
    """
    if not kind.traced:
        tensors = functools.partial(tf.nest.map_structure, tf.convert_to_tensor)
        return lambda *given, **named: step(*tensors(given), **tensors(named))
    specs = _specs(kind)
    specs["val"] = specs["lecture"] = specs["train"]
    return tf.function(
        step, input_signature=[specs[name] for name in names.split()], autograph=False
    )


@kept.by_memory(lambda kind: 1)
def weight_step(kind: Kind) -> Callable:
    """(weights, buffers, arch, train, rates) -> (weights, buffers, loss, number correct): one step
    of SGD on the explainer.
    """

    def step(weights, buffers, arch, train, rates):
        x, labels = _pixels(kind, train)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = _forward(kind, rates)(weights, arch, x)
            loss = cross_entropy(logits, labels)
        return (
            *rules.sgd(weights, tape.gradient(loss, weights), buffers, rates.lr, *kind.sgd),
            loss,
            _correct(logits, labels),
        )

    return _traced(kind, step, "weights buffers arch train rates")


@kept.by_memory(lambda kind: 1)
def measure_step(kind: Kind) -> Callable:
    """(weights, arch, val) -> (loss, number correct)."""

    def step(weights, arch, val):
        x, labels = _pixels(kind, val)
        logits = _forward(kind)(weights, arch, x)
        return cross_entropy(logits, labels), _correct(logits, labels)

    return _traced(kind, step, "weights arch val")


@kept.by_memory(_passes)
def arch_step(kind: Kind) -> Callable:
    """(weights, buffers, arch, moments, train, val, rates) -> (arch, moments, facts): one step of
    Adam on the architecture by the base method.
    """

    def step(weights, buffers, arch, moments, train, val, rates):
        if kind.order == 1:
            found = hypergradient.first_order(
                _forward(kind, rates), weights, arch, _pixels(kind, val)
            )
        else:
            found = second_order(
                kind,
                weights=weights,
                buffers=buffers,
                arch=arch,
                train=train,
                val=val,
                rates=rates,
            )
        arch, moments = _moved(kind, arch, found.gradients, moments, rates)
        return arch, moments, {"arch_loss": found.loss, "arch_gradient": found.norm}

    return _traced(kind, step, "weights buffers arch moments train val rates")


def lease_gradient(  # noqa: PLR0913 (tensors of the whole state, one by one, as in the steps)
    kind: Kind,
    *,
    weights: list,
    buffers: list,
    arch: list,
    told: list,
    train: tuple,
    val: tuple,
    lecture: tuple,
    delta: tf.Tensor,
    rates: Rates,
    reference: bool = False,
) -> lease.LeaseGradient:
    """The architecture gradient that :func:`lease_step` moves by.

    Parameters
    ----------
    kind : Kind
    weights, buffers, arch, told : list of tf.Tensor
        Explainer's weights and momentum, architecture, audience's weights.
    train, val, lecture : pair
        uint8 images (N, H, W, C) and int labels (N,).
    delta : tf.Tensor
        Perturbations before their step, as the images of `lecture`.
    rates : Rates
    reference : bool
        Whatever the kind's mode: exact, in the precision of `weights`, nothing traced by itself,
        terms apart.
    """
    dtype = weights[0].dtype if reference else tf.float32
    return lease.lease_gradient(
        (_plain if reference else _forward)(kind, rates),
        _listener(kind),
        weights=weights,
        audience_weights=told,
        arch=arch,
        train=_pixels(kind, train, dtype),
        val=_pixels(kind, val, dtype),
        delta0=delta,
        settings=kind.lease,
        gamma=rates.gamma,
        lr=rates.lr,
        audience_lr=rates.audience_lr,
        buffers=buffers,
        momentum=kind.sgd[0],
        decay=kind.sgd[1],
        order=kind.order,
        explainer_weight=rates.own,
        mode="exact" if reference else kind.mode,
        quiet=_plain(kind),
        lecture=_pixels(kind, lecture, dtype),
        separate=reference or kind.separate,
        plain=_plain(kind, rates),
    )


def second_order(
    kind: Kind,
    *,
    weights: list,
    buffers: list,
    arch: list,
    train: tuple,
    val: tuple,
    rates: Rates,
    reference: bool = False,
) -> hypergradient.ArchGradient:
    """The architecture gradient of second order that :func:`arch_step` moves by; arguments as
    :func:`lease_gradient`.
    """
    dtype = weights[0].dtype if reference else tf.float32
    return hypergradient.second_order(
        (_plain if reference else _forward)(kind, rates),
        weights,
        arch,
        _pixels(kind, train, dtype),
        _pixels(kind, val, dtype),
        lr=rates.lr,
        buffers=buffers,
        momentum=kind.sgd[0],
        decay=kind.sgd[1],
        mode="exact" if reference else kind.mode,
        plain=_plain(kind, rates),
    )


@kept.by_memory(_passes)
def lease_step(kind: Kind) -> Callable:
    """(weights, buffers, arch, moments, told, told_buffers, train, val, lecture, delta, rates) ->
    (arch, moments, told, told_buffers, delta', facts): one step on the architecture by LeaSE and
    one of the audience; with ``rates.moving`` 0 the audience's alone.
    """

    def step(  # noqa: PLR0913 (tensors of the whole state, one by one for the signature)
        weights, buffers, arch, moments, told, told_buffers, train, val, lecture, delta, rates
    ):
        found = lease_gradient(
            kind,
            weights=weights,
            buffers=buffers,
            arch=arch,
            told=told,
            train=train,
            val=val,
            lecture=lecture,
            delta=delta,
            rates=rates,
        )
        moved = _moved(kind, arch, found.gradients, moments, rates)
        facts = {
            "arch_loss": found.loss,
            "arch_gradient": rules.norm(found.gradients),
            "ratio": found.ratio,
            "cosine": _cosine(found.explainer, found.audience),
            "audience_loss": found.lesson.loss,
            "audience_val_loss": found.audience_loss,
            "change": found.lesson.explanation.change,
        }
        return (
            *moved,
            *_taught(kind, told, found.lesson, told_buffers, rates),
            found.lesson.explanation.delta,
            facts,
        )

    return _traced(
        kind, step, "weights buffers arch moments told told_buffers train val lecture delta rates"
    )


@kept.by_memory(lambda kind: 2)
def teach_step(kind: Kind) -> Callable:
    """(weights, buffers, arch, told, told_buffers, train, lecture, delta, rates) -> (told,
    told_buffers, delta', facts): the audience's step alone.
    """

    def step(  # noqa: PLR0913 (tensors of the whole state, one by one for the signature)
        weights, buffers, arch, told, told_buffers, train, lecture, delta, rates
    ):
        lesson = lease.teach(
            _forward(kind, rates),
            listener(kind.audience, kind.size, kind.space, kind.options),
            weights=weights,
            audience_weights=told,
            arch=arch,
            train=_pixels(kind, train),
            delta0=delta,
            settings=kind.lease,
            lr=rates.lr,
            buffers=buffers,
            momentum=kind.sgd[0],
            decay=kind.sgd[1],
            quiet=_forward(kind),
            lecture=_pixels(kind, lecture),
        )
        return (
            *_taught(kind, told, lesson, told_buffers, rates),
            lesson.explanation.delta,
            {"audience_loss": lesson.loss, "change": lesson.explanation.change},
        )

    return _traced(kind, step, "weights buffers arch told told_buffers train lecture delta rates")


def _taught(kind, told, lesson, buffers, rates):
    settings = kind.lease
    return rules.sgd(
        told,
        lesson.gradients,
        buffers,
        lr=rates.audience_lr,
        momentum=settings.audience_momentum,
        decay=settings.audience_decay,
        clip=settings.audience_clip,
    )


def _moved(kind: Kind, arch, gradients, moments, rates):
    """The architecture after its step, and Adam's state; both as they were where it is frozen."""
    if kind.lease is not None and kind.lease.arch_step == "descent":
        after = (
            [a - rates.arch_lr * g for a, g in zip(arch, gradients, strict=True)],
            moments._replace(step=moments.step + 1),
        )
    else:
        betas, decay, clip = kind.adam
        after = rules.adam(
            arch, gradients, moments, lr=rates.arch_lr, betas=betas, decay=decay, clip=clip
        )
    return tf.nest.map_structure(
        lambda new, old: tf.where(rates.moving > 0, new, old), after, (arch, moments)
    )


def _cosine(first, second):
    if first is None:
        return tf.constant(np.nan, tf.float32)
    dot = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(first, second, strict=True)])
    return dot / (rules.norm(first) * rules.norm(second))
