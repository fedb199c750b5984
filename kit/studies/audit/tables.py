"""The tables of the data audit: what a data set holds, and which of its images are copies."""

from dataclasses import dataclass

import pandas as pd

from kit.data import duplicates as data_duplicates
from kit.data import registry


def class_counts(name: str) -> pd.DataFrame:
    """Images per split and class beside the number that the publications print, in label order.

    Returns
    -------
    pandas.DataFrame
        split, class_name, images, published and difference (Int64; missing where nothing is
        printed).
    """
    data, index = registry.get(name), registry.index(name)
    found = (
        index.groupby(["split", "label", "class_name"], sort=False)
        .size()
        .rename("images")
        .reset_index()
    )
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
        level, class_name, images; distinct (number of groups); with_twin (images with at least one
        copy in the set); largest (group size); surplus_train, surplus_test (copies beyond the
        first, counted within the split); test_in_train (test images with a copy in training). For
        sets that come without a split the last three are missing (pandas.NA).
    conflicts : pandas.DataFrame
        level, group, image_id, split, class_name: the members of groups that carry more than one
        label.
    leaky_test : pandas.DataFrame
        level, class_name, test, leaky, leak_free (counts); empty without a split.
    twins : pandas.DataFrame
        One row per copy: image_id, class_name, level (the strictest), twin, twin_class. With a
        split: the test images and a training image of the same group; without: every further member
        of a group and its first.
    """

    duplicates: pd.DataFrame
    conflicts: pd.DataFrame
    leaky_test: pd.DataFrame
    twins: pd.DataFrame


def summary(name: str, near_cosine: float = data_duplicates.NEAR_COSINE) -> Summary:
    """The :class:`Summary` of a registered data set."""
    return summarise(registry.index(name), data_duplicates.groups(name, near_cosine))


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
    flags = {
        level: _flags(table, data_duplicates.COLUMN[level]) for level in data_duplicates.LEVELS
    }
    classes = [*table.sort_values("label")["class_name"].unique(), "all"]
    rows = [
        _count(level, name, flags[level][(table["class_name"] == name) | (name == "all")])
        for level in data_duplicates.LEVELS
        for name in classes
    ]
    duplicates = pd.DataFrame(rows).astype(
        dict.fromkeys(["surplus_train", "surplus_test", "test_in_train"], "Int64")
    )
    split = (table["split"] == "test").any() and (table["split"] == "train").any()
    if not split:
        duplicates.loc[:, ["surplus_train", "surplus_test", "test_in_train"]] = pd.NA
    leaky = duplicates[["level", "class_name", "test", "test_in_train"]].rename(
        columns={"test_in_train": "leaky"}
    )
    leaky = (
        leaky.assign(leak_free=leaky["test"] - leaky["leaky"])
        if split
        else leaky.iloc[:0].assign(leak_free=[])
    )
    return Summary(duplicates.drop(columns="test"), _conflicts(table), leaky, _twins(table, split))


def _flags(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """What each image is at one level: its group, split and whether it is a copy, a surplus copy
    within its split, a copy of a training image.
    """
    size = table.groupby(column)["image_id"].transform("size")
    in_train = table[column].isin(table.loc[table["split"] == "train", column])
    return pd.DataFrame(
        {
            "group": table[column],
            "split": table["split"],
            "twin": size > 1,
            "surplus": table.duplicated([column, "split"]),
            "leaky": in_train & (table["split"] == "test"),
        }
    )


def _count(level: str, class_name: str, flags: pd.DataFrame) -> dict:
    surplus = flags[flags["surplus"]]["split"].value_counts()
    return {
        "level": level,
        "class_name": class_name,
        "images": len(flags),
        "distinct": flags["group"].nunique(),
        "with_twin": int(flags["twin"].sum()),
        "largest": int(flags["group"].value_counts().max()),
        "surplus_train": int(surplus.get("train", 0)),
        "surplus_test": int(surplus.get("test", 0)),
        "test_in_train": int(flags["leaky"].sum()),
        "test": int((flags["split"] == "test").sum()),
    }


def _conflicts(table: pd.DataFrame) -> pd.DataFrame:
    found = []
    for level in data_duplicates.LEVELS:
        mixed = table[
            table.groupby(data_duplicates.COLUMN[level])["label"].transform("nunique") > 1
        ]
        found.append(
            mixed.assign(level=level, group=mixed[data_duplicates.COLUMN[level]]).sort_values(
                ["group", "image_id"]
            )
        )
    return pd.concat(found, ignore_index=True)[
        ["level", "group", "image_id", "split", "class_name"]
    ]


def _twins(table: pd.DataFrame, split: bool) -> pd.DataFrame:
    """Each copy once, at the strictest level at which it has a twin."""
    found, done = [], set()
    for level in data_duplicates.LEVELS:
        column = data_duplicates.COLUMN[level]
        first = (table[table["split"] == "train"] if split else table).drop_duplicates(column)
        copies = table[table["split"] == "test"] if split else table[table.duplicated(column)]
        pairs = copies[["image_id", "class_name", column]].merge(
            first[["image_id", "class_name", column]].rename(
                columns={"image_id": "twin", "class_name": "twin_class"}
            ),
            on=column,
        )
        pairs = pairs[~pairs["image_id"].isin(done)]
        done |= set(pairs["image_id"])
        found.append(
            pairs.assign(level=level)[["image_id", "class_name", "level", "twin", "twin_class"]]
        )
    return pd.concat(found, ignore_index=True)
