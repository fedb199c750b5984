"""Stage one of the search for twins: which of many pictures may be the same in another form.

Each picture is looked at as a whole and as its foreground, each with three trims. A view is reduced
to 32 x 32 cells of which only the structure is kept: what lies between two blurs, over its local
strength, so that brightness and contrast do not count. Averaged to 12 x 12 cells it is split
into the parts that the eight symmetries of the square only change in sign or mix in pairs; the
absolute values and pair norms of these parts are the same for all eight forms of a picture, so one
matrix product in blocks gives each picture a short list of those that may be forms of it. These are
compared at 32 x 32 cells under the eight symmetries, and each picture keeps its best
:data:`NEIGHBOURS`. No n x n matrix is kept.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from kit.data.planted import inverse, turn

SMALLEST = 64  # pixels of a side below which fine structure says nothing: digits, CIFAR
CELLS = 32  # cells of a view's side
COARSE = 12  # cells of the side from which the short list is made
NEIGHBOURS = 12  # candidates an image
FLOOR = 0.7  # agreement of two views from which a pair can be a candidate
TRIMS = (0.0, 0.03, 0.06)  # shares of the side that a view leaves out on each side
VIEWS = 2 * len(TRIMS)  # the whole picture and its foreground, each with each trim
_BASES = (0, len(TRIMS))
_PAIRS = [  # which view of one picture is laid beside which view of the other
    (base + first, base + second)
    for base in _BASES
    for first, second in ((0, 0), (0, 1), (1, 0), (0, 2), (2, 0))
]
_LEVELS = 40  # integers that one unit of structure is stored in
_BLOCK = 256  # rows whose short lists are made at once
_ROWS = 32  # rows that are compared under the symmetries at once
_SHORTLIST = 40  # nearest by invariants


@dataclass(frozen=True)
class Looks:
    """What stage one knows of n pictures.

    Attributes
    ----------
    views : numpy.ndarray
        int8, (n, VIEWS, CELLS, CELLS): structure; all zero where a picture has none.
    rectangles : numpy.ndarray
        float32, (n, VIEWS, 4): left, top, right, bottom of each view as shares of the sides.
    """

    views: np.ndarray
    rectangles: np.ndarray

    def __len__(self) -> int:
        return len(self.views)


NONE = Looks(np.empty((0, VIEWS, CELLS, CELLS), np.int8), np.empty((0, VIEWS, 4), np.float32))


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
        float32, (m,): of those views' structure.
    """

    first: np.ndarray
    second: np.ndarray
    symmetry: np.ndarray
    views: np.ndarray
    correlation: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def at(self, rows: np.ndarray) -> "Candidates":
        """Some of the pairs, by numbers or by a mask."""
        return Candidates(*(values[rows] for values in vars(self).values()))


def look(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structure and rectangles of the views of one grey picture.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8, (H, W).

    Returns
    -------
    (views, rectangles)
        int8, (VIEWS, CELLS, CELLS), and float32, (VIEWS, 4); all zero views, which are like no
        other, where there is no contrast or a side is shorter than :data:`SMALLEST`.
    """
    if min(pixels.shape) < SMALLEST:
        return (
            np.zeros((VIEWS, CELLS, CELLS), np.int8),
            np.tile(np.array([0, 0, 1, 1], np.float32), (VIEWS, 1)),
        )
    whole = _without_light_frame(pixels)
    rectangles = [
        _trimmed(base, trim) for base in (whole, _foreground(pixels, whole)) for trim in TRIMS
    ]
    return np.stack([_view(pixels, r) for r in rectangles]), np.array(rectangles, np.float32)


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


def _view(pixels: np.ndarray, rectangle: tuple) -> np.ndarray:
    """The structure of a rectangle: int8, (CELLS, CELLS), 0 in the outermost cells."""
    left, top, right, bottom = _inside(pixels.shape, rectangle)
    part = pixels[top:bottom, left:right].astype(np.float32)
    cells = cv2.resize(part, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    band = cv2.GaussianBlur(cells, (5, 5), 0.7) - cv2.GaussianBlur(cells, (13, 13), 2.5)
    structure = band / (np.sqrt(cv2.GaussianBlur(band * band, (21, 21), 4)) + 1)
    structure[:1] = structure[-1:] = structure[:, :1] = structure[:, -1:] = 0
    if not np.abs(band).max() > 1:
        structure[:] = 0
    return np.clip(np.rint(_LEVELS * structure), -127, 127).astype(np.int8)


def _unit(views: np.ndarray) -> np.ndarray:
    """Structure (..., s, s) as float32 of unit length; zeros stay zeros."""
    values = views.astype(np.float32)
    length = np.sqrt(np.square(values).sum((-1, -2), keepdims=True))
    return values / np.maximum(length, 1e-6)


def _coarse_invariants(views: np.ndarray) -> np.ndarray:
    """:func:`invariants` of one view of n pictures, int8 (n, CELLS, CELLS), at COARSE cells."""
    cells = np.stack(
        [
            cv2.resize(view.astype(np.float32), (COARSE, COARSE), interpolation=cv2.INTER_AREA)
            for view in views
        ]
    )
    return invariants(_unit(cells))


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
    count, within = len(looks), against is None
    others = looks if against is None else against
    ours = [_coarse_invariants(looks.views[:, view]) for view in range(VIEWS)]
    theirs = ours
    if not within:
        theirs = [_coarse_invariants(others.views[:, view]) for view in range(VIEWS)]
    # within one set (1, 0) of a pair is (0, 1) of the same pair met from the other side
    pairs = [pair for pair in _PAIRS if pair[0] in _BASES] if within else _PAIRS

    def block(start: int) -> np.ndarray:
        rows = np.arange(start, min(start + _BLOCK, count))
        similarity = ours[pairs[0][0]][rows] @ theirs[pairs[0][1]].T
        for one, other in pairs[1:]:
            np.maximum(similarity, ours[one][rows] @ theirs[other].T, out=similarity)
        if within:
            similarity[np.arange(len(rows)), rows] = -1
        near = _nearest(similarity)
        parts = [
            _scored(looks, others, rows[a : a + _ROWS], near[a : a + _ROWS], within)
            for a in range(0, len(rows), _ROWS)
        ]
        return _best(np.concatenate(parts))

    kept = [np.empty(0, _PAIR)]
    with ThreadPoolExecutor(2) as pool:  # NumPy releases the interpreter lock
        for done, found in enumerate(pool.map(block, range(0, count, _BLOCK)), 1):
            kept.append(found)
            progress(min(done * _BLOCK, count), count)
    pairs_ = np.concatenate(kept)
    return _each_pair_once(pairs_, count) if within else _ordered(pairs_)


_PAIR = np.dtype([("i", "i8"), ("j", "i8"), ("g", "i1"), ("a", "i1"), ("b", "i1"), ("value", "f4")])


def _nearest(similarity: np.ndarray) -> np.ndarray:
    """Columns of the largest values of each row (rows, n): int64, (rows, up to _SHORTLIST)."""
    if similarity.shape[1] <= _SHORTLIST:
        return np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    return np.argpartition(similarity, -_SHORTLIST, axis=1)[:, -_SHORTLIST:]


def _scored(looks: Looks, others: Looks, rows: np.ndarray, near: np.ndarray, within: bool):
    """The short list compared under all symmetries: what reaches :data:`FLOOR`, with the symmetry
    and the views that agree best.

    Parameters
    ----------
    looks, others : Looks
        Of the first and the second of each pair.
    rows : numpy.ndarray
        int64, (r,).
    near : numpy.ndarray
        int64, (r, k), rows of `others`.
    within : bool
        Whether both are the same pictures.
    """
    own = _unit(looks.views[rows])
    forms = np.stack([turn(own, inverse(g)) for g in range(8)], axis=2)
    forms = forms.reshape(len(rows), VIEWS, 8, -1)
    theirs = _unit(others.views[near]).reshape(*near.shape, VIEWS, -1)
    out = np.zeros(near.shape, _PAIR)
    out["i"], out["j"], out["value"] = rows[:, None], near, -1
    for one, other in _PAIRS:
        values = np.matmul(forms[:, one], theirs[:, :, other].swapaxes(1, 2))
        symmetry, value = values.argmax(axis=1), values.max(axis=1)
        better = value > out["value"]
        for name, new in (("g", symmetry), ("a", one), ("b", other), ("value", value)):
            out[name] = np.where(better, new, out[name])
    return out[(out["value"] >= FLOOR) & ((out["i"] != out["j"]) | (not within))]


def _best(pairs: np.ndarray) -> np.ndarray:
    """The best few pairs of each first picture."""
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
    return pairs.at(np.sort(order[rank < count]))
