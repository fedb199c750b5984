"""Figures of images: grids, and class activation maps laid over them."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from kit.report.style import Figure, new_figure, require, style


def _show(ax, image, cmap="gray") -> None:
    image = np.squeeze(np.asarray(image))
    top = 255 if image.dtype == np.uint8 else max(1.0, float(image.max()))
    ax.imshow(
        image / 255 if image.ndim == 3 and image.dtype == np.uint8 else image,
        cmap=cmap,
        vmin=min(0, float(image.min())),
        vmax=top,
    )
    ax.set_axis_off()


@style()
def image_grid(
    images: Sequence[np.ndarray] | np.ndarray,
    titles: Sequence[str],
    cmap: str = "gray",
    columns: int | None = None,
) -> Figure:
    """Images in rows of `columns` (4 unless told), each under its title.

    Parameters
    ----------
    images : list of (H, W), (H, W, 1) or (H, W, 3); uint8 in 0..255 or float in 0..1
    titles : list of str
    cmap : str
        For one-channel images.
    """
    require(len(images), "An image grid needs at least one image.")
    columns = min(columns or 4, len(images))
    titles = ["\n".join(textwrap.wrap(str(title), 26)) for title in titles]
    most = max(title.count("\n") + 1 if title else 0 for title in titles)
    rows = -(-len(images) // columns)
    fig = new_figure(1.9 * columns, (1.9 + 0.17 * most) * rows, layout="compressed")
    for number, (image, title) in enumerate(zip(images, titles, strict=True)):
        ax = fig.add_subplot(rows, columns, number + 1)
        _show(ax, image, cmap)
        ax.set_title(title, fontsize=8)
    return fig


@style()
def heatmap_panel(
    image: np.ndarray,
    maps: Sequence[tuple[str, np.ndarray]],
    title: str = "MRI",
    mask: np.ndarray | None = None,
    label: str = "Grad-CAM, scaled to its maximum\n(fades out below 0.3)",
    alpha: float = 0.55,
) -> Figure:
    """The image, then the image under each heat map, with one colour bar (Figures 6 and 7 of the
    Br35H paper).

    Parameters
    ----------
    image : (H, W), (H, W, 1) or (H, W, 3)
    maps : list of (str, array)
        Title and map in [0, 1] of any size; a smaller map is enlarged bilinearly.
        Below 0.3 the overlay fades out, so that the anatomy stays visible.
    title : str
        Of the image itself.
    mask : (H, W) bool or None
        True area (e.g. the lesion of a phantom), drawn as an outline.
    """
    require(len(maps), "A heat-map panel needs at least one map.")
    fig = new_figure(2.3 * (len(maps) + 1) + 0.7, 2.8, layout="compressed")
    axes = fig.subplots(1, len(maps) + 1)
    height, width = np.shape(image)[:2]
    for letter, ax, (name, values) in zip(
        "abcdefghijklmnop", axes, [(title, None), *maps], strict=False
    ):
        _show(ax, image)
        if values is not None:
            values = np.squeeze(np.asarray(values, float))
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            fading = alpha * np.clip(values / 0.3, 0, 1)
            overlay = ax.imshow(
                values, vmin=0, vmax=1, alpha=fading, extent=extent, interpolation="bilinear"
            )
        if mask is not None and np.any(mask):
            ax.contour(np.squeeze(mask), levels=[0.5], colors="w", linewidths=1.4)
            ax.contour(np.squeeze(mask), levels=[0.5], colors="k", linewidths=0.7, linestyles="--")
        ax.set_title("\n".join(textwrap.wrap(f"({letter}) {name}", 32)), fontsize=9)
    overlay = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), overlay.cmap)
    fig.colorbar(overlay, ax=axes, shrink=0.9).set_label(label, fontsize=8)
    return fig
