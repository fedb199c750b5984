"""The figures of PBC-NAS in 3D, each from tables and arrays alone.

No figure of the article is public; these are the ones that its claims call for. Every accuracy says
of which images it is: the search knows the validation part of its proxy training only, of 24 to 47
volumes, and the figures keep that apart from the test results. Cells are drawn by
:mod:`kit.search.nas3d.drawing`, slices and heat maps by :mod:`kit.report.slices`, the search by
:mod:`kit.studies.pbcnas.search_figures`, final trainings by :mod:`kit.studies.pbcnas.finals`; the
functions of the latter three are reachable from here.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from scipy import stats as sps

from kit.report import heat
from kit.report.slices import montage, slices
from kit.report.style import (
    BLUE,
    DARK,
    GREEN,
    MARKERS,
    VERMILION,
    Figure,
    letter,
    new_figure,
    require,
    style,
)
from kit.studies.pbcnas.finals import Outcome, outcomes, training_curves, wrapped
from kit.studies.pbcnas.search_figures import PROXY, convergence, frequencies, trained

__all__ = [
    "Outcome",
    "convergence",
    "fidelity",
    "frequencies",
    "montage",
    "outcomes",
    "slices",
    "trade_off",
    "trained",
    "training_curves",
    "transfer",
]

KINDS = {"found": (BLUE, "found"), "released": (GREEN, "released"), "ResNet": (VERMILION, "ResNet")}
SIZES = (("parameters", "Parameters"), ("macs", "Multiply-adds a volume"))


@style()
def trade_off(
    table: pd.DataFrame, candidates: str = "candidates (validation accuracy, proxy training)"
) -> Figure:
    """Accuracy against parameters and multiply-adds of all candidates, with the found networks and
    the baselines (Figure 3).

    Parameters
    ----------
    table : pandas.DataFrame
        One row a network: title, kind ("candidate", "found", "released" or "ResNet"), accuracy (%),
        parameters, macs (multiply-adds); optional low and high (%) of its interval, and data: then
        one row of panels a data set.
    candidates : str
        What the legend calls the candidates; all others are said to be test accuracies.
    """
    require(len(table), "The trade-off needs at least one network.")
    unknown = set(table["kind"]) - {"candidate", *KINDS}
    require(
        not unknown,
        f"The trade-off knows no kind {', '.join(sorted(unknown))}; use candidate, "
        f"{', '.join(KINDS)}.",
    )
    named = table[table["kind"] != "candidate"].drop_duplicates(["kind", "title"])
    looks = {
        (kind, title): (KINDS[kind][0], MARKERS[n % 8])
        for kind in KINDS
        for n, title in enumerate(named.loc[named["kind"] == kind, "title"])
    }
    rows = [(None, table)] if "data" not in table else list(table.groupby("data", sort=False))
    lines = -(-(len(looks) + 1) // 3)
    fig = new_figure(8.2, 0.3 + 0.2 * lines + (2.9 if len(rows) < 3 else 2.0) * len(rows))
    axes = fig.subplots(len(rows), 2, squeeze=False, sharey="row", sharex="col")
    for row, (title, part) in enumerate(rows):
        for ax, (column, label) in zip(axes[row], SIZES, strict=True):
            _cloud(ax, part, column, looks)
            ax.set_xlabel(f"{label} (log scale)" if row == len(rows) - 1 else "")
        axes[row, 0].set_ylabel("Accuracy (%)")
        if title is not None:
            axes[row, 0].set_title(f"{letter(row, len(rows) > 1)}{title}", loc="left")
    handles = (
        [Line2D([], [], color="0.6", marker=".", ls="none", label=candidates)]
        if (table["kind"] == "candidate").any()
        else []
    )
    handles += [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            mec="k",
            mew=0.6,
            ms=7,
            ls="none",
            label=f"{title} (test)",
        )
        for (_, title), (colour, marker) in looks.items()
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=min(3, len(handles)))
    return fig


def _cloud(ax, table, column: str, looks: dict) -> None:
    cloud = table[table["kind"] == "candidate"]
    ax.plot(cloud[column], cloud["accuracy"], ".", color="0.6", ms=5, zorder=1)
    for row in table[table["kind"] != "candidate"].to_dict("records"):
        colour, marker = looks[row["kind"], row["title"]]
        low, high = (row.get(side, np.nan) for side in ("low", "high"))
        if np.isfinite([low, high]).all():
            ax.plot([row[column]] * 2, [low, high], color=colour, lw=1.2, zorder=2)
        ax.plot(
            row[column], row["accuracy"], marker, color=colour, mec="k", mew=0.6, ms=7, zorder=3
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(
        LogLocator(subs=(1.0,))
        if np.ptp(np.log10(table[column].astype(float))) > 1
        else LogLocator(subs=(1.0, 2.0, 5.0))
    )
    ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True)


@style()
def fidelity(table: pd.DataFrame) -> Figure:
    """Fitness of the proxy training against test results of the same candidates trained in full,
    with rank correlations.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a candidate: fitness (fraction), and accuracy (fraction) and/or auc of the test
        images; optional data, whose sets differ in colour and marker and are correlated one by one.
    """
    measures = [
        (name, words, factor)
        for name, words, factor in (("accuracy", "Test accuracy (%)", 100), ("auc", "Test AUC", 1))
        if name in table and table[name].notna().any()
    ]
    require(
        len(table) and measures,
        "Proxy fidelity needs one candidate with its fitness and its test accuracy or AUC.",
    )
    groups = list(table.groupby("data", sort=False)) if "data" in table else [(None, table)]
    fig = new_figure(max(4.6, 4.3 * len(measures)), 3.6 + 0.22 * len(groups) * (len(groups) > 1))
    for k, (name, words, factor) in enumerate(measures):
        ax = fig.add_subplot(1, len(measures), k + 1)
        for number, (data, part) in enumerate(groups):
            part = part[part[name].notna() & part["fitness"].notna()]
            label = (
                f"{data}: {rank_correlation(part['fitness'], part[name])}"
                if len(groups) > 1
                else None
            )
            ax.plot(
                100 * part["fitness"],
                factor * part[name],
                MARKERS[number % 8],
                color=DARK[number % 7],
                mec="w",
                mew=0.5,
                ms=6.5,
                alpha=0.85,
                label=label,
            )
        whole = table[table[name].notna() & table["fitness"].notna()]
        title = (
            words.split(" (")[0]
            if len(groups) > 1
            else rank_correlation(whole["fitness"], whole[name])
        )
        ax.set(title=f"{letter(k, len(measures) > 1)}{title}", xlabel=PROXY, ylabel=words)
        ax.grid(True)
        if len(groups) > 1:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=7.5)
    return fig


def rank_correlation(a: np.ndarray | pd.Series, b: np.ndarray | pd.Series) -> str:
    """Spearman's and Kendall's coefficients in words, ties averaged; undefined where one side does
    not vary.
    """
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return f"rank correlation undefined (n = {len(a)})"
    return (
        f"Spearman {sps.spearmanr(a, b).statistic:.2f}, Kendall "
        f"{sps.kendalltau(a, b).statistic:.2f} (n = {len(a)})"
    )


@style()
def transfer(tables: dict) -> Figure:
    """Results of networks found on one data set (rows) and fine-tuned on another (columns), a panel
    a measure.

    Parameters
    ----------
    tables : dict
        What is shown with its unit, such as "AUC" -> table (source x target), nan where nothing was
        run. Cells whose row and column share their name are framed: found on this set.
    """
    require(
        tables and all(table.size and table.notna().to_numpy().any() for table in tables.values()),
        "A transfer matrix needs at least one source, one target and one value.",
    )
    rows, columns = (max(table.shape[axis] for table in tables.values()) for axis in (0, 1))
    fig = new_figure(max(4.2, len(tables) * (2.2 + 0.62 * columns)), max(2.6, 1.5 + 0.46 * rows))
    for number, (title, table) in enumerate(tables.items()):
        ax, values = fig.add_subplot(1, len(tables), number + 1), table.to_numpy(float)
        decimals = 3 if np.nanmax(np.abs(values)) <= 1 else 1
        image = heat.cells(
            ax,
            values,
            heat.texts_of(values, f".{decimals}f"),
            (
                [str(name) for name in table.columns],
                ["\n".join(textwrap.wrap(str(name), 24)) for name in table.index],
            ),
            limits=(np.nanmin(values), np.nanmax(values)),
            cmap="cividis",
            size=8,
        )
        fig.colorbar(image, ax=ax, shrink=0.9)
        for row, column in np.ndindex(values.shape):
            if table.index[row] == table.columns[column]:
                place = (column + 0.04, row + 0.04)
                ax.add_patch(Rectangle(place, 0.92, 0.92, fc="none", ec=VERMILION, lw=2))
        ax.tick_params(axis="y", rotation=0)
        heat.slant(ax)
        ax.set(
            title=f"{letter(number, len(tables) > 1)}{wrapped(title, max(2.4, 0.62 * columns))}",
            xlabel="Target (framed: searched on this set)",
            ylabel="Source of the network",
        )
        ax.tick_params(length=0)
    return fig
