"""Multiply-accumulates of a Keras model, counted layer by layer."""

import math

import keras
import pandas as pd
from keras import layers

from kit.errors import KitError


class UncountedLayer(KitError):
    """A layer whose multiply-accumulates `macs` does not know how to count."""


_COUNTED = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)


def macs(model: keras.Model, table: bool = False) -> int | pd.DataFrame:
    """Count the multiply-accumulates of one image: convolutions (also depthwise, grouped and
    separable) and dense layers.

    Every entry of a kernel is used once at each position of the layer's output. Biases,
    BatchNormalization, activations, pooling and additions are left out, as usual; they are a few
    per cent at most.

    Parameters
    ----------
    model : keras.Model
        Flat, channels last, of fixed input size.
    table : bool
        Return one row a layer in place of the sum.

    Returns
    -------
    int or pandas.DataFrame
        Columns layer, type, output_shape (without the batch axis), parameters, macs.

    Raises
    ------
    UncountedLayer
        If a layer with a kernel is of another kind, or the model contains a model.
    """
    counts = [_layer_macs(layer) for layer in model.layers]
    if not table:
        return sum(counts)
    return pd.DataFrame(
        [
            {
                "layer": layer.name,
                "type": type(layer).__name__,
                "output_shape": tuple(layer.output.shape[1:]),
                "parameters": layer.count_params(),
                "macs": count,
            }
            for layer, count in zip(model.layers, counts, strict=True)
        ]
    )


def _layer_macs(layer) -> int:
    kernels = [math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1]
    if not kernels:
        return 0
    if (
        not (type(layer) in _COUNTED or getattr(layer, "uses_kernel_once", False))
        or None in layer.output.shape[1:]
    ):
        raise UncountedLayer(
            f"Multiply-accumulates of layer {layer.name} ({type(layer).__name__}) cannot be "
            "counted; give a flat model of convolutions and dense "
            "layers with a fixed input size."
        )
    return math.prod(layer.output.shape[1:-1]) * sum(kernels)
