"""Stage two of the search for twins: one picture laid over another at 224 x 224 pixels.

Symmetry and frame come from stage one (:mod:`kit.data.thumbnails`); stretch and shift are found by
inverse composition (Baker and Matthews, IJCV 56(3), 2004). Then what is left when brightness and
contrast are divided out over a few pixels is correlated: two neighbouring slices of one head share
the outline, only copies share the fine structure.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from kit.data.planted import turn

SIDE = 224  # pixels of the pictures that are laid over each other
TILE = 28  # pixels of the squares of which the worst are left out
RING = 9  # outermost pixels that are not compared
NOISE = 1.0  # grey levels below which a local contrast counts as none
STEPS = 15  # of the registration


@dataclass(frozen=True)
class Overlay:
    """How well one picture lies upon another.

    Attributes
    ----------
    structure : float
        -1..1: correlation of the fine structure, contrast divided out, without the worst sixth of
        the area (letters, frames).
    matrix : numpy.ndarray
        float32, (2, 3): from pixels of the first to pixels of the turned second, both 224 x 224.
    """

    structure: float
    matrix: np.ndarray


@dataclass(frozen=True)
class Picture:
    """One picture as the second stage takes it: band-passed grey values over their local strength,
    near 0 where there is no structure.

    Attributes
    ----------
    fine : numpy.ndarray
        float32, (224, 224); NaN in the outermost pixels, where a frame would show.
    middle : numpy.ndarray
        float32, (112, 112), 0 in the outermost pixels: for registration.
    """

    fine: np.ndarray
    middle: np.ndarray

    @cached_property
    def descent(self) -> tuple[np.ndarray, np.ndarray]:
        """:func:`_descent` of `middle`."""
        return _descent(self.middle)


def picture(pixels: np.ndarray) -> Picture:
    """Make a :class:`Picture` of grey pixels, uint8 (H, W), whatever their aspect."""
    method = cv2.INTER_AREA if min(pixels.shape) > SIDE else cv2.INTER_LINEAR
    values = cv2.resize(pixels, (SIDE, SIDE), interpolation=method).astype(np.float32)
    levels = []
    for side in (SIDE, SIDE // 2):
        if side < SIDE:
            values = cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
        structure, ring = _normalised(values), RING * side // SIDE
        outside = np.nan if side == SIDE else 0
        structure[:ring] = structure[-ring:] = outside
        structure[:, :ring] = structure[:, -ring:] = outside
        levels.append(structure)
    return Picture(*levels)


def _normalised(values: np.ndarray) -> np.ndarray:
    """What lies between two blurs, over its local strength."""
    band = cv2.GaussianBlur(values, (9, 9), 1.2) - cv2.GaussianBlur(values, (25, 25), 5)
    return band / (np.sqrt(cv2.GaussianBlur(band * band, (33, 33), 8)) + NOISE)


def overlay(
    first: Picture,
    second: Picture,
    symmetry: int = 0,
    rectangles: tuple = ((0, 0, 1, 1), (0, 0, 1, 1)),
    enough: float = 2.0,
) -> Overlay:
    """Lay the second picture, turned, upon the first, and compare.

    Parameters
    ----------
    first, second : Picture
    symmetry : int
        0..7, as :func:`kit.data.planted.turn` counts.
    rectangles : pair of 4 floats
        The views that agree, left, top, right, bottom as shares; that of the second before it is
        turned.
    enough : float
        Structure from which a place is taken and no other is tried.
    """
    fine = np.ascontiguousarray(turn(second.fine, symmetry))
    start = _matrix(rectangles[0], _turned_rectangle(rectangles[1], symmetry))
    best = _compare(first.fine, fine, start)
    if best.structure >= enough:
        return best
    middle = np.ascontiguousarray(turn(second.middle, symmetry))
    matrix = _registered(first.middle, middle, start, first.descent)
    found = _compare(first.fine, fine, matrix)
    return found if found.structure > best.structure else best


def _turned_rectangle(rectangle, symmetry: int) -> tuple:
    """The rectangle of a view after its picture has been turned."""
    left, top, right, bottom = (float(value) for value in rectangle)
    if symmetry >= 4:
        left, top, right, bottom = top, left, bottom, right
    if symmetry in (1, 3, 6, 7):
        left, right = 1 - right, 1 - left
    if symmetry in (2, 3, 5, 7):
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def _matrix(source, target) -> np.ndarray:
    """The map of one rectangle (shares of the sides) onto another, in pixels whose centres lie at
    whole numbers.
    """
    (a, b, c, d), (e, f, g, h) = source, target
    x, y = (g - e) / (c - a), (h - f) / (d - b)
    return np.float32(
        [
            [x, 0, SIDE * (e - x * a) + (x - 1) / 2],
            [0, y, SIDE * (f - y * b) + (y - 1) / 2],
        ]
    )


def _descent(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steepest descent images (4, n) for stretching and moving a picture along both axes, and the
    matrix (4, 4) that turns their products with a difference of two pictures into these numbers.
    """
    side = len(values)
    down, right = np.gradient(values)
    place = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / side
    images = np.stack([right * place, right, down * place[:, None], down]).reshape(4, -1)
    hessian = (images @ images.T).astype(float) + 1e-3 * np.eye(4)
    return images, np.linalg.inv(hessian)


def _registered(first, second, start: np.ndarray, descent) -> np.ndarray:
    """Stretch and shift that lay the second picture upon the first, by inverse composition.

    Parameters
    ----------
    first, second : numpy.ndarray
        float32, (s, s).
    start : numpy.ndarray
        (2, 3), for pictures of 224 pixels, without slant.
    descent : pair of numpy.ndarray
        :func:`_descent` of the first.

    Returns
    -------
    numpy.ndarray
        float32, (2, 3), for 224 pixels; the start where the search strays.
    """
    side, flat = len(first), first.ravel()
    images, to_step = descent
    # x' = stretch x + shift about the centre, the shift as a share of the side
    stretch = np.array([start[0, 0], start[1, 1]], float)
    shift = (start[:, 2] + (stretch - 1) * (SIDE - 1) / 2) / SIDE
    for _ in range(STEPS):
        matrix = _about_the_centre(stretch, shift, side)
        now = cv2.warpAffine(
            second, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        ).ravel()
        step = to_step @ (images @ (now - flat)) / side
        stretch = stretch / (1 + step[0::2])
        shift = shift - stretch * step[1::2]
        if stretch.min() < 0.75 or stretch.max() > 1.35 or np.abs(shift).max() > 0.15:
            return start
        if np.abs(step).max() < 2e-4:
            break
    return _about_the_centre(stretch, shift, SIDE)


def _about_the_centre(stretch: np.ndarray, shift: np.ndarray, side: int) -> np.ndarray:
    """The matrix, float32 (2, 3), of a stretch about the centre and a shift in shares."""
    offset = shift * side + (1 - stretch) * (side - 1) / 2
    return np.float32([[stretch[0], 0, offset[0]], [0, stretch[1], offset[1]]])


def _compare(first: np.ndarray, second: np.ndarray, matrix: np.ndarray) -> Overlay:
    """Agreement of two structures, the second laid on the first by `matrix`."""
    options = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderValue": np.nan}
    laid = cv2.warpAffine(second, matrix, (SIDE, SIDE), **options)
    outside = np.isnan(laid + first)
    if outside.mean() > 0.5:
        return Overlay(-1.0, matrix)
    first = first.copy()
    first[outside] = laid[outside] = 0
    both, one, other = (_tiles(v) for v in (first * laid, first * first, laid * laid))
    agreement = both / np.maximum(np.sqrt(one * other), 1e-9)
    order = np.argsort(agreement, kind="stable")
    area = np.cumsum((one + other)[order])
    kept = order[area > area[-1] / 6]
    length = np.sqrt(one[kept].sum() * other[kept].sum())
    return Overlay(float(both[kept].sum() / length) if length > 0 else 0.0, matrix)


def _tiles(values: np.ndarray) -> np.ndarray:
    """Means over squares of :data:`TILE` pixels: float64, one value a square."""
    count = SIDE // TILE
    return cv2.resize(values, (count, count), interpolation=cv2.INTER_AREA).ravel().astype(float)
