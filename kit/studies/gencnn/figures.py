"""The figures of Gen-CNN: its flow, its encoding, a population, convergence, and how short
trainings foretell long ones.

What differs from the thesis: the example of a population is one that was really drawn, with its
fitness; the convergence of the repetitions, which the thesis gives as a mean only, is drawn with
its spread beside searches of the same budget. Sample images and confusion matrices come from
:mod:`kit.report.plots`.
"""

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from kit.data import imageio, registry
from kit.data.inputs import Inputs
from kit.models import architecture_catalog
from kit.report import heat
from kit.report.diagrams import HEAD, INPUT, MODEL, OUT, STEP, arrow, box, canvas
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
from kit.search.evolution.genome import Genome

LETTERS = {
    "architecture": "Ar",
    "learning_rate": "LR",
    "weight_decay": "WD",
    "loss": "LF",
    "optimizer": "Op",
}
NAMES = {
    "architecture": "architecture",
    "learning_rate": "factor on learning rate",
    "weight_decay": "weight decay",
    "loss": "loss function",
    "optimizer": "optimizer",
}
STEPS = (
    ("Random population", ["genes uniform in [0, 1]"], INPUT),
    ("Decode", ["genes → hyperparameters"], STEP),
    ("Train each briefly", ["few epochs, small images,", "from pretrained weights"], MODEL),
    ("Fitness", ["MCC of the validation images,", "scaled to 0…1 in the generation"], HEAD),
    ("Tournament", ["survive if better than", "a random opponent"], STEP),
    ("Offspring", ["blend continuous genes by", "fitness, mutate, keep the elite"], STEP),
    ("Best of the run", ["its genes, whatever", "generation it is from"], OUT),
    ("Final training", ["larger images, many epochs,", "cosine; test once"], MODEL),
)
PLACES = (
    (0.2, 0.3),
    (2.6, 0.3),
    (5.0, 0.3),
    (7.4, 0.3),
    (7.4, 1.75),
    (3.8, 1.75),
    (5.0, 3.2),
    (7.4, 3.2),
)


@style()
def flow() -> Figure:
    """Diagram of Gen-CNN (Figure 3.1)."""
    fig, ax = canvas(9.7, 4.3)
    for (heading, lines, colour), (x, y) in zip(STEPS, PLACES, strict=True):
        box(ax, x, y, width=2.0, height=0.84, heading=heading, lines=lines, colour=colour)
    for start, end in (
        ((2.2, 0.72), (2.6, 0.72)),
        ((4.6, 0.72), (5.0, 0.72)),
        ((7.0, 0.72), (7.4, 0.72)),
        ((8.4, 1.14), (8.4, 1.75)),
        ((7.0, 3.62), (7.4, 3.62)),
    ):
        arrow(ax, start, end)
    arrow(ax, (7.4, 2.17), (5.8, 2.17))
    ax.text(6.6, 2.05, "winners", ha="center", fontsize=7.5, style="italic")
    ax.plot([3.8, 3.6], [2.17, 2.17], color="0.2", lw=1.1)
    arrow(ax, (3.6, 2.17), (3.6, 1.14))
    ax.text(3.5, 1.66, "next generation", ha="right", va="center", fontsize=7.5, style="italic")
    ax.plot([9.4, 9.62, 9.62, 6.0], [0.72, 0.72, 2.95, 2.95], color="0.2", lw=1.1)
    arrow(ax, (6.0, 2.95), (6.0, 3.2))
    ax.text(7.8, 2.87, "after the last generation", ha="center", fontsize=7.5, style="italic")
    return fig


@style()
def encoding(genome: Genome) -> Figure:
    """What a gene in [0, 1] stands for: bins of the categories, ranges of the continuous genes
    (Figure 3.2).
    """
    fig = new_figure(9.4, 0.75 * len(genome) + 0.9)
    ax = fig.add_subplot(xlim=(0, 1), ylim=(len(genome) - 0.4, -0.6))
    for row, gene in enumerate(genome.genes):
        _bins(ax, row, gene) if gene.values else _range(ax, row, gene)
    ax.set(
        yticks=range(len(genome)),
        yticklabels=[f"{LETTERS[n]}  {NAMES[n]}" for n in genome.names],
        xlabel="Gene",
    )
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return fig


def _bins(ax, row: int, gene) -> None:
    width = 1 / len(gene.values)
    for number, value in enumerate(gene.values):
        ax.add_patch(_patch(number * width, row, width, ("#CFE3F3", "#F7DFA3")[number % 2]))
        name = (
            architecture_catalog.ARCHITECTURES[value].title.replace("-", "-\n", 2)
            if gene.name == "architecture"
            else value.replace("_", "\n")
        )
        ax.text(
            (number + 0.5) * width,
            row,
            name,
            ha="center",
            va="center",
            fontsize=7 if len(gene.values) > 6 else 8,
        )


def _range(ax, row: int, gene) -> None:
    shades = np.linspace(0, 1, 256)[None, :]
    ax.imshow(
        shades,
        extent=(0, 1, row + 0.3, row - 0.3),
        aspect="auto",
        cmap="Greys",
        vmin=-0.15,
        vmax=2.2,
        zorder=0,
    )
    for place in (0.0, 0.25, 0.5, 0.75, 1.0):
        side = {0.0: "left", 1.0: "right"}.get(place, "center")
        ax.text(
            place + {0.0: 0.005, 1.0: -0.005}.get(place, 0),
            row,
            f"{gene.decode(place):.3g}",
            ha=side,
            va="center",
            fontsize=8,
        )
    ax.text(0.125, row, f"{gene.scale} →", ha="center", va="center", fontsize=7.5, style="italic")


def _patch(x, row, width, colour):
    return Rectangle((x, row - 0.3), width, 0.6, fc=colour, ec="0.3", lw=0.8)


def _line(line: dict, genome: Genome, genes) -> list[str]:
    """The texts of an individual's row: what each gene stands for, and the fitness."""
    texts = []
    for name, gene in zip(genome.names, genes, strict=True):
        value = line[name]
        if name == "architecture":
            value = architecture_catalog.ARCHITECTURES[value].title
        elif isinstance(value, str):
            value = value.replace("_", " ")
        else:
            value = f"{value:.3g}"
        texts.append(f"{value}\n({gene:.2f})")
    return [*texts, f"{line['fitness']:.3f}" if pd.isna(line["reason"]) else "failed"]


@style()
def population(history: pd.DataFrame, genome: Genome, most: int = 8) -> Figure:
    """The first individuals of a generation: each gene with what it stands for, and the fitness
    (Figure 3.3).

    Parameters
    ----------
    history : pandas.DataFrame
        Rows of one generation of :class:`kit.search.evolution.plan.Result`'s history.
    most : int
        Individuals that are shown.
    """
    require(len(history), "An example of a population needs at least one individual.")
    shown = history.head(most)
    fig = new_figure(9.4, 0.9 + 0.5 * len(shown))
    ax = fig.add_subplot()
    genes = shown[[f"gene.{name}" for name in genome.names]].to_numpy(float)
    texts = [
        _line(line, genome, row) for line, row in zip(shown.to_dict("records"), genes, strict=True)
    ]
    image = heat.cells(
        ax,
        np.column_stack([genes, np.full(len(shown), np.nan)]),  # the fitness has no colour
        texts,
        (
            [*(f"{LETTERS[n]}\n{NAMES[n]}" for n in genome.names), "fitness\n(MCC)"],
            [f"individual {int(i) + 1}" for i in shown["individual"]],
        ),
        limits=(0, 1),
        cmap="viridis",
        size=7.5,
    )
    ax.tick_params(length=0, rotation=0)
    fig.colorbar(image, ax=ax, label="Gene", shrink=0.8)
    return fig


@style()
def convergence(traces: dict) -> Figure:
    """Best fitness so far against the trainings spent, mean over repetitions with their range.

    Parameters
    ----------
    traces : dict
        Name of a method -> list of traces (columns best and cost, one row an evaluation).
    """
    require(traces, "The convergence figure needs at least one search.")
    fig = new_figure(7.4, 4.0)
    ax = fig.add_subplot()
    for number, (name, kept) in enumerate(traces.items()):
        at = np.arange(1, max(round(t["cost"].sum()) for t in kept) + 1)
        curves = np.array([_best_at(trace, at) for trace in kept])
        drawn = np.isfinite(curves).all(0)
        ax.plot(
            at[drawn],
            curves.mean(0)[drawn],
            LINES[number % 4],
            color=OKABE_ITO[number],
            marker=MARKERS[number],
            ms=4,
            markevery=max(1, len(at) // 8),
            lw=2.2 if not number else 1.3,
            label=f"{name}, n = {len(kept)}",
        )
        if len(kept) > 1:
            ax.fill_between(
                at[drawn],
                curves.min(0)[drawn],
                curves.max(0)[drawn],
                color=OKABE_ITO[number],
                alpha=0.15 if not number else 0.07,
                lw=0,
            )
    ax.set(
        xlabel="Trainings spent (full evaluations)", ylabel="Best validation fitness so far (MCC)"
    )
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.grid(True)
    legend_above(fig, *ax.get_legend_handles_labels())
    return fig


def _best_at(trace: pd.DataFrame, at) -> np.ndarray:
    """The best fitness after so many full evaluations have been paid."""
    spent = trace["cost"].cumsum().to_numpy()
    best = pd.to_numeric(trace["best"]).to_numpy()
    last = np.searchsorted(spent, at + 1e-9, side="right") - 1
    return np.where(last >= 0, best[np.clip(last, 0, None)], np.nan)


@style()
def fidelity(table: pd.DataFrame, text: str = "") -> Figure:
    """Fitness after the short training against the MCC after the long one; each point an
    individual.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns fitness, final_val_mcc, final_test_mcc.
    text : str
        Written into the panel of the test images.
    """
    require(len(table), "The figure of short and long trainings needs at least one individual.")
    fig = new_figure(7.4, 3.4)
    for number, (ax, (column, name)) in enumerate(
        zip(
            fig.subplots(1, 2),
            (("final_test_mcc", "Test"), ("final_val_mcc", "Validation")),
            strict=True,
        )
    ):
        ax.plot(table["fitness"], table[column], MARKERS[number], color=OKABE_ITO[number], ms=6)
        both = pd.concat([table["fitness"], table[column]])
        low, high = both.min() - 0.05, both.max() + 0.05
        ax.plot([low, high], [low, high], "--", color="0.6", lw=1, zorder=0)
        ax.set(
            xlabel="Validation MCC, short training",
            ylabel=f"{name} MCC, long training",
            xlim=(low, high),
            ylim=(low, high),
            aspect="equal",
        )
        ax.grid(True)
        if text and not number:
            ax.set_title(text, fontsize=9)
    return fig


def examples(inputs: Inputs, rows: np.ndarray) -> tuple[list, list]:
    """One image a class as its file holds it, 256 px at most, and the classes' names, for
    ``plots.image_grid`` (Figures 3.4 to 3.7): the first of each class among `rows`.
    """
    display = registry.get(inputs.name).display
    firsts = [
        next(row for row in rows if inputs.labels[row] == label)
        for label in np.unique(inputs.labels[rows])
    ]
    pictures = [
        Image.fromarray(
            imageio.read_image(
                registry.root(inputs.name) / inputs.index["image_id"].iloc[row], channels=3
            )
        )
        for row in firsts
    ]
    for picture in pictures:
        picture.thumbnail((256, 256))
    return [np.asarray(picture) for picture in pictures], [
        display[inputs.labels[row]] for row in firsts
    ]
