"""Augmentation of training images: the publication's generator, and the same transform as one fused
warp that keeps up with the network.

The CAD framework augments with Keras' ``ImageDataGenerator``: a rotation, a vertical and a
horizontal shift and a flip, drawn uniformly, unseeded, bilinear, the edge repeated outside. It
warps each colour by itself in SciPy, about 220 images/s of 200 px. Here rotation, shifts and flip
are one matrix and OpenCV warps cached uint8 pixels with it inside tf.data; the parameters of an
image follow from (seed, epoch, image) alone. For the same parameters the pixels of square images
agree within 0.02 grey levels of 255, border included. Keras exchanges the two shifts
(height_shift_range moves columns, keras-preprocessing issue 348) and turns oblong images about a
wrong point; the kit does neither, which the publication's equal shifts and square images cannot
tell. Measured on 2 shared cores, images/s: this one 2,000 to 3,400, TensorFlow's
ImageProjectiveTransformV3 640 (uint8 690, cut off instead of rounded; float16 500), OpenCV on uint8
within the noise of float32.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd

from kit.errors import KitError

if TYPE_CHECKING:
    import tensorflow as tf

DRAWS, FLOW = 0xA06, 0xF10  # keep these random streams apart from those of batch order and dropout
WARP = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}


class BadAugmentation(KitError):
    """A setting of the augmentation is out of range, or the inputs cannot be augmented."""


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for every image; the defaults are the CAD framework's (code and paper agree).

    Attributes
    ----------
    rotation : float
        Largest angle in degrees, 0 to 180; uniform on both sides.
    width_shift, height_shift : float
        Largest shift as a fraction of the width or height, at least 0 and below 1; uniform on both
        sides.
    horizontal_flip : bool
        Mirror left and right with probability 1/2.

    Raises
    ------
    BadAugmentation
    """

    rotation: float = 10
    width_shift: float = 0.05
    height_shift: float = 0.05
    horizontal_flip: bool = True

    def __post_init__(self) -> None:
        for name, limit, what in (
            ("rotation", 180, "degrees from 0 to 180"),
            ("width_shift", 1, "a fraction of the width, at least 0 and below 1"),
            ("height_shift", 1, "a fraction of the height, at least 0 and below 1"),
        ):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= limit or (limit == 1 and value == 1):
                raise BadAugmentation(f"augmentation: {name} is {value!r}; give {what}.")
        if not isinstance(self.horizontal_flip, bool):
            raise BadAugmentation(
                f"augmentation: horizontal_flip is {self.horizontal_flip!r}; give true or false."
            )

    @classmethod
    def of(cls, settings: "dict[str, Any] | Augmentation") -> "Augmentation":
        """From a dictionary of settings (absent ones take their defaults), or an Augmentation as it
        is.
        """
        if isinstance(settings, cls):
            return settings
        known = [f.name for f in fields(cls)]
        if not isinstance(settings, dict):
            raise BadAugmentation(
                f"augmentation is {settings!r}; give a dictionary with some of {', '.join(known)}."
            )
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise BadAugmentation(
                f"augmentation: there is no setting {unknown[0]!r}; choose among "
                f"{', '.join(known)}."
            )
        return cls(**settings)


def draw(
    augmentation: Augmentation, seed: int, epoch: int, count: int, shape: tuple
) -> pd.DataFrame:
    """The parameters of the images 0 ... count-1 in one epoch, the ones that training uses.

    An image's row does not depend on `count`, nor on the images' order or batches.

    Parameters
    ----------
    augmentation : Augmentation
    seed, epoch : int
        At least 0.
    count : int
    shape : tuple
        (height, width, ...) in pixels.

    Returns
    -------
    pandas.DataFrame
        theta (degrees), row_shift and column_shift (pixels; Keras' ty and tx), flip (bool). Signs
        as in Keras: they move the place read from.
    """
    unit = np.random.default_rng([seed, epoch, DRAWS]).random((count, 4))
    ranges = np.array(
        [
            augmentation.rotation,
            augmentation.height_shift * shape[0],
            augmentation.width_shift * shape[1],
        ]
    )
    values = (2 * unit[:, :3] - 1) * ranges
    return pd.DataFrame(values, columns=["theta", "row_shift", "column_shift"]).assign(
        flip=(unit[:, 3] < 0.5) & augmentation.horizontal_flip
    )


def keras_parameters(row: Any) -> dict:
    """A row of :func:`draw` as ``ImageDataGenerator.apply_transform`` wants it."""
    return {
        "theta": row.theta,
        "tx": row.column_shift,
        "ty": row.row_shift,
        "flip_horizontal": bool(row.flip),
    }


def matrices(parameters: pd.DataFrame, shape: tuple) -> np.ndarray:
    """From output to input pixel coordinates (x, y): float64 (n, 2, 3).

    Keras turns and shifts about the image's centre, shift first, and mirrors the result; read
    backwards that is mirror, shift, turn.

    Parameters
    ----------
    parameters : pandas.DataFrame
        As :func:`draw` gives it.
    shape : tuple
        (height, width, ...) in pixels.
    """
    centre_y, centre_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    theta = np.deg2rad(parameters["theta"].to_numpy(float))
    cos, sin = np.cos(theta), np.sin(theta)
    right, down = (
        parameters["column_shift"].to_numpy(float),
        parameters["row_shift"].to_numpy(float),
    )
    mirror = np.where(parameters["flip"], -1.0, 1.0)
    # the mirror image of column x is 2 centre_x - x, hence x - centre_x changes its sign
    x = np.stack(
        [
            cos * mirror,
            -sin,
            centre_x + cos * (right - mirror * centre_x) - sin * (down - centre_y),
        ],
        axis=1,
    )
    y = np.stack(
        [sin * mirror, cos, centre_y + sin * (right - mirror * centre_x) + cos * (down - centre_y)],
        axis=1,
    )
    return np.stack([x, y], axis=1)


def warp(images: np.ndarray, matrix: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Warp each image by its own matrix, bilinear, the edge pixels repeated outside.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 or float (n, H, W, C), at most 4 channels.
    matrix : numpy.ndarray
        (n, 2, 3), from :func:`matrices`.
    scale : float
        Factor on the pixels, 1/255 for network inputs.

    Returns
    -------
    numpy.ndarray
        float32, shape of `images`.
    """
    height, width, channels = images.shape[1:]
    out = np.empty(images.shape, np.float32)
    plane = (height, width) if channels == 1 else (height, width, channels)
    for image, target, one in zip(images, out, matrix, strict=True):
        source = np.multiply(image, np.float32(scale), dtype=np.float32)
        cv2.warpAffine(
            source.reshape(plane), one, (width, height), dst=target.reshape(plane), **WARP
        )
    return out


def check_images(x: np.ndarray) -> None:
    """Refuse inputs that are no uint8 images of 1, 3 or 4 channels, such as cached features."""
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3, 4):
        raise BadAugmentation(
            f"Inputs of type {x.dtype} and shape {x.shape[1:]} cannot be augmented; give uint8 "
            "images, not cached features."
        )


def warper(
    x: np.ndarray, image_rows: np.ndarray, scale: float, augmentation: Augmentation, seed: int
) -> Callable[[np.ndarray, int], np.ndarray]:
    """A function (positions in `x`, epoch) -> augmented float32 batch, for ``tf.numpy_function``.

    Parameters
    ----------
    x : numpy.ndarray
        uint8 (n, H, W, C).
    image_rows : numpy.ndarray
        For each image of `x` the number that its parameters are drawn by.
    """

    @functools.lru_cache(maxsize=2)  # two epochs meet in the prefetch buffer
    def of_epoch(epoch: int) -> np.ndarray:
        return matrices(
            draw(augmentation, seed, epoch, int(image_rows.max()) + 1, x.shape[1:]), x.shape[1:]
        )[image_rows]

    return lambda chosen, epoch: warp(x[chosen], of_epoch(int(epoch))[chosen], scale)


def keras_generator(
    augmentation: Augmentation,
) -> "tf.keras.preprocessing.image.ImageDataGenerator":
    """The published ``ImageDataGenerator`` with these settings; its shift ranges are exchanged
    because it exchanges them once more.
    """
    import tensorflow as tf

    return tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=augmentation.rotation,
        width_shift_range=augmentation.height_shift,
        height_shift_range=augmentation.width_shift,
        horizontal_flip=augmentation.horizontal_flip,
    )


def generator_batches(
    x: np.ndarray,
    y: np.ndarray,
    scale: float,
    batch_size: int,
    augmentation: Augmentation,
    seed: int,
    first_epoch: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The publication's training iterator, epoch after epoch, each seeded from (seed, epoch) so
    that a resumed run sees the same.

    The images are held as scaled float32, four times the memory of the fused path, and NumPy's
    global random state is set, both as Keras does.

    Yields
    ------
    tuple
        float32 images (b, H, W, C) and targets, in the generator's own shuffled order.
    """
    pixels, generator = (
        np.multiply(x, np.float32(scale), dtype=np.float32),
        keras_generator(augmentation),
    )
    for epoch in itertools.count(first_epoch):
        words = np.random.SeedSequence([seed, epoch, FLOW]).generate_state(1)
        flow = generator.flow(
            pixels, y, batch_size=batch_size, shuffle=True, seed=int(words[0] >> 1)
        )
        for _ in range(len(flow)):
            yield next(flow)


def examples(
    images: np.ndarray, augmentation: Augmentation, seed: int = 0, versions: int = 1
) -> np.ndarray:
    """Augmented versions of some images, for Figure 5.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 (n, H, W, C).
    augmentation : Augmentation
    seed : int
    versions : int
        Versions of every image; version v is what epoch v of a training with this seed would show,
        were these its images.

    Returns
    -------
    numpy.ndarray
        uint8 (n, versions, H, W, C).
    """
    check_images(images)
    drawn = [
        matrices(draw(augmentation, seed, v, len(images), images.shape[1:]), images.shape[1:])
        for v in range(versions)
    ]
    return np.rint(np.stack([warp(images, m) for m in drawn], axis=1)).astype(np.uint8)
