"""The readings of the thesis' Algorithm 3 that its text, its pseudocode and the model that it
extends allow, as settings of :class:`kit.models.astrocytes.Astrocytes`.

Text and pseudocode of chapter 4 differ, and the pseudocode compares a K with NG that is never set.
Taken as a counter of batches, kernels are scaled every NG batches ("literal"). Taken as the number
of classes, which K stands for in the rest of the thesis, a decision falls on every batch or on
none; a counter of a single batch lies between -1 and 1 and cannot pass the threshold of 2, so that
nothing is ever scaled ("classes"). `SOURCES` traces each reading to its line.
"""

from dataclasses import dataclass

import tensorflow as tf

ACTIVITIES = ("tanh", "mean", "count")
EVERY = ("batches", "epoch", "classes")


@dataclass(frozen=True)
class Reading:
    """How activity becomes a decision, and what a decision does.

    Attributes
    ----------
    activity : {"tanh", "mean", "count"}
        What a training batch adds to a filter's counter: the largest tanh of the outputs summed
        over the batch (Algorithm 3), of their mean over the batch, or the number of outputs that
        are not zero (the text of section 4.2), which no filter can have below minus the threshold.
    every : {"batches", "epoch", "classes"}
        A decision after NG batches; after the last batch of an epoch; or after every batch if there
        are at least NG classes, and never otherwise.
    keep_norm : bool
        A layer's kernel has the same Euclidean norm after a decision as before, so that only the
        proportions of its filters change.
    undo : bool
        What a decision added to a kernel is taken away at the next one.
    """

    activity: str = "tanh"
    every: str = "batches"
    keep_norm: bool = False
    undo: bool = False


READINGS = {
    "literal": Reading(),
    "mean": Reading(activity="mean"),
    "count": Reading(activity="count"),
    "norm": Reading(keep_norm=True),
    "undone": Reading(undo=True),
    "epoch": Reading(every="epoch"),
    "classes": Reading(every="classes"),
}
SOURCES = {
    "literal": "Algorithm 3, line of the condition: K, which is never set, read as the count of "
    "batches since the last decision, as the released class has it",
    "mean": "Algorithm 3, line of the counter: Sum(x) over a batch of 256 drives tanh to its "
    "ends; the mean keeps the activity's size",
    "count": "section 4.2, text: activity is the number of outputs of a filter that are not zero; "
    "it has no negative values, so that Weak never acts",
    "norm": "section 4.2, text: neither factor has to enlarge or shrink; only the proportions of "
    "the filters of a layer change",
    "undone": "the model that the chapter extends: changes of synapses last for a number of "
    "iterations, here NG",
    "epoch": "Tables 4.3 to 4.6 have one pair of factors an epoch: one decision an epoch",
    "classes": "Algorithm 3, line of the condition: K as in the rest of the thesis, the number of "
    "classes; then no counter ever reaches the threshold",
}


def batch_sum(output: tf.Tensor, activity: str = "tanh") -> tf.Tensor:
    """What a batch's activity is computed from, in float32 or better: (N, ..., C) -> (..., C).

    Sum over the batch; its mean for "mean"; the number of values that are not zero for "count".
    """
    output = tf.convert_to_tensor(output)
    if activity == "count":
        return tf.reduce_sum(tf.cast(output != 0, tf.float32), axis=0)
    values = output if output.dtype == tf.float64 else tf.cast(output, tf.float32)
    return (tf.reduce_mean if activity == "mean" else tf.reduce_sum)(values, axis=0)


def squash(total: tf.Tensor, channels_first: bool = False, activity: str = "tanh") -> tf.Tensor:
    """Increment of each channel's counter from :func:`batch_sum`: (..., C) -> (C,)."""
    axes = tf.range(1, tf.rank(total)) if channels_first else tf.range(tf.rank(total) - 1)
    if activity == "count":
        return tf.reduce_sum(total, axis=axes)
    return tf.reduce_max(tf.tanh(total), axis=axes)


def increments(conv_output: tf.Tensor, channels_first: bool = False) -> tf.Tensor:
    """What one training batch adds to the counters: max over the map of tanh of the sum over the
    batch.

    Parameters
    ----------
    conv_output : tf.Tensor
        Raw output of a convolution with any number of spatial axes, (N, ..., C), or (N, C, ...)
        where `channels_first`.

    Returns
    -------
    tf.Tensor
        (C,), between -1 and 1; float64 for float64 input, else float32.
    """
    return squash(batch_sum(conv_output), channels_first)


def factors(
    counters: tf.Tensor, strong: float | tf.Tensor, weak: float | tf.Tensor, threshold: float = 2.0
) -> tf.Tensor:
    """Factor of each filter: `strong` above the threshold, `weak` below minus the threshold, else 1
    (also where a counter is not a number).
    """
    counters = tf.convert_to_tensor(counters)
    strong, weak = tf.cast(strong, counters.dtype), tf.cast(weak, counters.dtype)
    return tf.where(
        counters > threshold,
        strong,
        tf.where(counters < -threshold, weak, tf.ones((), counters.dtype)),
    )


def scaled(kernel: tf.Tensor, factors: tf.Tensor, keep_norm: bool = False) -> tf.Tensor:
    """A kernel times its filters' factors; the very same bits where all factors are 1.

    Parameters
    ----------
    kernel : tf.Tensor
    factors : tf.Tensor
        Of a shape that multiplies the filters, in any float type.
    keep_norm : bool
        Bring the product to the kernel's Euclidean norm; one that became all zero stays so.
    """
    product = kernel * tf.cast(factors, kernel.dtype)
    if not keep_norm:
        return product
    before, after = (tf.norm(tf.cast(k, tf.float32)) for k in (kernel, product))
    ratio = tf.where(
        tf.reduce_all(factors == 1) | (after == 0), 1.0, before / tf.maximum(after, 1e-30)
    )
    return product * tf.cast(ratio, kernel.dtype)


def decisions_at_epoch_ends(steps: int, decisions: int, epochs: int) -> list[int]:
    """Epochs, from 1, whose last step is one of the steps on which kernels are scaled every
    `decisions` steps; counters outlive epochs.

    After such an epoch a network is evaluated by moving statistics of kernels that it no longer
    has.
    """
    return [epoch for epoch in range(1, epochs + 1) if epoch * steps % decisions == 0]
