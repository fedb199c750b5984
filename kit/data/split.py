"""Frozen splits: which image is in which part, as a file that names the data it was made for.

The publications give a size and at best a seed for their random splits and keep no list. Here the
list is the split: it is drawn once, stored with the data set's fingerprint, and refused for any
other data. Parts can keep the copies of one picture together (duplicate groups of
:mod:`kit.data.duplicates`), which none of the publications does.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
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
        The duplicate level ("byte", "pixel", "near") whose groups the parts promise to keep whole;
        None for no promise.
    """

    data: str
    fingerprint: str
    protocol: str
    seed: int
    parts: dict
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
    level: str = "near",
) -> tuple[list, list]:
    """Draw a hold-out test part.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id and label.
    groups : pandas.DataFrame or None
        From ``audit.groups``; needed if `grouped`.
    test_size : int or float
        Number of test images, or their fraction in (0, 1), rounded up as scikit-learn does.
    seed : int
    stratified : bool
        Keep the class proportions.
    grouped : bool
        Keep duplicate groups whole. Whole groups are drawn at random until `test_size` images are
        reached; a group that would exceed it is passed over, so the size is met exactly wherever
        single images are left to fill up with.
    level : {"near", "pixel", "byte"}
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
            "A grouped split needs the duplicate groups; pass audit.groups(name)."
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


def kfold(ids, k: int, seed: int, labels=None, groups=None) -> list[tuple[list, list]]:
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
        One per id (``audit.group_of``); given, the folds keep groups whole (GroupKFold,
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
        f"{'near-duplicates kept together' if grouped else 'copies ignored'}"
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
        level="near" if grouped else None,
    )


def frozen(folder, name: str, test_size: int | float, k: int, seed: int, **rules) -> Split:
    """The stored split of :func:`holdout_and_folds` with these arguments; drawn and stored in
    `folder` the first time.
    """
    rule = "-".join(
        [
            "holdout",
            str(test_size),
            f"{k}folds",
            f"seed{seed}",
            *sorted(word for word, on in rules.items() if on),
        ]
    )
    path = Path(folder) / f"{name}-{rule}.json"
    if not path.exists():
        save(path, holdout_and_folds(name, test_size, k, seed, **rules))
    return load(path)


def save(path, split: Split) -> None:
    """Write a split as JSON, atomically."""
    files.write_json(path, asdict(split))


def load(path) -> Split:
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


def check(split: Split, groups: pd.DataFrame, level: str = "near") -> None:
    """Refuse a split in which copies of one picture lie in two parts.

    Parameters
    ----------
    split : Split
    groups : pandas.DataFrame
        From ``audit.groups``.
    level : {"near", "pixel", "byte"}

    Raises
    ------
    GroupOnBothSides
    """
    home = {}
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


def three_way_counts(images: int, fractions=(0.6, 0.2, 0.2)) -> tuple[int, int, int]:
    """Sizes of the training, validation and test part of one class as the thesis' code rounds them
    (its Table 3.2).

    Training takes round(f1 n), validation round((n - training) f2 / (f2 + f3)), test the rest, all
    in floating point with halves rounded to even, so that 101 images divide into 51 and 50.

    Parameters
    ----------
    images : int
        Images of the class.
    fractions : three floats that add up to 1
    """
    train = round(fractions[0] * images)
    val = round((images - train) * fractions[1] / (fractions[1] + fractions[2]))
    return train, val, images - train - val


def three_way(
    index: pd.DataFrame,
    seed: int = 0,
    fractions=(0.6, 0.2, 0.2),
    groups: pd.DataFrame | None = None,
    level: str = "near",
) -> dict:
    """Draw training, validation and test parts class by class, as the thesis does with 60, 20 and
    20 per cent.

    The thesis draws single images without a recorded seed: its parts cannot be recovered, and a
    patient may lie in two of them. With `groups` whole groups are drawn, sizes are met as nearly as
    they allow, and a group of several labels counts for the class of its first image.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id and label.
    seed : int
    fractions : three floats
        As in :func:`three_way_counts`.
    groups : pandas.DataFrame, optional
        From ``audit.groups``; a table of patients or lesions in its column ``near_group`` does as
        well.
    level : {"near", "pixel", "byte"}

    Returns
    -------
    dict
        "train", "val", "test" -> sorted image ids.

    Raises
    ------
    ImpossibleSplit
        If the fractions do not add up to 1, or a class has too few images or groups for three
        parts.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ImpossibleSplit(
            f"The fractions {tuple(fractions)} do not divide a data set; give three positive "
            "numbers that add up to 1."
        )
    random, parts = np.random.default_rng(seed), {"train": [], "val": [], "test": []}
    ordered = index.sort_values("image_id")
    ids, labels = ordered["image_id"].to_numpy(), ordered["label"].to_numpy()
    codes = (
        np.arange(len(ids))
        if groups is None
        else np.unique(duplicates.group_of(groups, ids, level), return_inverse=True)[1]
    )
    strata = pd.Series(labels).groupby(codes).transform("first").to_numpy()
    for label in np.unique(strata):
        members = strata == label
        sizes = three_way_counts(int(members.sum()), fractions)
        if min(sizes) < 1:
            raise ImpossibleSplit(
                f"Class {label} has {members.sum()} images, too few for three parts of "
                f"{fractions}; add images or leave the class out."
            )
        for name, chosen in zip(parts, _dealt(codes[members], sizes, random), strict=True):
            if not len(chosen):
                raise ImpossibleSplit(
                    f"Class {label} has too few groups for three parts; draw it without groups or "
                    "add images."
                )
            parts[name].extend(ids[members][np.isin(codes[members], chosen)])
    return {name: sorted(chosen) for name, chosen in parts.items()}


def _dealt(codes: np.ndarray, sizes: tuple, random: np.random.Generator) -> list[np.ndarray]:
    """Groups for each part: single images are shuffled and cut; else the largest groups first, each
    to the part that lacks the largest share.
    """
    values, counts = np.unique(codes, return_counts=True)
    order = random.permutation(len(values))
    if counts.max() == 1:
        return np.split(values[order], np.cumsum(sizes)[:-1])
    dealt, missing = [[] for _ in sizes], np.array(sizes, float)
    for position in order[np.argsort(-counts[order], kind="stable")]:
        part = int(np.argmax(missing / np.array(sizes)))
        dealt[part].append(values[position])
        missing[part] -= counts[position]
    return [np.array(chosen, values.dtype) for chosen in dealt]


def three_way_split(
    name: str, seed: int = 0, fractions=(0.6, 0.2, 0.2), grouped: bool = False
) -> Split:
    """:func:`three_way` of all images of a registered data set, near-duplicates together if
    `grouped`, as a `Split` that can be stored.
    """
    parts = three_way(
        registry.index(name), seed, fractions, duplicates.groups(name) if grouped else None
    )
    rule = (
        f"{' / '.join(f'{fraction:.0%}' for fraction in fractions)} within each class, "
        f"{'near-duplicates kept together' if grouped else 'copies ignored'}"
    )
    return Split(
        name,
        registry.facts(name)["fingerprint"],
        protocol=rule,
        seed=seed,
        parts=parts,
        level="near" if grouped else None,
    )
