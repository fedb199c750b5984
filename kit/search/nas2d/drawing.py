"""Pictures of cells: inputs on the left, the four nodes as steps of a stair, the joined output on
the right.

The publication draws its cells (Figure 3) with the authors' Graphviz script, in which labels lie on
crossing curves. Here every operation is a box before the node that it feeds, and all lines are
level or upright: a state's line runs down from it and has a dot wherever an operation reads it. A
line never passes a box, whatever the cell. What an operation is says its text; fill and hatch only
repeat it.
"""

from matplotlib.patches import FancyBboxPatch, Patch

from kit.report.style import Figure, letter, new_figure, require, style
from kit.search.nas2d.genotype import NODES, PRIMITIVES, SHORT, Genotype

_KINDS = {  # name in the legend, fill, hatch
    "sep": ("separable convolution, twice", "#BFE0F5", ""),
    "dil": ("dilated separable convolution", "#F7DFA3", "////"),
    "max": ("maximum of 3×3", "#CBE8DD", "...."),
    "avg": ("mean of 3×3", "#EBD6E3", "\\\\\\\\"),
    "skip": ("skip connection", "#FFFFFF", ""),
}
_STEP, _BOX, _NODE, _HIGH = (
    1.6,
    0.96,
    0.42,
    0.36,
)  # step of the stair, widths of an operation and a node, height of an operation
_INPUTS = (0.4, 1.2)  # middles of c_{k-2} and c_{k-1}
_WIDE, _TALL = 9.15, 4.95  # one cell, in the same units
_INCH = 0.62


@style()
def cell_figure(cell: tuple, title: str = "") -> Figure:
    """One cell.

    Parameters
    ----------
    cell : sequence of (str, int)
        Eight pairs, two a node, as in a `kit.search.nas2d.genotype.Genotype`.
    title : str
    """
    return cells_figure([(title, cell)], columns=1)


@style()
def genotype_figure(genotype: Genotype, title: str = "") -> Figure:
    """The normal and the reduction cell side by side."""
    start = f"{title}: " if title else ""
    return cells_figure(
        [(f"{start}normal cell", genotype.normal), (f"{start}reduction cell", genotype.reduce)]
    )


@style()
def cells_figure(cells: list, columns: int = 2) -> Figure:
    """Several cells, lettered (a), (b), ... where there is more than one (Figure 3).

    Parameters
    ----------
    cells : list of (str, cell)
        Titles and cells, row by row.
    columns : int

    Raises
    ------
    kit.report.style.NothingToPlot
        If there is no cell.
    """
    require(len(cells), "A drawing needs at least one cell.")
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    fig = new_figure(columns * _WIDE * _INCH, rows * (_TALL * _INCH + 0.35) + 0.4)
    for number, (title, cell) in enumerate(cells):
        ax = fig.add_subplot(
            rows, columns, number + 1, xlim=(0, _WIDE), ylim=(-_TALL + 0.45, 0.45), aspect="equal"
        )
        ax.set_axis_off()
        ax.set_title(
            f"{letter(number, len(cells) > 1)}{title}".strip(), loc="left", fontweight="bold"
        )
        _draw(ax, Genotype(cell, cell).normal)
    used = {_kind(operation) for _, cell in cells for operation, _ in cell}
    patches = [
        Patch(fc=fill, hatch=hatch, ec="0.35", label=name)
        for kind, (name, fill, hatch) in _KINDS.items()
        if kind in used
    ]
    _grey_hatches(patches)
    fig.legend(
        handles=patches, loc="outside upper center", ncols=len(patches) if columns > 1 else 2
    )
    return fig


def _grey_hatches(patches) -> None:
    """Draw hatches in a grey that leaves text on them readable."""
    for patch in patches:
        patch.set_hatchcolor("0.72")


def _kind(operation: str) -> str:
    return SHORT[PRIMITIVES.index(operation)].rstrip("35")


def _label(operation: str) -> str:
    short = SHORT[PRIMITIVES.index(operation)]
    return (
        f"{short[:-1]} {short[-1]}×{short[-1]}"
        if short[-1].isdigit()
        else short
        if short == "skip"
        else f"{short} 3×3"
    )


def _place(state: int) -> tuple:
    """Middle of a state: inputs side by side, nodes down the stair."""
    return (
        (_INPUTS[state], 0.0) if state < 2 else (_INPUTS[1] + _STEP * (state - 1), -(state - 1.0))
    )


def _draw(ax, cell) -> None:
    readers = {state: [] for state in range(2 + NODES)}
    for place, (operation, source) in enumerate(cell):
        x, y = _place(2 + place // 2)
        y += 0.23 if place % 2 == 0 else -0.23
        left = x - _NODE / 2 - 0.16 - _BOX
        readers[source].append(y)
        _line(ax, (_place(source)[0], left), (y, y), dot=True)
        _line(ax, (left + _BOX, x), (y, y))
        _operation(ax, left, y, operation)
    for state, levels in readers.items():
        x, y = _place(state)
        if levels:
            _line(ax, (x, x), (y, min(levels)))
        if state >= 2:
            _line(ax, (x, _WIDE - 0.75), (y, y))
    _boxes(ax)


def _line(ax, x, y, dot: bool = False) -> None:
    ax.plot(x, y, color="0.15", lw=1.1, solid_capstyle="round", zorder=1)
    if dot:
        ax.plot(x[0], y[0], "o", color="0.15", ms=3.6, zorder=2)


def _operation(ax, left: float, y: float, operation: str) -> None:
    _, fill, hatch = _KINDS[_kind(operation)]
    box = FancyBboxPatch(
        (left, y - _HIGH / 2),
        _BOX,
        _HIGH,
        "round,pad=0,rounding_size=0.08",
        fc=fill,
        ec="0.35",
        lw=0.8,
        hatch=hatch,
        zorder=3,
    )
    _grey_hatches([box])
    ax.add_patch(box)
    background = {"boxstyle": "square,pad=0.08", "fc": fill, "ec": "none"} if hatch else None
    ax.text(
        left + _BOX / 2,
        y,
        _label(operation),
        ha="center",
        va="center_baseline",
        fontsize=8,
        zorder=4,
        bbox=background,
    )


def _boxes(ax) -> None:
    for state, label in enumerate(
        (r"$c_{k-2}$", r"$c_{k-1}$", *(str(node) for node in range(NODES)))
    ):
        x, y = _place(state)
        width, height = (0.68, 0.42) if state < 2 else (_NODE, 0.84)
        _state(ax, left=x - width / 2, low=y - height / 2, width=width, height=height, label=label)
    _state(
        ax,
        left=_WIDE - 0.75,
        low=-NODES - 0.42,
        width=0.68,
        height=NODES - 1 + 0.84,
        label=r"$c_{k}$",
    )


def _state(ax, left: float, low: float, width: float, height: float, label: str) -> None:
    box = FancyBboxPatch(
        (left, low),
        width,
        height,
        "round,pad=0,rounding_size=0.1",
        fc="0.9",
        ec="0.15",
        lw=1.1,
        zorder=3,
    )
    ax.add_patch(box)
    ax.text(
        left + width / 2,
        low + height / 2,
        label,
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        zorder=4,
    )
