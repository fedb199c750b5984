"""Networks: the scratch CNN of the Br35H paper, ImageNet backbones, and the dense head that sits on
a frozen backbone.

Every model is one flat functional graph (no model inside a model), so that Grad-CAM, layer names
and saved files stay simple. The output unit is split into a linear layer ``logit`` and an
activation ``probability``; parameters and outputs are those of ``Dense(1, "sigmoid")``. Differences
from the Br35H paper (Jardim et al. 2024): it gives neither kernel size, padding, pooling size nor
dropout rate; the defaults here (3, valid, 2, 0.25) are conventional, and all four are arguments.
Its transfer model is here also split into features that are computed once and a head that is
trained on them, which is the same function of the image because the backbone never changes.
"""

import keras
import numpy as np
import pandas as pd

from kit import rehearsal
from kit.models import backbones, scaling
from kit.models import pretrained as pretrained_module
from kit.models import weights as models_weights

# part of this module's interface
from kit.models.backbone_catalog import BACKBONES, Backbone, UnknownBackbone, entry  # noqa: F401
from kit.models.scaling import BadImages


def backbone(name: str, input_size: int = 240, weights: str | None = "imagenet") -> keras.Model:
    """Build a frozen convolutional network without its classifier.

    Parameters
    ----------
    name : str
        Key of `BACKBONES`.
    input_size : int
        Side of the square RGB input in pixels; inputs are scaled by `prepare`.
    weights : {"imagenet", None}
        Pretrained, or randomly initialised from Keras' global seed.

    Returns
    -------
    keras.Model
        Named `name`, not trainable (BatchNorm therefore uses its stored statistics); output (N, h,
        w, c).

    Raises
    ------
    UnknownBackbone, kit.models.backbone_catalog.InputTooSmall
    kit.models.weights.WeightsUnavailable
        If ImageNet weights are asked for and can be had nowhere.
    """
    entry(name)
    if weights == "imagenet":
        return pretrained(name, input_size)[0]
    model = backbones.build(name, input_size)
    model.trainable = False
    return model


def features(
    base: keras.Model, images: np.ndarray, batch: int = 32, mode: str | None = None
) -> np.ndarray:
    """Compute the feature maps of a frozen backbone.

    Parameters
    ----------
    base : keras.Model
        Made by `backbone`; its name tells the scaling.
    images : uint8 array
        As in `prepare`, of the backbone's input size.
    batch : int
        Images at once; it limits memory and does not change the result beyond rounding.
    mode : str, optional
        As in `prepare`.

    Returns
    -------
    numpy.ndarray
        float16 (N, h, w, c); values beyond float16 are clipped to its range.

    Raises
    ------
    BadImages
    """
    if tuple(np.shape(images)[1:3]) != tuple(base.input_shape[1:3]):
        raise BadImages(
            f"Images of {np.shape(images)[1:3]} pixels do not fit {base.name}, built for "
            f"{base.input_shape[1:3]}; resize them or build it for that size."
        )
    result = np.empty((len(images), *base.output_shape[1:]), np.float16)
    limit = np.finfo(np.float16).max
    for start in range(0, len(images), batch):
        maps = base.predict_on_batch(
            scaling.prepare(base.name, images[start : start + batch], mode)
        )
        result[start : start + batch] = np.clip(maps, -limit, limit)
    return result


def layer_table(model: keras.Model, collapse: keras.Model | None = None) -> pd.DataFrame:
    """One row a layer, as `kit.report.plots.architecture` draws it.

    Parameters
    ----------
    model : keras.Model
        Flat.
    collapse : keras.Model, optional
        A backbone whose layers are shown as one row.

    Returns
    -------
    pandas.DataFrame
        Columns layer, type, output_shape (tuple without the batch axis), parameters, trainable.
    """
    inside = {layer.name for layer in collapse.layers[1:]} if collapse is not None else set()
    rows = []
    for layer in model.layers:
        if layer.name not in inside:
            rows.append(
                {
                    "layer": layer.name,
                    "type": type(layer).__name__,
                    "output_shape": tuple(layer.output.shape[1:]),
                    "parameters": layer.count_params(),
                    "trainable": bool(layer.trainable_weights) or not layer.weights,
                }
            )
        elif collapse is not None and layer.name == collapse.layers[-1].name:
            shown = BACKBONES[collapse.name].title if collapse.name in BACKBONES else collapse.name
            rows.append(
                {
                    "layer": shown,
                    "type": f"Backbone, {len(collapse.layers)} layers",
                    "output_shape": tuple(layer.output.shape[1:]),
                    "parameters": collapse.count_params(),
                    "trainable": False,
                }
            )
    return pd.DataFrame(rows)


def pretrained(name: str, input_size: int) -> tuple[keras.Model, dict]:
    """Build a frozen backbone with its ImageNet weights.

    Parameters
    ----------
    name : str
        Key of `kit.models.backbone_catalog.BACKBONES`.
    input_size : int
        Side of the square input in pixels.

    Returns
    -------
    model : keras.Model
        As `kit.models.transfer.backbone` makes it.
    provenance : dict
        Title, data, source, file name, checksum and licence of the weights.

    Raises
    ------
    WeightsUnavailable, DamagedWeights
    """

    try:
        models_weights.find(name)
    except models_weights.WeightsUnavailable:
        if not rehearsal.active():
            raise
        return backbone(name, input_size, weights=None), {"backbone": name, "file": "rehearsal"}
    model = backbone(name, input_size, weights=None)
    return model, pretrained_module.load(model, name)
