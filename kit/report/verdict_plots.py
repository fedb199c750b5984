"""Figures of what became of the published numbers."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from kit.report.style import (
    BLACK,
    BLUE,
    PURPLE,
    VERMILION,
    Figure,
    legend_above,
    new_figure,
    require,
    style,
)

_OURS: tuple[tuple[str, str, dict[str, Any], str, float], ...] = (
    ("ours", "", {"fmt": "o", "color": BLUE}, "ours, 95 % interval", 0.0),
    ("leak_free", "leak_free_", {"fmt": "s", "color": VERMILION}, "ours, leak-free test set", 0.22),
)


@style()
def forest(table: pd.DataFrame, unit: str = "%", title: str = "") -> Figure:
    """Published value, our value with its interval and the leak-free one, a row each.

    Parameters
    ----------
    table : DataFrame
        The index names the rows; columns published, ours, low, high and optionally leak_free,
        leak_free_low, leak_free_high; nan = not there.
    unit : str
    title : str
    """
    require(len(table), "A forest plot needs at least one row.")
    fig = new_figure(6.6, 1.2 + 0.36 * len(table))
    ax = fig.add_subplot()
    y, missing = np.arange(len(table)), pd.Series(np.nan, table.index)
    ax.plot(
        table.get("published", missing),
        y - 0.22,
        "D",
        ms=6,
        mfc="w",
        mec=BLACK,
        mew=1.3,
        ls="none",
        label="published",
    )
    for value, prefix, look, label, shift in _OURS:
        centre = table.get(value, missing).astype(float)
        errors = np.array(
            [
                centre - table.get(f"{prefix}low", centre),
                table.get(f"{prefix}high", centre) - centre,
            ],
            float,
        )
        if centre.notna().any():
            ax.errorbar(
                centre,
                y + shift,
                xerr=np.clip(np.nan_to_num(errors), 0, None),
                ms=5,
                capsize=2.5,
                lw=1.3,
                label=label,
                **look,
            )
    for row in y[::2]:
        ax.axhspan(row - 0.5, row + 0.5, color="0.95", zorder=0, lw=0)
    ax.set(
        ylim=(len(table) - 0.5, -0.5), xlabel=f"Value ({unit})" if unit else "Value", title=title
    )
    ax.set_yticks(y, ["\n".join(textwrap.wrap(str(name), 44)) for name in table.index])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    legend_above(fig, *ax.get_legend_handles_labels())
    return fig


LOOKS = {
    "supported": (BLUE, "", "white"),
    "contradicted": (VERMILION, "///", "white"),
    "undecided": ("#E69F00", "--", "black"),
    "not comparable": ("#9AA3AF", "...", "black"),
    "inconsistent as printed": ("#E3B8D4", "||", "black"),
    "impossible as published": (PURPLE, "xx", "black"),
    "no value": ("#E8EBEF", "", "black"),
}


@style()
def bars(counts: pd.DataFrame) -> Figure:
    """The verdicts on the results of every publication as stacked horizontal bars, told apart by
    colour, hatch and the number on them.

    Parameters
    ----------
    counts : pandas.DataFrame
        From `coverage`; sections without published numbers and the row "all" are left out.
    """
    counts = counts[(counts["results"] > 0) & (counts["paper"] != "all")]
    require(len(counts), "There is no publication in papers/; add one to see its verdicts.")
    fig = new_figure(7.2, 1.1 + 0.36 * len(counts))
    ax, left = fig.add_subplot(), pd.Series(0.0, counts.index)
    for kind, (colour, hatch, ink) in LOOKS.items():
        share = 100 * counts[kind] / counts["results"]
        ax.barh(
            counts["paper"],
            share,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            lw=0.5,
            label=kind,
        )
        for place, number, start, width in zip(
            range(len(counts)), counts[kind], left, share, strict=False
        ):
            if width >= 4:
                ax.text(
                    start + width / 2,
                    place,
                    f"{number}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=ink,
                    bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
                )
        left = left + share
    ax.set(xlim=(0, 100), xlabel="Share of the published results (%)")
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    legend_above(fig, *ax.get_legend_handles_labels())
    return fig
