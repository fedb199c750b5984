"""Batches of an epoch: their order, their augmentation and their targets, from the seed and the
number of the epoch alone.
"""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.data import registry
from kit.data.augment import affine, autoaugment
from kit.data.inputs import Inputs

if TYPE_CHECKING:
    import tensorflow as tf

Settings = affine.Augmentation | autoaugment.AutoAugment
AUGMENTERS: dict[str, Any] = {
    "fused": affine.Augmentation,
    "keras_generator": affine.Augmentation,
    "autoaugment": autoaugment.AutoAugment,
}  # and their settings


def epochs(
    inputs: Inputs,
    rows: np.ndarray,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    augment: Settings | dict[str, Any] | None = None,
    augmenter: str = "fused",
) -> "tf.data.Dataset":
    """An endless stream of shuffled epochs as ``tf.data``; one epoch is ``ceil(len(rows) /
    batch_size)`` batches.

    The permutation of epoch e is drawn from (seed, e), whatever came before, so that a stream
    started at `first_epoch` continues an interrupted one exactly. The augmentation of an image is
    drawn from (seed, e, its row).

    Parameters
    ----------
    augment : kit.data.augment.affine.Augmentation, kit.data.augment.autoaugment.AutoAugment, dict
        or None
        Settings of the augmenter; None: the images as they are.
    augmenter : {"fused", "keras_generator", "autoaugment"}
        The CAD framework's transform as one warp on cached pixels, or by its generator, which also
        shuffles in its own way; or AutoAugment.

    Returns
    -------
    tf.data.Dataset
        Pairs (float32 inputs (b, ...), float32 labels (b, 1) for two classes or (b, classes)
        one-hot).

    Raises
    ------
    augment.BadAugmentation
        If the inputs are no images.
    """
    import tensorflow as tf

    place = np.sort(rows)
    if augment is not None:
        x, y = np.ascontiguousarray(inputs.x[place]), _targets(inputs, place)
        settings = AUGMENTERS[augmenter].of(augment)
        _augmenter(settings).check_images(x)
        if augmenter == "keras_generator":
            return _generated(
                x,
                y,
                scale=inputs.scale,
                batch_size=batch_size,
                seed=seed,
                first_epoch=first_epoch,
                settings=settings,
            )
        return augmented(
            x,
            y,
            image_rows=place,
            scale=inputs.scale,
            batch_size=batch_size,
            seed=seed,
            first_epoch=first_epoch,
            settings=settings,
        )
    x, y = tf.constant(np.ascontiguousarray(inputs.x[place])), tf.constant(_targets(inputs, place))

    def gather(chosen, _):
        return tf.cast(tf.gather(x, chosen), tf.float32) * inputs.scale, tf.gather(y, chosen)

    return (
        _orders(len(rows), batch_size, seed, first_epoch)
        .map(gather, num_parallel_calls=2, deterministic=True)
        .prefetch(2)
        .with_options(_untuned())
    )


def _orders(count: int, batch_size: int, seed: int, first_epoch: int):
    """Pairs (positions of a batch, epoch number), without end."""
    import tensorflow as tf

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        return (
            tf.data.Dataset.from_tensor_slices(order)
            .batch(batch_size)
            .map(lambda chosen: (chosen, epoch))
        )

    return tf.data.Dataset.counter(start=first_epoch, dtype=tf.int64).flat_map(one_epoch)


def augmented(
    x: np.ndarray,
    y: np.ndarray,
    image_rows: np.ndarray,
    scale: float,
    batch_size: int,
    seed: int,
    first_epoch: int,
    settings: Settings,
) -> "tf.data.Dataset":
    """The fused path of :func:`epochs`, and AutoAugment's, on plain arrays: uint8 images (n, H, W,
    C), their targets and the rows their draws are keyed by.
    """
    import tensorflow as tf

    warp, targets = (
        _augmenter(settings).warper(x, image_rows, scale, settings, seed),
        tf.constant(y),
    )

    def batch(chosen, epoch):
        pixels = tf.numpy_function(
            warp, [chosen, epoch], tf.float32, stateful=False
        )  # stateful calls would run one at a time
        return tf.ensure_shape(pixels, (None, *x.shape[1:])), tf.gather(targets, chosen)

    workers = max(2, min(8, os.cpu_count() or 2))
    return (
        _orders(len(x), batch_size, seed, first_epoch)
        .map(batch, num_parallel_calls=workers, deterministic=True)
        .prefetch(2)
        .with_options(_untuned())
    )


def _augmenter(settings):
    """The module whose settings these are."""
    return autoaugment if isinstance(settings, autoaugment.AutoAugment) else affine


def _generated(x, y, scale: float, batch_size: int, seed: int, first_epoch: int, settings):
    import tensorflow as tf

    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), tf.float32) for a in (x, y))

    def batches():
        return affine.generator_batches(
            x,
            y,
            scale=scale,
            batch_size=batch_size,
            augmentation=settings,
            seed=seed,
            first_epoch=first_epoch,
        )

    return (
        tf.data.Dataset.from_generator(batches, output_signature=signature)
        .prefetch(2)
        .with_options(_untuned())
    )


def in_order(inputs: Inputs, rows: np.ndarray, batch_size: int) -> "tf.data.Dataset":
    """The given rows once, in their order, as ``tf.data`` pairs like those of :func:`epochs`."""
    import tensorflow as tf

    x, y = tf.constant(np.ascontiguousarray(inputs.x[rows])), tf.constant(_targets(inputs, rows))
    slices = tf.data.Dataset.range(len(rows)).batch(batch_size)
    return (
        slices.map(lambda i: (tf.cast(tf.gather(x, i), tf.float32) * inputs.scale, tf.gather(y, i)))
        .prefetch(2)
        .with_options(_untuned())
    )


def _untuned():
    """Options without autotuning: nothing is left to tune here, and ending its thread holds up the
    end of a training by up to two seconds.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _targets(inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    labels = inputs.labels[rows]
    classes = len(registry.get(inputs.name).classes)
    return (
        labels[:, None].astype(np.float32)
        if classes == 2
        else np.eye(classes, dtype=np.float32)[labels]
    )
