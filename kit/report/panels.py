"""Figures with many panels: confusion matrices, learning curves and heat maps side by side, points
with names, Venn diagrams of three sets.

What differs from the CAD-framework paper, for which they were made: one colour scale holds for all
panels of a figure, points carry their names instead of a legend, and axes have units.
"""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from kit.report import heat
from kit.report.style import (
    BLUE,
    GREEN,
    MARKERS,
    OKABE_ITO,
    VERMILION,
    Figure,
    legend_above,
    new_figure,
    require,
    style,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_REGIONS = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))


def _grid(count: int, columns: int) -> tuple[int, int]:
    columns = min(columns, count)
    return -(-count // columns), columns


@style()
def matrix_grid(matrices: dict, classes: Sequence[str], columns: int = 3) -> Figure:
    """Confusion matrices side by side: title -> int (C, C), rows = true. Colour is the share of the
    true class (%), numbers are images.
    """
    require(matrices, "A grid of confusion matrices needs at least one.")
    rows, columns = _grid(len(matrices), columns)
    fig = new_figure(3.0 * columns + 1.2, 3.05 * rows + 0.3)
    axes = fig.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(matrices) :]:
        ax.set_axis_off()
    for number, (ax, (title, matrix)) in enumerate(zip(axes.flat, matrices.items(), strict=False)):
        matrix = np.asarray(matrix)
        share = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        image = heat.cells(
            ax,
            share,
            heat.texts_of(matrix, ",.0f"),
            (classes, classes if number % columns == 0 else ()),
            limits=(0, 100),
            square=True,
        )
        ax.tick_params(axis="y", rotation=0)
        heat.slant(ax)
        ax.set(
            title="\n".join(textwrap.wrap(f"({LETTERS[number]}) {title}", 32)),
            ylabel="True class" if number % columns == 0 else "",
        )
        ax.set_xlabel("Predicted class" if number + columns >= len(matrices) else "")
    fig.colorbar(image, ax=axes, shrink=0.7, label="Share of the true class (%)")
    return fig


@style()
def curve_grid(histories: dict, columns: int = 2, best: bool = False) -> Figure:
    """Accuracy and loss over the epochs, training and validation, two panels a model.

    Parameters
    ----------
    histories : dict
        Title -> columns epoch (from 1), accuracy (fraction), loss and, where there was a validation
        part, val_accuracy and val_loss.
    columns : int
        Models in a row.
    best : bool
        Mark the epoch of the smallest validation loss, and say what the last epoch has.
    """
    require(
        histories and all(len(h) for h in histories.values()),
        "Learning curves need at least one history with one epoch.",
    )
    rows, columns = _grid(len(histories), columns)
    fig = new_figure(5.4 * columns if columns > 1 else 7.2, 2.15 * rows + 0.5 if rows > 1 else 3.2)
    axes = fig.subplots(rows, 2 * columns, squeeze=False)
    for number, (title, history) in enumerate(histories.items()):
        pair = axes[number // columns, 2 * (number % columns) : 2 * (number % columns) + 2]
        for ax, column, unit, factor in zip(
            pair,
            ("accuracy", "loss"),
            ("Accuracy (%)", "Loss (cross-entropy)"),
            (100, 1),
            strict=False,
        ):
            _curves(ax, history, column, factor, best)
            ax.set(ylabel=unit, xlabel="Epoch" if number + columns >= len(histories) else "")
        if len(histories) > 1:
            pair[0].set_title(f"({LETTERS[number]}) {title}", loc="left", fontsize=9.5)
        pair[0].set_ylim(top=101.5)
        pair[1].set_ylim(bottom=0)
    for ax in axes.flat[2 * len(histories) :]:
        ax.set_axis_off()
    legend_above(fig, *axes[0, 0].get_legend_handles_labels())
    if len(histories) == 1:
        fig.legends[0].set_title(next(iter(histories)), FontProperties(size=10))
    return fig


def _curves(ax, history, column, factor, best) -> None:
    every = max(1, len(history) // 6)
    for name, label, look in (
        (column, "training", {"color": BLUE, "marker": "o"}),
        (f"val_{column}", "validation", {"color": VERMILION, "marker": "s", "ls": "--"}),
    ):
        if name in history:
            ax.plot(
                history["epoch"],
                factor * history[name],
                ms=3.5,
                markevery=every,
                label=label,
                **look,
            )
    if best and "val_loss" in history:
        row = history.loc[history["val_loss"].idxmin()]
        value = factor * row[f"val_{column}"]
        ax.axvline(row["epoch"], color="0.5", lw=0.9, ls=":")
        ax.plot(
            row["epoch"],
            value,
            "*",
            ms=13,
            mfc=GREEN,
            mec="k",
            mew=0.8,
            ls="none",
            label=f"smallest validation loss, epoch {int(row['epoch'])}",
        )
        last = factor * history[f"val_{column}"].iloc[-1]
        ends = (
            f"accuracy there {value:.1f} %, at the end {last:.1f} %"
            if factor == 100
            else f"loss there {value:.3f}, at the end {last:.3f}"
        )
        ax.set_title(f"Validation {ends}", fontsize=8.5)
    ax.set_xlim(history["epoch"].min() - 0.6, history["epoch"].max() + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    ax.grid(True)


@style()
def scatter_named(table: pd.DataFrame, x: str, label: str, log: bool = False) -> Figure:
    """Accuracy against a cost, each point with its interval and its name where it covers nothing.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns model (title), accuracy, `x`, and optionally accuracy_low and accuracy_high
        (percent).
    x, label : str
        Column and axis label with unit.
    log : bool
        Logarithmic horizontal axis.
    """
    table = table.dropna(subset=[x, "accuracy"])
    require(len(table), "A scatter plot needs at least one model with a cost and an accuracy.")
    fig = new_figure(6.4, 4.2)
    ax = fig.add_subplot()
    low, high = (
        table.get(f"accuracy_{end}", table["accuracy"]).fillna(table["accuracy"]).to_numpy(float)
        for end in ("low", "high")
    )
    for number, (at, y, below, above) in enumerate(
        zip(table[x], table["accuracy"], low, high, strict=False)
    ):
        ax.errorbar(
            at,
            y,
            [[y - below], [above - y]],
            fmt=MARKERS[number % 8],
            color=OKABE_ITO[number % 8],
            ms=8,
            mec="k",
            mew=0.6,
            capsize=3,
            lw=1.1,
        )
    ax.set(
        xlabel=label,
        ylabel="Test accuracy (%, with 95 % interval)",
        xscale="log" if log else "linear",
    )
    ax.margins(x=0.14, y=0.18)
    if not log:
        ax.set_xlim(left=min(0, ax.get_xlim()[0]) if table[x].min() < 0 else 0)
    else:
        ax.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True)
    _name_points(
        fig,
        ax,
        table[x].to_numpy(float),
        table["accuracy"].to_numpy(float),
        low=low,
        high=high,
        names=table["model"],
    )
    return fig


_NEAR = ((9, 0), (-9, 0), (8, 10), (-8, 10), (8, -10), (-8, -10), (0, 15), (0, -15))
_PLACES = [(far * dx, far * dy) for far in (1, 1.6, 2.4) for dx, dy in _NEAR] + [
    (dx, dy) for dy in (26, -26, 36, -36, 48, -48, 60, -60) for dx in (6, -6)
]


_LINE = 17  # points; a label farther from its point gets a line


def _name_points(fig, ax, x, y, *, low, high, names) -> None:
    """Put each name at the first place around its point that covers no point, interval or other
    name, is nearest to its own point and inside the axes.
    """
    fig.draw_without_rendering()  # settles the layout, so that places in pixels hold
    scale, to_pixels = fig.dpi / 72, ax.transData.transform
    points, bottoms, tops = (to_pixels(np.column_stack([x, values])) for values in (y, low, high))
    taken = [
        Bbox([(b[0] - 4 * scale, b[1] - 2), (t[0] + 4 * scale, t[1] + 2)])
        for b, t in zip(bottoms, tops, strict=False)
    ]
    taken += [Bbox([p - 6 * scale, p + 6 * scale]) for p in points]
    for own in np.argsort(x, kind="stable"):
        name = "\n".join(textwrap.wrap(str(names.iloc[own]), 20))
        found: list[tuple] = []
        for place in _PLACES:
            text = _label(ax, name, (x[own], y[own]), place)
            area = text.get_window_extent(fig.canvas.get_renderer())
            text.remove()
            far = max(np.abs(place)) > _LINE
            doubt = (
                _crosses(
                    points[own], np.array(place) * scale, np.delete(points, own, axis=0), 6 * scale
                )
                if far
                else _misleads(area, own, points)
            )
            faults = _faults(area, taken, ax.get_window_extent()) + doubt
            found.append((faults, len(found), place, area))
            if not found[-1][0]:
                break
        _, _, place, area = min(found, key=lambda item: item[:2])
        taken.append(area)
        _label(ax, name, (x[own], y[own]), place)
        if max(np.abs(place)) > _LINE:
            ax.annotate(
                "",
                (x[own], y[own]),
                place,
                textcoords="offset points",
                in_layout=False,
                arrowprops={"arrowstyle": "-", "lw": 0.7, "color": "0.4"},
            )


def _label(ax, name, point, place):
    side = "left" if place[0] > 0 else "right" if place[0] < 0 else "center"
    return ax.annotate(
        name,
        point,
        place,
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=8,
        in_layout=False,
    )


def _faults(area, taken, frame) -> int:
    """What a label there would cover, and whether it would leave the axes."""
    outside = area.x0 < frame.x0 or area.x1 > frame.x1 or area.y0 < frame.y0 or area.y1 > frame.y1
    return sum(bool(area.overlaps(other)) for other in taken) + 10 * bool(outside)


def _misleads(area, own, points) -> bool:
    """Whether another point than its own is nearest to a label."""
    gaps = np.linalg.norm(np.clip(points, [area.x0, area.y0], [area.x1, area.y1]) - points, axis=1)
    return bool((np.delete(gaps, own) < gaps[own]).any())


def _crosses(start, step, others, radius) -> bool:
    """Whether the line from `start` by `step` (pixels) passes another point within `radius`."""
    line = start + np.linspace(0, 1, 20)[:, None] * step
    return bool(
        len(others)
        and (
            np.linalg.norm(line[:, None] - others, axis=2).min(axis=0)
            < np.minimum(radius, np.linalg.norm(others - start, axis=1) - 1e-6)
        ).any()
    )


@style()
def venn(
    counts: pd.DataFrame,
    names: Sequence[str],
    totals: Sequence[int] | None = None,
    what: str = "errors",
) -> Figure:
    """Venn diagram of three sets with the count of each region; circles are not to scale.

    Parameters
    ----------
    counts : pandas.DataFrame
        Seven rows: singles, pairs and the triple in the order of the sets (see
        ``cad_errors.venn_counts``); columns images and distinct.
    names : sequence of str
    totals : sequence of int or None
        Size of each set; by default the sums of its regions.
    what : str
        What is counted.
    """
    require(
        len(counts) == 7 and len(names) == 3,
        "A Venn diagram needs the seven regions of three sets.",
    )
    fig = new_figure(5.6, 4.9)
    ax = fig.add_subplot(xlim=(-2.6, 2.6), ylim=(-2.2, 2.2), aspect="equal")
    ax.set_axis_off()
    angles = np.radians((150, 30, 270))
    centres = [(0.72 * float(np.cos(a)), 0.72 * float(np.sin(a))) for a in angles]
    for number, (centre, place) in enumerate(
        zip(centres, ((-1.35, 1.78), (1.35, 1.78), (0, -2.1)), strict=False)
    ):
        _set_circle(ax, centre, number)
        size = (
            sum(
                row
                for region, row in zip(_REGIONS, counts["images"], strict=False)
                if number in region
            )
            if totals is None
            else totals[number]
        )
        ax.text(
            place[0],
            place[1],
            f"{names[number]}: {size} {what}",
            ha="center",
            va="center",
            fontweight="bold",
        )
    for region, row in zip(_REGIONS, counts.itertuples(), strict=False):
        stretch = {1: 1.6, 2: 2.0, 3: 1}[len(region)]
        at = np.mean([centres[k] for k in region], axis=0) * stretch
        _region_count(ax, at, row.images, row.distinct)
    return fig


def _set_circle(ax, centre: tuple[float, float], number: int) -> None:
    """The circle of a set, with a colour and a line of its own."""
    colour, line = OKABE_ITO[number], ("-", "--", "-.")[number]
    ax.add_patch(Circle(centre, 1.22, fc=colour, alpha=0.16, lw=0))
    ax.add_patch(Circle(centre, 1.22, fill=False, ec=colour, lw=2, ls=line))


def _region_count(ax, at: np.ndarray, images: int, distinct: int) -> None:
    """The number of images of a region, and of distinct ones where there are copies."""
    ax.text(at[0], at[1], str(images), ha="center", va="center", fontsize=13)
    if distinct != images:
        words = f"({distinct} distinct)"
        ax.text(at[0], at[1] - 0.22, words, ha="center", va="center", fontsize=7.5)


@style()
def heat_grid(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray | None]],
    columns: int = 3,
    label: str = "Grad-CAM, scaled to its maximum (fades out below 0.3)",
    alpha: float = 0.55,
) -> Figure:
    """Images under heat maps in a grid with one colour bar.

    Parameters
    ----------
    panels : list of (str, array, array or None)
        Title, image ((H, W) or red-green-blue, uint8 or float in 0..1) and map in [0, 1] of any
        size; None shows the bare image.
    columns : int
    label : str
        Of the colour bar.
    alpha : float
        Opacity of the map where it is above 0.3; below it fades out, so that the anatomy stays
        visible.
    """
    require(len(panels), "A grid of heat maps needs at least one panel.")
    rows, columns = _grid(len(panels), columns)
    fig = new_figure(2.35 * columns + 0.8, 2.65 * rows, layout="compressed")
    axes = fig.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for letter, ax, (title, image, values) in zip(LETTERS, axes.flat, panels, strict=False):
        image = np.asarray(image)
        ax.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        if values is not None:
            values, (height, width) = np.squeeze(np.asarray(values, float)), image.shape[:2]
            fading = alpha * np.clip(values / 0.3, 0, 1)
            ax.imshow(
                values,
                cmap="viridis",
                vmin=0,
                vmax=1,
                alpha=fading,
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                interpolation="bilinear",
            )
        ax.set_title("\n".join(textwrap.wrap(f"({letter}) {title}", 32)), fontsize=9)
    bar = fig.colorbar(
        mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), "viridis"), ax=axes, shrink=0.85
    )
    bar.set_label(label, fontsize=8)
    return fig
