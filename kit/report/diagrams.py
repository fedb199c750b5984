"""Block diagrams: of networks, drawn from a table of layers, so that no TensorFlow is needed, and
the boxes and arrows of schemes.

What differs from the publications: the Br35H paper's Figures 1-3 show blocks without sizes; here
each carries its output shape and its number of parameters, and what is frozen is marked.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from kit.report.style import Figure, new_figure, require, style

_KINDS = (
    ("backbone", "#CFE3F3"),
    ("conv", "#BFE0F5"),
    ("pool", "#CBE8DD"),
    ("dense", "#F7DFA3"),
    ("dropout", "#E3E3E3"),
    ("flatten", "#F0F0F0"),
    ("input", "#FFFFFF"),
    ("norm", "#EBD6E3"),
    ("activation", "#F8F3BE"),
)
_ARROW = {"arrowstyle": "-|>", "color": "0.2", "lw": 1, "shrinkA": 0, "shrinkB": 0}


INPUT, STEP, MODEL, HEAD, OUT = (
    "#FFFFFF",
    "#CFE3F3",
    "#CBE8DD",
    "#F7DFA3",
    "#EBD6E3",
)  # colours of the blocks of a scheme


def _shape(shape) -> str:
    if isinstance(shape, str):
        return shape
    return " × ".join(f"{size:,}" for size in shape if size is not None)


@style()
def architecture(table: pd.DataFrame, title: str = "") -> Figure:
    """Block diagram of a flat network: layer, output shape and parameters from input (top) to
    output (Figures 1-3 of the Br35H paper).

    Parameters
    ----------
    table : DataFrame
        One row a block, top to bottom: layer (name), type, output_shape (tuple, None entries left
        out, or text), parameters (int, or nan) and optionally trainable (bool). Long backbones come
        as one collapsed row.
    title : str
    """
    require(len(table), "An architecture diagram needs at least one layer.")
    fig = new_figure(6.4, 0.9 + 0.56 * len(table))
    ax = fig.add_subplot(xlim=(0, 10), ylim=(len(table) + 0.45, -0.75))
    ax.set_axis_off()
    ax.set_title(title)
    for x, heading, side in (
        (0.35, "Layer", "left"),
        (6.6, "Output shape", "center"),
        (9.75, "Parameters", "right"),
    ):
        ax.text(x, -0.45, heading, ha=side, va="center", fontsize=8, color="0.3")
    for number, row in enumerate(table.to_dict("records")):
        _block(ax, number, row)
        if number:
            ax.annotate("", (4.4, number - 0.34), (4.4, number - 0.66), arrowprops=_ARROW)
    ax.text(9.75, len(table) + 0.05, _total(table), ha="right", va="center", fontweight="bold")
    return fig


def _total(table) -> str:
    total = int(table["parameters"].fillna(0).sum())
    if "trainable" not in table or table["trainable"].fillna(True).all():
        return f"{total:,} parameters"
    trainable = int(
        table.loc[table["trainable"].fillna(True).astype(bool), "parameters"].fillna(0).sum()
    )
    return f"{total:,} parameters, {trainable:,} of them trained"


def _block(ax, y, row) -> None:
    kind = str(row["type"])
    colour = next((c for word, c in _KINDS if word in kind.lower()), "#F5F5F5")
    frozen = row.get("trainable") is not None and not row.get("trainable", True)
    ax.add_patch(
        FancyBboxPatch(
            (0.12, y - 0.33),
            9.76,
            0.66,
            "round,pad=0,rounding_size=0.09",
            fc=colour,
            ec="0.2",
            ls="--" if frozen else "-",
        )
    )
    ax.text(
        0.35,
        y - 0.13,
        textwrap.shorten(str(row["layer"]), 42, placeholder=" …"),
        va="center",
        fontweight="bold",
    )
    ax.text(
        0.35,
        y + 0.15,
        textwrap.shorten(kind + (" (frozen)" if frozen else ""), 58, placeholder=" …"),
        va="center",
        fontsize=8,
    )
    ax.text(6.6, y, _shape(row["output_shape"]), va="center", ha="center")
    parameters = row["parameters"]
    ax.text(
        9.75,
        y,
        "–" if pd.isna(parameters) or not parameters else f"{int(parameters):,}",
        va="center",
        ha="right",
    )


# --- schemes --------------------------------------------------------------------------------------


def box(  # noqa: PLR0913  a place, a size and a text
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    heading: str,
    lines: Sequence[str] = (),
    colour: str = STEP,
    dashed: bool = False,
) -> None:
    """A block whose upper left corner is (x, y), y downwards, in inches."""
    look: dict[str, Any] = {"fc": colour, "ec": "0.2", "ls": "--" if dashed else "-"}
    ax.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.06", **look))
    ax.text(
        x + width / 2, y + 0.08, heading, ha="center", va="top", fontweight="bold", fontsize=8.5
    )
    ax.text(
        x + width / 2,
        y + 0.31 + 0.13 * heading.count("\n"),
        "\n".join(lines),
        ha="center",
        va="top",
        fontsize=7.5,
        linespacing=1.3,
    )


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    """An arrow between two points in inches, with a word beside it."""
    ax.annotate(
        "",
        end,
        start,
        arrowprops={"arrowstyle": "-|>", "color": "0.2", "lw": 1.1, "shrinkA": 0, "shrinkB": 0},
    )
    if text:
        ax.text(
            (start[0] + end[0]) / 2 + 0.06,
            (start[1] + end[1]) / 2,
            text,
            fontsize=7.5,
            style="italic",
            va="center",
        )


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure and its axes, in inches from the upper left corner."""
    fig = new_figure(width, height)
    ax = fig.add_subplot(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    return fig, ax
