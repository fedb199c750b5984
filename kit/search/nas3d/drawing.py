"""Pictures of found 3D networks: the pruned cell as a stair from input to output, and the skeleton
that the cell is stacked into.

The publication shows no cells; its code keeps adjacency matrices. Here every vertex that pruning
left is a box that says what it does, one step further down and to the right than the vertex before
it; a state's line leaves its box downwards and has a dot wherever it is read. Lines are level or
upright, each edge has its own level before the box that it enters, and no line passes a box,
whatever the cell. The dashed line is the residual connection that every cell has; where the cell
also has the direct edge from input to output both are drawn, because both are added. Fill repeats
the kernel that the text names.
"""

import textwrap
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch

from kit.report.diagrams import HEAD, INPUT, MODEL, OUT, STEP, arrow, box, canvas
from kit.report.style import Figure, letter, new_figure, require, style
from kit.search.nas3d.space import OPERATIONS, Network3D, macs, parameters

WORDS = {"relu": "ReLU", "mish": "Mish", "norm": "norm"}
FILLS = {
    3: "#EEF4FA",
    5: "#BFD9EE",
    7: "#8DBCE0",
}  # by kernel; dark enough to differ in grey, light enough for black text
TWICE = "direct edge and residual: the input is added twice"
_INK = "0.15"
_WIDE, _HIGH, _GAP, _LEVEL = (
    1.92,
    0.3,
    0.15,
    0.17,
)  # inches: width and least height of a box, between rows, between edges into one box
_ENTRY, _STEP, _DROP, _PLUS = (
    0.88,
    0.5,
    0.14,
    0.2,
    # left of the first operation, step of the stair, where a line leaves its box, strip with the
    # plus
)
_RESIDUAL, _EDGE = 0.16, 0.42  # where the two lines of the input leave it
_HEAD = 0.24  # room for the numbers above the input


def label(index: int) -> str:
    """An operation in words, such as "5×5×5 conv · norm · Mish"."""
    operation = OPERATIONS[index]
    kernel = "×".join([str(operation.kernel)] * 3)
    return " · ".join(
        {"conv": f"{kernel} conv", "norm": "norm", "act": WORDS[operation.activation]}[step]
        for step in operation.order
    )


def numbers(network: Network3D) -> str:
    """Cells, stacks and widths in words."""
    widths = " → ".join(str(width) for width in network.widths())
    return (
        f"{network.cells} cell{'s'[: network.cells > 1]} a stack, {network.stacks} "
        f"stack{'s'[: network.stacks > 1]}, {widths} filters"
    )


@style()
def cells_figure(cells: list, columns: int = 2) -> Figure:
    """Several cells, lettered (a), (b), ... where there is more than one.

    Parameters
    ----------
    cells : list of (str, Network3D)
        Titles and networks, row by row.
    columns : int

    Raises
    ------
    kit.report.style.NothingToPlot
        If there is no cell.
    """
    require(len(cells), "A drawing needs at least one cell.")
    columns = min(columns, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = max(_left(len(network.matrix) - 1) for _, network in cells) + _WIDE + 0.1
    heights = [
        max(
            _places(network)[-1][1] + (0.22 if network.matrix[0][-1] else 0.05)
            for _, network in row
        )
        for row in rows
    ]
    fig = new_figure(max(4.6, columns * (width + 0.15)), sum(heights) + 0.45 * len(rows) + 0.45)
    grid = fig.add_gridspec(len(rows), columns, height_ratios=heights)
    for number, (title, network) in enumerate(cells):
        height = heights[number // columns]
        ax = fig.add_subplot(
            grid[divmod(number, columns)],
            xlim=(-0.05, width),
            ylim=(height, 0),
            aspect="equal",
            anchor="NW",
        )
        ax.set_axis_off()
        ax.set_title(
            "\n".join(
                textwrap.wrap(f"{letter(number, len(cells) > 1)}{title}".strip(), int(13 * width))
            ),
            loc="left",
            fontweight="bold",
        )
        _draw(ax, network)
    used = sorted(
        {OPERATIONS[index].kernel for _, network in cells for index in network.operations}
    )
    handles: list[Any] = [
        Patch(fc=FILLS[kernel], ec="0.35", label=f"kernel of {kernel} voxels") for kernel in used
    ]
    handles += [
        Line2D([], [], color=_INK, lw=1.1, label="edge"),
        Line2D([], [], color=_INK, lw=1.1, ls="--", label="residual"),
    ]
    fig.legend(
        handles=handles, loc="outside upper center", ncols=len(handles) if columns > 1 else 3
    )
    return fig


def _left(vertex: int) -> float:
    """Left side of a vertex's box."""
    return _ENTRY + _STEP * (vertex - 1) if vertex else 0.0


def _drop(vertex: int) -> float:
    """Where the line of a vertex runs down."""
    return _left(vertex) + _DROP if vertex else _EDGE


def _sources(network: Network3D) -> list:
    """Of each vertex, what enters it from top to bottom: the nearest first, which crosses least;
    None is the residual.
    """
    n = len(network.matrix)
    found = [
        [source for source in reversed(range(vertex)) if network.matrix[source][vertex]]
        for vertex in range(n)
    ]
    return [*found[:-1], [*found[-1], None]]


def _places(network: Network3D) -> list:
    """Top and bottom of the boxes."""
    places, top = [], _HEAD
    for sources in _sources(network):
        bottom = top + max(_HIGH, _LEVEL * len(sources) + 0.08)
        places.append((top, bottom))
        top = bottom + _GAP
    return places


def _draw(ax, network: Network3D) -> None:
    places, n = _places(network), len(network.matrix)
    lowest: dict[int, Any] = {}
    ax.text(0, 0.02, numbers(network), fontsize=7.5, va="top")
    for vertex, sources in enumerate(_sources(network)):
        top, bottom = places[vertex]
        for k, source in enumerate(sources):
            level = top + (bottom - top) * (k + 0.5) / len(sources)
            lowest[source] = max(level, lowest.get(source, 0))
            start = _RESIDUAL if source is None else _drop(source)
            _line(ax, (start, _left(vertex)), (level, level), source is None)
            ax.plot(start, level, "o", color=_INK, ms=3.2, zorder=2)
            ax.plot(_left(vertex) - 0.035, level, ">", color=_INK, ms=4, zorder=2)
        words = (
            "cell input"
            if not vertex
            else "cell output"
            if vertex == n - 1
            else label(network.operations[vertex - 1])
        )
        fill = (
            FILLS[OPERATIONS[network.operations[vertex - 1]].kernel]
            if 0 < vertex < n - 1
            else "0.92"
        )
        _box(
            ax,
            left=_left(vertex),
            top=top,
            width=_WIDE if 0 < vertex < n - 1 else 0.98 + _PLUS * bool(vertex),
            height=bottom - top,
            words=words,
            fill=fill,
            adds=len(sources) > 1,
        )
    for source, level in lowest.items():
        start = _RESIDUAL if source is None else _drop(source)
        _line(ax, (start, start), (places[source or 0][1], level), source is None)
    if network.matrix[0][-1]:
        ax.text(_RESIDUAL, places[-1][1] + 0.12, TWICE, fontsize=7.5, style="italic", va="center")


def _line(ax, x, y, dashed: bool) -> None:
    ax.plot(x, y, "--" if dashed else "-", color=_INK, lw=1.1, zorder=1)


def _box(ax, left, top, width, height, words, fill, adds: bool) -> None:
    """A vertex; one that sums several states has a plus where they enter."""
    end = fill == "0.92"
    look = {"fc": fill, "ec": _INK if end else "0.35", "lw": 1.1 if end else 0.8}
    ax.add_patch(
        FancyBboxPatch(
            (left, top), width, height, "round,pad=0,rounding_size=0.05", zorder=3, **look
        )
    )
    if adds:
        ax.vlines(left + _PLUS, top, top + height, color=look["ec"], lw=0.8, zorder=4)
        ax.text(
            left + _PLUS / 2,
            top + height / 2,
            "+",
            ha="center",
            va="center",
            fontsize=10,
            fontweight="bold",
            zorder=4,
        )
    middle = left + (width + _PLUS * adds) / 2
    ax.text(
        middle,
        top + height / 2,
        words,
        ha="center",
        va="center_baseline",
        fontsize=8,
        fontweight="bold" if end else "normal",
        zorder=4,
    )


@style()
def skeleton_figure(
    network: Network3D, classes: int, edge: int = 28, channels: int = 1, title: str = ""
) -> Figure:
    """From the volume to the logits: stem, stacks of cells with their widths, pooling, head; below
    each block what leaves it.

    Parameters
    ----------
    network : Network3D
    classes : int
    edge, channels : int
        Of the volumes: voxels along each axis, and channels.
    title : str
    """
    blocks = _blocks(network, classes, edge, channels)
    width = sum(block[1] for block in blocks) + 0.3 * (len(blocks) - 1) + 0.2
    fig, ax = canvas(max(width, 6.0), 2.15)
    cost = macs(network, classes, edge, channels) / 1e9
    facts = (
        f"{parameters(network, classes, dead=False, channels=channels):,} parameters, "
        f"{cost:.3g} G multiply-adds a volume"
    )
    ax.set_title(f"{title}: {facts}" if title else facts, loc="left", fontsize=9)
    x = 0.1
    frames: dict[int, list] = {}
    for number, (heading, wide, lines, colour, leaves, stack) in enumerate(blocks):
        if number:
            arrow(ax, (x - 0.3, 1.0), (x, 1.0))
        box(ax, x, 0.62, wide, 0.76, heading=heading, lines=lines, colour=colour)
        ax.text(x + wide / 2, 1.6, leaves, ha="center", va="top", fontsize=7.5)
        if stack is not None:
            frames.setdefault(stack, []).extend((x, x + wide))
        x += wide + 0.3
    for stack, ends in frames.items():
        start, wide = min(ends) - 0.09, max(ends) - min(ends) + 0.18
        ax.add_patch(
            FancyBboxPatch(
                (start, 0.5),
                wide,
                1.0,
                "round,pad=0,rounding_size=0.06",
                fc="none",
                ec="0.35",
                ls="--",
            )
        )
        ax.text(start + wide / 2, 0.44, f"Stack {stack + 1}", ha="center", va="bottom", fontsize=8)
    ax.text(
        0.1,
        2.02,
        "below each block: voxels × channels, or numbers, that leave it",
        fontsize=7.5,
        style="italic",
        va="center",
    )
    return fig


def _blocks(network: Network3D, classes: int, edge: int, channels: int) -> list:
    """Heading, width in inches, lines, colour, what leaves, stack or None."""
    widths, side, entering = network.widths(), edge, network.filters
    blocks: list[tuple] = [
        ("Volume", 0.85, ["grey values", "÷ 255"], INPUT, f"{edge}³ × {channels}", None),
        (
            "Stem",
            1.15,
            ["3×3×3 conv", "batch norm · ReLU"],
            STEP,
            f"{edge}³ × {network.filters}",
            None,
        ),
    ]
    for stack, width in enumerate(widths):
        if stack:
            side //= 2
            blocks.append(
                ("Pooling", 0.9, ["maximum", "of 2×2×2"], STEP, f"{side}³ × {entering}", None)
            )
        for cell in range(network.cells):
            lines = (
                [f"1×1×1 conv {entering} → {width}", "then the cell"]
                if stack
                else ["the cell,", f"width {width}"]
            )
            blocks.append(
                (
                    f"Cell {stack * network.cells + cell + 1}",
                    1.3 if stack else 0.9,
                    lines,
                    MODEL,
                    f"{side}³ × {width}",
                    stack,
                )
            )
            entering = width
    return [
        *blocks,
        ("Average", 0.9, ["over all voxels", "of a channel"], HEAD, f"{entering}", None),
        ("Dense", 0.9, [f"{entering} → {classes}"], OUT, f"{classes} logits", None),
    ]
