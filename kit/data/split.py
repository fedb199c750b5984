"""Frozen splits: which image is in which part, as a file that names the data it was made for.

The publications give a size and at best a seed for their random splits and keep no list. Here the
list is the split: it is drawn once, stored with the data set's fingerprint, and refused for any
other data. Parts can keep the copies of one picture together (duplicate groups of
:mod:`kit.data.duplicates`), which none of the publications does.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)

from kit import files
from kit.data import duplicates, registry
from kit.errors import KitError

Parts = dict[str, list[str]]  # name of a part -> image ids


class ImpossibleSplit(KitError):
    """A split of the wanted size or number of folds does not exist."""


class SplitMismatch(KitError):
    """A stored split belongs to other data, or is damaged."""


class GroupOnBothSides(KitError):
    """Copies of one picture lie in two parts of a split that promises to keep them together."""


class ClassMissing(KitError):
    """A class has no image in a part that needs one."""


@dataclass(frozen=True)
class Split:
    """Disjoint parts of a data set.

    Attributes
    ----------
    data : str
        Registered data set.
    fingerprint : str
        Of the data set's content.
    protocol : str
        How the parts were drawn, in words.
    seed : int
    parts : dict
        Part name -> list of image ids. Usual names: train, val, test; fold1 ... foldk.
    level : str or None
        The duplicate level ("byte", "pixel", "near", "twin") whose groups the parts promise to keep
        whole;
        None for no promise.
    """

    data: str
    fingerprint: str
    protocol: str
    seed: int
    parts: Parts
    level: str | None = None

    def folds(self) -> list[tuple[list, list]]:
        """(training ids, validation ids) of each fold: validate on fold i, train on the other
        folds.
        """
        names = [name for name in self.parts if name.startswith("fold")]
        return [
            ([i for other in names if other != name for i in self.parts[other]], self.parts[name])
            for name in names
        ]

    @property
    def development(self) -> list:
        """Ids of everything but the part ``test``: what a final model is trained on."""
        return [i for name, ids in self.parts.items() if name != "test" for i in ids]


def holdout(
    index: pd.DataFrame,
    groups: pd.DataFrame | None = None,
    test_size: int | float = 0.2,
    seed: int = 0,
    stratified: bool = False,
    grouped: bool = False,
    level: str = duplicates.LEVEL,
) -> tuple[list, list]:
    """Draw a hold-out test part.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id and label.
    groups : pandas.DataFrame or None
        From ``duplicates.groups``; needed if `grouped`.
    test_size : int or float
        Number of test images, or their fraction in (0, 1), rounded up as scikit-learn does.
    seed : int
    stratified : bool
        Keep the class proportions.
    grouped : bool
        Keep duplicate groups whole. Whole groups are drawn at random until `test_size` images are
        reached; a group that would exceed it is passed over, so the size is met exactly wherever
        single images are left to fill up with.
    level : {"twin", "near", "pixel", "byte"}
        Which groups.

    Returns
    -------
    (train_ids, test_ids) : lists of str
        Sorted.

    Raises
    ------
    ImpossibleSplit
    """
    ids, labels = index["image_id"].to_numpy(), index["label"].to_numpy()
    wanted = int(np.ceil(test_size * len(ids))) if isinstance(test_size, float) else int(test_size)
    if not 0 < wanted < len(ids):
        raise ImpossibleSplit(
            f"A test part of {wanted} out of {len(ids)} images is impossible; choose a test size "
            f"between 1 and {len(ids) - 1}."
        )
    if grouped:
        codes = duplicates.group_of(_needed(groups), ids, level)
        test = set(
            ids[_whole_groups(codes, labels if stratified else np.zeros_like(labels), wanted, seed)]
        )
    else:
        test = set(
            _guarded(
                train_test_split,
                ids,
                test_size=wanted,
                random_state=seed,
                stratify=labels if stratified else None,
            )[1]
        )
    return sorted(set(ids) - test), sorted(test)


def _needed(groups):
    if groups is None:
        raise ImpossibleSplit(
            "A grouped split needs the duplicate groups; pass duplicates.groups(name)."
        )
    return groups


def _guarded(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except ValueError as error:
        raise ImpossibleSplit(
            f"The split cannot be drawn: {' '.join(str(error).split())} Choose other sizes or add "
            "images."
        ) from error


def _whole_groups(codes: np.ndarray, strata: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """bool mask of `wanted` images made of whole groups; a group belongs to the stratum of its
    first image.
    """
    random, chosen = np.random.default_rng(seed), []
    first = pd.Series(strata).groupby(codes).transform("first").to_numpy()
    values, counts = np.unique(first, return_counts=True)
    for value, quota in zip(values, _shares(counts, wanted), strict=False):
        sizes = pd.Series(codes[first == value]).value_counts().sort_index()
        for code in random.permutation(sizes.index.to_numpy()):
            if sizes[code] <= quota:
                chosen.append(code)
                quota -= sizes[code]
    if not chosen:
        raise ImpossibleSplit(
            f"No duplicate group fits into a test part of {wanted} images; choose a larger test "
            "size."
        )
    return np.isin(codes, chosen)


def _shares(counts: np.ndarray, wanted: int) -> np.ndarray:
    """Integers proportional to `counts` that add up to `wanted` (largest remainders)."""
    exact = counts * wanted / counts.sum()
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: wanted - shares.sum()]] += 1
    return shares


def kfold(
    ids: Iterable[str],
    k: int,
    seed: int,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> list[tuple[list, list]]:
    """Shuffled k-fold cross-validation.

    Parameters
    ----------
    ids : sequence of str
    k : int
        Number of folds, at least 2.
    seed : int
    labels : sequence of int or None
        One per id; given, the folds keep the class proportions (StratifiedKFold).
    groups : sequence of int or None
        One per id (``duplicates.group_of``); given, the folds keep groups whole (GroupKFold,
        StratifiedGroupKFold).

    Returns
    -------
    list of (train_ids, validation_ids)
        Sorted lists of str.

    Raises
    ------
    ImpossibleSplit
    """
    kind = {
        (False, False): KFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (True, True): StratifiedGroupKFold,
    }
    maker = kind[labels is not None, groups is not None]
    ids = np.asarray(list(ids), object)
    folds = _guarded(
        lambda: list(maker(n_splits=k, shuffle=True, random_state=seed).split(ids, labels, groups))
    )
    return [(sorted(ids[train]), sorted(ids[validation])) for train, validation in folds]


def holdout_and_folds(
    name: str,
    test_size: int | float,
    k: int,
    seed: int,
    stratified: bool = False,
    grouped: bool = False,
) -> Split:
    """A hold-out part and k folds of the rest: the protocol of the Br35H paper (600 images and 3
    folds, neither stratified nor grouped).

    Parameters
    ----------
    name : str
        Registered data set.
    test_size, seed, stratified, grouped
        As in :func:`holdout`; the folds follow the same rule.

    Returns
    -------
    Split
        Parts fold1 ... foldk and test.
    """
    index, groups = registry.index(name), duplicates.groups(name) if grouped else None
    rest, test = holdout(
        index, groups, test_size=test_size, seed=seed, stratified=stratified, grouped=grouped
    )
    labels = index.set_index("image_id")["label"].loc[rest].to_numpy() if stratified else None
    folds = kfold(rest, k, seed, labels, duplicates.group_of(groups, rest) if grouped else None)
    rule = (
        f"{'stratified' if stratified else 'unstratified'}, "
        f"{'twins kept together' if grouped else 'copies ignored'}"
    )
    parts = {f"fold{number}": validation for number, (_, validation) in enumerate(folds, 1)} | {
        "test": test
    }
    return Split(
        name,
        registry.facts(name)["fingerprint"],
        protocol=f"hold-out of {len(test)} and {k} folds, {rule}",
        seed=seed,
        parts=parts,
        level=duplicates.LEVEL if grouped else None,
    )


RULE = {"grouped": f"grouped-{duplicates.LEVEL}"}  # splits by another level are other splits


def frozen(
    folder: Path | str, name: str, test_size: int | float, k: int, seed: int, **rules: bool
) -> Split:
    """The stored split of :func:`holdout_and_folds` with these arguments; drawn and stored in
    `folder` the first time.
    """
    rule = "-".join(
        [
            "holdout",
            str(test_size),
            f"{k}folds",
            f"seed{seed}",
            *sorted(RULE.get(word, word) for word, on in rules.items() if on),
        ]
    )
    path = Path(folder) / f"{name}-{rule}.json"
    if not path.exists():
        save(path, holdout_and_folds(name, test_size, k, seed, **rules))
    return load(path)


def save(path: Path | str, split: Split) -> None:
    """Write a split as JSON, atomically."""
    files.write_json(path, asdict(split))


def load(path: Path | str) -> Split:
    """Read a split and check it against the data set as it is now.

    Raises
    ------
    SplitMismatch
        If the file is no split, the data set's fingerprint is another one, or an id is unknown or
        stands in two parts.
    GroupOnBothSides
        If the split promises to keep copies together and does not.
    """
    stored = files.read_json(path)
    try:
        split = Split(**stored)
        ids = pd.Series([i for part in split.parts.values() for i in part], dtype=str)
    except (TypeError, AttributeError) as error:
        raise SplitMismatch(
            f"{path} is no split file ({error}); delete it so that it is drawn again."
        ) from error
    if split.fingerprint != registry.facts(split.data)["fingerprint"]:
        raise SplitMismatch(
            f"{path} was made for another version of {split.data} (fingerprint "
            f"{split.fingerprint[:12]}); delete it or restore that data."
        )
    unknown, twice = ids[~ids.isin(registry.index(split.data)["image_id"])], ids[ids.duplicated()]
    if len(unknown) or len(twice):
        what = (
            f"names {unknown.iloc[0]}, which is not in {split.data}"
            if len(unknown)
            else f"holds {twice.iloc[0]} twice"
        )
        raise SplitMismatch(f"{path} {what}; delete it so that it is drawn again.")
    if split.level:
        check(split, duplicates.groups(split.data), split.level)
    return split


def check(split: Split, groups: pd.DataFrame, level: str = duplicates.LEVEL) -> None:
    """Refuse a split in which copies of one picture lie in two parts.

    Parameters
    ----------
    split : Split
    groups : pandas.DataFrame
        From ``duplicates.groups``.
    level : {"twin", "near", "pixel", "byte"}

    Raises
    ------
    GroupOnBothSides
    """
    home: dict[int, tuple[str, str]] = {}
    for part, ids in split.parts.items():
        for image_id, group in zip(ids, duplicates.group_of(groups, ids, level), strict=False):
            other, twin = home.setdefault(group, (part, image_id))
            if other != part:
                raise GroupOnBothSides(
                    f"{split.data}: {image_id} in {part} is a {level} duplicate of {twin} in "
                    f"{other}; draw the split with grouped=True."
                )


def check_classes(split: Split, index: pd.DataFrame) -> None:
    """Refuse a split in which a class of the data set has no image in some part.

    Raises
    ------
    ClassMissing
    """
    classes = set(index["class_name"])
    name_of = index.set_index("image_id")["class_name"]
    for part, ids in split.parts.items():
        absent = sorted(classes - set(name_of.loc[list(ids)]))
        if absent:
            raise ClassMissing(
                f"{split.data}: the part {part} holds no image of class {absent[0]}; choose a "
                "larger part, fewer folds or a stratified split."
            )
