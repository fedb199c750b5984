"""Grad-CAM and its relatives for any Keras model.

Differences from the Br35H paper (Jardim et al. 2024): it applies Grad-CAM to the last convolutional
layer and judges two pictures by eye. Here the score that is differentiated is the logit before the
sigmoid, with its sign turned when the explained class is "no" (the usual recipe explains "yes" in
either case), and `kit.explain.faithfulness` judges the maps. The usual Keras recipe builds a second
model from ``layer.output``, which fails for a backbone that is a layer of another model and for
Sequential models; here the model runs once, eagerly, and the layer's output is noted in passing.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from scipy import ndimage

from kit.errors import KitError

if TYPE_CHECKING:
    import keras

_NOT_A_MAP = (
    "Input",
    "Pool",
    "Dropout",
    "Padding",
    "Cropping",
    "Flatten",
    "Reshape",
    "Permute",
    "UpSampling",
)
_LOCK = threading.RLock()


class LayerNotFound(KitError):
    """The model has no such layer, or none with a feature map."""


class TargetNotFound(KitError):
    """The model has no such class."""


def _gradcam(maps, gradients):
    weights = gradients.mean(axis=tuple(range(1, gradients.ndim - 1)), keepdims=True)
    return (weights * maps).sum(-1)


def _gradcam_plus_plus(maps, gradients):
    axes, gradients = tuple(range(1, gradients.ndim - 1)), gradients.astype(float)
    denominator = 2 * gradients**2 + maps.sum(axes, keepdims=True) * gradients**3
    alpha = np.divide(
        gradients**2, denominator, out=np.zeros_like(gradients), where=denominator != 0
    )
    return ((alpha * np.maximum(gradients, 0)).sum(axes, keepdims=True) * maps).sum(-1)


def _hirescam(maps, gradients):
    return (gradients * maps).sum(-1)


def _layercam(maps, gradients):
    return (np.maximum(gradients, 0) * maps).sum(-1)


# Selvaraju et al. 2017; Chattopadhay et al. 2018; Draelos and Carin 2020; Jiang et al. 2021
VARIANTS = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus_plus,
    "hirescam": _hirescam,
    "layercam": _layercam,
}


def gradcam(  # noqa: PLR0913 - one call a map: what is explained, and the choices of the method
    model: "keras.Model",
    images: np.ndarray,
    layer: str | None = None,
    target: int | str | np.ndarray | Sequence[int] | None = None,
    variant: str | Callable = "gradcam",
    score: str = "logit",
    upsample: bool = False,
    rectify: bool = True,
    batch: int = 16,
) -> np.ndarray:
    """Compute class activation maps.

    Parameters
    ----------
    model : keras.Model
        Flat or nested functional, Sequential, or loaded from a file; its first output is explained.
    images : float array (N, H, W, C)
        Scaled as the model expects. Volumes (N, D, H, W, C) work alike: weights are means over all
        voxels, maps are (N, d, h, w).
    layer : str, optional
        Name or path (``backbone/layer``) of the layer whose feature map is weighted; None takes the
        last one before pooling.
    target : None, int, array of int (N,) or "logit"
        Class to explain; None is the predicted one of each image. In a one-unit model 1 ("logit")
        explains yes and 0 no.
    variant : {"gradcam", "gradcam++", "hirescam", "layercam"} or callable
        A callable takes feature maps and gradients, both (N, ..., channels), and returns raw maps
        (N, ...).
    score : {"logit", "probability"}
        What is differentiated: the value before the final sigmoid or softmax, or the model's
        output.
    upsample : bool
        Resize the maps linearly along each axis to the input's size.
    rectify : bool
        False returns the raw signed maps, neither rectified nor normalised.
    batch : int
        Images at once.

    Returns
    -------
    numpy.ndarray
        float32 (N, h, w) or (N, d, h, w); in [0, 1] with maximum 1 unless a map has no positive
        value: that one is all zeros.

    Raises
    ------
    LayerNotFound, TargetNotFound
    """
    combine = variant if callable(variant) else VARIANTS[variant]
    images = np.asarray(images)
    targets = np.broadcast_to(
        np.asarray(-1 if target is None else 1 if isinstance(target, str) else target), len(images)
    )
    chosen = find_layer(model, layer)
    raw = [
        combine(
            *_maps_and_gradients(
                model, images[i : i + batch], chosen, targets[i : i + batch], score
            )
        )
        for i in range(0, len(images), batch)
    ]
    maps = np.concatenate(raw).astype(np.float32)
    maps = normalise(maps) if rectify else maps
    if upsample:
        maps = resize(maps, images.shape[1:-1])
        maps = normalise(maps) if rectify else maps
    return maps


def _maps_and_gradients(model, images, layer, targets, score):
    import tensorflow as tf

    final = leaves(model)[-1][1]
    with (
        tf.GradientTape(watch_accessed_variables=False) as tape,
        _noting(tape, layer, final) as noted,
    ):
        output = model(tf.convert_to_tensor(images), training=False)
        output = output[0] if isinstance(output, (list, tuple)) else output
        linear = _linear(final, *noted[id(final)])
        selected = _select(
            tf, tf.cast(output if score == "probability" else linear, tf.float32), linear, targets
        )
    feature_map = noted[id(layer)][1]
    gradient = tape.gradient(selected, feature_map)
    if gradient is None:
        raise LayerNotFound(
            f"The output of {model.name} does not depend on layer {layer.name}; choose a layer "
            "before the classifier."
        )
    return tf.cast(feature_map, tf.float32).numpy(), tf.cast(gradient, tf.float32).numpy()


@contextlib.contextmanager
def _noting(tape, *layers):
    """Let each layer note its input and output while this thread runs the model; other threads and
    the weights are not touched.
    """
    thread, noted = threading.get_ident(), {}

    def wrap(layer, original):
        def call(*args, **kwargs):
            output = original(*args, **kwargs)
            if threading.get_ident() == thread:
                tape.watch(output)
                noted[id(layer)] = (args[0], output)
            return output

        return call

    with _LOCK:
        for layer in set(layers):
            object.__setattr__(layer, "call", wrap(layer, layer.call))
        try:
            yield noted
        finally:
            for layer in set(layers):
                object.__delattr__(layer, "call")


def _linear(final, inputs, output):
    """Value before the activation of the model's last layer."""
    kind = type(final).__name__
    if kind in {"Activation", "Softmax"}:
        return inputs
    if kind == "Dense":
        linear = inputs @ final.kernel
        return linear + final.bias if final.use_bias else linear
    return output


def _select(tf, values, linear, targets):
    """Sum of the explained scores; a one-unit model's score is turned for class 0. Probabilities of
    one unit turn alike.
    """
    classes = values.shape[-1]
    if targets.min() < -1 or targets.max() >= max(classes, 2):
        raise TargetNotFound(
            f"Class {targets.max()} was asked for; this model has the classes 0 to "
            f"{max(classes, 2) - 1}."
        )
    linear = linear.numpy()
    if classes == 1:
        decided = np.where(targets < 0, linear[:, 0] > 0, targets)
        return tf.reduce_sum(values[:, 0] * tf.constant(2.0 * decided - 1, tf.float32))
    decided = np.where(targets < 0, linear.argmax(-1), targets)
    return tf.reduce_sum(tf.gather(values, decided, axis=1, batch_dims=1))


def leaves(model: "keras.Model", prefix: str = "") -> list:
    """Pairs (path, layer) of all layers that are no models, in order, through nested models."""
    import keras

    pairs: list[tuple[str, keras.Layer]] = []
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        pairs += leaves(layer, f"{path}/") if isinstance(layer, keras.Model) else [(path, layer)]
    return pairs


def find_layer(model: "keras.Model", name: str | None = None) -> "keras.Layer":
    """Find a layer by name or path, also inside nested models.

    Parameters
    ----------
    model : keras.Model
    name : str, optional
        ``layer`` or ``nested_model/layer``; None is the last layer with a feature map that is no
        pooling, dropout or reshaping.

    Raises
    ------
    LayerNotFound
    """
    pairs = leaves(model)
    if name is None:
        found = [layer for _, layer in pairs if _has_map(layer)][-1:]
    else:
        found = [layer for path, layer in pairs if path == name] or [
            layer for _, layer in pairs if layer.name == name
        ]
    if len({id(layer) for layer in found}) == 1:
        return found[0]
    names = [path for path, layer in pairs if _has_map(layer)][-5:]
    problem = (
        "no layer with a feature map" if name is None else f"{len(found)} layers called {name!r}"
    )
    raise LayerNotFound(
        f"{model.name} has {problem}; name one by its path, for example "
        f"{', '.join(names) or 'none has a map'}."
    )


def _has_map(layer) -> bool:
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        return False
    return (
        len(shape) in (4, 5)
        and max(side or 2 for side in shape[1:-1]) > 1
        and not any(word in type(layer).__name__ for word in _NOT_A_MAP)
    )


def normalise(maps: np.ndarray) -> np.ndarray:
    """Rectify maps (N, ...) and divide each by its maximum; a map without a positive value becomes
    zeros.
    """
    maps = np.maximum(np.asarray(maps, np.float32), 0)
    highest = maps.max(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def resize(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize maps (N, h, w) or (N, d, h, w) to `size`, of two or three sides: linearly along each
    axis, centres half a pixel from the border as TensorFlow and OpenCV do.
    """
    maps = np.asarray(maps, np.float32)
    factors = (1, *(new / old for new, old in zip(size, maps.shape[1:], strict=True)))
    return (
        maps
        if tuple(size) == maps.shape[1:]
        else ndimage.zoom(maps, factors, order=1, mode="nearest", grid_mode=True)
    )


def overlay(
    image: np.ndarray, heat: np.ndarray, alpha: float = 0.4, cmap: str = "inferno"
) -> np.ndarray:
    """Lay a map over the image it explains.

    Parameters
    ----------
    image : array (H, W), (H, W, 1) or (H, W, 3)
        uint8, or float in [0, 1].
    heat : array (h, w)
        In [0, 1]; resized to the image.
    alpha : float
        Share of the colour, as published 0.4.
    cmap : str
        Matplotlib's name of the colour map. The publication used "jet", which colour-blind readers
        cannot order.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3).
    """
    image = np.asarray(image)
    image = image / 255 if image.dtype == np.uint8 else image.astype(float)
    image = image[..., None] if image.ndim == 2 else image
    heat = resize(np.asarray(heat)[None], image.shape[:2])[0]
    colour = np.asarray(matplotlib.colormaps[cmap](heat))[..., :3]
    return np.rint(255 * np.clip((1 - alpha) * image + alpha * colour, 0, 1)).astype(np.uint8)
