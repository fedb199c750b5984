"""The house style of every figure, and what all figures share.

What differs from the publications: theirs mix several styles and tell series apart by colour alone;
here one style, Okabe and Ito's palette and viridis hold for all, and every series differs in line
style, marker or hatch too.
"""

import contextlib
import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import matplotlib.figure
import matplotlib.style
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.layout_engine import LayoutEngine

from kit.errors import KitError

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, YELLOW, BLACK = OKABE_ITO = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
DARK = tuple(
    colour for colour in OKABE_ITO if colour != YELLOW
)  # for thin lines: yellow is hard to see on white
LINES, MARKERS, HATCHES = (
    ("-", "--", ":", "-."),
    "osD^vPX*",
    ("", "///", "...", "xx", "\\\\\\", "++", "oo", "--"),
)
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=OKABE_ITO),
    "image.cmap": "viridis",
    "axes.grid": False,
    "grid.color": "0.88",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "hatch.linewidth": 0.7,
    "hatch.color": "white",
}


class NothingToPlot(KitError):
    """A figure was asked of an empty or unsuitable table."""


class Figure(matplotlib.figure.Figure):
    """A Matplotlib figure that shows itself in a notebook without pyplot."""

    def _repr_png_(self) -> bytes:
        with io.BytesIO() as buffer:
            self.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
            return buffer.getvalue()


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The house style, whatever the caller's rcParams are; also usable as a decorator."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(
    width: float,
    height: float,
    layout: Literal["constrained", "compressed", "tight"] = "constrained",
) -> Figure:
    """An empty figure of `width` x `height` inches; the layout "compressed" suits grids of
    images.
    """
    fig = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(fig)
    return fig


def require(condition: object, sentence: str) -> None:
    """Raise `NothingToPlot` with `sentence` unless `condition` holds."""
    if not condition:
        raise NothingToPlot(sentence)


def legend_above(
    fig: matplotlib.figure.Figure, handles: Sequence[Artist], labels: Sequence[str]
) -> None:
    """One legend above all panels, in one row, or two where there are more than five entries."""
    fig.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels) if len(labels) <= 5 else -(-len(labels) // 2),
        handlelength=2.8,
    )


def letter(number: int, many: bool) -> str:
    """The letter of a panel, where there are many."""
    return f"({chr(97 + number)}) " if many else ""


@style()
def note(fig: matplotlib.figure.Figure, text: str) -> matplotlib.figure.Figure:
    """Put a small footer under a figure, enlarging it by what the footer needs, and return the
    figure.

    Used to say "embedded data: not comparable with published values", or to name stand-ins and
    reductions. Call it last.
    """
    width, height = fig.get_size_inches()
    lines = textwrap.wrap(text, max(30, int(width * 17)))
    strip = 0.14 * len(lines) + 0.1
    fig.set_size_inches(width, height + strip)
    if fig.get_layout_engine() is None:
        fig.set_layout_engine("constrained")
    room: Any = {"rect": (0, strip / (height + strip), 1, height / (height + strip))}
    cast(LayoutEngine, fig.get_layout_engine()).set(**room)
    fig.text(
        0.02,
        0.04 / (height + strip),
        "\n".join(lines),
        ha="left",
        va="bottom",
        fontsize=7,
        style="italic",
        color="0.25",
    )
    return fig
