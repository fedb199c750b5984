"""The block diagrams of the six-model CAD framework (Figures 1, 6 and 7)."""

import textwrap
from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes

from kit.report import plots
from kit.report.diagrams import HEAD, INPUT, MODEL, OUT, STEP, arrow, box, canvas
from kit.report.style import (
    Figure,
    style,
)
from kit.studies.cad.preparation_figures import picture

# left edge, width, heading, lines, colour
Block = tuple[float, float, str, Sequence[str], str]


def _strip(ax, x, y, side, images: dict, gap: float = 0.12) -> float:
    """Small images in a row from (x, y), each under its title; returns where the row ends."""
    for title, image in images.items():
        inset = ax.inset_axes((x, y, side, side), transform=ax.transData)
        picture(inset, image)
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
    training: Sequence[str] = (
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
    _preparation(ax, counts, steps or {})
    _network(ax, counts, size, large)
    _outcome(ax, maps or {}, training)
    return fig


def _blocks(ax: Axes, y: float, height: float, blocks: Iterable[Block]) -> None:
    """Blocks of one row."""
    for x, width, heading, lines, colour in blocks:
        box(ax, x, y, width, height, heading=heading, lines=lines, colour=colour)


def _preparation(ax: Axes, counts: dict, steps: dict) -> None:
    """First row of the framework: images and their preparation, and the way to the second."""
    total = sum(counts[part] for part in ("train", "val", "test"))
    images = [f"{total:,} images", "glioma, meningioma,", "no tumour, pituitary"]
    lines = [] if steps else ["crop → denoise → BONE colours → resize"]
    _blocks(ax, 0.25, 1.1, [(0.1, 1.5, "MR images", images, INPUT)])
    _blocks(ax, 0.1, 1.5, [(2.0, 7.3, "Preparation, image by image", lines, STEP)])
    _strip(ax, 2.25, 0.6, 0.88, steps, gap=0.6)
    arrow(ax, (1.6, 0.82), (2.0, 0.82))
    corner = "angle,angleA=0,angleB=90"
    look = {"arrowstyle": "-|>", "color": "0.2", "lw": 1.1, "connectionstyle": corner}
    ax.annotate("", (1.05, 2.0), (5.6, 1.6), arrowprops=look)


def _network(ax: Axes, counts: dict, size: int, large: int) -> None:
    """Second row of the framework: split, augmentation, backbone and head."""
    parts = [
        f"training {counts['train']:,}",
        f"validation {counts['val']:,}",
        f"test {counts['test']:,}",
        "(test folder as it is)",
    ]
    augmentation = [
        "training images only:",
        "rotation ±10°",
        "shift ±5 % in x and y",
        "horizontal flip",
    ]
    models = [
        "ResNet-50, VGG19,",
        "MobileNetV2, InceptionV3,",
        f"Xception: {size} × {size} × 3",
        f"NASNetLarge: {large} × {large} × 3",
        "all layers trained",
    ]
    head = ["global average pooling", "dropout 0.4", "dense 4, softmax"]
    blocks: list[Block] = [
        (0.1, 1.9, "Split, seed 42", parts, STEP),
        (2.4, 1.9, "Augmentation", augmentation, STEP),
        (4.7, 2.2, "Backbone from ImageNet", models, MODEL),
        (7.3, 2.0, "Head", head, HEAD),
    ]
    _blocks(ax, 2.0, 1.25, blocks)
    for x in (2.0, 4.3, 6.9):
        arrow(ax, (x, 2.62), (x + 0.4, 2.62))


def _outcome(ax: Axes, maps: dict, training: Sequence[str]) -> None:
    """Third row of the framework: training, evaluation and heat maps."""
    measures = ["accuracy, precision,", "recall, F1, confusion matrix", "time, parameters"]
    lines = [] if maps else ["heat map of the predicted class"]
    blocks: list[Block] = [
        (7.3, 2.0, "Training", training, HEAD),
        (4.7, 2.2, "Evaluation on test images", measures, OUT),
        (0.1, 4.2, "Grad-CAM", lines, OUT),
    ]
    _blocks(ax, 3.7, 1.4, blocks)
    _strip(ax, 0.35, 4.18, 0.85, dict([*maps.items()][:4]), gap=0.15)
    arrow(ax, (8.3, 3.25), (8.3, 3.7))
    arrow(ax, (7.3, 4.4), (6.9, 4.4))
    arrow(ax, (4.7, 4.4), (4.3, 4.4))


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
    classes: Sequence[str] = ("glioma", "meningioma", "no tumour", "pituitary"),
    backbone: str = "ResNet-50",
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
    body = f"{backbone}, convolutions"
    new = ["average pooling", "dropout 0.4", f"dense {len(classes)}, softmax"]
    photographs = ["trained on photographs"]
    box(ax, 2.4, 0.15, 2.3, 1.2, heading=body, lines=photographs, colour=MODEL)
    left_out = (
        (5.2, 1.6, "Head of ImageNet", ["dense 1,000", "(left out)"]),
        (7.2, 1.1, "1,000", ["classes: tench,", "goldfish, …"]),
    )
    for x, width, heading, lines in left_out:
        box(ax, x, 0.15, width, 1.2, heading=heading, lines=lines, colour=INPUT, dashed=True)
    blocks: list[Block] = [
        (2.4, 2.3, body, ["start from these weights;", "all layers are trained on"], MODEL),
        (5.2, 1.6, "New head", new, HEAD),
        (7.2, 1.1, f"{len(classes)} classes", [textwrap.shorten(c, 14) for c in classes], OUT),
    ]
    _blocks(ax, 2.1, 1.2, blocks)
    arrow(ax, (3.55, 1.35), (3.55, 2.1), "weights are copied")
    return fig
