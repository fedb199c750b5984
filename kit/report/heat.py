"""Matrices as coloured cells with their values: confusion matrices, maps of a search."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from numpy.typing import ArrayLike


def cells(
    ax: Axes,
    values: ArrayLike,
    texts: ArrayLike,
    names: tuple[Sequence[str], Sequence[str]],
    *,
    limits: tuple[float, float],
    cmap: str = "Blues",
    size: float = 9,
    **more: Any,
) -> Collection:
    """Draw a matrix by :func:`seaborn.heatmap`, row 0 on top, each cell with its text.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    values : array-like
        (R, C) numbers that are coloured; a cell that is NaN stays empty.
    texts : array-like of str
        (R, C); where a value is NaN the text stands on the empty cell. Dark cells get white text.
    names : tuple of sequences
        Names of the columns and of the rows; an empty sequence leaves the axis bare.
    limits : tuple of float
        Values of the ends of the colour map.
    cmap : str
    size : float
        Of the texts, in points.
    **more
        Of :func:`seaborn.heatmap`, for example ``square=True``.

    Returns
    -------
    matplotlib.collections.QuadMesh
        For a colour bar. The centre of the cell (r, c) is at x = c + 0.5, y = r + 0.5.
    """
    values, texts = np.asarray(values, float), np.asarray(texts)
    seaborn.heatmap(
        values,
        ax=ax,
        vmin=limits[0],
        vmax=limits[1],
        cmap=cmap,
        annot=texts,
        fmt="",
        annot_kws={"fontsize": size},
        cbar=False,
        xticklabels=list(names[0]) or False,
        yticklabels=list(names[1]) or False,
        **more,
    )
    for row, column in np.argwhere(np.isnan(values)):
        ax.text(
            column + 0.5, row + 0.5, texts[row, column], ha="center", va="center", fontsize=size
        )
    return ax.collections[0]


def slant(ax: Axes) -> None:
    """Names of the columns at an angle, their ends below the cells."""
    for label in ax.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")


def texts_of(values: ArrayLike, form: str, empty: str = "–") -> np.ndarray:
    """A matrix of texts: each number by a format, ``empty`` where it is NaN."""
    values = np.asarray(values, float)
    shown = [empty if np.isnan(value) else format(value, form) for value in values.ravel()]
    return np.array(shown, dtype=object).reshape(values.shape)
