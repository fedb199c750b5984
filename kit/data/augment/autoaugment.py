"""AutoAugment with the 25 CIFAR-10 sub-policies, and cutout, on batches of uint8 images.

The LeaSE paper says that its images are augmented "using AutoAugment" and names neither policy nor
settings. Taken here is the CIFAR-10 policy of Cubuk et al. 2019, whose images are as small; its
levels can be read as torchvision does (default) or as Google's code does, and the two differ much
(level 9 shifts a 64-pixel image by 29 or by 18 pixels). What is moved in is 0, the background of
MRI, where the published codes have grey or the mean. `Color` changes nothing on grey images. None
of the published codes seeds its draws; here those of an image follow from (seed, epoch, row) alone,
so that a resumed training sees the same images. Keras' layers (RandAugment, Solarization,
Equalization) draw by themselves and cannot be keyed like that: turns, shears and enhancements are
Pillow's own, as in both codes, and what is a table of 256 greys is looked up by OpenCV with
Pillow's tables, which Pillow builds anew in Python loops for every image. Measured at 64 px,
images/s: 3,000 in a thread of a busy machine with two cores, 13,000 of an idle one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, cast

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image, ImageEnhance

from kit.data.augment.affine import BadAugmentation

DRAWS = 0xAA06  # keeps this random stream apart from those of batch order and dropout
BLOCK = 1024  # rows that draws are made for at a time
ENCODINGS = ("torchvision", "google")
LEVELLESS = ("AutoContrast", "Equalize", "Invert")
ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")

# (operation, probability, level 0 to 9); one of the pairs is drawn for an image
SUB_POLICIES = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)


@dataclass(frozen=True)
class AutoAugment:
    """How the policy's levels are read, and what follows the policy.

    Attributes
    ----------
    encoding : {"torchvision", "google"}
        What a level means; see :func:`amount`.
    fill : int
        Grey level, 0 to 255, of what is moved in and of the cutout square.
    cutout : float
        Side in pixels, for images of 32 pixels, of a square cut out after the policy about a place
        drawn uniformly (its parts outside the image are lost); it grows with the image. 0, the
        default, cuts nothing; DARTS' evaluation can cut 16.

    Raises
    ------
    kit.data.augment.affine.BadAugmentation
    """

    encoding: str = "torchvision"
    fill: int = 0
    cutout: float = 0

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise BadAugmentation(
                f"augmentation: encoding is {self.encoding!r}; choose one of "
                f"{', '.join(ENCODINGS)}."
            )
        if (
            isinstance(self.fill, bool)
            or not isinstance(self.fill, int)
            or not 0 <= self.fill <= 255
        ):
            raise BadAugmentation(
                f"augmentation: fill is {self.fill!r}; give a whole number from 0 to 255."
            )
        if (
            isinstance(self.cutout, bool)
            or not isinstance(self.cutout, (int, float))
            or not 0 <= self.cutout < 64
        ):
            raise BadAugmentation(
                f"augmentation: cutout is {self.cutout!r}; give the square's side at 32 pixels, at "
                "least 0 and below 64."
            )

    @classmethod
    def of(cls, settings: "dict[str, Any] | AutoAugment") -> "AutoAugment":
        """From a dictionary of settings (absent ones take their defaults), or an AutoAugment as it
        is.
        """
        if isinstance(settings, cls):
            return settings
        known = [f.name for f in fields(cls)]
        if not isinstance(settings, dict):
            raise BadAugmentation(
                f"augmentation is {settings!r}; give autoaugment a dictionary with some of "
                f"{', '.join(known)}."
            )
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise BadAugmentation(
                f"augmentation: autoaugment has no setting {unknown[0]!r}; choose among "
                f"{', '.join(known)}."
            )
        return cls(**settings)


def amount(operation: str, level: int | None, encoding: str, shape: tuple) -> tuple:
    """What an operation's level means, for both signs.

    Parameters
    ----------
    operation : str
        One of `MOVES`, `ENHANCE`, `LEVELLESS`, "Posterize" or "Solarize".
    level : int or None
        0 to 9.
    encoding : {"torchvision", "google"}
        torchvision: nine steps from nothing to shear 0.3, 150/331 of the side, 30 degrees,
        enhancement 1 +- 0.9, 4 bits, threshold 0. Google's code: level tenths of shear 0.3, 10
        pixels at 32, 30 degrees (whole pixels and degrees), 256 grey levels and 4 bits; enhancement
        0.1 + 0.18 level without a sign.
    shape : tuple
        (height, width, ...) in pixels.

    Returns
    -------
    tuple of float
        With negative and with positive sign, equal where there is none: shear as a fraction,
        pixels, degrees, factor of the enhancement, bits kept, or grey level from which on greys are
        inverted.
    """
    if operation in LEVELLESS:
        return 0.0, 0.0
    level = cast(int, level)
    side = shape[1] if operation.endswith("X") else shape[0]
    if encoding == "google":
        shift = int(level * 10 / 10) * side / 32
        value = {
            "Rotate": int(3 * level),
            "Posterize": 4 - int(0.4 * level),
            "Solarize": 256 - int(25.6 * level),
        }.get(operation, 0.03 * level)
        value = (
            0.1 + 0.18 * level
            if operation in ENHANCE
            else int(shift)
            if operation.startswith("Translate")
            else value
        )
        return (-value, value) if operation in MOVES else (value, value)
    part = level / 9
    if operation in ENHANCE:
        return 1 - 0.9 * part, 1 + 0.9 * part
    if operation in MOVES:
        value = {"Rotate": 30 * part}.get(
            operation,
            int(150 / 331 * side * part) if operation.startswith("Translate") else 0.3 * part,
        )
        return -value, value
    value = 8 - round(4 * part) if operation == "Posterize" else 255 * (9 - level) / 9
    return value, value


def apply(image: np.ndarray, operation: str, value: float = 0.0, fill: int = 0) -> np.ndarray:
    """One operation on one image.

    Parameters
    ----------
    image : numpy.ndarray
        uint8 (H, W, C), 1 or 3 channels.
    operation : str
        As in :func:`amount`.
    value : float
        In the units that :func:`amount` gives.
    fill : int
        Grey level of what is moved in.

    Returns
    -------
    numpy.ndarray
        uint8, shape of `image`; Pillow's result to the last bit.
    """
    if operation not in MOVES and operation not in ENHANCE:
        return cv2.LUT(image, _tables(image, operation, value)).reshape(image.shape)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if operation in ENHANCE:
        changed = getattr(ImageEnhance, operation)(picture).enhance(value)
    elif operation == "Rotate":
        changed = picture.rotate(value, fillcolor=(fill,) * image.shape[-1])
    else:
        matrix = {
            "ShearX": (1, value, 0, 0, 1, 0),
            "ShearY": (1, 0, 0, value, 1, 0),
            "TranslateX": (1, 0, -value, 0, 1, 0),
            "TranslateY": (1, 0, 0, 0, 1, -value),
        }[operation]
        changed = picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, fillcolor=(fill,) * image.shape[-1]
        )
    return np.asarray(changed).reshape(image.shape)


def _tables(image: np.ndarray, operation: str, value: float) -> np.ndarray:
    """What each grey level becomes: uint8 (256, 1), or (256, 1, C) where the channels differ."""
    greys = np.arange(256)
    if operation == "Invert":
        return (255 - greys).astype(np.uint8)[:, None]
    if operation == "Posterize":
        return (greys & (~0 << (8 - int(value)))).astype(np.uint8)[:, None]
    if operation == "Solarize":
        return np.where(greys < value, greys, 255 - greys).astype(np.uint8)[:, None]
    table = _stretched if operation == "AutoContrast" else _equalized
    columns = [
        table(np.bincount(channel, minlength=256))
        for channel in image.reshape(-1, image.shape[-1]).T
    ]
    return np.clip(np.stack(columns, axis=-1), 0, 255).astype(np.uint8)[:, None]


def _stretched(histogram: np.ndarray) -> np.ndarray:
    """Pillow's autocontrast: the greys that occur are stretched to 0..255."""
    used = np.flatnonzero(histogram)
    low, high = used[0], used[-1]
    if high <= low:
        return np.arange(256)
    scale = 255.0 / (high - low)
    return np.trunc(np.arange(256) * scale + -low * scale)


def _equalized(histogram: np.ndarray) -> np.ndarray:
    """Pillow's equalisation of the histogram, which leaves the highest grey that occurs out of the
    count.
    """
    step = (histogram.sum() - histogram[np.flatnonzero(histogram)[-1]]) // 255
    if step == 0:
        return np.arange(256)
    return (step // 2 + np.cumsum(histogram) - histogram) // step


def draw(seed: int, epoch: int, count: int) -> pd.DataFrame:
    """What is drawn for the rows 0 ... count-1 in one epoch; a row's draws do not depend on
    `count`.

    Returns
    -------
    pandas.DataFrame
        policy (index into `SUB_POLICIES`), chance_1 and chance_2 (an operation is applied where its
        probability is above), positive_1 and positive_2 (sign), row and column (cutout's centre,
        fractions of the image).
    """
    unit = _drawn(seed, epoch, -(-count // BLOCK))[:count]
    return pd.DataFrame(
        {
            "policy": (unit[:, 0] * len(SUB_POLICIES)).astype(int),
            "chance_1": unit[:, 1],
            "chance_2": unit[:, 2],
            "positive_1": unit[:, 3] < 0.5,
            "positive_2": unit[:, 4] < 0.5,
            "row": unit[:, 5],
            "column": unit[:, 6],
        }
    )


@functools.lru_cache(maxsize=4)
def _drawn(seed: int, epoch: int, blocks: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, DRAWS]).random((blocks * BLOCK, 7))


@functools.lru_cache(maxsize=8)
def _plan(encoding: str, height: int, width: int) -> tuple:
    """The sub-policies with amounts in place of levels."""
    return tuple(
        tuple(
            (name, chance, amount(name, level, encoding, (height, width)))
            for name, chance, level in pair
        )
        for pair in SUB_POLICIES
    )


def batch(
    images: np.ndarray,
    rows: ArrayLike,
    epoch: int,
    settings: AutoAugment | dict[str, Any] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Augment a batch: the policy, then cutout.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 (n, H, W, C), 1 or 3 channels.
    rows : sequence of int
        (n,), the numbers that the images' draws are keyed by, such as their rows in the data set.
    epoch : int
    settings : AutoAugment or dict, optional
    seed : int

    Returns
    -------
    numpy.ndarray
        uint8, a new array of the shape of `images`.

    Raises
    ------
    kit.data.augment.affine.BadAugmentation
    """
    settings = AutoAugment.of(settings or {})
    check_images(images)
    rows = np.asarray(rows, np.int64)
    if not len(rows):
        return images.copy()
    plan = _plan(settings.encoding, *images.shape[1:3])
    out = np.empty_like(images)
    for image, target, unit in zip(
        images,
        out,
        _drawn(seed, int(epoch), -(-(int(rows.max()) + 1) // BLOCK))[rows].tolist(),
        strict=True,
    ):
        for (name, chance, values), drawn, sign in zip(
            plan[int(unit[0] * len(SUB_POLICIES))], unit[1:3], unit[3:5], strict=False
        ):
            if drawn < chance:
                image = apply(image, name, values[int(sign < 0.5)], settings.fill)
        target[...] = image
        if settings.cutout:
            _cut(target, unit[5], unit[6], settings)
    return out


def _cut(image: np.ndarray, row: float, column: float, settings: AutoAugment) -> None:
    spans = []
    for place, side in ((row, image.shape[0]), (column, image.shape[1])):
        length, centre = round(settings.cutout * side / 32), int(place * side)
        start = centre - length // 2
        spans.append(slice(max(0, start), max(0, start + length)))
    image[tuple(spans)] = settings.fill


def check_images(x: np.ndarray) -> None:
    """Refuse inputs that are no uint8 images of 1 or 3 channels."""
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise BadAugmentation(
            f"AutoAugment cannot take inputs of type {x.dtype} and shape {x.shape[1:]}; give uint8 "
            "images of 1 or 3 channels."
        )


def warper(
    x: np.ndarray, image_rows: np.ndarray, scale: float, settings: AutoAugment, seed: int
) -> Callable[[np.ndarray, int], np.ndarray]:
    """A function (positions in `x`, epoch) -> augmented float32 batch, like
    :func:`kit.data.augment.affine.warper`.
    """

    def augmented(chosen, epoch) -> np.ndarray:
        return np.multiply(
            batch(x[chosen], image_rows[chosen], int(epoch), settings, seed),
            np.float32(scale),
            dtype=np.float32,
        )

    return augmented


def examples(
    images: np.ndarray,
    settings: AutoAugment | dict[str, Any] | None = None,
    seed: int = 0,
    versions: int = 1,
) -> np.ndarray:
    """Augmented versions of some images, for a figure: uint8 (n, versions, H, W, C); version v is
    what epoch v would show.
    """
    return np.stack(
        [
            batch(images, np.arange(len(images)), version, settings, seed)
            for version in range(versions)
        ],
        axis=1,
    )


def table(encoding: str = "torchvision", size: int = 64) -> pd.DataFrame:
    """The policy in words: one row a sub-policy, with probabilities and amounts at images of `size`
    pixels.
    """

    def words(name, chance, values):
        low, high = (f"{v:.4g}" for v in values)
        return (
            f"{name} ({chance:g})"
            if name in LEVELLESS
            else f"{name} {low if low == high else f'{low} or {high}'} ({chance:g})"
        )

    rows = [[words(*one) for one in pair] for pair in _plan(encoding, size, size)]
    return pd.DataFrame(
        rows, columns=["first", "second"], index=pd.RangeIndex(1, len(rows) + 1, name="sub-policy")
    )
