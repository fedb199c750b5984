"""The figures of the six-model CAD framework, each from arrays or tables alone.

What differs from the paper: colours are never the only sign; accuracies carry intervals; axes have
units (its Figures 12 and 13 say percent and show fractions); heat maps lie over the image that they
explain; the best validation epoch is marked, because the last one was used.

Images before and after their preparation are in :mod:`kit.studies.cad.preparation_figures`, which
also says how they are turned for display, block diagrams in :mod:`kit.studies.cad.scheme_figures`;
both are reachable from here. Only :func:`app_montage` takes files, which are in true colours.
"""

import html
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from kit.data import imageio
from kit.evaluation import stats
from kit.report import plots
from kit.report.panels import curve_grid, heat_grid, matrix_grid, scatter_named, venn
from kit.report.style import (
    BLUE,
    Figure,
    legend_above,
    new_figure,
    require,
    style,
)
from kit.serving.classifier import Prediction
from kit.studies.cad.preparation_figures import (
    LETTERS,
    augmented_pairs,
    class_samples,
    crop_steps,
    picture,
    prepared_grid,
    rgb,
)
from kit.studies.cad.scheme_figures import (
    framework,
    resnet50_stages,
    stages_diagram,
    transfer_scheme,
)

__all__ = [
    "accuracy_scatter",
    "app_montage",
    "augmented_pairs",
    "class_samples",
    "confusion_panels",
    "crop_steps",
    "curves_with_best",
    "framework",
    "heat_maps",
    "misclassified",
    "model_curves",
    "original_and_prepared",
    "prepared_grid",
    "reliability_panels",
    "resnet50_stages",
    "stages_diagram",
    "transfer_scheme",
    "venn",
]


# --- results: Figures 8 to 16 ---------------------------------------------------------------------


def confusion_panels(matrices: dict, classes: Sequence[str], columns: int = 3) -> Figure:
    """Confusion matrices side by side (Figure 8): title -> int (C, C), rows = true. Colour is the
    share of the true class, numbers are images.
    """
    return matrix_grid(matrices, classes, columns)


@style()
def misclassified(rows: dict) -> Figure:
    """Misclassified images, a row a model (Figure 9); `rows` maps the model's title to a list of
    (image, caption). Empty rows say so.
    """
    require(rows, "Figure 9 needs at least one model.")
    columns = max(1, *(len(images) for images in rows.values()))
    fig = new_figure(
        max(5.0, 1.0 + 1.75 * columns),
        (2.05 if any(rows.values()) else 0.6) * len(rows),
        layout="compressed",
    )
    for line, (model, images) in zip(
        fig.subplots(len(rows), columns, squeeze=False), rows.items(), strict=False
    ):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel("\n".join(textwrap.wrap(model, 16)), fontsize=9)
        if not images:
            line[0].text(0.5, 0.5, "none", ha="center", va="center", transform=line[0].transAxes)
        for ax, (image, caption) in zip(line, images, strict=False):
            picture(ax, image, "\n".join(textwrap.wrap(caption, 24)))
    return fig


def model_curves(histories: dict) -> Figure:
    """Accuracy and loss of every model over the epochs, training and validation (Figure 11); title
    -> history (see ``plots.learning_curves``).
    """
    return curve_grid(histories, columns=2)


def curves_with_best(history: pd.DataFrame, title: str = "") -> Figure:
    """Curves of one model with the epoch of the smallest validation loss marked (Figure 16: the
    last epoch need not be the best).
    """
    return curve_grid({title: history}, columns=1, best=True)


def accuracy_scatter(table: pd.DataFrame, x: str, label: str, log: bool = False) -> Figure:
    """Test accuracy against a cost (Figures 12 and 13), with interval and the model's name at each
    point.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns model (title), accuracy, accuracy_low, accuracy_high (percent) and `x`.
    x : str
    label : str
        Of the horizontal axis, with unit.
    log : bool
        Logarithmic horizontal axis.
    """
    return scatter_named(table, x, label, log)


def original_and_prepared(table: pd.DataFrame, names: dict) -> Figure:
    """Accuracy on original and on prepared images, two bars a model (Figure 14).

    Parameters
    ----------
    table : pandas.DataFrame
        From ``cad.accuracy_table``, columns "original" and "preprocessed" (or others: one bar
        each).
    names : dict
        Row key -> title.
    """
    wide = {}
    for line in table.itertuples():
        title = "\n".join(textwrap.wrap(names.get(line.row, line.row), 15))
        wide.setdefault(line.metric, {}).update(
            {title: line.value, f"{title}_low": line.low, f"{title}_high": line.high}
        )
    return plots.metric_bars(pd.DataFrame.from_dict(wide, orient="index").rename_axis(None))


@style()
def reliability_panels(calibrations: dict, columns: int = 3) -> Figure:
    """Reliability diagrams of several models (not in the paper): title ->
    ``kit.evaluation.metrics.Calibration``.
    """
    require(calibrations, "A reliability diagram needs at least one model.")
    columns = min(columns, len(calibrations))
    rows = -(-len(calibrations) // columns)
    fig = new_figure(2.75 * columns + 0.3, 2.7 * rows + 0.4)
    axes = fig.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(calibrations) :]:
        ax.set_axis_off()
    for letter, ax, (title, found) in zip(LETTERS, axes.flat, calibrations.items(), strict=False):
        bins = found.bins
        ends = [
            stats.wilson(round(f * n), n)
            for f, n in zip(bins["frequency"], bins["n"], strict=False)
        ]
        errors = np.clip(
            [[f - e.low, e.high - f] for f, e in zip(bins["frequency"], ends, strict=False)],
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
            ms=4,
            lw=1.2,
            capsize=2.5,
            label="observed, 95 % interval",
        )
        ax.text(
            0.97,
            0.04,
            f"ECE {100 * found.ece:.1f} %\nn = {found.n:,}",
            transform=ax.transAxes,
            ha="right",
            fontsize=8,
        )
        number = LETTERS.index(letter)
        ax.set(
            title="\n".join(textwrap.wrap(f"({letter}) {title}", 30)),
            xlim=(-0.03, 1.03),
            ylim=(-0.03, 1.03),
        )
        ax.set(
            ylabel="Share of correct images" if number % columns == 0 else "",
            xlabel="Confidence (mean of the bin)" if number + columns >= len(calibrations) else "",
        )
        ax.tick_params(
            labelbottom=number + columns >= len(calibrations), labelleft=number % columns == 0
        )
    legend_above(fig, *axes[0, 0].get_legend_handles_labels())
    return fig


# --- heat maps and application: Figures 17 to 19 --------------------------------------------------


def heat_maps(
    panels: Iterable[tuple],
    columns: int = 3,
    label: str = "Grad-CAM, scaled to its maximum (fades out below 0.3)",
) -> Figure:
    """Images under heat maps (Figures 17 and 18): a list of (title, image, map); the map is in [0,
    1], of any size, or None for the bare image.
    """
    return heat_grid(
        [(title, rgb(image), values) for title, image, values in panels], columns, label
    )


@style()
def app_montage(screens: Sequence[tuple], columns: int = 2) -> Figure:
    """Screenshots with captions (Figure 19): a list of (PNG file, caption)."""
    require(len(screens), "Figure 19 needs at least one screenshot.")
    pictures = [imageio.read_image(path) for path, _ in screens]
    columns = min(columns, len(screens))
    rows = -(-len(screens) // columns)
    width = 9.0 / columns
    height = sum(
        max(p.shape[0] / p.shape[1] for p in pictures[row * columns : (row + 1) * columns]) * width
        + 0.35
        for row in range(rows)
    )
    fig = new_figure(9.0, height, layout="compressed")
    axes = fig.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(screens) :]:
        ax.set_axis_off()
    for letter, ax, screen, (_, caption) in zip(
        LETTERS, axes.flat, pictures, screens, strict=False
    ):
        ax.imshow(screen, interpolation="antialiased")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="0.6")
        ax.set_title(f"({letter}) {caption}", fontsize=9)
    return fig


@style()
def app_contents(pages: dict, prediction: Prediction) -> Figure:
    """What the application's pages say and show, for Figure 19 where no browser can take pictures
    of them.

    Parameters
    ----------
    pages : dict
        Page -> lines of text, from ``kit.serving.pictures.contents``.
    prediction : kit.serving.classifier.Prediction
        Of the same image, with its heat map.
    """
    fig = new_figure(11.0, 4.8)
    axes = fig.subplots(1, len(pages) + 1, width_ratios=[1] * len(pages) + [0.9])
    for letter, ax, (page, lines) in zip(LETTERS, axes, pages.items(), strict=False):
        plain = [
            html.unescape(line).replace("*", "").replace("#", "").strip()
            for text in lines
            for line in str(text).splitlines()
            if line.strip()
        ]
        wrapped = [part for line in plain for part in textwrap.wrap(line, 38)]
        ax.text(
            0.03,
            0.98,
            "\n".join(wrapped[:34] + ["..."] * (len(wrapped) > 34)),
            va="top",
            fontsize=6.5,
            transform=ax.transAxes,
        )
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="0.6")
        ax.set_title(f"({letter}) {page}", fontsize=9)
    axes[-1].imshow(prediction.overlay())
    axes[-1].set(xticks=[], yticks=[])
    axes[-1].set_title(
        f"({LETTERS[len(pages)]}) {prediction.display}, {100 * prediction.confidence:.2f} %",
        fontsize=9,
    )
    return fig
