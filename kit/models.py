"""Networks: the scratch CNN of the Br35H paper, ImageNet backbones, and the dense head that sits on a frozen backbone.

Every model is one flat functional graph (no model inside a model), so that Grad-CAM, layer names and saved files stay simple. The output
unit is split into a linear layer ``logit`` and an activation ``probability``; parameters and outputs are those of ``Dense(1, "sigmoid")``.
Differences from the Br35H paper (Jardim et al. 2024): it gives neither kernel size, padding, pooling size nor dropout rate; the defaults
here (3, valid, 2, 0.25) are conventional, and all four are arguments. Its transfer model is here also split into features that are
computed once and a head that is trained on them, which is the same function of the image because the backbone never changes.
"""

import keras
import numpy as np
from keras import layers

from kit import backbones
from kit.backbones import BACKBONES, Backbone, UnknownBackbone, entry  # noqa: F401 - part of this module's interface
from kit.errors import KitError


class BadImages(KitError):
    """Images of a shape or type that a model cannot take."""


def br35h_cnn(input_size=240, channels=1, kernel=3, padding="valid", pool=2, dropout=0.25, dropout_position="each", dense=500, seed=None):
    """Build the CNN without transfer learning of the Br35H paper (card section 2.1, figures 1 and 3).

    Parameters
    ----------
    input_size, channels : int
        Square input, float32 in [0, 1], shape (input_size, input_size, channels).
    kernel, padding, pool, dropout
        Of both convolutions, both poolings and the dropout layers. Not in the paper.
    dropout_position : {"each", "last"}
        Dropout after each pooling, or only after the last one.
    dense : int
        Width of the dense layer; 500 in the paper.
    seed : int, optional
        Fixes initial weights and dropout masks; None takes Keras' global seed.

    Returns
    -------
    keras.Model
        Flat functional model; outputs the probability of class 1, shape (N, 1). Grad-CAM layer ``conv2``.
    """
    if dropout_position not in {"each", "last"}:
        raise ValueError(f"dropout_position is {dropout_position!r}; choose 'each' or 'last'.")
    inputs = x = layers.Input((input_size, input_size, channels), name="image")
    for i in (1, 2):
        x = layers.Conv2D(32, kernel, padding=padding, activation="relu", kernel_initializer=_glorot(seed, i), name=f"conv{i}")(x)
        x = layers.MaxPooling2D(pool, name=f"pool{i}")(x)
        if dropout_position == "each" or i == 2:
            x = layers.Dropout(dropout, seed=None if seed is None else seed + i, name=f"dropout{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, _classifier(x, dense, 0.0, 1, seed), name="br35h_cnn")


def _glorot(seed, offset: int):
    return "glorot_uniform" if seed is None else keras.initializers.GlorotUniform(seed=1000 * seed + offset)


def _classifier(x, dense, dropout: float, classes: int, seed):
    if dropout:
        x = layers.Dropout(dropout, seed=seed, name="head_dropout")(x)
    if dense:
        x = layers.Dense(dense, activation="relu", kernel_initializer=_glorot(seed, 10), name="dense")(x)
    x = layers.Dense(classes, kernel_initializer=_glorot(seed, 11), name="logit")(x)
    return layers.Activation("sigmoid" if classes == 1 else "softmax", name="probability")(x)


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
        Named `name`, not trainable (BatchNorm therefore uses its stored statistics); output (N, h, w, c).

    Raises
    ------
    UnknownBackbone, kit.backbones.InputTooSmall
    kit.weights.WeightsUnavailable
        If ImageNet weights are asked for and can be had nowhere.
    """
    entry(name)
    if weights == "imagenet":
        from kit import weights as pretrained_weights

        return pretrained_weights.pretrained(name, input_size)[0]
    model = backbones.build(name, input_size)
    model.trainable = False
    return model


def head_model(feature_shape, head="flatten", dense=500, dropout=0.0, classes=1, seed=None) -> keras.Model:
    """Build the classifier alone, to be trained on cached features.

    Parameters
    ----------
    feature_shape : tuple of int
        Shape of one feature map, (h, w, c).
    head : {"flatten", "gap"}
        Flatten (published, keeps positions) or global average pooling.
    dense : int or None
        Width of the hidden ReLU layer (500 in the Br35H paper); None or 0 leaves it out.
    dropout : float
        Rate of the dropout before the dense layers; 0 leaves the layer out, as the paper describes none here.
    classes : int
        1 gives one sigmoid unit, more give a softmax.
    seed : int, optional
        Fixes initial weights and dropout masks; None takes Keras' global seed.
    """
    inputs = layers.Input(tuple(feature_shape), name="features")
    return keras.Model(inputs, classifier_head(inputs, head, dense, dropout, classes, seed), name="head")


def classifier_head(x, head: str, dense, dropout: float, classes: int, seed):
    """Put the layers of `head_model` on a feature map (a Keras tensor); arguments as there, returns the tensor of probabilities."""
    vectorise = {"flatten": layers.Flatten, "gap": layers.GlobalAveragePooling2D}
    if head not in vectorise:
        raise ValueError(f"head is {head!r}; choose 'flatten' or 'gap'.")
    return _classifier(vectorise[head](name=head)(x), dense, dropout, classes, seed)


def join(base: keras.Model, head: keras.Model) -> keras.Model:
    """Put a head on a backbone: one flat functional model that shares both models' weights.

    Parameters
    ----------
    base, head : keras.Model
        Outputs of `backbone` and `head_model`; the head must be a plain chain of layers.

    Returns
    -------
    keras.Model
        Its outputs equal ``head(base(images))``. The ``output`` attribute of a head's layer stays the one inside `head`.
    """
    x = base.output
    for layer in head.layers[1:]:
        x = layer(x)
    return keras.Model(base.input, x, name=f"{base.name}_transfer")


def transfer_model(base="resnet50v2", input_size=240, head="flatten", dense=500, dropout=0.0, classes=1, weights="imagenet", seed=None):
    """Build the transfer model of the Br35H paper: frozen backbone, flatten, dense 500 ReLU, one sigmoid unit (card section 2.2).

    Parameters
    ----------
    base : str or keras.Model
        Key of `BACKBONES`, or a model that `backbone` made (`input_size` and `weights` are then not used).
    input_size, weights
        As in `backbone`.
    head, dense, dropout, classes, seed
        As in `head_model`.

    Returns
    -------
    keras.Model
        Flat functional model whose only trainable tensors are the kernels and biases of the head.
    """
    base = backbone(base, input_size, weights) if isinstance(base, str) else base
    base.trainable = False
    return keras.Model(base.input, classifier_head(base.output, head, dense, dropout, classes, seed), name=f"{base.name}_transfer")


def scale(images, mode: str) -> np.ndarray:
    """Scale RGB images of 0..255 as a network's weights expect.

    Parameters
    ----------
    images : array (..., 3)
        Values 0..255.
    mode : {"unit", "tf", "torch", "caffe", "lite"}
        x/255; x/127.5 - 1; ImageNet mean and deviation; BGR minus mean; (x - 127)/128.

    Returns
    -------
    numpy.ndarray
        float32.
    """
    images = np.asarray(images, np.float32)
    if mode == "unit":
        return images / np.float32(255)
    if mode == "lite":
        return (images - np.float32(127)) / np.float32(128)
    return keras.applications.imagenet_utils.preprocess_input(images.copy(), data_format="channels_last", mode=mode)


def prepare(name: str, images, mode: str | None = None) -> np.ndarray:
    """Turn uint8 images into a backbone's input: gray replicated to RGB, then scaled.

    Parameters
    ----------
    name : str
        Key of `BACKBONES`.
    images : uint8 array (N, H, W), (N, H, W, 1) or (N, H, W, 3)
    mode : str, optional
        Scaling other than the backbone's own, a mode of `scale`.

    Returns
    -------
    numpy.ndarray
        float32 (N, H, W, 3).

    Raises
    ------
    BadImages
        If the array is of another shape or type; a float array is refused because it may be scaled already.
    """
    images = np.asarray(images)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8:
        raise BadImages(f"Images are {images.dtype} of shape {images.shape}; give uint8 arrays (N, H, W), (N, H, W, 1) or (N, H, W, 3).")
    return scale(np.broadcast_to(images, (*images.shape[:3], 3)), mode or entry(name).preprocess)


def features(base: keras.Model, images, batch: int = 32, mode: str | None = None) -> np.ndarray:
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
        raise BadImages(f"Images of {np.shape(images)[1:3]} pixels do not fit {base.name}, built for {base.input_shape[1:3]}; resize them or build it for that size.")
    result = np.empty((len(images), *base.output_shape[1:]), np.float16)
    limit = np.finfo(np.float16).max
    for start in range(0, len(images), batch):
        maps = base.predict_on_batch(prepare(base.name, images[start : start + batch], mode))
        result[start : start + batch] = np.clip(maps, -limit, limit)
    return result


def layer_table(model: keras.Model, collapse: keras.Model | None = None):
    """One row a layer, as `kit.plots.architecture` draws it.

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
    import pandas as pd

    inside = {layer.name for layer in collapse.layers[1:]} if collapse is not None else set()
    rows = []
    for layer in model.layers:
        if layer.name not in inside:
            rows.append({"layer": layer.name, "type": type(layer).__name__, "output_shape": tuple(layer.output.shape[1:]), "parameters": layer.count_params(),
                         "trainable": bool(layer.trainable_weights) or not layer.weights})
        elif layer.name == collapse.layers[-1].name:
            shown = BACKBONES[collapse.name].title if collapse.name in BACKBONES else collapse.name
            rows.append({"layer": shown, "type": f"Backbone, {len(collapse.layers)} layers", "output_shape": tuple(layer.output.shape[1:]),
                         "parameters": collapse.count_params(), "trainable": False})
    return pd.DataFrame(rows)
