"""The figures of the six-model CAD framework, each from arrays or tables alone.

What differs from the paper: colours are never the only sign; accuracies carry intervals; axes have
units (its Figures 12 and 13 say percent and show fractions); heat maps lie over the image that they
explain; the best validation epoch is marked, because the last one was used.

Images with three channels are in the order blue, green, red, as :func:`kit.data.preprocess.cad`
makes them and as the networks get them; they are turned to red, green, blue here, once, for
display. (The authors' notebooks do not turn them, so that their prepared scans look reddish; BONE
is bluish.) Images are uint8 in 0..255 or float in 0..1. Only :func:`app_montage` takes files, which
are in true colours.
"""

import html
import textwrap

import numpy as np
import pandas as pd

from kit.data import imageio, preprocess
from kit.evaluation import stats
from kit.report import plots
from kit.report.diagrams import HEAD, INPUT, MODEL, OUT, arrow, box, canvas
from kit.report.panels import curve_grid, heat_grid, matrix_grid, scatter_named, venn
from kit.report.style import (
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    VERMILION,
    Figure,
    legend_above,
    new_figure,
    require,
    style,
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
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def rgb(image) -> np.ndarray:
    """An image for display: grey stays (H, W), blue-green-red becomes red-green-blue; uint8 or
    float in 0..1.
    """
    image = np.squeeze(np.asarray(image))
    return image[..., ::-1] if image.ndim == 3 else image


def _picture(ax, image, title: str = "", axes: bool = False) -> None:
    image = rgb(image)
    ax.imshow(
        image,
        cmap="gray",
        vmin=0,
        vmax=255 if image.dtype == np.uint8 else 1,
        interpolation="antialiased",
    )
    ax.set_title(title, fontsize=8)
    if not axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)


# --- data and preparation: Figures 2 to 5 ---------------------------------------------------------


@style()
def class_samples(images: dict) -> Figure:
    """One image a class (Figure 2); `images` maps a title to an image."""
    require(images, "Figure 2 needs at least one image.")
    fig = new_figure(2.0 * len(images), 2.3, layout="compressed")
    for ax, (title, image) in zip(
        fig.subplots(1, len(images), squeeze=False).flat, images.items(), strict=False
    ):
        _picture(ax, image, title)
    return fig


@style()
def crop_steps(image, title: str = "", blur: int = 5) -> Figure:
    """The crop in four panels (Figure 3): original, largest contour, its extreme points, result.

    Parameters
    ----------
    image : (H, W) or (H, W, 3), uint8
    title : str
        Of the first panel, for instance the file's name.
    blur : int
        Side of the Gaussian kernel: 5 in the paper's figure, 3 in its pipeline.
    """
    pixels = preprocess.read(np.asarray(image))
    contour, frame = (
        preprocess.outline(preprocess.head_mask(pixels, blur)),
        preprocess.crop_box(pixels, blur),
    )
    require(
        contour is not None and frame is not None,
        "Figure 3 needs an image with a head that can be outlined; choose another one.",
    )
    fig = new_figure(9.6, 2.9, layout="compressed")
    axes = fig.subplots(1, 4)
    titles = [
        title or "original",
        "largest contour",
        "extreme points",
        f"crop, {frame.right - frame.left} × {frame.bottom - frame.top} px",
    ]
    for letter, ax, text in zip(LETTERS, axes, titles, strict=False):
        _picture(
            ax, preprocess.crop(pixels, frame) if letter == "d" else pixels, f"({letter}) {text}"
        )
    closed = np.vstack([contour, contour[:1]])
    for ax in axes[1:3]:
        ax.plot(*closed.T, color="k", lw=2.6)
        ax.plot(*closed.T, color=SKY, lw=1.5)
    looks = {
        "left": (BLUE, "s", (6, 0)),
        "right": (GREEN, "o", (-6, 0)),
        "top": (VERMILION, "^", (0, -9)),
        "bottom": (ORANGE, "D", (0, 9)),
    }
    for name, point in preprocess.extreme_points(contour).items():
        colour, marker, shift = looks[name]
        axes[2].plot(*point, marker, color=colour, ms=8, mec="w", mew=1.2, clip_on=False)
        side = {"left": "left", "right": "right"}.get(name, "center")
        axes[2].annotate(
            name,
            point,
            shift,
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8,
            color="w",
            bbox={"fc": "k", "alpha": 0.6, "lw": 0, "pad": 1.5},
        )
    return fig


@style()
def prepared_grid(images, titles=None, columns: int = 4) -> Figure:
    """Prepared images with axes in pixels (Figure 4)."""
    require(len(images), "Figure 4 needs at least one image.")
    rows = -(-len(images) // columns)
    fig = new_figure(2.2 * columns, 2.35 * rows)
    axes = fig.subplots(rows, columns, squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number >= len(images):
            ax.set_axis_off()
            continue
        _picture(ax, images[number], titles[number] if titles else "", axes=True)
        side = len(images[number])
        ax.set(
            xticks=np.linspace(0, side, 5).astype(int),
            yticks=np.linspace(0, side, 5).astype(int),
            xlim=(0, side),
            ylim=(side, 0),
        )
        ax.set(
            xlabel="x (pixels)" if number + columns >= len(images) else "",
            ylabel="y (pixels)" if number % columns == 0 else "",
        )
        ax.tick_params(labelsize=7)
    return fig


@style()
def augmented_pairs(originals, augmented, titles=None) -> Figure:
    """Images (a) to (d) above their augmented versions (a') to (d') (Figure 5)."""
    require(
        len(originals) and len(originals) == len(augmented),
        "Figure 5 needs as many augmented images as originals.",
    )
    fig = new_figure(2.0 * len(originals), 4.5, layout="compressed")
    axes = fig.subplots(2, len(originals), squeeze=False)
    for number, column in enumerate(axes.T):
        name = f" {titles[number]}" if titles else ""
        _picture(column[0], originals[number], f"({LETTERS[number]}){name}")
        _picture(column[1], augmented[number], f"({LETTERS[number]}′) augmented")
    return fig


# --- diagrams: Figures 1, 6, 7 --------------------------------------------------------------------


def _strip(ax, x, y, side, images: dict, gap: float = 0.12) -> float:
    """Small images in a row from (x, y), each under its title; returns where the row ends."""
    for title, image in images.items():
        inset = ax.inset_axes((x, y, side, side), transform=ax.transData)
        _picture(inset, image)
        ax.text(x + side / 2, y - 0.04, title, ha="center", va="bottom", fontsize=7)
        x += side + gap
    return x - gap


@style()
def framework(
    counts: dict,
    steps: dict | None = None,
    maps: dict | None = None,
    size: int = 200,
    large: int = 331,
    training=(
        "Adam, rate 1e-4",
        "batch 32, 25 epochs",
        "categorical cross-entropy",
        "last epoch's weights",
    ),
) -> Figure:
    """Block diagram of the framework (Figure 1).

    Parameters
    ----------
    counts : dict
        "train", "val", "test" -> number of images.
    steps : dict or None
        Title -> image after each step of preparation (the paper shows five).
    maps : dict or None
        Title -> image with heat map, for the Grad-CAM strip; at most four.
    size, large : int
        Side of the input in pixels, and of NASNetLarge's.
    training : sequence of str
        Lines of the training block; the published settings unless told.
    """
    fig, ax = canvas(9.4, 5.2)
    total = sum(counts[part] for part in ("train", "val", "test"))
    box(
        ax,
        0.1,
        0.25,
        1.5,
        1.1,
        heading="MR images",
        lines=[f"{total:,} images", "glioma, meningioma,", "no tumour, pituitary"],
        colour=INPUT,
    )
    box(
        ax,
        2.0,
        0.1,
        7.3,
        1.5,
        heading="Preparation, image by image",
        lines=() if steps else ["crop → denoise → BONE colours → resize"],
    )
    _strip(ax, 2.25, 0.6, 0.88, steps or {}, gap=0.6)
    arrow(ax, (1.6, 0.82), (2.0, 0.82))
    ax.annotate(
        "",
        (1.05, 2.0),
        (5.6, 1.6),
        arrowprops={
            "arrowstyle": "-|>",
            "color": "0.2",
            "lw": 1.1,
            "connectionstyle": "angle,angleA=0,angleB=90",
        },
    )
    box(
        ax,
        0.1,
        2.0,
        1.9,
        1.25,
        heading="Split, seed 42",
        lines=[
            f"training {counts['train']:,}",
            f"validation {counts['val']:,}",
            f"test {counts['test']:,}",
            "(test folder as it is)",
        ],
    )
    box(
        ax,
        2.4,
        2.0,
        1.9,
        1.25,
        heading="Augmentation",
        lines=[
            "training images only:",
            "rotation ±10°",
            "shift ±5 % in x and y",
            "horizontal flip",
        ],
    )
    models = [
        "ResNet-50, VGG19,",
        "MobileNetV2, InceptionV3,",
        f"Xception: {size} × {size} × 3",
        f"NASNetLarge: {large} × {large} × 3",
    ]
    box(
        ax,
        4.7,
        2.0,
        2.2,
        1.25,
        heading="Backbone from ImageNet",
        lines=[*models, "all layers trained"],
        colour=MODEL,
    )
    box(
        ax,
        7.3,
        2.0,
        2.0,
        1.25,
        heading="Head",
        lines=["global average pooling", "dropout 0.4", "dense 4, softmax"],
        colour=HEAD,
    )
    for x in (2.0, 4.3, 6.9):
        arrow(ax, (x, 2.62), (x + 0.4, 2.62))
    box(ax, 7.3, 3.7, 2.0, 1.4, heading="Training", lines=training, colour=HEAD)
    box(
        ax,
        4.7,
        3.7,
        2.2,
        1.4,
        heading="Evaluation on test images",
        lines=["accuracy, precision,", "recall, F1, confusion matrix", "time, parameters"],
        colour=OUT,
    )
    box(
        ax,
        0.1,
        3.7,
        4.2,
        1.4,
        heading="Grad-CAM",
        lines=() if maps else ["heat map of the predicted class"],
        colour=OUT,
    )
    _strip(ax, 0.35, 4.18, 0.85, dict([*(maps or {}).items()][:4]), gap=0.15)
    arrow(ax, (8.3, 3.25), (8.3, 3.7))
    arrow(ax, (7.3, 4.4), (6.9, 4.4))
    arrow(ax, (4.7, 4.4), (4.3, 4.4))
    return fig


def _bottleneck(channels: int, filters: int, shortcut: bool) -> int:
    """Parameters of a ResNet-50 block: convolutions 1x1, 3x3, 1x1 with bias and batch
    normalisation, and the projection of the first block.
    """
    sizes = [(channels, filters, 1), (filters, filters, 9), (filters, 4 * filters, 1)] + [
        (channels, 4 * filters, 1)
    ] * shortcut
    return sum(kernel * a * b + b + 4 * b for a, b, kernel in sizes)


def resnet50_stages(input_size: int = 200, classes: int = 4) -> pd.DataFrame:
    """The stages of ResNet-50 with the paper's head, for ``plots.architecture``: layer, type,
    output_shape, parameters, and name (Keras layer).
    """
    side, rows = (
        -(-input_size // 2),
        [("input", "image, blue-green-red", (input_size, input_size, 3), 0, "")],
    )
    rows.append(
        (
            "Stage 1: convolution",
            "7 × 7, 64, stride 2; batch norm, ReLU",
            (side, side, 64),
            7 * 7 * 3 * 64 + 64 + 4 * 64,
            "conv1_relu",
        )
    )
    side = -(-side // 2)
    rows.append(("Stage 1: max pooling", "pool 3 × 3, stride 2", (side, side, 64), 0, "pool1_pool"))
    channels = 64
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 2):
        side = side if stage == 2 else -(-side // 2)
        parameters = _bottleneck(channels, filters, True) + (blocks - 1) * _bottleneck(
            4 * filters, filters, False
        )
        channels = 4 * filters
        what = f"conv block and {blocks - 1} identity blocks"
        rows.append(
            (
                f"Stage {stage}",
                what,
                (side, side, channels),
                parameters,
                f"conv{stage}_block{blocks}_out",
            )
        )
    rows.append(("Global average pooling", "pool", (channels,), 0, ""))
    rows += [
        ("Dropout 0.4", "dropout", (channels,), 0, ""),
        (f"Dense {classes}, softmax", "dense", (classes,), channels * classes + classes, ""),
    ]
    return pd.DataFrame(rows, columns=["layer", "type", "output_shape", "parameters", "name"])


def stages_diagram(input_size: int = 200, classes: int = 4) -> Figure:
    """The stages of ResNet-50 with output shapes and parameters (Figure 6)."""
    return plots.architecture(
        resnet50_stages(input_size, classes), "ResNet-50 with the head of this paper"
    )


@style()
def transfer_scheme(
    classes=("glioma", "meningioma", "no tumour", "pituitary"), backbone: str = "ResNet-50"
) -> Figure:
    """From ImageNet's classes to those of the MR images (Figure 7); the code trains every layer,
    although the text speaks of frozen ones.
    """
    fig, ax = canvas(8.4, 3.5)
    for y, source, lines in (
        (0.15, "ImageNet", ["1.28 million photographs", "in 1,000 classes"]),
        (2.1, "MR images", [f"{len(classes)} classes,", "prepared and augmented"]),
    ):
        box(ax, 0.1, y, 1.8, 1.2, heading=source, lines=lines, colour=INPUT)
        arrow(ax, (1.9, y + 0.6), (2.4, y + 0.6))
        arrow(ax, (4.7, y + 0.6), (5.2, y + 0.6))
        arrow(ax, (6.8, y + 0.6), (7.2, y + 0.6))
    box(
        ax,
        2.4,
        0.15,
        2.3,
        1.2,
        heading=f"{backbone}, convolutions",
        lines=["trained on photographs"],
        colour=MODEL,
    )
    box(
        ax,
        5.2,
        0.15,
        1.6,
        1.2,
        heading="Head of ImageNet",
        lines=["dense 1,000", "(left out)"],
        colour=INPUT,
        dashed=True,
    )
    box(
        ax,
        7.2,
        0.15,
        1.1,
        1.2,
        heading="1,000",
        lines=["classes: tench,", "goldfish, …"],
        colour=INPUT,
        dashed=True,
    )
    box(
        ax,
        2.4,
        2.1,
        2.3,
        1.2,
        heading=f"{backbone}, convolutions",
        lines=["start from these weights;", "all layers are trained on"],
        colour=MODEL,
    )
    box(
        ax,
        5.2,
        2.1,
        1.6,
        1.2,
        heading="New head",
        lines=["average pooling", "dropout 0.4", f"dense {len(classes)}, softmax"],
        colour=HEAD,
    )
    box(
        ax,
        7.2,
        2.1,
        1.1,
        1.2,
        heading=f"{len(classes)} classes",
        lines=[textwrap.shorten(c, 14) for c in classes],
        colour=OUT,
    )
    arrow(ax, (3.55, 1.35), (3.55, 2.1), "weights are copied")
    return fig


# --- results: Figures 8 to 16 ---------------------------------------------------------------------


def confusion_panels(matrices: dict, classes, columns: int = 3) -> Figure:
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
            _picture(ax, image, "\n".join(textwrap.wrap(caption, 24)))
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
    panels, columns: int = 3, label: str = "Grad-CAM, scaled to its maximum (fades out below 0.3)"
) -> Figure:
    """Images under heat maps (Figures 17 and 18): a list of (title, image, map); the map is in [0,
    1], of any size, or None for the bare image.
    """
    return heat_grid(
        [(title, rgb(image), values) for title, image, values in panels], columns, label
    )


@style()
def app_montage(screens, columns: int = 2) -> Figure:
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
    for letter, ax, picture, (_, caption) in zip(
        LETTERS, axes.flat, pictures, screens, strict=False
    ):
        ax.imshow(picture, interpolation="antialiased")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="0.6")
        ax.set_title(f"({letter}) {caption}", fontsize=9)
    return fig


@style()
def app_contents(pages: dict, prediction) -> Figure:
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
