"""The thesis' division of a data set: training, validation and test part within each class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.data import duplicates, registry
from kit.data.split import ImpossibleSplit, Parts, Split


def three_way_counts(
    images: int, fractions: Sequence[float] = (0.6, 0.2, 0.2)
) -> tuple[int, int, int]:
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
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    groups: pd.DataFrame | None = None,
    level: str = duplicates.LEVEL,
) -> Parts:
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
        From ``audit.groups``; a table of patients or lesions in its column ``twin_group`` does as
        well.
    level : {"twin", "near", "pixel", "byte"}

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
    random = np.random.default_rng(seed)
    parts: Parts = {"train": [], "val": [], "test": []}
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
    dealt: list[list] = [[] for _ in sizes]
    missing = np.array(sizes, float)
    for position in order[np.argsort(-counts[order], kind="stable")]:
        part = int(np.argmax(missing / np.array(sizes)))
        dealt[part].append(values[position])
        missing[part] -= counts[position]
    return [np.array(chosen, values.dtype) for chosen in dealt]


def three_way_split(
    name: str, seed: int = 0, fractions: Sequence[float] = (0.6, 0.2, 0.2), grouped: bool = False
) -> Split:
    """:func:`three_way` of all images of a registered data set, twins together if
    `grouped`, as a `Split` that can be stored.
    """
    parts = three_way(
        registry.index(name), seed, fractions, duplicates.groups(name) if grouped else None
    )
    rule = (
        f"{' / '.join(f'{fraction:.0%}' for fraction in fractions)} within each class, "
        f"{'twins kept together' if grouped else 'copies ignored'}"
    )
    return Split(
        name,
        registry.facts(name)["fingerprint"],
        protocol=rule,
        seed=seed,
        parts=parts,
        level=duplicates.LEVEL if grouped else None,
    )
