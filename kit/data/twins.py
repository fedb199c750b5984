"""The same picture in another form: mirrored, turned, stretched, framed, cropped, re-encoded,
windowed anew or written upon.

The comparison has two stages: candidates by thumbnails whose numbers do not change under the
symmetries of the square (:mod:`kit.data.thumbnails`), then one picture laid over the other at
224 x 224 pixels (:mod:`kit.data.overlays`). What agrees there in its fine structure by :data:`SAME`
or more is a twin.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from kit.data.overlays import overlay, picture
from kit.data.steps import Steps
from kit.data.thumbnails import Candidates, Looks

SAME = 0.94  # structure from which two pictures are the same (calibrated: kit.benchmarks.twins)


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
    steps: Steps | None = None,
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
    steps : Steps, optional
        Keeps what was compared.
    """
    steps = steps or Steps()
    others, read_other = (looks, read) if against is None else against
    pictures = lru_cache(_KEPT)(lambda row: picture(read(row)))
    other_pictures = (
        pictures if against is None else lru_cache(_KEPT)(lambda row: picture(read_other(row)))
    )
    offset = 0 if against is None else len(looks)
    parent = np.arange(offset + len(others))

    def compare(k: int) -> float:
        i, j = pairs.first[k], pairs.second[k]
        a, b = pairs.views[k]
        rectangles = (looks.rectangles[i, a], others.rectangles[j, b])
        first, second = pictures(int(i)), other_pictures(int(j))
        return overlay(first, second, int(pairs.symmetry[k]), rectangles, SAME).structure

    def apart(k: int) -> bool:
        return _root(parent, pairs.first[k]) != _root(parent, offset + pairs.second[k])

    def join(rows: np.ndarray, values: np.ndarray) -> None:
        for k in rows[values >= SAME]:
            parent[_root(parent, pairs.first[k])] = _root(parent, offset + pairs.second[k])

    def some(start: int, end: int) -> dict[str, np.ndarray]:
        rows, values = [np.empty(0, int)], [np.empty(0, np.float32)]
        for begin in range(start, end, _ROUND):
            numbers = range(begin, min(begin + _ROUND, end))
            rows.append(np.array([k for k in numbers if all_pairs or apart(k)], int))
            values.append(np.fromiter(pool.map(compare, rows[-1]), np.float32, len(rows[-1])))
            join(rows[-1], values[-1])
            progress(min(begin + _ROUND, end), len(pairs))
        return {"rows": np.concatenate(rows), "structure": np.concatenate(values)}

    kept, structure = [np.empty(0, int)], [np.empty(0, np.float32)]
    with ThreadPoolExecutor(2) as pool:  # OpenCV releases the interpreter lock
        for start in range(0, len(pairs), _STEP):
            end = min(start + _STEP, len(pairs))
            done = steps("overlaid", [start, all_pairs], partial(some, start, end))
            join(done["rows"], done["structure"])
            kept.append(done["rows"])
            structure.append(done["structure"])
    rows = np.concatenate(kept)
    return Verified(
        pairs.first[rows], pairs.second[rows], pairs.symmetry[rows], np.concatenate(structure)
    )


_KEPT = 1500  # pictures of 450 kB that are kept in memory
_ROUND = 64  # candidates that are compared before groups are joined
_STEP = 64 * _ROUND  # candidates that are compared, then kept


def _root(parent: np.ndarray, row: int) -> int:
    """The picture that stands for the group of `row`, with the path to it shortened."""
    root = row
    while parent[root] != root:
        root = parent[root]
    while parent[row] != root:
        parent[row], row = root, parent[row]
    return int(root)
