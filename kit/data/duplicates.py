"""Duplicate images: which pictures of a data set are the same picture, and which test images are
copies of training images.

The publications split their images at random and none of them looks for copies, although two of
their public sets carry training images in their test folders. Here images are grouped at three
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
    (OpenCV's default) 250 and 186.

A group is a connected component: copies of copies belong together even where the first and the last
differ by more than the threshold.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kit import files, paths
from kit.data import imageio, registry, voxels
from kit.errors import KitError

LEVELS = ("byte", "pixel", "near")
COLUMN = {"byte": "exact_group", "pixel": "pixel_group", "near": "near_group"}
NEAR_COSINE = 0.999
SIDE = 32
_BLOCK = 1024


class UnknownLevel(KitError):
    """A duplicate level that is none of byte, pixel, near."""


class NotAudited(KitError):
    """An image id has no duplicate group."""


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
        As :func:`duplicate_groups`. Volumes have no files of their own: byte and pixel are equal
        voxels, and thumbnails are those of :func:`kit.data.voxels.thumbnails`.
    """
    key = files.digest(
        {
            "fingerprint": registry.facts(name)["fingerprint"],
            "near_cosine": near_cosine,
            "side": SIDE,
            "version": 1,
        }
    )
    file = paths.cache_dir() / "groups" / f"{name}-{key[:16]}.csv"
    if not file.exists():
        index = registry.index(name)
        if registry.get(name).kind == "volumes":
            table = _grouped(index, index["sha256"], voxels.thumbnails(name), near_cosine)
        else:
            table = duplicate_groups(index, registry.root(name), near_cosine)
        files.write_csv(file, table)
    return pd.read_csv(file, dtype={"image_id": str})


def duplicate_groups(index: pd.DataFrame, root, near_cosine: float = NEAR_COSINE) -> pd.DataFrame:
    """Group the images of a folder at the three levels.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id (path below `root`) and sha256.
    root : path-like
    near_cosine : float
        In (0, 1).

    Returns
    -------
    pandas.DataFrame
        One row an image, in the order of `index`: image_id, exact_group, pixel_group, near_group
        (int). Images of one group share the number; numbers count from 0 in the order of the
        groups' first images.
    """
    with ThreadPoolExecutor(
        os.cpu_count()
    ) as pool:  # Pillow releases the interpreter lock while it decodes
        looks = list(
            pool.map(lambda image_id: _look(Path(root) / image_id), index["image_id"], chunksize=16)
        )
    thumbnails = np.array([look[1] for look in looks], np.float32).reshape(len(looks), SIDE * SIDE)
    return _grouped(index, np.array([look[0] for look in looks], object), thumbnails, near_cosine)


def _grouped(
    index: pd.DataFrame, hashes, thumbnails: np.ndarray, near_cosine: float
) -> pd.DataFrame:
    """The groups from the index' file hashes, hashes of the pixels and unit thumbnails (n, d)."""
    exact, pixel, n = pd.factorize(index["sha256"])[0], pd.factorize(hashes)[0], len(index)
    pixel = _components(n, _chain(exact), _chain(pixel))
    near = _components(n, _chain(pixel), _near_pairs(thumbnails, near_cosine))
    return pd.DataFrame(
        {
            "image_id": index["image_id"].to_numpy(),
            "exact_group": exact,
            "pixel_group": pixel,
            "near_group": near,
        }
    )


def _look(path: Path) -> tuple[str, np.ndarray]:
    """Hash of the decoded pixels (grey where the three channels are equal) and the normalised
    thumbnail of one file.
    """
    pixels = imageio.read_image(path, channels=3)
    if (pixels[..., 1:] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return _pixel_hash(pixels), thumbnail(pixels)


def _pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 of the shape and the 8-bit pixels of an image."""
    return hashlib.sha256(
        repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
    ).hexdigest()


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Grey cell averages of an image, zero mean and unit length: float32, shape (1024,).

    An image without contrast gives all zeros, hence cosine 0 with everything.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8, (H, W) or (H, W, 3).
    """
    picture = Image.fromarray(pixels).convert("L").convert("F")
    cells = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()
    cells -= cells.mean()
    length = np.linalg.norm(cells)
    return (cells / length if length > 1e-6 else np.zeros_like(cells)).astype(np.float32)


def cosine(first, second) -> float:
    """Cosine similarity of the thumbnails of two image files, -1..1; 0 if one has no contrast."""
    return float(_look(Path(first))[1] @ _look(Path(second))[1])


def _chain(codes: np.ndarray) -> np.ndarray:
    """Pairs (2, n) that link each image with the next one of the same code."""
    order = np.argsort(codes, kind="stable")
    same = codes[order[1:]] == codes[order[:-1]]
    return np.stack([order[:-1][same], order[1:][same]])


def _near_pairs(thumbnails: np.ndarray, near_cosine: float) -> np.ndarray:
    """Pairs (2, n) above the threshold, by blocks of rows so that memory stays linear."""
    found = [np.empty((2, 0), np.int64)]
    for start in range(0, len(thumbnails), _BLOCK):
        block = thumbnails[start : start + _BLOCK] @ thumbnails[start:].T
        found.append(np.stack(np.nonzero(np.triu(block > near_cosine, k=1))) + start)
    return np.concatenate(found, axis=1)


def _components(size: int, *links: np.ndarray) -> np.ndarray:
    """Connected components of the linked images, numbered by first appearance."""
    rows, columns = np.concatenate(links, axis=1)
    labels = connected_components(
        coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size)),
        directed=False,
    )[1]
    return pd.factorize(labels)[0]


def leak_free(
    index: pd.DataFrame, groups: pd.DataFrame, train_ids, test_ids, level: str = "near"
) -> np.ndarray:
    """Which test images have no copy among the training images.

    Parameters
    ----------
    index : pandas.DataFrame
        The data set's index; its images are the ones that ids may name.
    groups : pandas.DataFrame
        From :func:`groups`.
    train_ids, test_ids : sequence of str
    level : {"near", "pixel", "byte"}

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


def group_of(groups: pd.DataFrame, ids, level: str = "near") -> np.ndarray:
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
