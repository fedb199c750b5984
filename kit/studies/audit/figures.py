"""Figures of the data audit: pairs of copies to look at, how much of each test set they are, and
one example of each class.

No publication shows any of them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.data import imageio, registry
from kit.data.contents import cosine
from kit.data.duplicates import LEVELS, relation
from kit.report import style
from kit.studies.audit.tables import Summary


def example_pairs(twins: pd.DataFrame, count: int = 6) -> pd.DataFrame:
    """Up to `count` rows of ``Summary.twins`` to look at: label conflicts first, then the levels in
    turn, each class once before any twice.
    """
    rank = twins.groupby(["level", "class_name", "twin_class"]).cumcount()
    turn = twins.assign(rank=rank).groupby(["level", "rank"]).cumcount()
    order = twins.assign(
        agree=twins["class_name"] == twins["twin_class"],
        rank=rank,
        turn=turn,
        depth=twins["level"].map(LEVELS.index),
    )
    return order.sort_values(["agree", "rank", "turn", "depth"], kind="stable").head(count)[
        twins.columns
    ]


@style.style()
def pairs_figure(examples: dict, across: int = 3) -> style.Figure:
    """Pairs of copies side by side, the training image (or the first of the set) on the left, the
    test image (or the copy) on the right.

    Parameters
    ----------
    examples : dict
        Registered data set -> rows of ``Summary.twins``, for instance from :func:`example_pairs`.
    across : int
        Pairs in a row.
    """
    style.require(any(len(rows) for rows in examples.values()), "There are no copies to show.")
    height = [-(-len(rows) // across) for rows in examples.values() if len(rows)]
    fig = style.new_figure(3.6 * across, 2.6 * sum(height))
    lines = fig.subfigures(sum(height), across, squeeze=False)
    tops = np.cumsum([0, *height])  # first line of each set
    shown = ((name, rows) for name, rows in examples.items() if len(rows))
    for top, (name, rows) in zip(tops, shown, strict=False):
        for number, row in enumerate(rows.itertuples(index=False)):
            _draw_pair(lines[top + number // across, number % across], name, row)
    return fig


def _draw_pair(panel, name: str, row) -> None:
    root, divided = registry.root(name), "all" not in registry.get(name).layout
    what = _what(row.level, root / row.twin, root / row.image_id)
    differ = "" if row.class_name == row.twin_class else ", LABELS DIFFER"
    panel.suptitle(f"{name}: {what}{differ}", fontsize=9, fontweight="bold" if differ else "normal")
    sides = (
        (row.twin, row.twin_class, "training" if divided else "first"),
        (row.image_id, row.class_name, "test" if divided else "copy"),
    )
    for ax, (image_id, class_name, side) in zip(panel.subplots(1, 2), sides, strict=False):
        _picture(ax, name, image_id, f"{side}: {class_name}")


def _what(level: str, first, second) -> str:
    """In words what makes one image file a copy of the other."""
    if level == "near":
        return f"near, cosine {cosine(first, second):.4f}"
    if level == "twin":
        symmetry, structure = relation(first, second)
        return f"twin, {symmetry}, {structure:.2f}" if symmetry else "twin through other copies"
    return {"byte": "same bytes", "pixel": "same pixels"}[level]


@style.style()
def leakage_figure(summaries: dict) -> style.Figure:
    """Bars per data set and level with counts: test images with a copy in training, or images with
    a copy where there is no split.

    Parameters
    ----------
    summaries : dict
        Registered data set -> :class:`Summary`.
    """
    style.require(summaries, "There is no data set to show.")
    fig = style.new_figure(1.2 + 3.2 * len(summaries), 3.6)
    ax = fig.add_subplot()
    undivided, divided = "images with a copy in the set", "test images with a copy in training"
    ticks = [
        f"{name}\n{undivided if s.leaky_test.empty else divided}" for name, s in summaries.items()
    ]
    for number, (level, title) in enumerate(
        zip(
            LEVELS,
            ("same bytes", "same pixels", "same thumbnail", "same picture in any form"),
            strict=True,
        )
    ):
        copies, images = np.array([_whole(s, level) for s in summaries.values()]).T
        bars = ax.bar(
            np.arange(len(ticks)) + 0.23 * (number - 1.5),
            100 * copies / images,
            0.21,
            color=style.OKABE_ITO[number],
            hatch=style.HATCHES[number],
            label=title,
        )
        ax.bar_label(
            bars,
            [f"{c} of {n}\n{100 * c / n:.1f} %" for c, n in zip(copies, images, strict=False)],
            fontsize=7.5,
            padding=2,
        )
    ax.set(ylabel="Share of images (%)", ylim=(0, 112), yticks=range(0, 101, 20))
    ax.set_xticks(range(len(ticks)), ticks)
    style.legend_above(fig, *ax.get_legend_handles_labels())
    return fig


def _whole(tables: Summary, level: str) -> tuple[int, int]:
    """(copies, images) over all classes of a level."""
    table, columns = (
        (tables.duplicates, ["with_twin", "images"])
        if tables.leaky_test.empty
        else (tables.leaky_test, ["leaky", "test"])
    )
    return tuple(table[(table["level"] == level) & (table["class_name"] == "all")][columns].iloc[0])


@style.style()
def samples_figure(names: Sequence[str], seed: int = 0) -> style.Figure:
    """One image of each class, one row a data set.

    Parameters
    ----------
    names : sequence of str
        Registered data sets.
    seed : int
        Draws the image.
    """
    style.require(names, "There is no data set to show.")
    most = max(len(registry.get(name).classes) for name in names)
    fig = style.new_figure(1.75 * most + 0.4, 2.15 * len(names))
    for name, row in zip(names, fig.subplots(len(names), most, squeeze=False), strict=False):
        drawn = registry.index(name).groupby("label").sample(1, random_state=seed)
        for ax in row[len(drawn) :]:
            ax.set_axis_off()
        for ax, image in zip(row, drawn.itertuples(index=False), strict=False):
            _picture(ax, name, image.image_id, image.class_name)
        row[0].set_ylabel(name, fontsize=9)
    return fig


def _picture(ax, name: str, image_id: str, title: str) -> None:
    ax.imshow(imageio.read_image(registry.root(name) / image_id), interpolation="nearest")
    ax.set_title(title, fontsize=8)
    ax.set_xlabel(image_id.rsplit("/", 1)[-1], fontsize=7)
    ax.set(xticks=[], yticks=[])
