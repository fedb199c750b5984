"""Pictures of volumes: central slices of examples, and slices at equal distances with a heat map on
top.

The publication shows no volume, and MedMNIST's previews are turning three-dimensional renderings
that show a surface only. Here every slice says of which plane or at which voxel it is. Planes carry
the names of the file's axes, depth, height and width: the benchmark does not document how they lie
in the body.
"""

import textwrap

import matplotlib as mpl
import numpy as np

from kit.explain import gradcam
from kit.report.style import Figure, new_figure, require, style

PLANES = (
    "height × width",
    "depth × width",
    "depth × height",
)  # what is left when the slice is taken across depth, height, width
AXES = ("depth", "height", "width")
FADED = (
    0.3  # below this share of its maximum a heat map fades out, so that the anatomy stays visible
)


def _grey(volume) -> np.ndarray:
    """A volume (D, H, W) or (D, H, W, 1) in [0, 1]."""
    volume = np.asarray(volume)
    volume = volume[..., 0] if volume.ndim == 4 else volume
    require(
        volume.ndim == 3 and volume.size,
        f"Slices need a volume of one channel with three axes, not one of shape {volume.shape}.",
    )
    return volume / 255 if volume.dtype == np.uint8 else np.clip(volume, 0, 1)


@style()
def slices(panels: dict) -> Figure:
    """The three central slices of examples, a row a data set (Figure 6).

    Parameters
    ----------
    panels : dict
        Title -> (volumes, names): uint8 (k, D, H, W) or (k, D, H, W, 1), and k names of classes.
    """
    panels = {title: panel for title, panel in panels.items() if len(panel[0])}
    require(panels, "Example slices need at least one volume.")
    for title, (volumes, names) in panels.items():
        require(
            len(volumes) == len(names),
            f"{title} has {len(volumes)} volumes and {len(names)} names; give each volume its "
            "name.",
        )
    most = max(len(volumes) for volumes, _ in panels.values())
    ratios = [*[1, 1, 1, 0.14] * most][:-1]  # a narrow gap between examples
    fig = new_figure(1.5 + 0.97 * sum(ratios), 0.25 + 1.2 * len(panels), layout="compressed")
    grid = fig.subplots(len(panels), len(ratios), squeeze=False, width_ratios=ratios)
    for ax in grid.flat:
        ax.set_axis_off()
    for row, (axes, (title, (volumes, names))) in enumerate(zip(grid, panels.items(), strict=True)):
        for k, (volume, name) in enumerate(zip(volumes, names, strict=True)):
            three = axes[4 * k : 4 * k + 3]
            _central(three, _grey(volume), row == len(panels) - 1)
            three[1].set_title("\n".join(textwrap.wrap(str(name), 34)), fontsize=8, pad=3)
        axes[0].set_ylabel(
            "\n".join(textwrap.wrap(str(title), 18, break_on_hyphens=False)),
            rotation=0,
            ha="right",
            va="center",
            fontweight="bold",
        )
    return fig


def _central(axes, volume, named: bool) -> None:
    for axis, ax in enumerate(axes):
        ax.imshow(volume.take(volume.shape[axis] // 2, axis), cmap="gray", vmin=0, vmax=1)
        ax.set_axis_on()
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if named:
            ax.set_xlabel(PLANES[axis], fontsize=7, labelpad=2)


@style()
def montage(
    volume: np.ndarray,
    heat: np.ndarray | None = None,
    title: str = "",
    count: int = 7,
    axis: int = 0,
    label: str = "3D Grad-CAM, share of its maximum\n(fades out below 0.3)",
    alpha: float = 0.55,
) -> Figure:
    """Slices through one volume at equal distances, and the same slices under a heat map.

    Parameters
    ----------
    volume : array (D, H, W) or (D, H, W, 1)
        uint8, or float in [0, 1].
    heat : array (d, h, w), optional
        In [0, 1] of any size, enlarged trilinearly; see :func:`kit.explain.gradcam.gradcam`.
    title : str
    count : int
        Slices, at most as many as the volume has.
    axis : {0, 1, 2}
        Across which the slices are taken: depth, height or width.
    label : str
        Of the colour bar.
    alpha : float
        Opacity of the heat map where it is strong.
    """
    volume = _grey(volume)
    places = central_places(volume.shape[axis], count)
    columns = min(len(places), 7)
    blocks, layers = -(-len(places) // columns), 1 + (heat is not None)
    heat = None if heat is None else gradcam.resize(np.asarray(heat, float)[None], volume.shape)[0]
    fig = new_figure(
        max(3.6, 1.15 * columns + (0.9 if heat is not None else 0)),
        0.4 + 1.28 * blocks * layers,
        layout="compressed",
    )
    axes = fig.subplots(blocks * layers, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for number, place in enumerate(places):
        for layer in range(layers):
            ax = axes[number // columns * layers + layer, number % columns]
            ax.imshow(volume.take(place, axis), cmap="gray", vmin=0, vmax=1)
            if layer and heat is not None:
                values = heat.take(place, axis)
                ax.imshow(
                    values,
                    vmin=0,
                    vmax=1,
                    alpha=alpha * np.clip(values / FADED, 0, 1),
                    interpolation="bilinear",
                )
            else:
                ax.set_title(f"{AXES[axis]} {place + 1} of {volume.shape[axis]}", fontsize=8, pad=3)
    if heat is not None:
        fig.colorbar(
            mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1)), ax=axes, shrink=0.9, fraction=0.05
        ).set_label(label, fontsize=8)
    if title:
        fig.suptitle("\n".join(textwrap.wrap(title, int(13 * fig.get_figwidth()))), fontsize=10)
    return fig


def central_places(length: int, count: int) -> list:
    """Voxels at the middles of `count` parts of equal length, without repetition."""
    count = min(count, length)
    return [int((k + 0.5) * length / count) for k in range(count)]
