"""What final trainings of PBC-NAS come to: ROC curves, confusion matrices and training curves; part
of :mod:`kit.studies.pbcnas.figures`.

The publication's code keeps the epoch with the best validation accuracy and shows neither the curve
nor the choice; here the chosen epoch is marked in every training curve, so that a lucky peak can be
seen.
"""

import textwrap
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kit.evaluation import metrics
from kit.report import heat
from kit.report.style import BLACK, DARK, LINES, Figure, letter, new_figure, require, style


def wrapped(title: str, inches: float, size: float = 10) -> str:
    """A title in lines that fit into so many inches."""
    return "\n".join(textwrap.wrap(str(title), max(12, int(inches * 125 / size))))


class Outcome(NamedTuple):
    """What a data set's row of :func:`outcomes` shows.

    Attributes
    ----------
    predictions : dict of str to DataFrame
        Network -> predictions of the test images, as :mod:`kit.evaluation.metrics` describes them;
        the first is the one of the confusion matrix and, with more than two classes, of the ROC
        curves.
    names : list of str
        Of the classes in the order of the labels.
    history : DataFrame, optional
        Of the first network's training, see :func:`training_curves`.
    chosen : int, optional
        Epoch, from 1, whose weights were kept.
    """

    predictions: dict
    names: list
    history: pd.DataFrame | None = None
    chosen: int | None = None


@style()
def outcomes(panels: dict) -> Figure:
    """ROC curves, confusion matrix and training of the chosen networks, a row a data set (Figure
    5).

    Parameters
    ----------
    panels : dict
        Title -> :class:`Outcome`. Two classes: one ROC curve a network. More: one a class against
        the rest.
    """
    panels = {title: outcome for title, outcome in panels.items() if outcome.predictions}
    require(panels, "Outcomes need at least one table of predictions.")
    heights = [3.2 if len(outcome.names) > 4 else 2.5 for outcome in panels.values()]
    ratios = (1.45, 1.15, 1.2)[
        : 2 + any(outcome.history is not None for outcome in panels.values())
    ]
    fig = new_figure(2.8 * sum(ratios), sum(heights) + 0.3)
    axes = fig.subplots(
        len(panels), len(ratios), squeeze=False, width_ratios=ratios, height_ratios=heights
    )
    for number, ((roc, matrix, *curves), (title, outcome)) in enumerate(
        zip(axes, panels.items(), strict=True)
    ):
        _roc(roc, outcome)
        roc.set_title(
            f"{letter(number, len(panels) > 1)}{wrapped(title, 4.2)}", loc="left", fontweight="bold"
        )
        first, predictions = next(iter(outcome.predictions.items()))
        _confusion(matrix, predictions, outcome.names)
        matrix.set_title(wrapped(first, 3.4))
        for curve in curves:
            _training(curve, outcome)
    return fig


def _training(ax, outcome: Outcome) -> None:
    if outcome.history is None:
        ax.set_axis_off()
        return
    _accuracies(ax, outcome.history, outcome.chosen, 0)
    ax.set(
        xlabel="Epoch",
        ylabel="Accuracy (%)",
        title="" if outcome.chosen is None else f"chosen: epoch {outcome.chosen}",
    )
    ax.grid(True)
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.6 * (high - low), high)  # room for the legend below the curves
    ax.legend(handles=_parts(outcome.chosen is not None), loc="lower right", fontsize=7.5)


def _roc(ax, outcome: Outcome) -> None:
    first = next(iter(outcome.predictions.values()))
    if len(outcome.names) == 2:
        curves = [(name, table, 1) for name, table in outcome.predictions.items()]
    else:
        curves = [
            (name, first, k)
            for k, name in enumerate(outcome.names)
            if 0 < (first["label"] == k).sum() < len(first)
        ]
    ax.plot([0, 1], [0, 1], color="0.75", lw=0.8)
    aucs = []
    for number, (name, table, positive) in enumerate(curves):
        points = metrics.roc_points(table, positive)
        aucs.append(np.trapezoid(points["tpr"], points["fpr"]))
        ax.plot(
            points["fpr"],
            points["tpr"],
            LINES[number % 4],
            color=DARK[number % 7],
            lw=1.3,
            label=f"{name}: {aucs[-1]:.3f}",
        )
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xticks=(0, 0.5, 1),
        yticks=(0, 0.5, 1),
        aspect="equal",
        anchor="W",
        xlabel="False-positive rate",
        ylabel="True-positive rate",
    )
    mean = f"\n(mean {np.mean(aucs):.3f})" if len(outcome.names) > 2 else ""
    heading = f"AUC, class against rest{mean}" if mean else f"AUC ({outcome.names[1]})"
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        title=heading,
        title_fontsize=7.5,
        fontsize=7,
        alignment="left",
        handlelength=2.4,
        labelspacing=0.35,
    )


def _confusion(ax, predictions: pd.DataFrame, names: list) -> None:
    """Counts, coloured by the share of the true class."""
    labels, scores = metrics.labels_and_scores(predictions)
    matrix = metrics.confusion(labels, scores.argmax(1), len(names))
    share = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    short, size = (
        [
            "\n".join(textwrap.wrap(str(name), 14)) if len(names) < 5 else str(name)
            for name in names
        ],
        8 if len(names) < 5 else 7,
    )
    heat.cells(
        ax,
        share,
        heat.texts_of(matrix, ",.0f"),
        (short, short),
        limits=(0, 1),
        size=9 if len(names) < 5 else 7,
        square=True,
    )
    ax.tick_params(length=0, rotation=0, labelsize=size)
    if len(names) > 2:
        heat.slant(ax)
    ax.set(xlabel="Predicted class", ylabel="True class")
    ax.spines[:].set_visible(False)


def _accuracies(
    ax,
    history: pd.DataFrame,
    chosen,
    number: int,
    label: str | None = None,
    columns=("accuracy", "val_accuracy"),
    factor: float = 100,
) -> None:
    """Training thin, validation thick, a star at the chosen epoch."""
    look = {
        "color": DARK[number % 7],
        "ls": LINES[number % 4],
        "marker": "." if len(history) == 1 else None,
    }
    if columns[0] in history:
        ax.plot(history["epoch"], factor * history[columns[0]], lw=0.7, alpha=0.7, **look)
    ax.plot(history["epoch"], factor * history[columns[1]], lw=1.1, label=label, **look)
    if chosen is not None:
        at = history.loc[history["epoch"] == chosen, columns[1]]
        require(
            len(at) == 1, f"Epoch {chosen} is not among the {len(history)} epochs of this training."
        )
        ax.plot(
            chosen,
            factor * at.iloc[0],
            "*",
            ms=12,
            mfc=look["color"],
            mec="k",
            mew=0.9,
            zorder=4,
            gid="chosen",
        )
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _parts(marked: bool) -> list:
    star = (
        [Line2D([], [], color=BLACK, marker="*", ms=10, mfc="0.7", ls="none", label="chosen epoch")]
        if marked
        else []
    )
    return [
        Line2D([], [], color=BLACK, lw=1.5, label="validation"),
        Line2D([], [], color=BLACK, lw=0.7, label="training"),
        *star,
    ]


@style()
def training_curves(histories: dict, chosen: dict) -> Figure:
    """Loss and accuracy of the final trainings over the epochs, the chosen epoch of each marked.

    Parameters
    ----------
    histories : dict
        Label, such as the seed -> history with epoch (from 1), loss, accuracy (fraction), val_loss
        and val_accuracy.
    chosen : dict
        Label -> epoch whose weights were kept; labels without one have no mark.
    """
    require(
        histories and all(len(history) for history in histories.values()),
        "Training curves need at least one history with one epoch.",
    )
    fig = new_figure(9.4, 3.6 + 0.2 * -(-len(histories) // 4))
    for panel, (ax, columns, words, factor) in enumerate(
        zip(
            fig.subplots(1, 2),
            (("loss", "val_loss"), ("accuracy", "val_accuracy")),
            ("Loss", "Accuracy (%)"),
            (1, 100),
            strict=True,
        )
    ):
        for number, (label, history) in enumerate(histories.items()):
            epoch = chosen.get(label)
            _accuracies(
                ax,
                history,
                epoch,
                number,
                label=label if epoch is None else f"{label}: epoch {epoch}",
                columns=columns,
                factor=factor,
            )
        values = np.concatenate([line.get_ydata() for line in ax.lines])
        values = values[np.isfinite(values) & (values > 0)]
        far = columns[0] == "loss" and len(values) and values.max() > 30 * values.min()
        ax.set(
            yscale="log" if far else "linear",
            title=f"{letter(panel, True)}{words.split(' (')[0]}",
            xlabel="Epoch",
            ylabel=words + ", log scale" * bool(far),
        )
        ax.grid(True)
    handles = [*ax.get_legend_handles_labels()[0], *_parts(bool(chosen))]
    fig.legend(
        handles=handles, loc="outside upper center", ncols=min(4, len(handles)), handlelength=3
    )
    return fig
