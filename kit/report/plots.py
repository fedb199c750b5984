"""Figures, built from saved scores and histories only, each returned as a `Figure` that no pyplot
state knows of.

What differs from the publications: every figure carries units, an interval where there is one, and
more than colour to tell series apart; axes that do not start at 0 say so; Grad-CAM overlays use
viridis with a colour bar in place of JET, whose bright bands suggest borders that the map does not
have. Style and footer come from `kit.report.style`, block diagrams from `kit.report.diagrams`,
grids of images from `kit.report.images`, verdicts from `kit.report.verdict_plots`; all are
reachable from here.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import ArrayLike

from kit.evaluation import metrics, resampling, stats
from kit.report import heat
from kit.report.diagrams import architecture
from kit.report.images import heatmap_panel, image_grid
from kit.report.style import (
    BLUE,
    HATCHES,
    LINES,
    MARKERS,
    OKABE_ITO,
    SKY,
    VERMILION,
    Figure,
    NothingToPlot,
    legend_above,
    new_figure,
    note,
    require,
    style,
)
from kit.report.verdict_plots import bars, forest

__all__ = [
    "Figure",
    "NothingToPlot",
    "architecture",
    "bars",
    "confusion_matrix",
    "forest",
    "group_sizes",
    "heatmap_panel",
    "image_grid",
    "learning_curves",
    "metric_bars",
    "note",
    "reliability",
    "roc_curves",
    "style",
]

# --- training and scores --------------------------------------------------------------------------


_PANELS = (
    ("loss", "Training loss", "Loss", 1),
    ("val_loss", "Validation loss", "Loss", 1),
    ("accuracy", "Training accuracy", "Accuracy (%)", 100),
    ("val_accuracy", "Validation accuracy", "Accuracy (%)", 100),
)


@style()
def learning_curves(histories: Sequence[pd.DataFrame], labels: Sequence[str]) -> Figure:
    """Training and validation loss and accuracy over the epochs, one line a fold (Graphics 1 and 2
    of the Br35H paper).

    Parameters
    ----------
    histories : list of DataFrame
        Columns epoch (counted from 1), loss, accuracy (fraction) and, where there was a validation
        part, val_loss and val_accuracy.
    labels : list of str
    """
    require(
        len(histories) and all(len(h) for h in histories),
        "Learning curves need at least one history with one epoch.",
    )
    panels = [panel for panel in _PANELS if any(panel[0] in history for history in histories)]
    rows = len(panels) // 2
    fig = new_figure(7.2, 0.6 + 2.3 * rows)
    axes = fig.subplots(rows, 2, sharex=True, sharey="row" if rows == 2 else False, squeeze=False)
    for letter, ax, (column, title, unit, factor) in zip("abcd", axes.flat, panels, strict=False):
        for number, (history, label) in enumerate(zip(histories, labels, strict=True)):
            if column in history:
                _curve(ax, history["epoch"], history[column] * factor, number, label)
        ax.set(
            title=f"({letter}) {title}",
            ylabel=unit if ax in axes[:, 0] or rows == 1 else "",
            xlabel="Epoch" if ax in axes[-1] else "",
        )
        ax.grid(True)
    last = max(history["epoch"].max() for history in histories)
    axes[0, 0].set_xlim(1 - 0.03 * last, last + 0.03 * last)
    axes[0, 0].xaxis.set_major_locator(MaxNLocator(7, integer=True, min_n_ticks=1, prune=None))
    axes[0, 0].set_ylim(
        0, 1.06 * max(np.nanmax(line.get_ydata()) for ax in axes[0, :rows] for line in ax.lines)
    )
    legend_above(fig, *axes[0, 0].get_legend_handles_labels())
    return fig


def _curve(ax, x, y, number: int, label: str) -> None:
    every = max(1, len(x) // 6)
    ax.plot(
        x,
        y,
        LINES[number % 4],
        color=OKABE_ITO[number % 8],
        marker=MARKERS[number % 8],
        ms=4,
        markevery=(number % every, every),
        label=label,
    )


@style()
def roc_curves(
    panels: Sequence[tuple[str, pd.DataFrame]], positive: int = 1, by_group: bool = True
) -> Figure:
    """ROC curves side by side with AUC, its 95 % bootstrap interval and the point of threshold 0.5
    (Graphic 3 of the Br35H paper).

    Parameters
    ----------
    panels : list of (title, predictions)
        Predictions as `kit.evaluation.metrics` describes them.
    positive : int
    by_group : bool
        Whether the bootstrap draws duplicate groups.
    """
    require(len(panels), "ROC curves need at least one table of predictions.")
    fig = new_figure(3.5 * len(panels) + 0.2, 3.7)
    for number, (title, predictions) in enumerate(panels):
        ax = fig.add_subplot(1, len(panels), number + 1, aspect="equal")
        auc = resampling.bootstrap(predictions, "auc", by_group=by_group, positive=positive)
        _roc(ax, predictions, positive)
        if auc.estimate > 0.9:
            _zoom(ax, predictions, positive)
        ax.set(
            title=title,
            xlabel="False-positive rate (1 − specificity)",
            ylabel="True-positive rate (sensitivity)" if not number else "",
        )
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.text(
            0.99,
            0.02,
            f"AUC {auc.estimate:.4f}\n95 % interval {auc.low:.4f} – {auc.high:.4f}",
            ha="right",
            transform=ax.transAxes,
            fontsize=8,
        )
    legend_above(fig, *fig.axes[0].get_legend_handles_labels())
    return fig


def _zoom(ax, predictions, positive) -> None:
    inset = ax.inset_axes((0.3, 0.26, 0.52, 0.52), xlim=(-0.004, 0.2), ylim=(0.8, 1.004))
    _roc(inset, predictions, positive)
    inset.yaxis.tick_right()
    inset.spines.right.set_visible(True)
    inset.tick_params(labelsize=7)
    ax.indicate_inset_zoom(inset, edgecolor="0.4")


def _roc(ax, predictions, positive) -> None:
    points, at_half = (
        metrics.roc_points(predictions, positive),
        metrics.binary_metrics(predictions, positive),
    )
    ax.plot([0, 1], [0, 1], "--", color="0.55", lw=1, label="chance")
    ax.plot(points["fpr"], points["tpr"], color=BLUE, label="classifier")
    ax.plot(
        1 - at_half["specificity"],
        at_half["sensitivity"],
        "o",
        ms=6,
        mfc="white",
        mec=VERMILION,
        mew=1.6,
        label="threshold 0.5",
        ls="none",
    )


def _truncated_start(values, top: float) -> float:
    """Where a bar axis starts: 0, or a round number below the data when everything lies in the
    upper part of the range.
    """
    lowest = np.nanmin(values)
    if lowest < 0.6 * top:
        return 0.0
    step = 10.0 ** np.floor(np.log10(max(top - lowest, 1e-3 * top)))
    return max(0.0, float(np.floor((lowest - 0.15 * (top - lowest)) / step) * step))


@style()
def metric_bars(
    table: pd.DataFrame, unit: str = "%", decimals: int = 2, upper: float = 100.0
) -> Figure:
    """Grouped bars with error bars and value labels (Graphic 4 of the Br35H paper).

    Parameters
    ----------
    table : DataFrame
        One row a model (the index names it), one column a metric; optional ``<metric>_low`` and
        ``<metric>_high`` hold its interval.
    unit : str
        Of the values, for the axis.
    decimals : int
        Of the value labels.
    upper : float
        The largest possible value, in the same unit.

    Notes
    -----
    When all values are high the axis starts at a round number, is marked as cut, and says so in its
    label.
    """
    names = [str(c) for c in table.columns if not str(c).endswith(("_low", "_high"))]
    require(len(table) and names, "A bar chart of metrics needs one model and one metric.")
    values = table[names].to_numpy(float)
    low, high = (
        np.column_stack([table.get(f"{name}_{side}", table[name]) for name in names]).astype(float)
        for side in ("low", "high")
    )
    start, width = _truncated_start(np.fmin(values, low), upper), 0.8 / len(table)
    crowded = values.size > 12
    fig = new_figure(
        max(5.0, 0.9 + 0.32 * values.size + 0.3 * len(names))
        if crowded
        else max(5.0, 0.9 + 0.72 * values.size),
        3.9,
    )
    ax = fig.add_subplot()
    for number, model in enumerate(table.index):
        x = np.arange(len(names)) + (number - (len(table) - 1) / 2) * width
        _bars(
            ax,
            x,
            values[number] - start,
            low=low[number],
            high=high[number],
            start=start,
            width=0.92 * width,
            number=number,
            label=str(model),
        )
        _value_labels(ax, x, values[number], high[number], decimals, crowded)
    cut = f"; axis starts at {start:g}" if start else ""
    room = (upper - start) * (0.17 if crowded else 0.09)
    ax.set(
        ylim=(start, upper + room),
        xticks=np.arange(len(names)),
        xticklabels=[_readable(n) for n in names],
        ylabel=f"Value ({unit}{cut})",
    )
    ax.yaxis.set_major_locator(
        FixedLocator([t for t in MaxNLocator(6).tick_values(start, upper) if start <= t <= upper])
    )
    ax.grid(axis="y")
    if start:
        _cut_mark(ax)
    legend_above(fig, *ax.get_legend_handles_labels())
    return fig


def _value_labels(ax, x, values, high, decimals: int, crowded: bool) -> None:
    """The values above the bars of one model and their intervals; turned where bars are many."""
    for place, value, top in zip(x, values, np.fmax(values, high), strict=True):
        if np.isfinite(value):
            ax.annotate(
                f"{value:.{decimals}f}",
                (place, top),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7 if crowded else 8,
                rotation=90 if crowded else 0,
            )


def _cut_mark(ax) -> None:
    """Two strokes on the vertical axis that does not start at zero."""
    ax.plot(
        [0, 0],
        [0.03, 0.055],
        transform=ax.transAxes,
        marker=[(-1, -0.5), (1, 0.5)],
        ms=9,
        mec="k",
        mew=1,
        ls="none",
        clip_on=False,
    )


def _bars(  # noqa: PLR0913  what one call of Axes.bar and one of errorbar need
    ax, x, heights, *, low, high, start, width, number, label
) -> None:
    errors = np.clip([heights + start - low, high - heights - start], 0, None)
    ax.bar(
        x,
        heights,
        width,
        bottom=start,
        color=OKABE_ITO[number % 8],
        hatch=HATCHES[number % 8],
        label=label,
    )
    if np.nansum(errors) > 0:
        ax.errorbar(x, heights + start, errors, fmt="none", ecolor="k", elinewidth=1.1, capsize=3)


def _readable(name: str) -> str:
    name = str(name).replace("_", " ")
    return {
        "auc": "AUC",
        "mcc": "MCC",
        "f1": "F1",
        "macro auc": "Macro AUC",
        "macro f1": "Macro F1",
    }.get(name, name[:1].upper() + name[1:])


@style()
def confusion_matrix(
    matrix: ArrayLike, names: Sequence[str], normalise: bool = False, title: str = ""
) -> Figure:
    """Confusion matrix, rows = true; with `normalise`, colour and first number are percent of the
    true class and the count stands below.

    The colour map is a single-hue one, so that white stays empty in print.
    """
    matrix = np.asarray(matrix)
    require(
        matrix.ndim == 2 and matrix.shape == (len(names),) * 2 and matrix.size,
        "A confusion matrix must be square with one name a class.",
    )
    rows = matrix.sum(1, keepdims=True)
    shown = (
        np.divide(100 * matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
        if normalise
        else matrix
    )
    side = 1.9 + 0.62 * len(names) if len(names) <= 20 else 8.0
    fig = new_figure(side + 1.4, side + 0.4)
    ax = fig.add_subplot()
    most = 100 if normalise else max(shown.max(), 1)
    few = len(names) <= 20
    texts = _cell_texts(matrix, shown, normalise) if few else np.full(matrix.shape, "")
    image = heat.cells(
        ax,
        shown,
        texts,
        (names, names) if few else ((), ()),
        limits=(0, most),
        size=7 if normalise else 9,
        square=True,
    )
    fig.colorbar(
        image, ax=ax, shrink=0.8, label="Share of the true class (%)" if normalise else "Images"
    )
    ax.tick_params(axis="both", rotation=0)
    fits = 0.075 * max(map(len, names)) < (side - 0.6) / len(names) - 0.05  # inches
    if few and not fits:
        heat.slant(ax)
    ax.set(xlabel="Predicted class", ylabel="True class", title=title)
    return fig


def _cell_texts(matrix, shown, normalise) -> np.ndarray:
    texts = [
        f"{share:.1f} %\n({count:,})" if normalise else f"{count:,}"
        for share, count in zip(shown.ravel(), matrix.ravel(), strict=True)
    ]
    return np.array(texts, dtype=object).reshape(matrix.shape)


@style()
def reliability(calibration: metrics.Calibration | pd.DataFrame, title: str = "") -> Figure:
    """Observed frequency against score with Wilson intervals, above the number of images a bin.

    Parameters
    ----------
    calibration : kit.evaluation.metrics.Calibration, or its table of bins
    title : str
    """
    bins = calibration.bins if isinstance(calibration, metrics.Calibration) else calibration
    require(len(bins), "A reliability diagram needs at least one bin.")
    fig = new_figure(4.0, 4.6)
    ax, below = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    intervals = [
        stats.wilson(round(f * n), n) for f, n in zip(bins["frequency"], bins["n"], strict=True)
    ]
    errors = np.clip(
        [[f - i.low, i.high - f] for f, i in zip(bins["frequency"], intervals, strict=True)],
        0,
        None,
    ).T
    ax.plot([0, 1], [0, 1], "--", color="0.55", lw=1, label="perfectly calibrated")
    ax.errorbar(
        bins["score"],
        bins["frequency"],
        errors,
        fmt="o-",
        color=BLUE,
        ms=5,
        lw=1.2,
        capsize=3,
        label="observed, 95 % interval",
    )
    if isinstance(calibration, metrics.Calibration):
        ax.text(
            0.98,
            0.04,
            f"Expected calibration error {100 * calibration.ece:.1f} %",
            transform=ax.transAxes,
            ha="right",
        )
    ax.set(ylabel="Observed frequency", ylim=(-0.03, 1.03), xlim=(-0.03, 1.03), title=title)
    ax.legend(loc="upper left")
    below.bar(
        bins["low"], bins["n"], bins["high"] - bins["low"], align="edge", color=SKY, edgecolor="w"
    )
    below.set(xlabel="Score (mean of the bin)", ylabel="Images")
    return fig


@style()
def group_sizes(groups: ArrayLike, title: str = "") -> Figure:
    """How many duplicate groups have how many images; `groups` holds one group id an image. The
    vertical axis is logarithmic.
    """
    sizes = pd.Series(np.asarray(groups)).value_counts().value_counts().sort_index()
    require(len(sizes), "Group sizes need at least one image.")
    fig = new_figure(max(3.6, 1.2 + 0.42 * len(sizes)), 3.0)
    ax = fig.add_subplot()
    drawn = ax.bar(
        [str(size) for size in sizes.index],
        sizes,
        color=[SKY if size == 1 else BLUE for size in sizes.index],
    )
    ax.bar_label(drawn, [f"{count:,}" for count in sizes], fontsize=7, padding=2)
    ax.set(
        yscale="log",
        ylim=(0.6, 3 * sizes.max()),
        xlabel="Images in the group (1 = no copy)",
        ylabel="Groups (log scale)",
        title=title,
    )
    return fig
