"""Duplicate images: which pictures of a data set are the same picture, and which test images are
copies of training images.

The publications split their images at random and none of them looks for copies, although two of
their public sets carry training images in their test folders. Here images are grouped at four
levels, each of which contains the one before it:

``byte``
    equal files (SHA-256);
``pixel``
    equal decoded 8-bit pixels, whatever the file says; a colour file with three equal channels
    counts as grey;
``near``
    cosine similarity above 0.999 between the two 32 x 32 grey thumbnails, each with its mean
    subtracted. The thumbnail is the plain average over each of the 32 x 32
    cells (Pillow's box filter). That filter, and none of the others tried, gives all the known
    counts of the 7,023-image set (466 test images; 1,111 Br35H negatives in 739 groups): Lanczos
    466 and 1,121, bicubic 469 and 1,125, bilinear 470 and 1,141, bilinear without antialiasing
    (OpenCV's default) 250 and 186;
``twin``
    the same picture in another form: mirrored, upside down, turned, stretched, framed or cropped by
    up to 5 % a side, moved by a few pixels, in another window or contrast, written upon, saved
    again (:mod:`kit.data.twins`; threshold and error rates: :mod:`kit.benchmarks.twins`). Splits,
    intervals and every column "without copies" mean this level. For pictures with a side of less
    than 64 pixels and for volumes it is the level before.

A group is a connected component: copies of copies belong together even where the first and the last
differ by more than the threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kit import files, paths
from kit.data import contents, planted, registry, thumbnails, twins, voxels
from kit.data.contents import SIDE
from kit.data.steps import Steps
from kit.errors import KitError

LEVELS = ("byte", "pixel", "near", "twin")
LEVEL = "twin"  # what "copy" means where no level is named
COLUMN = {
    "byte": "exact_group",
    "pixel": "pixel_group",
    "near": "near_group",
    "twin": "twin_group",
}
NEAR_COSINE = 0.999
_BLOCK = 1024
_VERSION = 3  # of the method; part of the names of cached groups
Progress = Callable[[str, int, int], None]


class UnknownLevel(KitError):
    """A duplicate level that is none of byte, pixel, near, twin."""


class NotAudited(KitError):
    """An image id has no duplicate group."""


def _silent(stage: str, done: int, of: int) -> None:
    """Progress that nobody asked for."""


@dataclass(frozen=True)
class Found:
    """Groups of copies and the pairs that made them.

    Attributes
    ----------
    groups : pandas.DataFrame
        One row an image, in the order of the index: image_id and a group number (int) for each
        level, exact_group, pixel_group, near_group, twin_group. Images of one group share the
        number; numbers count from 0 in the order of the groups' first images.
    pairs : pandas.DataFrame
        The pairs that were laid over each other and are the same picture: image_id, other, symmetry
        (words of :data:`kit.data.planted.SYMMETRIES`; `other` under it lies upon `image_id`) and
        structure (correlation of the fine structure). They join the groups; a pair that others have
        joined already may be missing.
    """

    groups: pd.DataFrame
    pairs: pd.DataFrame


def groups(name: str, near_cosine: float = NEAR_COSINE) -> pd.DataFrame:
    """Duplicate groups of a registered data set, computed once per content and kept in the cache
    folder.

    Parameters
    ----------
    name : str
    near_cosine : float
        Two images are near-duplicates above this cosine similarity, in (0, 1).

    Returns
    -------
    pandas.DataFrame
        `groups` of :class:`Found`. Volumes have no files of their own: byte and pixel are equal
        voxels, thumbnails are those of :func:`kit.data.voxels.thumbnails`, and twin is near.
    """
    return _cached(name, near_cosine, "groups")


def pairs(name: str, near_cosine: float = NEAR_COSINE) -> pd.DataFrame:
    """The twin pairs behind :func:`groups`: `pairs` of :class:`Found`, kept in the same way."""
    return _cached(name, near_cosine, "pairs")


def _cached(name: str, near_cosine: float, part: str) -> pd.DataFrame:
    key = files.digest(
        {
            "fingerprint": registry.facts(name)["fingerprint"],
            "near_cosine": near_cosine,
            "side": SIDE,
            "structure": twins.SAME,
            "version": _VERSION,
        }
    )
    folder = paths.cache_dir() / "groups"
    stored = {kind: folder / f"{name}-{key[:16]}-{kind}.csv" for kind in ("pairs", "groups")}
    if not all(file.exists() for file in stored.values()):
        index = registry.index(name)
        if registry.get(name).kind == "volumes":
            found = _grouped(index, index["sha256"], voxels.thumbnails(name), near_cosine)
        else:
            found = find(index, registry.root(name), near_cosine)
        for kind, file in stored.items():
            files.write_csv(file, getattr(found, kind))
    return pd.read_csv(stored[part], dtype={"image_id": str, "other": str}, keep_default_na=False)


def duplicate_groups(
    index: pd.DataFrame, root, near_cosine: float = NEAR_COSINE, level: str = LEVEL
) -> pd.DataFrame:
    """`groups` of :func:`find`."""
    return find(index, root, near_cosine, level).groups


def find(
    index: pd.DataFrame,
    root,
    near_cosine: float = NEAR_COSINE,
    level: str = LEVEL,
    progress: Progress = _silent,
    keep: Path | None = None,
) -> Found:
    """Group the images of a folder at the four levels.

    Groups depend on what the pictures show, not on the order or the names of the files: pictures
    are compared in the order of their pixels' hashes.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id (path below `root`) and sha256.
    root : path-like
    near_cosine : float
        In (0, 1).
    level : {"twin", "near"}
        "near" saves the comparison under symmetries; twin groups are then near groups.
    progress : callable
        Called with what is being done, how much of it is done and how much there is.
    keep : Path, optional
        Folder for finished steps: a search that was stopped goes on there.
    """
    paths_ = [Path(root) / image_id for image_id in index["image_id"]]
    steps = Steps(keep, [_VERSION, twins.SAME])
    seen = contents.read(
        paths_, list(index["sha256"]), level == "twin", partial(progress, "read"), steps
    )
    if not len(seen.looks):
        return _grouped(index, seen.hashes, seen.cells, near_cosine)
    # each content once, in the order of the hashes
    unique, rows = np.unique(seen.hashes, return_index=True)
    looks = thumbnails.Looks(seen.looks.views[rows], seen.looks.rectangles[rows])
    steps = Steps(keep, [steps.key, files.digest(unique.tolist())])
    candidates = thumbnails.Candidates(
        **steps(
            "candidates",
            None,
            lambda: vars(thumbnails.candidates(looks, progress=partial(progress, "compared"))),
        )
    )
    verified = twins.verify(
        looks,
        candidates,
        lambda k: contents.read_grey(paths_[rows[k]]),
        progress=partial(progress, "laid over each other"),
        steps=steps,
    ).same()
    links = np.stack([rows[verified.first], rows[verified.second]])
    return _grouped(index, seen.hashes, seen.cells, near_cosine, (links, verified))


def sources(
    index: pd.DataFrame, root, other_index: pd.DataFrame, other_root, progress: Progress = _silent
) -> pd.DataFrame:
    """For each image of one folder the best twin in another: where it may come from.

    Parameters
    ----------
    index, other_index : pandas.DataFrame
        Column image_id, paths below `root` and `other_root`.
    root, other_root : path-like
    progress : callable
        As in :func:`find`.

    Returns
    -------
    pandas.DataFrame
        image_id, other, symmetry, structure: one row for each image that has a twin there, in the
        order of `index`.
    """
    looks, ids, read = [], [], []
    for table, folder in ((index, root), (other_index, other_root)):
        names = table["image_id"].to_numpy()
        files_ = [Path(folder) / name for name in names]
        seen = contents.read(files_, names.tolist(), True, partial(progress, "read"), Steps())
        looks.append(seen.looks)
        ids.append(names)
        read.append(lambda k, files_=files_: contents.read_grey(files_[k]))
    candidates = thumbnails.candidates(
        looks[0], looks[1], progress=lambda *n: progress("compared", *n)
    )
    verified = twins.verify(
        looks[0],
        thumbnails.first_only(candidates, SOURCES),
        read[0],
        (looks[1], read[1]),
        all_pairs=True,
        progress=lambda *n: progress("laid over each other", *n),
    ).same()
    table = pd.DataFrame(
        {
            "row": verified.first,
            "image_id": ids[0][verified.first],
            "other": ids[1][verified.second],
            "symmetry": np.array(planted.SYMMETRIES, object)[verified.symmetry],
            "structure": verified.structure.astype(float).round(6),
        }
    )
    table = table.sort_values(["row", "structure", "other"], ascending=[True, False, True])
    return table.drop_duplicates("row").drop(columns="row").reset_index(drop=True)


SOURCES = 4  # candidates of another set that are laid over each image


def _grouped(
    index: pd.DataFrame, hashes, cells: np.ndarray, near_cosine: float, twin_links=None
) -> Found:
    """The groups from the index' file hashes, hashes of the pixels, unit thumbnails (n, d) and the
    links (2, m) between twins with what verification said of them.
    """
    exact, pixel, n = pd.factorize(index["sha256"])[0], pd.factorize(hashes)[0], len(index)
    pixel = _components(n, _chain(exact), _chain(pixel))
    near = _components(n, _chain(pixel), _near_pairs(cells, near_cosine))
    ids = index["image_id"].to_numpy()
    twin, verified = near, pd.DataFrame(columns=["image_id", "other", "symmetry", "structure"])
    if twin_links is not None:
        links, said = twin_links
        twin = _components(n, _chain(near), links)
        verified = pd.DataFrame(
            {
                "image_id": ids[links[0]],
                "other": ids[links[1]],
                "symmetry": np.array(planted.SYMMETRIES, object)[said.symmetry],
                "structure": said.structure.astype(float).round(6),
            }
        )
    columns = zip(COLUMN.values(), (exact, pixel, near, twin), strict=True)
    return Found(pd.DataFrame({"image_id": ids, **dict(columns)}), verified)


def _chain(codes: np.ndarray) -> np.ndarray:
    """Pairs (2, n) that link each image with the next one of the same code."""
    order = np.argsort(codes, kind="stable")
    same = codes[order[1:]] == codes[order[:-1]]
    return np.stack([order[:-1][same], order[1:][same]])


def _near_pairs(cells: np.ndarray, near_cosine: float) -> np.ndarray:
    """Pairs (2, n) above the threshold, by blocks of rows so that memory stays linear.

    Pictures whose averages over 4 x 4 cells (an orthogonal projection to 64 numbers) are further
    apart than the threshold allows are left out before the whole thumbnails are compared.
    """
    found = [np.empty((2, 0), np.int64)]
    low = _projected(cells)
    square = np.square(low).sum(1)
    furthest = 2 * (1 - near_cosine) + 1e-4  # squared distance of unit vectors, and rounding
    blank: np.ndarray = np.logical_not(cells.any(axis=1))
    for start in range(0, len(cells), _BLOCK):
        rows = slice(start, start + _BLOCK)
        distance = square[rows, None] + square[None, start:] - 2 * (low[rows] @ low[start:].T)
        rows_, columns = np.nonzero(np.triu(distance <= furthest, k=1))
        pairs = np.stack([rows_ + start, columns + start])
        pairs = pairs[:, ~(blank[pairs[0]] | blank[pairs[1]])]
        for part in np.array_split(pairs, max(1, pairs.shape[1] // 20_000 + 1), axis=1):
            value = np.einsum("ij,ij->i", cells[part[0]], cells[part[1]])
            found.append(part[:, value > near_cosine])
    return np.concatenate(found, axis=1)


def _projected(cells: np.ndarray) -> np.ndarray:
    """Unit thumbnails (n, d) in fewer dimensions, distances never longer: (n, 64) of 32 x 32 cells,
    themselves where they are no such squares.
    """
    if cells.shape[1] != SIDE * SIDE:
        return cells
    blocks = cells.reshape(len(cells), SIDE // 4, 4, SIDE // 4, 4)
    return blocks.sum((2, 4)).reshape(len(cells), (SIDE // 4) ** 2) / 4


def _components(size: int, *links: np.ndarray) -> np.ndarray:
    """Connected components of the linked images, numbered by first appearance."""
    rows, columns = np.concatenate(links, axis=1)
    labels = connected_components(
        coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size)),
        directed=False,
    )[1]
    return pd.factorize(labels)[0]


def relation(first, second) -> tuple[str, float]:
    """How one image file is the other: the symmetry (a word of
    :data:`kit.data.planted.SYMMETRIES`) under which the second lies best upon the first, and the
    structure that agrees then, -1..1; ("", 0) where not even the thumbnails agree.
    """
    pixels = [contents.read_grey(file) for file in (first, second)]
    one, other = (thumbnails.looks(iter([picture])) for picture in pixels)
    verified = twins.verify(
        one,
        thumbnails.candidates(one, other),
        lambda _: pixels[0],
        (other, lambda _: pixels[1]),
        all_pairs=True,
    )
    if not len(verified.structure):
        return "", 0.0
    return planted.SYMMETRIES[verified.symmetry[0]], float(verified.structure[0])


def leak_free(
    index: pd.DataFrame, groups: pd.DataFrame, train_ids, test_ids, level: str = LEVEL
) -> np.ndarray:
    """Which test images have no copy among the training images.

    Parameters
    ----------
    index : pandas.DataFrame
        The data set's index; its images are the ones that ids may name.
    groups : pandas.DataFrame
        From :func:`groups`.
    train_ids, test_ids : sequence of str
    level : {"twin", "near", "pixel", "byte"}

    Returns
    -------
    numpy.ndarray
        bool, shape (len(test_ids),); True where no member of the image's group is in `train_ids`.

    Raises
    ------
    NotAudited, UnknownLevel
    """
    known = groups[groups["image_id"].isin(index["image_id"])]
    return ~np.isin(group_of(known, test_ids, level), group_of(known, train_ids, level))


def group_of(groups: pd.DataFrame, ids, level: str = LEVEL) -> np.ndarray:
    """Group numbers of image ids at a level, int64, in the order of `ids`."""
    if level not in COLUMN:
        raise UnknownLevel(
            f"There is no duplicate level {level!r}; choose one of {', '.join(LEVELS)}."
        )
    found = groups.set_index("image_id")[COLUMN[level]].reindex(list(ids))
    if found.isna().any():
        raise NotAudited(
            f"The image {found.index[found.isna()][0]} has no duplicate group; audit the data set "
            "that it belongs to."
        )
    return found.to_numpy(np.int64)
