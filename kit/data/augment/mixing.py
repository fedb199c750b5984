"""CutMix and MixUp that mix the labels with the images.

The released astrocyte trainer draws CutMix or MixUp once a batch but trains on the images and
labels from before the mixing, so that nothing is mixed at all. Here both are. As in that code there
is one share of the own image a batch, drawn from Beta(alpha, alpha) with alpha 1, the partner is
the neighbour in the batch, and CutMix counts the pixels that its box really covers after it is cut
off at the border. Keras' layers draw a share for every image, pair by permutation, place the whole
box inside the image, draw their alpha too (CutMix) and keep their random state in the layer; a
resumed run would mix differently. Both methods are one formula here, own share times image plus
rest times partner, with the share constant or a box of zeros.
"""

from collections.abc import Sequence

import tensorflow as tf

from kit.errors import KitError

METHODS = ("off", "cutmix", "mixup", "choice")
PAIRINGS = ("roll", "permutation")


class BadMixing(KitError):
    """A setting of CutMix or MixUp is out of range, or images and targets do not fit each other."""


def _draws(seed, count):
    """Independent uniform numbers in [0, 1) and a seed for more, from one seed of two integers."""
    seed = tf.convert_to_tensor(seed)
    if seed.shape != (2,):
        raise BadMixing(
            f"The seed of the mixing has shape {seed.shape}; give two integers, such as (seed, "
            "step)."
        )
    seeds = tf.random.split(seed, 2)
    return tf.unstack(tf.random.stateless_uniform([count], seeds[0], alg="philox")), seeds[1]


def share(seed: tf.Tensor, alpha: float = 1.0) -> tf.Tensor:
    """Share of the own image, a scalar from Beta(alpha, alpha).

    Parameters
    ----------
    seed : tf.Tensor
        Two integers.
    alpha : float
        Above 0; 1 is uniform.
    """
    gammas = tf.random.stateless_gamma([2], seed, alpha=float(alpha))
    return gammas[0] / tf.maximum(gammas[0] + gammas[1], 1e-30)


def box(
    own: tf.Tensor,
    centre_row: tf.Tensor,
    centre_column: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """CutMix's box and the share of the own image that it leaves.

    Parameters
    ----------
    own : scalar tensor
        Drawn share of the own image; the box has (1 - own) of the area before it is cut off at the
        border.
    centre_row, centre_column : scalar tensor
        In [0, 1) of height and width.
    height, width : scalar int tensor

    Returns
    -------
    mask : tf.Tensor
        float32 (height, width): 0 in the box, 1 outside.
    own : tf.Tensor
        Mean of the mask.
    """
    half = 0.5 * tf.sqrt(1.0 - own)

    def outside(centre, side):
        length = tf.cast(side, tf.float32)
        middle, reach = tf.floor(centre * length), tf.floor(half * length)
        place = tf.range(length)
        return (place < middle - reach) | (place >= middle + reach)

    mask = tf.cast(
        outside(centre_row, height)[:, None] | outside(centre_column, width)[None, :], tf.float32
    )
    return mask, tf.reduce_mean(mask)


@tf.autograph.experimental.do_not_convert
def mix(
    images: tf.Tensor,
    targets: tf.Tensor,
    seed: tf.Tensor | Sequence[int],
    method: str = "choice",
    alpha: float = 1.0,
    pairing: str = "roll",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix each image of a batch, and its target, with another one of the batch.

    Parameters
    ----------
    images : tf.Tensor
        (n, height, width, channels), any real dtype and value range.
    targets : tf.Tensor
        (n, K), one-hot or soft.
    seed : tensor-like
        Two integers, a new pair for every batch; the same pair mixes the same way.
    method : {"choice", "cutmix", "mixup", "off"}
        "choice": one of the two with probability 1/2, once a batch.
    alpha : float
        Of the Beta distribution, above 0.
    pairing : {"roll", "permutation"}
        Partner: the image before (the first one's is the last), or a random permutation.

    Returns
    -------
    images, targets : tf.Tensor
        float32, of the same shapes; in mode "off" the values as they came.

    Raises
    ------
    BadMixing
    """
    images, targets = tf.cast(images, tf.float32), tf.cast(targets, tf.float32)
    _check(images, targets, method, alpha, pairing)
    if method == "off":
        return images, targets
    (coin, row, column), rest = _draws(seed, 3)
    drawn = share(rest, alpha)
    mask, left = box(drawn, row, column, tf.shape(images)[1], tf.shape(images)[2])
    cut = {"cutmix": True, "mixup": False}.get(method, coin < 0.5)
    weight = tf.where(cut, mask, drawn)[None, :, :, None]
    own = tf.where(cut, left, drawn)
    if pairing == "roll":
        partners = [tf.roll(values, 1, axis=0) for values in (images, targets)]
    else:
        order = tf.argsort(
            tf.random.stateless_uniform(tf.shape(images)[:1], rest + 1, alg="philox")
        )
        partners = [tf.gather(values, order) for values in (images, targets)]
    return weight * images + (1.0 - weight) * partners[0], own * targets + (1.0 - own) * partners[1]


def _check(images, targets, method, alpha, pairing):
    for value, known, what in ((method, METHODS, "method"), (pairing, PAIRINGS, "pairing")):
        if value not in known:
            raise BadMixing(
                f"There is no mixing {what} {value!r}; choose among {', '.join(known)}."
            )
    if (
        isinstance(alpha, bool)
        or not isinstance(alpha, (int, float))
        or not 0 < alpha < float("inf")
    ):
        raise BadMixing(f"The mixing's alpha is {alpha!r}; give a number above 0.")
    if (
        images.shape.rank != 4
        or targets.shape.rank != 2
        or not images.shape[:1].is_compatible_with(targets.shape[:1])
    ):
        raise BadMixing(
            f"Images of shape {images.shape} and targets of shape {targets.shape} cannot be mixed; "
            "give one one-hot row an image."
        )
