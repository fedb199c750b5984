"""The figures of the LeaSE paper, each from tables alone.

What differs from the paper: its convergence curves have no readable axes; here the epoch and
percent are written at them, the curve is said to be the accuracy on the test images (the paper
calls it validation accuracy but describes no validation images in this phase), and methods differ
in line and marker as well as in colour. Cells are drawn by :mod:`kit.search.nas2d.drawing`.
"""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from kit.report.diagrams import HEAD, INPUT, MODEL, OUT, STEP, arrow, box, canvas
from kit.report.style import DARK, LINES, MARKERS, OKABE_ITO, Figure, new_figure, require, style

STAGES = (
    ("I  Explainer learns", ["E′ = E − ξ ∇ L(E, A, D(tr))", "half of the training images"], STEP),
    (
        "II  Explainer explains",
        ["δ′ = δ + ξ ∇ l(f(x + δ; E′), f(x; E′))", "the change that moves its prediction"],
        HEAD,
    ),
    (
        "III  Audience learns",
        ["W′ = W − ξ ∇ Σ l(f(δ′ ⊙ x; W), t)", "from the explanations only"],
        MODEL,
    ),
    (
        "IV  Architecture is updated",
        ["A ← A − η ∇ [L(E′, A, D(val)) + γ L(W′, D(val))]", "other half of the training images"],
        OUT,
    ),
)
OPERATIONS = ("convolution", "pooling", "skip connection", "none")


@style()
def scheme() -> Figure:
    """The search space of DARTS and the four learning stages of LeaSE (Figure 1)."""
    fig, ax = canvas(9.2, 5.6)
    ax.text(
        0.1,
        0.12,
        "(a) Differentiable search: every edge mixes all operations",
        fontweight="bold",
        fontsize=10,
        va="top",
    )
    _mixed_cell(ax)
    ax.text(
        0.1,
        2.62,
        "(b) LeaSE: an architecture is good if an audience learns from its explanations",
        fontweight="bold",
        fontsize=10,
        va="top",
    )
    for number, (heading, lines, colour) in enumerate(STAGES):
        x, y = 0.3 + 4.7 * (number in (1, 2)), 2.95 + 1.35 * (number > 1)
        box(ax, x, y, 3.9, 0.9, heading=heading, lines=lines, colour=colour)
    for start, end, passed, place in (
        ((4.2, 3.4), (5.0, 3.4), "E′", (4.55, 3.28)),
        ((6.95, 3.85), (6.95, 4.3), "δ′", (7.1, 4.08)),
        ((5.0, 4.75), (4.2, 4.75), "W′", (4.55, 4.63)),
        ((2.25, 4.3), (2.25, 3.85), "A", (2.4, 4.08)),
    ):
        arrow(ax, start, end)
        ax.text(*place, passed, fontsize=8.5, style="italic", va="center", ha="center")
    return fig


def _mixed_cell(ax) -> None:
    """Three nodes; the edges between the first two show the operations and their weights."""
    nodes = {"0": (1.0, 1.2), "1": (5.6, 1.2), "2": (8.3, 1.2)}
    for number, (name, bend) in enumerate(
        zip(OPERATIONS, (-0.55, -0.18, 0.18, 0.55), strict=False)
    ):
        x = np.linspace(nodes["0"][0] + 0.2, nodes["1"][0] - 0.2, 60)
        y = 1.2 + bend * 1.25 * np.sin(np.pi * np.linspace(0, 1, 60))
        ax.plot(x, y, LINES[number], color=OKABE_ITO[number], lw=2)
        ax.text(x[30], y[30] - 0.05, f"softmax(α)·{name}", ha="center", va="bottom", fontsize=8)
    for (start, end), bend in {("1", "2"): 0.0, ("0", "2"): 0.35}.items():
        style_of = {
            "arrowstyle": "-|>",
            "color": "0.3",
            "lw": 1.1,
            "connectionstyle": f"arc3,rad={bend}",
            "shrinkA": 13,
            "shrinkB": 13,
        }
        ax.annotate("", nodes[end], nodes[start], arrowprops=style_of)
    for name, (x, y) in nodes.items():
        ax.plot(x, y, "o", ms=24, mfc=INPUT, mec="0.2")
        ax.text(x, y, name, ha="center", va="center", fontweight="bold")
    ax.text(
        7.0,
        0.45,
        "a node is the sum of its edges;\nafter the search each edge keeps\none operation, each "
        "node two edges",
        fontsize=8,
        va="center",
        ha="left",
    )


@style()
def convergence(panels: dict) -> Figure:
    """Accuracy on the test images over the training of the evaluated networks (Figure 2).

    Parameters
    ----------
    panels : dict
        Title of a panel -> {name of a method: history with the columns epoch (from 1) and
        val_accuracy (fraction)}; panels without methods stay out.
    """
    panels = {title: curves for title, curves in panels.items() if curves}
    require(panels, "Figure 2 needs at least one history.")
    fig = new_figure(9.4, 0.9 + 3.7 * -(-len(panels) // 2))
    axes = fig.subplots(-(-len(panels) // 2), 2, squeeze=False, sharey=True).ravel()
    for letter, ax, (title, curves) in zip("abcdef", axes, panels.items(), strict=False):
        for number, (name, history) in enumerate(curves.items()):
            _curve(ax, history, number, name)
        ax.set(
            title=f"({letter}) {title}", xlabel="Epoch", ylabel="Accuracy on the test images (%)"
        )
        ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        ax.grid(True)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    return fig


def _curve(ax, history: pd.DataFrame, number: int, name: str) -> None:
    every = max(1, len(history) // 6)
    ax.plot(
        history["epoch"],
        100 * history["val_accuracy"],
        LINES[number % 4],
        color=DARK[number % 7],
        marker=MARKERS[number % 8],
        ms=4,
        label=name,
        markevery=(number % every, every),
        lw=1.3,
    )


@style()
def search_progress(histories: dict) -> Figure:
    """What the searches did: accuracy on the half that judges, skip connections of the normal cell,
    entropy of the architecture weights.

    Parameters
    ----------
    histories : dict
        Name of a search -> its history (see :func:`kit.search.nas2d.search.search`).
    """
    require(histories, "Search progress needs at least one history.")
    fig = new_figure(9.4, 3.6 + 0.17 * -(-len(histories) // 3))
    columns = (
        ("val_accuracy", "Accuracy, judging half (%)", 100),
        ("skips_normal", "Skip connections, normal cell", 1),
        ("entropy_normal", "Entropy of α, normal cell (1: even)", 1),
    )
    for ax, (column, label, factor) in zip(fig.subplots(1, 3), columns, strict=False):
        for number, (name, history) in enumerate(histories.items()):
            every = max(1, len(history) // 5)
            ax.plot(
                history["epoch"],
                factor * history[column],
                LINES[number // 7 % 4],
                color=DARK[number % 7],
                marker=MARKERS[number % 8],
                ms=3.5,
                label=name,
                markevery=(number % every, every),
                lw=1.2,
            )
        ax.set(xlabel="Epoch (P-DARTS: of all stages)", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(6, integer=column == "skips_normal"))
        ax.grid(True)
    if np.ptp(ax.get_ylim()) < 0.02:  # weights that have hardly moved: no axis of seven digits
        ax.set_ylim(ax.dataLim.y0 - 0.02, ax.dataLim.y1 + 0.02)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=7)
    return fig


@style()
def leak(table: pd.DataFrame) -> Figure:
    """Accuracy on all test images and on those without a copy in the training folder, one line a
    method.

    Parameters
    ----------
    table : pandas.DataFrame
        Long, from :func:`kit.studies.lease.tables.result_table`, with a column title.
    """
    chosen = table[table["metric"] == "accuracy"].reset_index(drop=True)
    require(len(chosen), "The comparison with the leak-free images needs at least one method.")
    fig = new_figure(7.4, 1.1 + 0.3 * len(chosen))
    ax, y = fig.add_subplot(), np.arange(len(chosen))
    for shift, prefix, name, marker, number in (
        (-0.12, "", "all test images", "o", 0),
        (0.12, "leak_free", "without a copy in training", "s", 1),
    ):
        value = chosen[prefix or "value"]
        low, high = (chosen[f"{prefix}_{end}".strip("_")] for end in ("low", "high"))
        ax.errorbar(
            value,
            y + shift,
            xerr=[value - low, high - value],
            fmt=marker,
            color=OKABE_ITO[number],
            ms=5,
            capsize=2,
            lw=1.2,
            label=f"{name} (n = {int(chosen[f'{prefix}_n'.strip('_')].max())})",
        )
    ax.set(yticks=y, yticklabels=chosen["title"], xlabel="Accuracy (%) with 95 % interval")
    ax.invert_yaxis()
    ax.grid(True, axis="x")
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.4, 1.0 + 0.7 / (1 + 0.3 * len(chosen))), ncols=2
    )
    return fig
