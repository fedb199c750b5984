"""The figures of the astrocyte chapter, each from tables alone.

What differs from the thesis: the heat maps say which axis is Str, print every value and mark the
control; accuracy by epoch is drawn for the networks without astrocytes too, with the spread of the
seeds; the similarity is drawn with its null floor and with the similarity of two networks without
astrocytes that differ by their seed, without which a curve of PWCCA cannot be read.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from kit.report import heat
from kit.report.style import (
    LINES,
    MARKERS,
    OKABE_ITO,
    Figure,
    legend_above,
    new_figure,
    require,
    style,
)

KINDS = {"astrocytes": "with and without astrocytes", "seeds": "two seeds, both without"}


@style()
def heat_maps(grid: pd.DataFrame) -> Figure:
    """Mean validation accuracy over Str and Weak, a row of maps a network and a map an epoch
    (Figures 4.1 and 4.2).

    Parameters
    ----------
    grid : pandas.DataFrame
        From :func:`kit.studies.astrocytes.evidence.grid_table`, of one data set and one kind of
        statistics. Colours show the
        distance from the map's mean in percentage points, numbers the accuracy in percent; the
        control has a frame, a cell whose trainings all diverged a cross.
    """
    require(len(grid), "The heat maps need at least one training of Experiment 1.")
    rows, epochs = list(dict.fromkeys(grid["row"])), sorted(grid["epoch"].unique())
    ticks = sorted(grid["strong"].unique()), sorted(grid["weak"].unique())
    means = 100 * grid.groupby(["row", "epoch", "weak", "strong"])["accuracy"].mean()
    most = max(0.1, float((means - means.groupby(["row", "epoch"]).transform("mean")).abs().max()))
    side = max(1.9, 0.46 * len(ticks[0]))
    fig = new_figure(max(4.6, 1.6 + side * len(epochs)), 1.0 + 0.9 * side * len(rows))
    axes = fig.subplots(len(rows), len(epochs), squeeze=False)
    for r, row in enumerate(rows):
        for c, epoch in enumerate(epochs):
            image = _map(
                axes[r, c],
                means[row, epoch].unstack("strong").reindex(index=ticks[1], columns=ticks[0]),
                most,
            )
            axes[r, c].set_title(f"Epoch {epoch}" if r == 0 else "")
            axes[r, c].set_xlabel("Str" if r == len(rows) - 1 else "")
            axes[r, c].set_ylabel(
                f"{grid.loc[grid['row'] == row, 'title'].iloc[0].replace(', ', chr(10))}\nWeak"
                if c == 0
                else ""
            )
    fig.colorbar(
        image, ax=axes, label="Validation accuracy less the map's mean (pp)", shrink=0.9, aspect=30
    )
    return fig


def _map(ax, table: pd.DataFrame, most: float):
    values = table.to_numpy(float)
    image = heat.cells(
        ax,
        values - np.nanmean(values) if np.isfinite(values).any() else values,
        heat.texts_of(values, ".1f", empty="×"),
        ([f"{v:g}" for v in table.columns], [f"{v:g}" for v in table.index]),
        limits=(-most, most),
        cmap="RdBu_r",
        size=7,
        square=True,
    )
    ax.invert_yaxis()  # small factors at the bottom
    ax.tick_params(rotation=0)
    place = list(table.columns).index(1.0), list(table.index).index(1.0)
    ax.add_patch(Rectangle(place, 1, 1, fill=False, ec="black", lw=1.8))
    return image


def _panels(names: list, height: float = 3.2):
    """A figure with one panel a data set."""
    columns = min(2, len(names))
    fig = new_figure(4.8 * columns + 0.4 * (columns == 1), 0.8 + height * -(-len(names) // columns))
    axes = fig.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    return fig, axes


def _dress(ax, letter: str, title: str, ylabel: str, epochs) -> None:
    ax.set(
        title=f"({letter}) {title}",
        xlabel="Epoch",
        ylabel=ylabel,
        xticks=sorted(set(epochs)),
        xlim=(min(epochs) - 0.5, max(epochs) + 0.5),
    )
    ax.grid(True)


@style()
def accuracy_by_epoch(curves: pd.DataFrame, titles: dict) -> Figure:
    """Mean test accuracy after each epoch with and without astrocytes (Figure 4.3).

    Parameters
    ----------
    curves : pandas.DataFrame
        dataset, network, arm ("CNGN" or "CNN"), seed, epoch, accuracy (fraction).
    titles : dict
        dataset or network -> text.
    """
    require(len(curves), "Figure 4.3 needs at least one training of Experiment 3.")
    names, networks = list(dict.fromkeys(curves["dataset"])), list(dict.fromkeys(curves["network"]))
    fig, axes = _panels(names)
    for letter, ax, name in zip("abcd", axes, names, strict=False):
        for (network, arm), part in curves[curves["dataset"] == name].groupby(
            ["network", "arm"], sort=False
        ):
            number, by = networks.index(network), part.groupby("epoch")["accuracy"]
            mean, sd = 100 * by.mean(), 100 * by.std(ddof=1).fillna(0)
            ax.plot(
                mean.index,
                mean,
                "-" if arm == "CNGN" else "--",
                color=OKABE_ITO[number],
                marker=MARKERS[number],
                ms=4.5,
                mfc=OKABE_ITO[number] if arm == "CNGN" else "white",
                label=f"{titles[network]}, {'with' if arm == 'CNGN' else 'without'} astrocytes",
            )
            ax.fill_between(
                mean.index,
                mean - sd,
                mean + sd,
                color=OKABE_ITO[number],
                alpha=0.2 if arm == "CNGN" else 0.1,
                lw=0,
            )
        _dress(ax, letter, titles[name], "Test accuracy (%), mean ± SD of seeds", curves["epoch"])
    _legend(fig, axes[: len(names)])
    return fig


@style()
def similarity_by_epoch(table: pd.DataFrame, titles: dict, measure: str = "pwcca") -> Figure:
    """Similarity of the networks with and without astrocytes after each epoch, with its null floor
    and the similarity of two seeds (Figure 4.4).

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`kit.studies.astrocytes.similarity_tables.similarity_table`.
    titles : dict
        dataset or network -> text.
    measure : {"pwcca", "cka"}
    """
    require(len(table), "Figure 4.4 needs a pair of networks with and without astrocytes.")
    names, networks = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["network"]))
    fig, axes = _panels(names)
    for letter, ax, name in zip("abcd", axes, names, strict=False):
        for (network, kind), part in table[table["dataset"] == name].groupby(
            ["network", "kind"], sort=False
        ):
            number, by = networks.index(network), part.groupby("epoch")[measure]
            line, face = ("-", OKABE_ITO[number]) if kind == "astrocytes" else ("--", "white")
            ax.plot(
                by.mean().index,
                by.mean(),
                line,
                color=OKABE_ITO[number],
                marker=MARKERS[number],
                ms=4.5,
                mfc=face,
                label=f"{titles[network]}: {KINDS[kind]}",
            )
            if kind == "astrocytes":
                ax.fill_between(
                    by.min().index, by.min(), by.max(), color=OKABE_ITO[number], alpha=0.15, lw=0
                )
                lowest = part["floor"].iloc[0] if measure == "pwcca" else 0.0
                ax.axhline(
                    lowest,
                    color=OKABE_ITO[number] if measure == "pwcca" else "0.3",
                    ls=(0, (1, 1 + 1.5 * number)),
                    lw=1.5,
                    label=f"{titles[network]}: null floor",
                )
        ax.set_ylim(min(0, np.nanmin([*table[measure], 0]) - 0.03), 1.03)
        images = table.loc[table["dataset"] == name, "images"].iloc[0]
        _dress(
            ax,
            letter,
            f"{titles[name]}\nn = {images} images",
            "PWCCA, mean of both directions" if measure == "pwcca" else "Debiased CKA",
            table["epoch"],
        )
    _legend(fig, axes[: len(names)])
    return fig


def _legend(fig, axes) -> None:
    """One legend for all panels, two entries a line."""
    found = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    fig.legend(
        found.values(),
        found.keys(),
        loc="outside upper center",
        ncols=2,
        fontsize=7,
        handlelength=3,
    )


@style()
def search_paths(paths: dict) -> Figure:
    """Str and Weak that Experiment 2 chose epoch by epoch.

    Parameters
    ----------
    paths : dict
        Name -> list of pairs (Str, Weak), one an epoch.
    """
    require(paths, "The paths of Experiment 2 need at least one search.")
    fig = new_figure(8.2, 3.4)
    for place, (ax, label) in enumerate(
        zip(fig.subplots(1, 2, sharex=True, sharey=True), ("Str", "Weak"), strict=True)
    ):
        for number, (name, pairs) in enumerate(paths.items()):
            values = [1.0, *(pair[place] for pair in pairs)]
            ax.plot(
                range(len(values)),
                values,
                LINES[number // 8 % 4],
                color=OKABE_ITO[number % 8],
                marker=MARKERS[number % 8],
                ms=4,
                label=name,
            )
        ax.axhline(1, color="0.5", lw=0.8)
        ax.set(xlabel="Epoch (0: start)", ylabel=f"{label} (factor)")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(True)
    legend_above(fig, *ax.get_legend_handles_labels())
    return fig


@style()
def differences(table: pd.DataFrame, names: dict) -> Figure:
    """Difference of every arm from the networks without astrocytes, with its interval over seeds;
    the band is the spread of two seeds without astrocytes.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`kit.studies.astrocytes.evidence.difference_table`.
    names : dict
        Arm -> text.
    """
    require(len(table), "The differences need at least one arm with astrocytes.")
    table = table.reset_index(drop=True)
    fig = new_figure(7.4, 1.3 + 0.32 * len(table))
    ax, arms = fig.add_subplot(), list(dict.fromkeys(table["arm"]))
    for y, line in table.iterrows():
        number = arms.index(line["arm"])
        if np.isfinite(line["sd of a seed (pp)"]):
            half = 1.96 * np.sqrt(2) * line["sd of a seed (pp)"]
            ax.barh(y, 2 * half, left=-half, height=0.8, color="0.9", zorder=0)
        ends = (
            [[line["difference (pp)"] - line["low"]], [line["high"] - line["difference (pp)"]]]
            if np.isfinite(line["low"])
            else None
        )
        ax.errorbar(
            line["difference (pp)"],
            y,
            xerr=ends,
            fmt=MARKERS[number],
            color=OKABE_ITO[number],
            ms=5,
            capsize=2.5,
            lw=1.3,
        )
    ax.axvline(0, color="0.3", lw=0.9)
    ax.set(
        yticks=range(len(table)),
        yticklabels=table["row"] + ", " + table["statistics"],
        ylim=(len(table) - 0.5, -0.5),
        xlabel="Test accuracy, with less without astrocytes (pp), and 95 % interval over seeds",
    )
    ax.grid(True, axis="x")
    handles = [
        Line2D([], [], ls="", marker=MARKERS[n], color=OKABE_ITO[n], label=names.get(arm, arm))
        for n, arm in enumerate(arms)
    ]
    handles.append(
        Rectangle((0, 0), 1, 1, color="0.9", label="95 % of differences between two seeds")
    )
    fig.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=7.5)
    return fig
