"""Which images the CAD paper's Grad-CAM figures show, and their heat maps.

The authors' code attaches only the pooling layer to the feature map, so that its maps are those of
the most active channel and of no class, and lays them over a stale image (``GradCamTF.ipynb``).
Here the class score of the whole network is differentiated with respect to the stage's output, and
the map lies over the image it explains. The authors' variant is :func:`most_active`, for
comparison.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit.evaluation import metrics
from kit.explain import gradcam

if TYPE_CHECKING:
    import keras


def most_active(maps: np.ndarray, gradients: np.ndarray | None) -> np.ndarray:
    """The authors' heat map: the feature map with the largest mean, whatever the class; a
    variant for ``explain.gradcam``.
    """
    channel = maps.mean(axis=tuple(range(1, maps.ndim - 1))).argmax(-1)
    return np.stack([one[..., k] for one, k in zip(maps, channel, strict=False)])


def ranked(table: pd.DataFrame, label: int, said: int) -> pd.DataFrame:
    """Images of class `label` by their score for class `said`, highest first; columns of the
    predictions plus predicted and score.
    """
    labels, scores = metrics.labels_and_scores(table)
    found = table.assign(predicted=scores.argmax(1), score=scores[:, said])[labels == label]
    return found.sort_values(["score", "image_id"], ascending=[False, True], ignore_index=True)


def stage_maps(
    model: "keras.Model", image: np.ndarray, layers: list, target: int | None = None
) -> list[np.ndarray]:
    """Heat maps of one image after each of `layers`; float (H, W) in [0, 1].

    Parameters
    ----------
    model : keras.Model
    image : float32 array (S, S, 3)
    layers : list of str
    target : int or None
        Class; None is the predicted one.
    """
    return [
        gradcam.gradcam(model, image[None], layer=layer, target=target, upsample=True)[0]
        for layer in layers
    ]


def authors_map(model: "keras.Model", image: np.ndarray, layer: str) -> np.ndarray:
    """The heat map that the authors' code makes of one image, scaled to its maximum: float (H, W)
    in [0, 1]; it belongs to no class.
    """
    return gradcam.gradcam(model, image[None], layer=layer, variant=most_active, upsample=True)[0]


def right_and_wrong(table: pd.DataFrame, called: int, healthy: int, count: int = 3) -> dict:
    """Figure 18: `count` correct images of class `called`, and the `count` images of class
    `healthy` most taken for it, one of each duplicate group.

    Returns
    -------
    dict
        "right" and "wrong" -> rows of :func:`ranked`; a "wrong" row need not be misclassified (see
        its predicted class) where there are too few.
    """
    right, wrong = (
        ranked(table, label, called).drop_duplicates("group") for label in (called, healthy)
    )
    return {"right": right[right["predicted"] == called].head(count), "wrong": wrong.head(count)}


def confused(tables: dict, label: int, said: int, most: int = 4) -> dict:
    """Figure 9: model -> ids of at most `most` images of class `label` called `said`."""
    return {
        model: ranked(t, label, said).query("predicted == @said")["image_id"].head(most).tolist()
        for model, t in tables.items()
    }
