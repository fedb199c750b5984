"""The figures of chapter 5 of the thesis, each from tables alone.

What differs: its curves of the best fitness by generation are single searches; here every seed is
drawn, with the size of the images below, because a new size is a new validation set. Beside them:
the path between two networks of a population, and the soups made of it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from kit.report.diagrams import HEAD, INPUT, MODEL, OUT, STEP, arrow, box, canvas
from kit.report.style import (
    BLUE,
    DARK,
    GREEN,
    MARKERS,
    PURPLE,
    VERMILION,
    Figure,
    new_figure,
    require,
    style,
)
from kit.search.evolution.genome import Genome

SYMBOLS = {
    "architecture": "Ar",
    "loss": "LF",
    "optimizer": "Op",
    "learning_rate": "LR",
    "weight_decay": "WD",
    "strong": "S",
    "weak": "W",
}
COLOURS = {
    "architecture": STEP,
    "loss": MODEL,
    "optimizer": MODEL,
    "learning_rate": HEAD,
    "weight_decay": HEAD,
    "strong": OUT,
    "weak": OUT,
}
ARM_STYLES = {
    "without": (BLUE, "-", "o", "without astrocytes"),
    "with": (VERMILION, "--", "s", "with astrocytes"),
    "released": (GREEN, "-.", "D", "astrocytes as released (no effect)"),
    "copying": (PURPLE, ":", "^", "without; weights copied"),
}
RULES = {
    "architecture": "better parent's",
    "loss": "mutates",
    "optimizer": "mutates",
    "learning_rate": "blends, mutates",
    "weight_decay": "blends, mutates",
    "strong": "blends, mutates",
    "weak": "blends, mutates",
}


@style()
def encoding(genome: Genome, genes: Sequence[float], titles: dict) -> Figure:
    """The genes of an individual in [0, 1] and what they stand for (Figure 5.1).

    Parameters
    ----------
    genome : Genome
    genes : array-like
        (genes,) float in [0, 1].
    titles : dict
        Value of a categorical gene -> what to print.
    """
    values, width = genome.decode(genes), 1.42
    fig, ax = canvas(0.7 + width * len(genome), 2.75)
    for k, (gene, number) in enumerate(zip(genome.genes, genes, strict=True)):
        x = 0.65 + width * k
        box(
            ax,
            x,
            0.3,
            width=width - 0.1,
            height=0.62,
            heading=SYMBOLS[gene.name],
            lines=[f"{number:.3f}"],
            colour=INPUT,
        )
        arrow(ax, (x + width / 2 - 0.05, 0.94), (x + width / 2 - 0.05, 1.3))
        value = values[gene.name]
        shown = titles.get(value, str(value)).replace("_", " ") if gene.values else f"{value:.3g}"
        box(
            ax,
            x,
            1.32,
            width=width - 0.1,
            height=0.75,
            heading=gene.name.replace("_", " ").replace("strong", "Str").replace("weak", "Weak"),
            lines=[shown],
            colour=COLOURS[gene.name],
        )
        ax.text(
            x + width / 2 - 0.05,
            2.15,
            f"{len(gene.values)} bins of equal width"
            if gene.values
            else f"[{gene.low:g}, {gene.high:g}]",
            ha="center",
            va="top",
            fontsize=7,
        )
        ax.text(
            x + width / 2 - 0.05,
            2.36,
            RULES[gene.name],
            ha="center",
            va="top",
            fontsize=7,
            style="italic",
        )
    for y, word in ((0.61, "genes"), (1.7, "values"), (2.2, "range"), (2.42, "bred")):
        ax.text(0.58, y, word, ha="right", va="center", fontsize=8)
    return fig


@style()
def fitness(panels: dict, sizes: Sequence[int]) -> Figure:
    """Best validation MCC of each generation (Figures 5.2 and 5.3).

    Parameters
    ----------
    panels : dict
        Title (data set) -> {arm: [history of a search, ...]}, histories with generation (from 0)
        and fitness.
    sizes : sequence of int
        Side of the images by generation, in pixels.
    """
    panels = {title: arms for title, arms in panels.items() if arms}
    require(panels, "The curve of the best fitness needs at least one search.")
    fig = new_figure(max(4.6, 4.3 * len(panels)), 3.6)
    axes = fig.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for number, (ax, (title, arms)) in enumerate(zip(axes, panels.items(), strict=True)):
        for arm, histories in arms.items():
            colour, line, marker, label = ARM_STYLES[arm]
            for k, table in enumerate(histories):
                best = table.groupby("generation")["fitness"].max()
                ax.plot(
                    best.index + 1,
                    best,
                    line,
                    color=colour,
                    marker=marker,
                    ms=4,
                    markevery=max(1, len(best) // 10),
                    label=label if k == 0 else None,
                    alpha=1 if k == 0 else 0.45,
                )
        ax.set(
            title=title,
            xlabel="Generation\n(below: side of the images, px)",
            ylabel="" if number else "Best validation MCC of the generation",
        )
        ax.set_xlim(0.6, len(sizes) + 0.4)
        _size_ticks(ax, sizes)
        ax.grid(True)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), handlelength=3)
    return fig


def _size_ticks(ax, sizes) -> None:
    """Generations with the image side below."""
    every = max(1, round(len(sizes) / 8))
    places = list(range(1, len(sizes) + 1, every))
    ax.set_xticks(places, [f"{g}\n{sizes[g - 1]}" for g in places])


@style()
def paths(panels: dict) -> Figure:
    """Validation MCC on the straight line between the two best networks of the last generation.

    Parameters
    ----------
    panels : dict
        Title -> table with share, score and recalibrated, see
        :func:`kit.studies.gensoup.runs.path_of`.
    """
    panels = {title: curve for title, curve in panels.items() if len(curve)}
    require(panels, "No last generation had two networks of one architecture.")
    columns = min(4, len(panels))
    fig = new_figure(max(4.2, 2.6 * columns + 0.4), 0.7 + 2.5 * -(-len(panels) // columns))
    axes = fig.subplots(
        -(-len(panels) // columns), columns, squeeze=False, sharex=True, sharey=True
    )
    for ax, (title, curve) in zip(axes.ravel(), panels.items(), strict=False):
        ax.plot(curve["share"], curve["score"], "-o", ms=4, color=BLUE, label="statistics averaged")
        if not np.allclose(curve["score"], curve["recalibrated"]):
            ax.plot(
                curve["share"],
                curve["recalibrated"],
                "--s",
                ms=4,
                color=VERMILION,
                label="statistics measured anew",
            )
        ends = curve["score"].iloc[[0, -1]]
        ax.plot([0, 1], ends, ":", color="0.5", label="line between the ends")
        ax.set_title(title, fontsize=9)
        ax.grid(True)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("Validation MCC")
    for place in range(columns):
        lowest = axes[
            max(row for row in range(len(axes)) if row * columns + place < len(panels)), place
        ]
        lowest.set_xlabel("Share of the second network")
        lowest.tick_params(labelbottom=True)
    handles = {
        label: handle
        for ax in axes.ravel()
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    fig.legend(
        handles.values(),
        handles.keys(),
        loc="outside upper center",
        ncols=3,
        fontsize=7,
        handlelength=2.5,
    )
    return fig


@style()
def models(table: pd.DataFrame) -> Figure:
    """Test MCC of the search's network, of the soups and of one training, one panel a search and
    kind of statistics (from :func:`kit.studies.gensoup.tables.model_table`).
    """
    require(len(table), "There is nothing to compare.")
    groups = list(table.groupby(["data", "experiment", "arm", "statistics"], sort=False))
    names, columns = list(dict.fromkeys(table["model"])), min(4, len(groups))
    fig = new_figure(
        2.4 + 2.0 * columns, 0.6 + (0.5 + 0.24 * len(names)) * -(-len(groups) // columns)
    )
    axes = fig.subplots(
        -(-len(groups) // columns), columns, squeeze=False, sharex=True, sharey=True
    )
    for ax, ((data, experiment, arm, kind), group) in zip(axes.ravel(), groups, strict=False):
        for line in group.to_dict("records"):
            place = names.index(line["model"])
            ax.plot([line["low"], line["high"]], [place, place], color=DARK[place % 7], lw=1.6)
            ax.plot(line["test MCC"], place, MARKERS[place % 8], color=DARK[place % 7], ms=5)
            ax.plot(line["validation MCC"], place, "|", color="0.35", ms=9)
        ax.set_yticks(range(len(names)), names, fontsize=7)
        ax.set_title(f"{data}\nexp. {experiment}, {arm}, {kind}", fontsize=8)
        ax.grid(True, axis="x")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0, 0].invert_yaxis()
    for ax in axes.ravel()[len(groups) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("MCC")
    fig.legend(
        [ax.plot([], [], "-o", color="0.2", ms=5)[0], ax.plot([], [], "|", color="0.35", ms=9)[0]],
        ["test images, 95 % interval", "validation images"],
        loc="outside upper center",
        ncols=2,
    )
    return fig
