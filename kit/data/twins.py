"""The same picture in another form: mirrored, turned, stretched, framed, cropped, re-encoded,
windowed anew or written upon.

The comparison has two stages. *Candidates* come from grey thumbnails of 16 x 16 cells. Each is
split into the parts that the eight symmetries of the square only change in sign or mix in pairs;
the absolute values and pair norms of these parts are the same for all eight forms of a picture, so
one matrix product in blocks finds the pictures that may be forms of each other. Those are compared
under the eight symmetries, and each picture keeps its best :data:`NEIGHBOURS`. *Verification* lays
one picture over the other at 224 x 224 pixels (symmetry and frame from the first stage, then
stretch and shift by inverse composition, Baker and Matthews, IJCV 56(3), 2004) and correlates what
is left when brightness and contrast are divided out over a few pixels: two neighbouring slices of
one head share the outline, only copies share the fine structure.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from kit.data.planted import inverse, turn

SAME = 0.94  # structure from which two pictures are the same (calibrated: kit.benchmarks.twins)
SMALLEST = 64  # pixels of a side below which fine structure says nothing: digits, CIFAR
SIDE = 224  # pixels of the pictures that are laid over each other
CELLS = 16  # cells of a thumbnail's side
NEIGHBOURS = 12  # candidates an image
FLOOR = 0.8  # correlation of thumbnails from which a pair can be a candidate
TRIMS = (0.0, 0.03, 0.06)  # shares of the side that a view leaves out on each side
VIEWS = 2 * len(TRIMS)  # the whole picture and its foreground, each with each trim
_PAIRS = [  # which view of one picture is laid beside which view of the other
    (base + first, base + second)
    for base in (0, len(TRIMS))
    for first, second in ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0))
]
TILE = 28  # pixels of the squares of which the worst are left out
RING = 9  # outermost pixels that are not compared
NOISE = 1.0  # grey levels below which a local contrast counts as none
STEPS = 15  # of the registration
PROMISING = 0.5  # correlation at 56 pixels below which no finer comparison follows
_BLOCK = 512  # rows that are compared at once
_SHORTLIST = 40  # nearest by invariants, for each view


@dataclass(frozen=True)
class Looks:
    """What stage one knows of n pictures.

    Attributes
    ----------
    thumbnails : numpy.ndarray
        float32, (n, VIEWS, CELLS, CELLS), each of zero mean and unit length.
    rectangles : numpy.ndarray
        float32, (n, VIEWS, 4): left, top, right, bottom of each view as shares of the sides.
    """

    thumbnails: np.ndarray
    rectangles: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """Pairs of pictures that may be the same, each pair once, best first.

    Attributes
    ----------
    first, second : numpy.ndarray
        int64, (m,): rows of the pictures, first < second.
    symmetry : numpy.ndarray
        int8, (m,): the second picture under it lies upon the first.
    views : numpy.ndarray
        int8, (m, 2): the views that agree best.
    correlation : numpy.ndarray
        float32, (m,): of those views' thumbnails.
    """

    first: np.ndarray
    second: np.ndarray
    symmetry: np.ndarray
    views: np.ndarray
    correlation: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def look(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails and rectangles of the views of one grey picture.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8, (H, W).

    Returns
    -------
    (thumbnails, rectangles)
        float32, (VIEWS, CELLS, CELLS) and (VIEWS, 4); all zero thumbnails, which are like no
        other, where there is no contrast or a side is shorter than :data:`SMALLEST`.
    """
    if min(pixels.shape) < SMALLEST:
        return (
            np.zeros((VIEWS, CELLS, CELLS), np.float32),
            np.tile(np.float32([0, 0, 1, 1]), (VIEWS, 1)),
        )
    whole = _without_light_frame(pixels)
    rectangles = [
        _trimmed(base, trim) for base in (whole, _foreground(pixels, whole)) for trim in TRIMS
    ]
    return np.stack([_cells(pixels, r) for r in rectangles]), np.array(rectangles, np.float32)


def looks(pictures: Iterator[np.ndarray]) -> Looks:
    """The :class:`Looks` of grey pictures, one after the other."""
    parts = [look(picture) for picture in pictures]
    return Looks(*(np.stack(part) for part in zip(*parts, strict=True)))


def _without_light_frame(pixels: np.ndarray) -> tuple:
    """left, top, right, bottom of what lies within a light frame of one grey value (a scanned film,
    a figure's margin); the whole where there is none.
    """

    def margin(lines: np.ndarray) -> int:
        uniform = (lines.mean(1) > 160) & (lines.std(1) < 12)
        width = int(np.argmin(uniform)) if not uniform.all() else 0
        return width if width < 0.3 * len(lines) else 0

    height, width = pixels.shape
    values = pixels.astype(np.float32)
    top, bottom = margin(values), margin(values[::-1])
    within = values[top : height - bottom].T
    left, right = margin(within), margin(within[::-1])
    return left / width, top / height, 1 - right / width, 1 - bottom / height


def _foreground(pixels: np.ndarray, within: tuple) -> tuple:
    """Rectangle of the largest bright region, such as a head before a dark background: letters in
    the corners are regions of their own. `within` where there is no such region.
    """
    left, top, right, bottom = _inside(pixels.shape, within)
    small = cv2.resize(pixels[top:bottom, left:right], (64, 64), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (3, 3), 0)
    threshold = cv2.threshold(small, 0, 255, cv2.THRESH_OTSU)[0]
    bright = (small > threshold / 2).astype(np.uint8)
    count, _, regions, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    if count < 2:
        return within
    x, y, width, height, area = regions[1 + int(np.argmax(regions[1:, 4]))]
    if area < 0.15 * small.size:
        return within
    a, b, c, d = within
    return (
        a + (c - a) * x / 64,
        b + (d - b) * y / 64,
        a + (c - a) * (x + width) / 64,
        b + (d - b) * (y + height) / 64,
    )


def _trimmed(rectangle: tuple, trim: float) -> tuple:
    left, top, right, bottom = rectangle
    x, y = trim * (right - left), trim * (bottom - top)
    return left + x, top + y, right - x, bottom - y


def _inside(shape: tuple, rectangle: tuple) -> tuple[int, int, int, int]:
    """A rectangle in whole pixels, at least two wide and high where the picture is."""
    (height, width), (left, top, right, bottom) = shape, rectangle
    x, y = min(round(left * width), width - 2), min(round(top * height), height - 2)
    x, y = max(x, 0), max(y, 0)
    return x, y, max(round(right * width), x + 2), max(round(bottom * height), y + 2)


def _cells(pixels: np.ndarray, rectangle: tuple) -> np.ndarray:
    left, top, right, bottom = _inside(pixels.shape, rectangle)
    cells = cv2.resize(
        pixels[top:bottom, left:right].astype(np.float32),
        (CELLS, CELLS),
        interpolation=cv2.INTER_AREA,
    )
    cells -= cells.mean()
    length = np.linalg.norm(cells)
    return cells / length if length > 1e-3 * CELLS else np.zeros_like(cells)


def invariants(thumbnails: np.ndarray) -> np.ndarray:
    """Numbers that are the same for all eight forms of a thumbnail, of the same length.

    The space of thumbnails is the sum of parts that a symmetry of the square leaves alone or
    multiplies by -1 (absolute values are invariant) and of pairs that it mixes (norms are). The
    distance of two such vectors is at most that of the thumbnails under the best symmetry.

    Parameters
    ----------
    thumbnails : numpy.ndarray
        float32, (n, s, s) with even s.

    Returns
    -------
    numpy.ndarray
        float32, (n, 3 s²/4).
    """
    flip = thumbnails[..., ::-1]
    even, odd = (thumbnails + flip) / 2, (thumbnails - flip) / 2
    half = thumbnails.shape[-1] // 2

    def rows(part):
        return (part + part[:, ::-1]) / 2, (part - part[:, ::-1]) / 2

    (even_even, odd_even), (even_odd, odd_odd) = rows(even), rows(odd)
    corner = [2 * part[:, :half, :half] for part in (even_even, odd_odd, even_odd, odd_even)]
    alone = []
    for part in corner[:2]:
        swapped = part.swapaxes(1, 2)
        alone += [(part + swapped) / 2, (part - swapped) / 2]
    pair = np.hypot(corner[2], corner[3].swapaxes(1, 2))
    alone[0] = alone[0].copy()
    parts = [alone[0], *(np.abs(part) for part in alone[1:]), pair]
    upper, diagonal = np.triu_indices(half, 1), np.arange(half)
    columns = []
    for number, part in enumerate(parts):
        if number == 4:
            columns.append(part.reshape(len(part), -1))
            continue
        columns.append(np.sqrt(2) * part[:, upper[0], upper[1]])
        if number in (0, 2):
            columns.append(part[:, diagonal, diagonal])
    return np.concatenate(columns, axis=1).astype(np.float32)


def candidates(
    looks: Looks,
    against: Looks | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Candidates:
    """Pairs that may show the same picture: each picture's best :data:`NEIGHBOURS`.

    No n x n matrix is kept: rows are compared in blocks of 512.

    Parameters
    ----------
    looks : Looks
        n pictures.
    against : Looks or None
        Given, the second of each pair is a row of these and the pictures of `looks` are not
        compared with each other.
    progress : callable
        Called with the number of rows done and of all rows.
    """
    count, within = len(looks.thumbnails), against is None
    others = looks if against is None else against
    features = [invariants(looks.thumbnails[:, view]) for view in range(VIEWS)]
    theirs = features
    if not within:
        theirs = [invariants(others.thumbnails[:, view]) for view in range(VIEWS)]
    kept = [np.empty(0, _PAIR)]
    for start in range(0, count, _BLOCK):
        rows = slice(start, min(start + _BLOCK, count))
        near = []
        for views in _PAIRS:
            similarity = features[views[0]][rows] @ theirs[views[1]].T
            if within:
                similarity[np.arange(rows.stop - start), np.arange(start, rows.stop)] = -1
            forms = looks.thumbnails[rows, views[0]]
            near.append(_scored(forms, others.thumbnails, rows, views, similarity, within))
        kept.append(_best(np.concatenate(near)))
        progress(rows.stop, count)
    pairs = np.concatenate(kept)
    return _each_pair_once(pairs, count) if within else _ordered(pairs)


_PAIR = np.dtype([("i", "i8"), ("j", "i8"), ("g", "i1"), ("a", "i1"), ("b", "i1"), ("value", "f4")])


def _scored(own, others, rows: slice, views: tuple, similarity: np.ndarray, within: bool):
    """The pictures whose invariants are nearest to each row's, with the best symmetry of each.

    Parameters
    ----------
    own : numpy.ndarray
        (rows, s, s): thumbnails of the rows in the first of `views`.
    others : numpy.ndarray
        (n, VIEWS, s, s).
    rows : slice
    views : pair of int
    similarity : numpy.ndarray
        float32, (rows, n), of the invariants.
    within : bool
        Whether `others` holds the rows themselves.
    """
    near = (
        np.argpartition(similarity, -_SHORTLIST, axis=1)[:, -_SHORTLIST:]
        if similarity.shape[1] > _SHORTLIST
        else np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    )
    forms = np.stack([turn(own, inverse(g)) for g in range(8)], axis=1)
    theirs = others[near, views[1]].reshape(*near.shape, -1)
    values = np.matmul(forms.reshape(len(own), 8, -1), theirs.swapaxes(1, 2))
    out = np.empty(near.shape, _PAIR)
    out["i"], out["j"] = np.arange(rows.start, rows.stop)[:, None], near
    out["g"], out["value"] = values.argmax(axis=1), values.max(axis=1)
    out["a"], out["b"] = views
    return out[(out["value"] > FLOOR) & ((out["i"] != out["j"]) | (not within))]


def _best(pairs: np.ndarray) -> np.ndarray:
    """Each pair of pictures once, by its best views, and of these the best few for each first."""
    pairs = pairs[np.lexsort((pairs["b"], pairs["a"], -pairs["value"], pairs["j"], pairs["i"]))]
    again = (pairs["i"][1:] == pairs["i"][:-1]) & (pairs["j"][1:] == pairs["j"][:-1])
    pairs = pairs[np.concatenate([[True], ~again])[: len(pairs)]]
    pairs = pairs[np.lexsort((pairs["j"], -pairs["value"], pairs["i"]))]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs["i"], pairs["i"])
    return pairs[rank < NEIGHBOURS]


def _each_pair_once(pairs: np.ndarray, count: int) -> Candidates:
    """Directed pairs as undirected ones, the best first; ties in the order of the rows."""
    swapped = pairs["i"] > pairs["j"]
    out = pairs.copy()
    for one, other in (("i", "j"), ("a", "b")):
        out[one], out[other] = (
            np.where(swapped, pairs[other], pairs[one]),
            np.where(swapped, pairs[one], pairs[other]),
        )
    out["g"] = np.where(swapped, _INVERSE[pairs["g"]], pairs["g"])
    out = out[np.lexsort((out["j"], out["i"], -out["value"]))]
    return _ordered(out[np.unique(out["i"] * count + out["j"], return_index=True)[1]])


def _ordered(pairs: np.ndarray) -> Candidates:
    pairs = pairs[np.lexsort((pairs["j"], pairs["i"], -pairs["value"]))]
    views = np.stack([pairs["a"], pairs["b"]], axis=1)
    return Candidates(pairs["i"], pairs["j"], pairs["g"], views, pairs["value"])


_INVERSE = np.array([inverse(g) for g in range(8)], np.int8)


def first_only(pairs: Candidates, count: int) -> Candidates:
    """The best `count` candidates of each first picture."""
    order = np.lexsort((np.arange(len(pairs)), pairs.first))
    first = pairs.first[order]
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    keep = np.sort(order[rank < count])
    return Candidates(*(getattr(pairs, name)[keep] for name in pairs.__dataclass_fields__))


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
    middle, coarse : numpy.ndarray
        float32, (112, 112) and (56, 56), 0 in the outermost pixels: for registration.
    """

    fine: np.ndarray
    middle: np.ndarray
    coarse: np.ndarray

    @cached_property
    def descent(self) -> tuple[np.ndarray, np.ndarray]:
        """:func:`_descent` of the coarse picture."""
        return _descent(self.coarse)


def picture(pixels: np.ndarray) -> Picture:
    """Make a :class:`Picture` of grey pixels, uint8 (H, W), whatever their aspect."""
    method = cv2.INTER_AREA if min(pixels.shape) > SIDE else cv2.INTER_LINEAR
    values = cv2.resize(pixels, (SIDE, SIDE), interpolation=method).astype(np.float32)
    levels = []
    for side in (SIDE, SIDE // 2, SIDE // 4):
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
    best = _compare(first.fine, fine, _SAME_PLACE)
    if best.structure >= enough:
        return best
    coarse = np.ascontiguousarray(turn(second.coarse, symmetry))
    target = _turned_rectangle(rectangles[1], symmetry)
    tried = [
        _registered(first.coarse, coarse, place, first.descent)
        for place in [*_places(rectangles[0], target), _moved(first.coarse, coarse)]
    ]
    matrix, agreement = max(tried, key=lambda found: found[1])
    if agreement < PROMISING:
        return best
    best = max(best, _compare(first.fine, fine, matrix), key=_structure)
    if best.structure < PROMISING or best.structure >= enough:
        return best
    middle = np.ascontiguousarray(turn(second.middle, symmetry))
    matrix, _ = _registered(first.middle, middle, matrix, _descent(first.middle))
    return max(best, _compare(first.fine, fine, matrix), key=_structure)


_SAME_PLACE = np.float32([[1, 0, 0], [0, 1, 0]])


def _places(source, target) -> list[np.ndarray]:
    """Where registration starts: the views laid upon each other and, where that is another place,
    the whole pictures.
    """
    start = _matrix(source, target)
    return [start] if np.allclose(start, _SAME_PLACE, atol=0.02) else [start, _SAME_PLACE]


def _moved(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The shift that phase correlation of two coarse pictures finds, for 224 pixels."""
    (right, down), _ = cv2.phaseCorrelate(first, second)
    limit = 0.1 * SIDE
    factor = SIDE / len(first)
    return np.float32(
        [
            [1, 0, np.clip(factor * right, -limit, limit)],
            [0, 1, np.clip(factor * down, -limit, limit)],
        ]
    )


def _structure(result: Overlay) -> float:
    return result.structure


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
    matrix (4, n) that turns differences of two pictures into these four numbers.
    """
    side = len(values)
    down, right = np.gradient(values)
    place = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / side
    images = np.stack([right * place, right, down * place[:, None], down]).reshape(4, -1)
    hessian = images @ images.T + 1e-3 * np.eye(4, dtype=np.float32)
    return images, np.linalg.solve(hessian, images).astype(np.float32)


def _registered(first, second, start: np.ndarray, descent) -> tuple[np.ndarray, float]:
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
    (matrix, agreement)
        The map for 224 pixels; Pearson's correlation of the two pictures then. The start and -1
        where the search strays.
    """
    side, flat = len(first), first.ravel()
    # x' = stretch x + shift about the centre, the shift as a share of the side
    stretch = np.array([start[0, 0], start[1, 1]], float)
    shift = (start[:, 2] + (stretch - 1) * (SIDE - 1) / 2) / SIDE
    now = flat
    for _ in range(STEPS):
        matrix = _about_the_centre(stretch, shift, side)
        now = cv2.warpAffine(
            second, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        ).ravel()
        step = descent[1] @ (now - flat) / side
        stretch = stretch / (1 + step[0::2])
        shift = shift - stretch * step[1::2]
        if (stretch < 0.75).any() or (stretch > 1.35).any() or np.abs(shift).max() > 0.15:
            return start, -1.0
        if np.abs(step).max() < 2e-4:
            break
    length = np.sqrt(float(flat @ flat) * float(now @ now))
    agreement = float(flat @ now) / length if length else 0.0
    return _about_the_centre(stretch, shift, SIDE), agreement


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


@dataclass(frozen=True)
class Verified:
    """Candidates that were laid over each other, in their order.

    Attributes
    ----------
    first, second, symmetry : numpy.ndarray
        As in :class:`Candidates`.
    structure : numpy.ndarray
        float32, (m,), of :class:`Overlay`.
    """

    first: np.ndarray
    second: np.ndarray
    symmetry: np.ndarray
    structure: np.ndarray

    def same(self, threshold: float = SAME) -> "Verified":
        """Those at or above the threshold."""
        keep = self.structure >= threshold
        return Verified(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def verify(
    looks: Looks,
    pairs: Candidates,
    read: Callable[[int], np.ndarray],
    against: tuple[Looks, Callable[[int], np.ndarray]] | None = None,
    all_pairs: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Verified:
    """Lay candidates over each other, the best first.

    Parameters
    ----------
    looks : Looks
    pairs : Candidates
    read : callable
        Row -> grey pixels, uint8 (H, W).
    against : (Looks, callable) or None
        Looks and pixels of the second of each pair, if they are other pictures.
    all_pairs : bool
        False leaves out pairs that earlier rounds of 64 joined through third pictures: groups are
        the same, and a hundred copies need not be compared 4,950 times.
    progress : callable
        Called with the number of candidates done and of all.
    """
    others, read_other = (looks, read) if against is None else against
    pictures = lru_cache(_KEPT)(lambda row: picture(read(row)))
    other_pictures = (
        pictures if against is None else lru_cache(_KEPT)(lambda row: picture(read_other(row)))
    )
    offset = 0 if against is None else len(looks.thumbnails)
    parent = np.arange(offset + len(others.thumbnails))

    def compare(k: int) -> float:
        i, j = pairs.first[k], pairs.second[k]
        a, b = pairs.views[k]
        rectangles = (looks.rectangles[i, a], others.rectangles[j, b])
        first, second = pictures(int(i)), other_pictures(int(j))
        return overlay(first, second, int(pairs.symmetry[k]), rectangles, SAME).structure

    kept, structure = [], []
    with ThreadPoolExecutor(2) as pool:  # OpenCV releases the interpreter lock
        for start in range(0, len(pairs), _ROUND):
            rows = [
                k
                for k in range(start, min(start + _ROUND, len(pairs)))
                if all_pairs
                or _root(parent, pairs.first[k]) != _root(parent, offset + pairs.second[k])
            ]
            values = list(pool.map(compare, rows))
            for k, value in zip(rows, values, strict=True):
                if value >= SAME:
                    one = _root(parent, pairs.first[k])
                    parent[one] = _root(parent, offset + pairs.second[k])
            kept += rows
            structure += values
            progress(min(start + _ROUND, len(pairs)), len(pairs))
    rows = np.array(kept, int)
    return Verified(
        pairs.first[rows],
        pairs.second[rows],
        pairs.symmetry[rows],
        np.array(structure, np.float32),
    )


_KEPT = 3000  # pictures of 213 kB that are kept in memory
_ROUND = 64  # candidates that are compared before groups are joined


def _root(parent: np.ndarray, row: int) -> int:
    """The picture that stands for the group of `row`, with the path to it shortened."""
    root = row
    while parent[root] != root:
        root = parent[root]
    while parent[row] != root:
        parent[row], row = root, parent[row]
    return int(root)
