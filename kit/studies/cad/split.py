"""The published split of the 7,023-image set, and the test images of which training holds
no copy.
"""

import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.utils import shuffle

from kit.data import duplicates, registry
from kit.data.split import Parts
from kit.errors import KitError


class NoPublishedSplit(KitError):
    """The split of the paper cannot be drawn from this data set."""


def published_parts(name: str, validation_fraction: float = 0.2) -> Parts:
    """The paper's seed-42 split: "train", "val" (from the training folder) and "test" (the test
    folder) -> image ids.

    Absent files of an incomplete copy take part in the draw and are then dropped from their side,
    so that every other image keeps its published side. Sets other than the paper's are divided by
    the same recipe.

    Parameters
    ----------
    name : str
        Registered data set with a training and a test folder.
    validation_fraction : float
        Share of the training folder that is kept for validation; 0.2 in Table 3.

    Raises
    ------
    NoPublishedSplit
        If there are no such folders, or the file names that are known are fewer or more than the
        published ones.
    """
    data, index = registry.get(name), registry.index(name)
    if not {"train", "test"} <= set(data.layout):
        raise NoPublishedSplit(
            f"{name} has no separate training and test folder; take a set such as nickparvar or "
            "phantom4."
        )
    present = index[index["split"] == "train"][["image_id", "label"]]
    absent = [
        i
        for i in registry.facts(name).get("incomplete") or []
        if i.startswith(data.layout["train"] + "/")
    ]
    absent = pd.DataFrame(
        {"image_id": absent, "label": [data.classes.index(i.split("/")[-2]) for i in absent]}
    )
    full = pd.concat([present, absent], ignore_index=True).astype({"label": int})
    for label, class_name in enumerate(data.classes):
        wanted, found = (
            data.counts.get(f"{data.layout['train']}/{class_name}"),
            int((full["label"] == label).sum()),
        )
        if wanted not in (None, found):
            raise NoPublishedSplit(
                f"{name} has {found} known file names of training class {class_name} instead of "
                f"{wanted}; prepare a copy with all names."
            )
    there = set(present["image_id"])
    parts = {
        part: [i for i in ids if i in there]
        for part, ids in cad_split(full, validation_fraction).items()
    }
    return parts | {"test": index[index["split"] == "test"]["image_id"].tolist()}


def copies(name: str, level: str = duplicates.LEVEL) -> pd.Series:
    """Which images are one image: group number by image id; `level` as in
    :mod:`kit.data.duplicates` ("byte" needs no look at pixels).
    """
    index = registry.index(name)
    codes = (
        pd.factorize(index["sha256"])[0]
        if level == "byte"
        else duplicates.group_of(duplicates.groups(name), index["image_id"], level)
    )
    return pd.Series(codes, index["image_id"], name="copy")


def leak_free_ids(name: str, level: str = duplicates.LEVEL) -> list[str]:
    """Ids of test images that have no copy in the training folder (train and val): 1,095 of the
    paper's 1,311 at level "byte", about 320 at level "twin".
    """
    group, parts = copies(name, level), published_parts(name)
    seen = set(group.loc[parts["train"] + parts["val"]])
    return [i for i in parts["test"] if group[i] not in seen]


def cad_split(index: pd.DataFrame, validation_fraction: float = 0.2) -> dict:
    """The seed-42 split of the CAD-framework paper: positions in the list of its 5,712 training
    images.

    The images stand class after class, sorted by file name, are shuffled with seed 42 and divided
    80 to 20 with seed 42, not stratified (authors' notebooks). It needs the full list of names:
    where files are missing, pass the published names and drop the absent ones afterwards.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id and label of the training images, any order.
    validation_fraction : float
        As published, 0.2.

    Returns
    -------
    dict
        "train" and "val" -> image ids in the recipe's order.
    """
    ordered = (
        index.assign(file=index["image_id"].str.rsplit("/").str[-1])
        .sort_values(["label", "file"])["image_id"]
        .to_numpy()
    )
    train, val = train_test_split(
        shuffle(ordered, random_state=42), test_size=validation_fraction, random_state=42
    )
    return {"train": list(train), "val": list(val)}
