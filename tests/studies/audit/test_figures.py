"""Figures of the audit: the right pairs, the right numbers."""

import numpy as np
import pandas as pd
import pytest

from kit.data import duplicates
from kit.report import style
from kit.studies.audit import figures
from kit.studies.audit import tables as audit_tables


def tables(divided, copies=3, images=12):
    """A summary with `copies` of `images` test images (or images of the set) that have a copy."""
    index = pd.DataFrame(
        {
            "image_id": [f"{i:02d}" for i in range(2 * images)],
            "label": 0,
            "class_name": "a",
            "split": np.repeat(["train", "test"] if divided else ["all", "all"], images),
        }
    )
    codes = np.r_[np.arange(images), np.arange(copies), 100 + np.arange(images - copies)]
    return audit_tables.summarise(
        index,
        index[["image_id"]].assign(
            exact_group=codes, pixel_group=codes, near_group=codes, twin_group=codes
        ),
    )


def test_leakage_bars_carry_the_counts():
    fig = figures.leakage_figure({"one": tables(True), "two": tables(False)})
    words = [text.get_text() for text in fig.axes[0].texts]
    assert words == ["3 of 12\n25.0 %", "6 of 24\n25.0 %"] * 4
    assert [label.get_text().split("\n")[1] for label in fig.axes[0].get_xticklabels()] == [
        "test images with a copy in training",
        "images with a copy in the set",
    ]


def test_example_pairs_show_conflicts_first_and_every_level():
    rows = [
        (f"{level}{k}", "a", level, "t", "b" if (level, k) == ("near", 3) else "a")
        for level in duplicates.LEVELS
        for k in range(5)
    ]
    twins = pd.DataFrame(rows, columns=["image_id", "class_name", "level", "twin", "twin_class"])
    assert figures.example_pairs(twins, 4)["image_id"].tolist() == [
        "near3",
        "byte0",
        "pixel0",
        "near0",
    ]
    assert figures.example_pairs(twins.iloc[:0]).empty


def test_pairs_and_samples_are_drawn(discs):
    ids = sorted(duplicates.groups(discs)["image_id"])[:4]
    twins = pd.DataFrame(
        {
            "image_id": ids[1:],
            "class_name": "dark",
            "level": ["byte", "pixel", "near"],
            "twin": ids[0],
            "twin_class": ["dark", "dark", "bright"],
        }
    )
    fig = figures.pairs_figure({discs: twins}, across=2)
    words = [panel.get_suptitle() for panel in fig.subfigs if panel.get_suptitle()]
    assert words[:2] == ["discs: same bytes", "discs: same pixels"]
    assert words[2].startswith("discs: near, cosine")
    assert words[2].endswith("LABELS DIFFER")
    assert [ax.get_title() for ax in figures.samples_figure([discs]).axes] == ["dark", "bright"]


def test_nothing_to_show_is_said():
    with pytest.raises(style.NothingToPlot, match="no copies"):
        figures.pairs_figure({})
