"""The thesis's augmentation of training images as one graph function: resize, random crop,
rotation, flips and brightness in one gather.

The released code of its chapters 3 to 5 makes an image 124 px, crops 112, turns it by up to 90
degrees with the nearest pixel and black outside, flips it both ways with probability 1/2 and
multiplies its brightness, image by image in Python on 8-bit pixels, unseeded. Here a batch is
resized once and each output pixel is fetched from where crop, turn and flips together would have
taken it, so nothing is warped twice; values are not rounded to 8 bits in between, and an image's
parameters follow from (seed, epoch, image) alone. Keras' layers differ: RandomBrightness adds where
the thesis multiplies, and no layer draws an image's parameters by its number. Sizes and seeds may
be tensors: a schedule of image sizes needs no second trace.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kit.errors import KitError

COLUMNS = ("top", "left", "angle", "vertical", "horizontal", "brightness")
NORMALISATIONS = ("none", "0..1", "imagenet")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, of colours in 0..1


class BadThesisAugmentation(KitError):
    """A setting of the thesis's augmentation is out of range, or the inputs are no images."""


@dataclass(frozen=True)
class ThesisAugmentation:
    """What is drawn for an image; the defaults are the released code's.

    Attributes
    ----------
    rotation : float
        Largest angle in degrees, 0 to 180; uniform on both sides.
    vertical_flip, horizontal_flip : float
        Probabilities.
    brightness : float
        The factor on the pixels is uniform in 1 - brightness to 1 + brightness, 0 to 1; the product
        is clipped to 0..255.

    Raises
    ------
    BadThesisAugmentation
    """

    rotation: float = 90.0
    vertical_flip: float = 0.5
    horizontal_flip: float = 0.5
    brightness: float = 0.5

    def __post_init__(self) -> None:
        for name, limit in (
            ("rotation", 180),
            ("vertical_flip", 1),
            ("horizontal_flip", 1),
            ("brightness", 1),
        ):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value <= limit
            ):
                raise BadThesisAugmentation(
                    f"thesis augmentation: {name} is {value!r}; give a number from 0 to {limit}."
                )


def draw(seed: int | tf.Tensor, epoch: int | tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Uniform numbers of the images 0 ... count-1 in one epoch; the rows of a batch are gathered
    from it.

    Parameters
    ----------
    seed, epoch : int or scalar integer tensor
        At least 0, below 2**31.
    count : int or scalar integer tensor
        Images of the training part (or of the data set, if rows are numbered so).

    Returns
    -------
    tf.Tensor
        float32 (count, 6) in [0, 1), columns as `COLUMNS`. A row does not depend on batches or
        their order.
    """
    return tf.random.stateless_uniform(
        [count, len(COLUMNS)], [tf.cast(seed, tf.int32), tf.cast(epoch, tf.int32)], alg="philox"
    )


def resized_side(size: int | tf.Tensor) -> int | tf.Tensor:
    """Side that the thesis resizes to before it crops `size` pixels: 31/28 of it (124 for 112),
    rounded; int or int tensor.
    """
    return (62 * size + 28) // 56


def _checked(images, normalisation):
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4 or not (images.dtype == tf.uint8 or images.dtype.is_floating):
        raise BadThesisAugmentation(
            f"Inputs of type {images.dtype.name} and shape {images.shape} are no images; give (n, "
            "height, width, channels)."
        )
    if normalisation not in NORMALISATIONS:
        raise BadThesisAugmentation(
            f"There is no normalisation {normalisation!r}; choose among "
            f"{', '.join(NORMALISATIONS)}."
        )
    if normalisation == "imagenet" and images.shape[-1] not in (1, 3):
        raise BadThesisAugmentation(
            f"Images of {images.shape[-1]} channels have no ImageNet mean; give 1 or 3 channels, "
            "or another normalisation."
        )
    return images


def _resized(images, side) -> tf.Tensor:
    """Stretch to a square, bilinear, with Pillow's antialiasing when shrinking; unchanged at the
    same static size.
    """
    if isinstance(side, (int, np.integer)) and tuple(images.shape[1:3]) == (side, side):
        return images
    return tf.image.resize(images, tf.stack([side, side]), method="bilinear", antialias=True)


def _normalised(pixels, normalisation) -> tf.Tensor:
    pixels = tf.cast(pixels, tf.float32)
    if normalisation == "none":
        return pixels
    return pixels / 255 if normalisation == "0..1" else (pixels / 255 - MEAN) / STD


def sources(
    units: tf.Tensor,
    size: int | tf.Tensor,
    resized: int | tf.Tensor,
    settings: ThesisAugmentation = ThesisAugmentation(),
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where each output pixel is taken from.

    Parameters
    ----------
    units : tf.Tensor
        (n, 6), rows of :func:`draw`.
    size, resized : int or scalar integer tensor
        Sides of output and of the image cropped from, in pixels.

    Returns
    -------
    rows, columns : tf.Tensor
        int32 (n, size, size), pixel positions in the resized image, clipped to the crop.
    inside : tf.Tensor
        bool (n, size, size), false where the turned crop leaves black.
    """
    units, size = tf.cast(units, tf.float32)[:, :, None, None], tf.cast(size, tf.int32)
    margin = tf.cast(tf.cast(resized, tf.int32) - size + 1, tf.float32)
    top, left = (
        tf.cast(tf.minimum(tf.floor(units[:, i] * margin), margin - 1), tf.int32) for i in (0, 1)
    )
    angle = (2 * units[:, 2] - 1) * (settings.rotation * np.pi / 180)
    centre = tf.cast(size - 1, tf.float32) / 2
    along = tf.range(tf.cast(size, tf.float32)) - centre
    # flips come last, so they are undone first; about the centre they are signs
    down = along[None, :, None] * tf.where(units[:, 3] < settings.vertical_flip, -1.0, 1.0)
    right = along[None, None, :] * tf.where(units[:, 4] < settings.horizontal_flip, -1.0, 1.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    row, column = (
        cos * down + sin * right + centre,
        cos * right - sin * down + centre,
    )  # counter-clockwise for positive angles, as in Pillow
    row, column = (tf.cast(tf.floor(v + 0.5), tf.int32) for v in (row, column))
    inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
    return (
        tf.clip_by_value(row, 0, size - 1) + top,
        tf.clip_by_value(column, 0, size - 1) + left,
        inside,
    )


@tf.autograph.experimental.do_not_convert
def augment(
    images: tf.Tensor,
    units: tf.Tensor,
    size: int | tf.Tensor,
    resized: int | tf.Tensor | None = None,
    settings: ThesisAugmentation = ThesisAugmentation(),
    normalisation: str = "0..1",
) -> tf.Tensor:
    """Augment a batch; pure, for eager use, ``tf.function`` and ``tf.data`` alike.

    Parameters
    ----------
    images : tf.Tensor
        uint8 or float (n, height, width, channels), 0..255; any sides.
    units : tf.Tensor
        (n, 6): the images' rows of :func:`draw`.
    size : int or scalar integer tensor
        Side of the output in pixels.
    resized : int or scalar integer tensor, optional
        Side before the crop, at least `size`; default :func:`resized_side`. The final training of
        chapter 3 takes `size` itself, chapter 4 246 for 224.
    settings : ThesisAugmentation
    normalisation : {"0..1", "imagenet", "none"}
        Colours in 0..1, those normalised by ImageNet's mean and deviation, or 0..255 for networks
        that scale by themselves.

    Returns
    -------
    tf.Tensor
        float32 (n, size, size, channels).

    Raises
    ------
    BadThesisAugmentation
    """
    images = _checked(images, normalisation)
    resized = resized_side(size) if resized is None else resized
    if all(isinstance(v, (int, np.integer)) for v in (size, resized)) and not 1 <= size <= resized:
        raise BadThesisAugmentation(
            f"A crop of {size} px does not fit into {resized} px; resize to at least the crop."
        )
    pixels, units = _resized(images, resized), tf.cast(units, tf.float32)
    rows, columns, inside = sources(units, size, resized, settings)
    count, side, channels = tf.shape(pixels)[0], tf.shape(pixels)[1], images.shape[-1]
    places = (tf.range(count)[:, None, None] * side + rows) * side + columns
    taken = tf.cast(tf.gather(tf.reshape(pixels, [-1, channels]), places), tf.float32)
    factor = 1 + settings.brightness * (2 * units[:, 5] - 1)
    taken *= tf.where(inside, factor[:, None, None], 0.0)[..., None]
    out = _normalised(tf.clip_by_value(taken, 0.0, 255.0), normalisation)
    return tf.ensure_shape(
        out,
        [
            images.shape[0],
            *[size if isinstance(size, (int, np.integer)) else None] * 2,
            out.shape[-1],
        ],
    )


@tf.autograph.experimental.do_not_convert
def prepare(
    images: tf.Tensor | np.ndarray, size: int | tf.Tensor, normalisation: str = "0..1"
) -> tf.Tensor:
    """Images as they are evaluated: stretched to `size` and normalised, float32 (n, size, size,
    channels); arguments as of :func:`augment`.
    """
    images = _checked(images, normalisation)
    return _normalised(_resized(images, size), normalisation)
