"""Stage one of the search for twins: which of many pictures may be the same in another form.

Each picture is looked at as a whole and as its foreground, each with three trims, on grey
thumbnails of 16 x 16 cells. A thumbnail is split into the parts that the eight symmetries of the
square only change in sign or mix in pairs; the absolute values and pair norms of these parts are
the same for all eight forms of a picture, so one matrix product in blocks finds the pictures that
may be forms of each other. Those are compared under the eight symmetries, and each picture keeps
its best :data:`NEIGHBOURS`. No n x n matrix is kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from kit.data.planted import inverse, turn

SMALLEST = 64  # pixels of a side below which fine structure says nothing: digits, CIFAR
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
