"""Planted copies: pictures changed in the ways in which public image sets repeat themselves.

A search for copies can only be trusted as far as it was tried on copies whose origin is known. Each
kind below is one thing that happens to a picture between its source and a public data set; its
strength runs from 0 (nothing) to 1 (the strongest change that the level ``twin`` of
:mod:`kit.data.duplicates` promises to see).
"""

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from kit.errors import KitError

SYMMETRIES = (
    "same",
    "mirrored",
    "upside down",
    "turned by 180 degrees",
    "transposed",
    "turned by 90 degrees",
    "turned by 270 degrees",
    "transposed and turned by 180 degrees",
)


class UnknownKind(KitError):
    """A kind of planted copy that does not exist."""


def turn(pixels: np.ndarray, symmetry: int) -> np.ndarray:
    """A picture under one of the eight symmetries of the square.

    Parameters
    ----------
    pixels : numpy.ndarray
        (..., H, W) of any dtype; a stack of pictures is turned picture by picture.
    symmetry : int
        Index into :data:`SYMMETRIES`, 0..7; degrees count anticlockwise.
    """
    transposed = symmetry >= 4
    mirrored = symmetry in (1, 3, 6, 7)
    upside_down = symmetry in (2, 3, 5, 7)
    if transposed:
        pixels = np.swapaxes(pixels, -1, -2)
    if mirrored:
        pixels = pixels[..., ::-1]
    if upside_down:
        pixels = pixels[..., ::-1, :]
    return pixels


def inverse(symmetry: int) -> int:
    """The symmetry that undoes `symmetry`: quarter turns undo each other, all others themselves."""
    return {5: 6, 6: 5}.get(symmetry, symmetry)


def _turned(pixels, strength, random):
    return np.ascontiguousarray(turn(pixels, int(random.integers(1, 8))))


def _resized(pixels, strength, random):
    """Half to double the size, another aspect by up to a quarter."""
    scale = 2.0 ** (strength * random.uniform(-1, 1))
    aspect = 1.25 ** (strength * random.uniform(-1, 1))
    height, width = pixels.shape
    size = (max(8, round(width * scale * aspect)), max(8, round(height * scale / aspect)))
    shrinks = size[0] * size[1] < width * height
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _compressed(pixels, strength, random):
    """JPEG of quality 95 down to 30, decoded again."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=round(95 - 65 * strength))
    return np.asarray(Image.open(stream))


def _bordered(pixels, strength, random):
    """A frame of one grey value, up to 5 % of the side on each side."""
    rows, columns = (round(0.05 * strength * side) for side in pixels.shape)
    return np.pad(
        pixels, ((rows, rows), (columns, columns)), constant_values=random.choice([0, 255])
    )


def _cropped(pixels, strength, random):
    """Up to 5 % of the side cut off on each side, each side by its own amount."""
    height, width = pixels.shape
    top, bottom, left, right = random.uniform(0, 0.05 * strength, 4)
    return pixels[
        round(top * height) : height - round(bottom * height),
        round(left * width) : width - round(right * width),
    ]


def _shifted(pixels, strength, random):
    """Moved by up to 2 % of the side (4 of 224 pixels), what comes in is black."""
    height, width = pixels.shape
    far = 0.02 * strength
    matrix = np.float32(
        [
            [1, 0, round(random.uniform(-far, far) * width)],
            [0, 1, round(random.uniform(-far, far) * height)],
        ]
    )
    return cv2.warpAffine(pixels, matrix, (width, height))


def _windowed(pixels, strength, random):
    """Another window: up to 5 % of the range lost at the lower end and 25 % at the upper."""
    low, high = 255 * 0.05 * strength * random.random(), 255 * (1 - 0.25 * strength)
    return np.clip(255 * (pixels - low) / (high - low), 0, 255).astype(np.uint8)


def _contrasted(pixels, strength, random):
    """Another contrast: gamma between 0.6 and 1.7."""
    gamma = 1.7 ** (strength * random.choice([-1, 1]))
    return np.round(255 * (pixels / 255.0) ** gamma).astype(np.uint8)


def _lettered(pixels, strength, random):
    """One to three lines of white text near the corners, up to 6 % of the height tall."""
    height, width = pixels.shape
    out = pixels.copy()
    for _ in range(int(random.integers(1, 4))):
        text = "".join(
            random.choice(list("ABCDEFGHKLMRSTVW0123456789"), int(random.integers(2, 8)))
        )
        scale = (0.02 + 0.04 * strength) * height / 22
        place = (
            int(random.choice([0.03, 0.65]) * width),
            int(random.choice([0.08, 0.16, 0.88, 0.95]) * height),
        )
        cv2.putText(
            out,
            text,
            place,
            fontFace=cv2.FONT_HERSHEY_SIMPLEX,
            fontScale=scale,
            color=255,
            thickness=1,
            lineType=cv2.LINE_AA,
        )
    return out


def _noisy(pixels, strength, random):
    """Normal noise of up to 4 grey levels."""
    noise = random.normal(0, 4 * strength, pixels.shape)
    return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)


def _augmented(pixels, strength, random):
    """What an augmented public set does in one go: turned, resized, contrasted, saved again."""
    for change in (_turned, _resized, _contrasted, _compressed):
        pixels = change(pixels, strength / 2, random)
    return pixels


KINDS: dict[str, Callable] = {
    "turned": _turned,
    "resized": _resized,
    "compressed": _compressed,
    "bordered": _bordered,
    "cropped": _cropped,
    "shifted": _shifted,
    "windowed": _windowed,
    "contrasted": _contrasted,
    "lettered": _lettered,
    "noisy": _noisy,
    "augmented": _augmented,
}


def describe(kind: str) -> str:
    """What a kind of planted copy does, in one sentence without its full stop."""
    if kind == "turned":
        return "Mirrored, upside down or turned by a multiple of 90 degrees"
    return (_kind(kind).__doc__ or "").split("\n")[0].rstrip(".")


def plant(pixels: np.ndarray, kind: str, strength: float, seed: int) -> np.ndarray:
    """A copy of a picture, changed in one way.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8, (H, W), grey.
    kind : str
        One of :data:`KINDS`.
    strength : float
        0..1; 1 is the strongest change that the level ``twin`` is made for.
    seed : int
        Decides what is left to chance; the same seed gives the same pixels.

    Returns
    -------
    numpy.ndarray
        uint8, (H', W').

    Raises
    ------
    UnknownKind
    """
    random = np.random.default_rng(seed)
    return np.ascontiguousarray(_kind(kind)(np.ascontiguousarray(pixels), float(strength), random))


def _kind(kind: str) -> Callable:
    if kind not in KINDS:
        raise UnknownKind(
            f"There is no planted copy of kind {kind!r}; choose one of {', '.join(KINDS)}."
        )
    return KINDS[kind]
