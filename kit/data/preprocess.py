"""From a scan to the input of the CAD-framework networks: the one chain that notebooks, tests and
the application share.

The paper names four steps (crop, denoise, colour map, resize) and says that the aspect ratio is
kept. Its code does more and does not keep it: crop by the head's outline, resize to 256 x 256,
store as JPEG, read back grey, bilateral filter, BONE colours, resize to 200 x 200 (331 x 331 for
NASNetLarge). The code is followed here, oddities included, because its numbers were made by it: the
crop loses its last row and column, grey is computed with the weights of red and blue exchanged, and
the colours stay in OpenCV's order (blue, green, red) up to the network. Changed: where the outline
cannot be found, the code crashes; :func:`cad` raises :class:`NoHead`, or in its "safe" mode keeps
the whole image and says so. The app of the authors leaves the whole chain out; ours does not.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from kit.data import imageio
from kit.errors import KitError

THRESHOLD = 45
STORED_SIDE = 256
JPEG_QUALITY = 95
SMALLEST_CROP = 0.05
MODES = ("faithful", "safe")
Source = Path | str | bytes | np.ndarray  # a file, its content, or pixels


class NoHead(KitError):
    """No outline to crop by was found."""


class UnfitImage(KitError):
    """An array is no 8-bit grey or BGR image."""


class UnknownMode(KitError):
    """A mode that is neither "faithful" nor "safe"."""


class Box(NamedTuple):
    """Extreme rows and columns of the head's outline in pixels; the crop ends before `bottom` and
    `right`, as in the authors' code.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Pixels in the crop."""
        return (self.bottom - self.top) * (self.right - self.left)


@dataclass(frozen=True)
class Prepared:
    """What :func:`cad` made of an image.

    Attributes
    ----------
    image : numpy.ndarray
        uint8 (size, size, 3), BONE colours in the order blue, green, red; divide by 255 for the
        network.
    box : Box or None
        What was cropped, in pixels of the image (after enlarging, if that was asked for); None
        where the whole image was kept.
    kept : bool
        True where the crop failed and the whole image was kept ("safe" mode only).
    note : str
        What is unusual about the crop; empty if nothing is.
    """

    image: np.ndarray
    box: Box | None
    kept: bool
    note: str


def cad(
    image: Source,
    size: int = 200,
    mode: str = "faithful",
    jpeg_round_trip: bool = True,
    upsample: int | None = None,
) -> Prepared:
    """The whole chain of the CAD framework.

    Parameters
    ----------
    image : path-like, bytes or numpy.ndarray
        An image file, its content, or uint8 pixels: grey (H, W) or (H, W, 3) in the order blue,
        green, red.
    size : int
        Side of the result in pixels; 200, or 331 for NASNetLarge.
    mode : {"faithful", "safe"}
        What happens where no outline is found or the crop is below 5 % of the image. "faithful": no
        outline is an error, a small crop is used. "safe": the whole image is kept.
    jpeg_round_trip : bool
        Store the crop as JPEG of quality 95 and read it back, as the authors did (the paper does
        not say so); changes about 0.2 grey levels.
    upsample : int or None
        Enlarge smaller images until their longer side has this many pixels. Threshold and opening
        work in pixels, so that copies reduced to 224 pixels are cropped like the originals only
        after enlarging them to 512.

    Returns
    -------
    Prepared

    Raises
    ------
    NoHead
        In "faithful" mode, if there is no outline.
    UnfitImage, UnknownMode
    imageio.UnreadableImage
        If a file or its content cannot be decoded.
    """
    if mode not in MODES:
        raise UnknownMode(f"There is no mode {mode!r}; choose one of {', '.join(MODES)}.")
    pixels = read(image) if upsample is None else enlarge(read(image), upsample)
    box, note = crop_box(pixels), ""
    if box is None:
        note = f"no part of the image that is large enough is brighter than {THRESHOLD}"
    elif box.area < SMALLEST_CROP * pixels.shape[0] * pixels.shape[1]:
        note = (
            f"the crop is {100 * box.area / (pixels.shape[0] * pixels.shape[1]):.1f} % of the image"
        )
    if box is None and mode == "faithful":
        raise NoHead(
            f"There is nothing to crop by: {note}; use mode='safe', which keeps the whole image."
        )
    kept = bool(note) and mode == "safe"
    head = resize(pixels if kept or box is None else crop(pixels, box), STORED_SIDE)
    grey = stored_grey(head) if jpeg_round_trip else cv2.cvtColor(head, cv2.COLOR_BGR2GRAY)
    return Prepared(
        resize(bone(denoise(grey)), size),
        None if kept else box,
        kept,
        f"{note}; the whole image is kept" if kept else note,
    )


def uncropped(image: Source, size: int = 200, coloured: bool = False) -> np.ndarray:
    """The input without the chain, for the ablation "no preprocessing": only resized, uint8 (size,
    size, 3) in the order blue, green, red.

    The authors' code for it does not exist. `coloured` adds the BONE colours, which separates the
    effect of the crop from that of the colours.
    """
    pixels = resize(read(image), size)
    return bone(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)) if coloured else pixels


def read(image: Source) -> np.ndarray:
    """Pixels of a file, of its content or of an array: uint8 (H, W, 3) in the order blue, green,
    red.

    Files are decoded by :mod:`kit.data.imageio`; on the 7,023-image set that gives the pixels of
    ``cv2.imread``, which the authors used.

    Raises
    ------
    UnfitImage, imageio.UnreadableImage
    """
    if not isinstance(image, np.ndarray):
        return np.ascontiguousarray(imageio.read_image(image, channels=3)[..., ::-1])
    if (
        image.dtype != np.uint8
        or image.size == 0
        or image.ndim not in (2, 3)
        or image.shape[2:] not in ((), (3,))
    ):
        raise UnfitImage(
            f"The array has shape {image.shape} and type {image.dtype}; it needs uint8 and "
            "(height, width) or (height, width, 3)."
        )
    return (
        np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else np.ascontiguousarray(image)
    )


def enlarge(pixels: np.ndarray, side: int, interpolation: int = cv2.INTER_LANCZOS4) -> np.ndarray:
    """Enlarge an image until its longer side has `side` pixels; an image that has them already is
    returned as it is.

    Of the interpolations tried, Lanczos comes closest to the authors' own pictures (9 of 9; cubic
    and linear 8 of 9).
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale <= 1:
        return pixels
    return cv2.resize(
        pixels,
        (max(1, round(width * scale)), max(1, round(height * scale))),
        interpolation=interpolation,
    )


def head_mask(pixels: np.ndarray, blur: int = 3) -> np.ndarray:
    """Where the image is brighter than 45 after blurring and opening: uint8 (H, W), 0 or 255.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8 (H, W, 3). Red and blue are taken for each other, as in the authors' code; without
        effect on grey images.
    blur : int
        Side of the Gaussian kernel; 3 in the pipeline, 5 in the paper's Figure 3.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (blur, blur), 0)
    bright = cv2.threshold(grey, THRESHOLD, 255, cv2.THRESH_BINARY)[1]
    square = np.ones((3, 3), np.uint8)
    return cv2.dilate(cv2.erode(bright, square, iterations=2), square, iterations=2)


def outline(mask: np.ndarray) -> np.ndarray | None:
    """Outer contour of the largest enclosed area: int32 (n, 2) points (x, y), or None for an empty
    mask.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return max(contours, key=cv2.contourArea).reshape(-1, 2) if contours else None


def extreme_points(contour: np.ndarray) -> dict:
    """The contour's first leftmost, rightmost, top and bottom points: name -> (x, y), for
    Figure 3.
    """
    at = {
        "left": contour[:, 0].argmin(),
        "right": contour[:, 0].argmax(),
        "top": contour[:, 1].argmin(),
        "bottom": contour[:, 1].argmax(),
    }
    return {name: tuple(int(v) for v in contour[i]) for name, i in at.items()}


def crop_box(pixels: np.ndarray, blur: int = 3) -> Box | None:
    """Bounding box of the head, or None where there is no outline or the crop would be empty."""
    contour = outline(head_mask(pixels, blur))
    if contour is None:
        return None
    (left, top), (right, bottom) = contour.min(axis=0).tolist(), contour.max(axis=0).tolist()
    box = Box(top, bottom, left, right)
    return box if box.area else None


def crop(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The part of an image inside a box, without the box's last row and column."""
    return pixels[box.top : box.bottom, box.left : box.right]


def resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize to a square, bilinear as OpenCV does it (no antialiasing); the aspect ratio is not
    kept.
    """
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)


def stored_grey(pixels: np.ndarray) -> np.ndarray:
    """What is read back in grey after the image was stored as JPEG of quality 95: uint8 (H, W)."""
    _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE))


def denoise(grey: np.ndarray) -> np.ndarray:
    """Bilateral filter with the authors' arguments (2, 50, 50), which OpenCV turns into a cross of
    five pixels: uint8 (H, W).
    """
    return cv2.bilateralFilter(grey, 2, 50, 50)


def bone(grey: np.ndarray) -> np.ndarray:
    """OpenCV's BONE colours: uint8 (H, W, 3) in the order blue, green, red, blue the brightest."""
    return cv2.applyColorMap(grey, cv2.COLORMAP_BONE)
