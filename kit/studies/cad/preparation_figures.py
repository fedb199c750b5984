"""The figures of the six-model CAD framework that show images before and after their preparation
(Figures 2 to 5), and how images are turned for display.

Images with three channels are in the order blue, green, red, as :func:`kit.data.preprocess.cad`
makes them and as the networks get them; they are turned to red, green, blue here, once, for
display. (The authors' notebooks do not turn them, so that their prepared scans look reddish; BONE
is bluish.) Images are uint8 in 0..255 or float in 0..1.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from kit.data import preprocess
from kit.report.style import (
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    VERMILION,
    Figure,
    new_figure,
    require,
    style,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def rgb(image: np.ndarray) -> np.ndarray:
    """An image for display: grey stays (H, W), blue-green-red becomes red-green-blue; uint8 or
    float in 0..1.
    """
    image = np.squeeze(np.asarray(image))
    return image[..., ::-1] if image.ndim == 3 else image


def picture(ax: Axes, image: np.ndarray, title: str = "", axes: bool = False) -> None:
    """Show an image in a panel, without ticks unless `axes`."""
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


@style()
def class_samples(images: dict) -> Figure:
    """One image a class (Figure 2); `images` maps a title to an image."""
    require(images, "Figure 2 needs at least one image.")
    fig = new_figure(2.0 * len(images), 2.3, layout="compressed")
    for ax, (title, image) in zip(
        fig.subplots(1, len(images), squeeze=False).flat, images.items(), strict=False
    ):
        picture(ax, image, title)
    return fig


@style()
def crop_steps(image: np.ndarray, title: str = "", blur: int = 5) -> Figure:
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
        picture(
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
def prepared_grid(
    images: Sequence[np.ndarray], titles: Sequence[str] | None = None, columns: int = 4
) -> Figure:
    """Prepared images with axes in pixels (Figure 4)."""
    require(len(images), "Figure 4 needs at least one image.")
    rows = -(-len(images) // columns)
    fig = new_figure(2.2 * columns, 2.35 * rows)
    axes = fig.subplots(rows, columns, squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number >= len(images):
            ax.set_axis_off()
            continue
        picture(ax, images[number], titles[number] if titles else "", axes=True)
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
def augmented_pairs(
    originals: Sequence[np.ndarray],
    augmented: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
) -> Figure:
    """Images (a) to (d) above their augmented versions (a') to (d') (Figure 5)."""
    require(
        len(originals) and len(originals) == len(augmented),
        "Figure 5 needs as many augmented images as originals.",
    )
    fig = new_figure(2.0 * len(originals), 4.5, layout="compressed")
    axes = fig.subplots(2, len(originals), squeeze=False)
    for number, column in enumerate(axes.T):
        name = f" {titles[number]}" if titles else ""
        picture(column[0], originals[number], f"({LETTERS[number]}){name}")
        picture(column[1], augmented[number], f"({LETTERS[number]}′) augmented")
    return fig
