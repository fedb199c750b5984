"""A data set in memory, ready for training, and what the parts of a split must fulfil."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kit import files
from kit.data import registry
from kit.errors import KitError

PartRows = Mapping[str, np.ndarray]  # name of a part -> row numbers in `Inputs`


class BadSplit(KitError):
    """A part of a split cannot be trained or tested on."""


@dataclass(frozen=True)
class Inputs:
    """A data set in memory, ready for training.

    Attributes
    ----------
    name : str
        Registered data set.
    index : pandas.DataFrame
        One row an image: image_id, split, label, class_name, sha256, group (of twins).
    x : numpy.ndarray
        uint8 images (N, H, W, C) or float16 features (N, h, w, C), row i belongs to
        ``index.iloc[i]``.
    scale : float
        Factor that the batches are multiplied with after the cast to float32 (1/255 for images, 1
        for features).
    facts : dict
        What a run's configuration records of the data: name, fingerprint, size, channels,
        interpolation, features.
    """

    name: str
    index: pd.DataFrame
    x: np.ndarray
    scale: float
    facts: dict

    @property
    def labels(self) -> np.ndarray:
        """Integer labels, shape (N,), int64."""
        return self.index["label"].to_numpy(np.int64)

    def rows(self, image_ids: Iterable[str]) -> np.ndarray:
        """Row numbers of image ids, in the order given."""
        position = pd.Series(np.arange(len(self.index)), index=self.index["image_id"])
        return position.loc[list(image_ids)].to_numpy()

    def members(self, parts: PartRows) -> dict[str, dict]:
        """What a run is keyed by of its images: for each part its number of images and the digest
        of their ids, in the order of the rows.
        """
        ids = self.index["image_id"].to_numpy()
        return {
            part: {"images": len(rows), "sha256": files.digest(ids[rows].tolist())}
            for part, rows in parts.items()
        }

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Model inputs of some rows: float32 (n, ...), scaled."""
        return np.array(self.x[rows], np.float32) * np.float32(
            self.scale
        )  # a plain array: Keras does not know memory maps


def check_parts(inputs: Inputs, parts: PartRows) -> None:
    """Refuse a split in which a class has no image in a training part.

    Parameters
    ----------
    parts : mapping
        Part name -> row numbers. A class missing in a part that is only tested on is legal (its
        metrics are undefined there).

    Raises
    ------
    BadSplit
    """
    names = registry.get(inputs.name).display
    for part, rows in parts.items():
        if len(rows) == 0:
            raise BadSplit(
                f"{inputs.name}: the part {part!r} holds no image; choose a larger test size or "
                "fewer folds."
            )
        absent = sorted(set(range(len(names))) - set(inputs.labels[rows].tolist()))
        if part.startswith("train") and absent:
            raise BadSplit(
                f"{inputs.name}: no image of class {names[absent[0]]} in the part {part!r}; add "
                "images of it or drop the class."
            )


def fewer(labels: np.ndarray, rows: ArrayLike, count: int) -> np.ndarray:
    """About `count` of the rows by class proportion (largest remainder, at least one of each
    class), spread evenly over each class in file order.

    Parameters
    ----------
    labels : numpy.ndarray
        Of all images.
    rows : array of int
    count : int
        0, or as many as there are rows, takes all.

    Returns
    -------
    numpy.ndarray
        Sorted row numbers; `count` of them unless there are more classes than that.
    """
    rows = np.sort(rows)
    if not 0 < count < len(rows):
        return rows
    kinds, sizes = np.unique(labels[rows], return_counts=True)
    exact = sizes * count / len(rows)
    quota = np.maximum(1, np.floor(exact).astype(int))
    while quota.sum() < count:
        quota[np.argmax(exact - quota)] += 1
    return np.sort(
        np.concatenate(
            [
                rows[labels[rows] == kind][np.linspace(0, size - 1, most).round().astype(int)]
                for kind, size, most in zip(kinds, sizes, quota, strict=True)
            ]
        )
    )
