"""Duplicate images: which pictures of a data set are the same picture, and which test images are copies of training images.

The publications split their images at random and none of them looks for copies, although two of their public sets carry training images in
their test folders. Here images are grouped at three levels, each of which contains the one before it:

``byte``
    equal files (SHA-256);
``pixel``
    equal decoded 8-bit pixels, whatever the file says; a colour file with three equal channels counts as grey;
``near``
    cosine similarity above 0.999 between the two 32 x 32 grey thumbnails, each with its mean subtracted (Br35H card, section 6B). The
    thumbnail is the plain average over each of the 32 x 32 cells (Pillow's box filter). That filter, and none of the others tried, gives all
    the known counts of the 7,023-image set (466 test images; 1,111 Br35H negatives in 739 groups): Lanczos 466 and 1,121, bicubic 469 and
    1,125, bilinear 470 and 1,141, bilinear without antialiasing (OpenCV's default) 250 and 186.

A group is a connected component: copies of copies belong together even where the first and the last differ by more than the threshold.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kit import imageio, paths, record, registry
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
    """Duplicate groups of a registered data set, computed once per content and kept in the cache folder.

    Parameters
    ----------
    name : str
    near_cosine : float
        Two images are near-duplicates above this cosine similarity, in (0, 1).

    Returns
    -------
    pandas.DataFrame
        As :func:`duplicate_groups`. Volumes have no files of their own: byte and pixel are equal voxels, and thumbnails are those of
        :func:`kit.volumes.thumbnails`.
    """
    from kit import volumes

    key = record.digest({"fingerprint": registry.facts(name)["fingerprint"], "near_cosine": near_cosine, "side": SIDE, "version": 1})
    file = paths.cache_dir() / "groups" / f"{name}-{key[:16]}.csv"
    if not file.exists():
        index = registry.index(name)
        if registry.get(name).kind == "volumes":
            table = _grouped(index, index["sha256"], volumes.thumbnails(name), near_cosine)
        else:
            table = duplicate_groups(index, registry.root(name), near_cosine)
        record.write_csv(file, table)
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
        One row an image, in the order of `index`: image_id, exact_group, pixel_group, near_group (int). Images of one group share the
        number; numbers count from 0 in the order of the groups' first images.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the interpreter lock while it decodes
        looks = list(pool.map(lambda image_id: _look(Path(root) / image_id), index["image_id"], chunksize=16))
    thumbnails = np.array([look[1] for look in looks], np.float32).reshape(len(looks), SIDE * SIDE)
    return _grouped(index, np.array([look[0] for look in looks], object), thumbnails, near_cosine)


def _grouped(index: pd.DataFrame, hashes, thumbnails: np.ndarray, near_cosine: float) -> pd.DataFrame:
    """The groups from the index' file hashes, hashes of the pixels and unit thumbnails (n, d)."""
    exact, pixel, n = pd.factorize(index["sha256"])[0], pd.factorize(hashes)[0], len(index)
    pixel = _components(n, _chain(exact), _chain(pixel))
    near = _components(n, _chain(pixel), _near_pairs(thumbnails, near_cosine))
    return pd.DataFrame({"image_id": index["image_id"].to_numpy(), "exact_group": exact, "pixel_group": pixel, "near_group": near})


def _look(path: Path) -> tuple[str, np.ndarray]:
    """Hash of the decoded pixels (grey where the three channels are equal) and the normalised thumbnail of one file."""
    pixels = imageio.read_image(path, channels=3)
    if (pixels[..., 1:] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return _pixel_hash(pixels), thumbnail(pixels)


def _pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 of the shape and the 8-bit pixels of an image."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


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
        block = thumbnails[start:start + _BLOCK] @ thumbnails[start:].T
        found.append(np.stack(np.nonzero(np.triu(block > near_cosine, k=1))) + start)
    return np.concatenate(found, axis=1)


def _components(size: int, *links: np.ndarray) -> np.ndarray:
    """Connected components of the linked images, numbered by first appearance."""
    rows, columns = np.concatenate(links, axis=1)
    labels = connected_components(coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(size, size)), directed=False)[1]
    return pd.factorize(labels)[0]


def leak_free(index: pd.DataFrame, groups: pd.DataFrame, train_ids, test_ids, level: str = "near") -> np.ndarray:
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
        raise UnknownLevel(f"There is no duplicate level {level!r}; choose one of {', '.join(LEVELS)}.")
    found = groups.set_index("image_id")[COLUMN[level]].reindex(list(ids))
    if found.isna().any():
        raise NotAudited(f"The image {found.index[found.isna()][0]} has no duplicate group; audit the data set that it belongs to.")
    return found.to_numpy(np.int64)


def class_counts(name: str) -> pd.DataFrame:
    """Images per split and class beside the number that the publications print, in label order.

    Returns
    -------
    pandas.DataFrame
        split, class_name, images, published and difference (Int64; missing where nothing is printed).
    """
    data, index = registry.get(name), registry.index(name)
    found = index.groupby(["split", "label", "class_name"], sort=False).size().rename("images").reset_index()
    found = found.sort_values(["split", "label"], ascending=[False, True], ignore_index=True)
    keys = found["split"].map(data.layout) + "/" + found["class_name"]
    found["published"] = keys.str.strip("/").map(data.counts).astype("Int64")
    return found.assign(difference=found["images"] - found["published"]).drop(columns="label")


@dataclass(frozen=True)
class Summary:
    """Tables on the duplicates of one data set; one row per level and class, class "all" included.

    Attributes
    ----------
    duplicates : pandas.DataFrame
        level, class_name, images; distinct (number of groups); with_twin (images with at least one copy in the set); largest (group
        size); surplus_train, surplus_test (copies beyond the first, counted within the split); test_in_train (test images with a copy in
        training). For sets that come without a split the last three are missing (pandas.NA).
    conflicts : pandas.DataFrame
        level, group, image_id, split, class_name: the members of groups that carry more than one label.
    leaky_test : pandas.DataFrame
        level, class_name, test, leaky, leak_free (counts); empty without a split.
    twins : pandas.DataFrame
        One row per copy: image_id, class_name, level (the strictest), twin, twin_class. With a split: the test images and a training image
        of the same group; without: every further member of a group and its first.
    """

    duplicates: pd.DataFrame
    conflicts: pd.DataFrame
    leaky_test: pd.DataFrame
    twins: pd.DataFrame


def summary(name: str, near_cosine: float = NEAR_COSINE) -> Summary:
    """The :class:`Summary` of a registered data set."""
    return summarise(registry.index(name), groups(name, near_cosine))


def summarise(index: pd.DataFrame, groups: pd.DataFrame) -> Summary:
    """Tables on duplicates from an index and its groups.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id, split, label, class_name.
    groups : pandas.DataFrame
        From :func:`duplicate_groups`.
    """
    table = index.merge(groups, on="image_id", validate="one_to_one")
    flags = {level: _flags(table, COLUMN[level]) for level in LEVELS}
    classes = [*table.sort_values("label")["class_name"].unique(), "all"]
    rows = [_count(level, name, flags[level][(table["class_name"] == name) | (name == "all")]) for level in LEVELS for name in classes]
    duplicates = pd.DataFrame(rows).astype(dict.fromkeys(["surplus_train", "surplus_test", "test_in_train"], "Int64"))
    split = (table["split"] == "test").any() and (table["split"] == "train").any()
    if not split:
        duplicates.loc[:, ["surplus_train", "surplus_test", "test_in_train"]] = pd.NA
    leaky = duplicates[["level", "class_name", "test", "test_in_train"]].rename(columns={"test_in_train": "leaky"})
    leaky = leaky.assign(leak_free=leaky["test"] - leaky["leaky"]) if split else leaky.iloc[:0].assign(leak_free=[])
    return Summary(duplicates.drop(columns="test"), _conflicts(table), leaky, _twins(table, split))


def _flags(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """What each image is at one level: its group, split and whether it is a copy, a surplus copy within its split, a copy of a training image."""
    size = table.groupby(column)["image_id"].transform("size")
    in_train = table[column].isin(table.loc[table["split"] == "train", column])
    return pd.DataFrame({"group": table[column], "split": table["split"], "twin": size > 1,
                         "surplus": table.duplicated([column, "split"]), "leaky": in_train & (table["split"] == "test")})


def _count(level: str, class_name: str, flags: pd.DataFrame) -> dict:
    surplus = flags[flags["surplus"]]["split"].value_counts()
    return {"level": level, "class_name": class_name, "images": len(flags), "distinct": flags["group"].nunique(),
            "with_twin": int(flags["twin"].sum()), "largest": int(flags["group"].value_counts().max()),
            "surplus_train": int(surplus.get("train", 0)), "surplus_test": int(surplus.get("test", 0)),
            "test_in_train": int(flags["leaky"].sum()), "test": int((flags["split"] == "test").sum())}


def _conflicts(table: pd.DataFrame) -> pd.DataFrame:
    found = []
    for level in LEVELS:
        mixed = table[table.groupby(COLUMN[level])["label"].transform("nunique") > 1]
        found.append(mixed.assign(level=level, group=mixed[COLUMN[level]]).sort_values(["group", "image_id"]))
    return pd.concat(found, ignore_index=True)[["level", "group", "image_id", "split", "class_name"]]


def _twins(table: pd.DataFrame, split: bool) -> pd.DataFrame:
    """Each copy once, at the strictest level at which it has a twin."""
    found, done = [], set()
    for level in LEVELS:
        column = COLUMN[level]
        first = (table[table["split"] == "train"] if split else table).drop_duplicates(column)
        copies = table[table["split"] == "test"] if split else table[table.duplicated(column)]
        pairs = copies[["image_id", "class_name", column]].merge(
            first[["image_id", "class_name", column]].rename(columns={"image_id": "twin", "class_name": "twin_class"}), on=column)
        pairs = pairs[~pairs["image_id"].isin(done)]
        done |= set(pairs["image_id"])
        found.append(pairs.assign(level=level)[["image_id", "class_name", "level", "twin", "twin_class"]])
    return pd.concat(found, ignore_index=True)
