"""The six hand-designed networks of the LeaSE paper's Table 3.

The paper names the networks and prints parameters in millions, nothing else. The variants here are
the ones whose trainable parameters fit all its printed digits: Keras' ResNets with
one dense layer; VGG with biases, without BatchNorm, and two dense layers of 512 instead of 4096;
DenseNet-BC (growth 12, compression 1/2, three blocks) with biases and one dense layer of 512.
"DenseNet-101" has the 16 units a block of depth 100. The ReLUs between dense layers, the initial
weights (He's where no BatchNorm follows every convolution) and BatchNorm's momentum are not in the
paper. At the evaluation's learning rate of 0.025, VGG learns nothing unless gradients are clipped
as there. Its flattening head grows with the image, so that its printed count holds at 64 pixels
only.
"""

import math
from dataclasses import dataclass

import keras
from keras import layers

from kit.errors import KitError
from kit.models import heads
from kit.models.seeds import _seeded

VGG = {13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
SMALLEST = 32
HIDDEN = 512


class UnknownBaseline(KitError):
    """A name that is none of the six networks."""


class BadBaseline(KitError):
    """A size, width or number of channels that a network cannot be built with."""


@dataclass(frozen=True)
class Baseline:
    """One of the networks.

    Attributes
    ----------
    name, title : str
        Key of `BASELINES`, and the paper's name.
    parameters : int
        Trainable, at 64 pixels, 3 channels and 4 classes.
    printed : float
        The same in the paper, millions.
    last_conv_layer : str
        Layer for Grad-CAM.
    """

    name: str
    title: str
    parameters: int
    printed: float
    last_conv_layer: str


BASELINES = {
    entry.name: entry
    for entry in (
        Baseline("resnet50", "ResNet-50", 23_542_788, 23.54, "conv5_block3_out"),
        Baseline("resnet101", "ResNet-101", 42_561_028, 42.56, "conv5_block3_out"),
        Baseline("vgg13", "VGGNet-13", 10_718_788, 10.72, "block5_relu2"),
        Baseline("vgg16", "VGGNet-16", 16_028_484, 16.03, "block5_relu3"),
        Baseline("densenet40", "DenseNet-40", 246_152, 0.25, "final_relu"),
        Baseline("densenet101", "DenseNet-101", 946_562, 0.95, "final_relu"),
    )
}


def entry(name: str) -> Baseline:
    """Return the facts of a network.

    Raises
    ------
    UnknownBaseline
    """
    if name not in BASELINES:
        raise UnknownBaseline(
            f"There is no baseline {name!r}; choose one of {', '.join(BASELINES)}."
        )
    return BASELINES[name]


def build(
    name: str,
    size: int = 64,
    classes: int = 4,
    channels: int = 3,
    width: float = 1.0,
    seed: int | None = None,
    bn_momentum: float = 0.9,
) -> keras.Model:
    """Build a network with random weights.

    Parameters
    ----------
    name : str
        Key of `BASELINES`.
    size : int
        Side of the square input in pixels, at least 32.
    classes, channels : int
        Softmax units, at least 2, and channels of the image.
    width : float
        Factor on the channels of every convolution and on the hidden dense layers, for small
        machines; 1 is published, anything else a reduction that results must declare, see
        :func:`reduction`.
    seed : int, optional
        Fixes the initial weights; None takes Keras' global seed.
    bn_momentum : float
        Of every BatchNormalization. The default equals PyTorch's; Keras' own, 0.99, lags behind in
        trainings of few steps.

    Returns
    -------
    keras.Model
        Flat functional model; takes float32 (N, size, size, channels) in [0, 1], gives
        probabilities (N, classes).

    Raises
    ------
    UnknownBaseline, BadBaseline
    """
    known = entry(name)
    _check(known, size, classes, channels, width)
    inputs = layers.Input((size, size, channels), name="image")
    make = {"r": _resnet, "v": _vgg, "d": _densenet}[name[0]]
    with _seeded(seed):
        model = keras.Model(
            inputs, make(inputs, int(name.lstrip("abcdefghijklmnopqrstuvwxyz")), classes), name=name
        )
        model = (
            model
            if width == 1
            else keras.models.clone_model(
                model, inputs, clone_function=lambda layer: _scaled(layer, width)
            )
        )
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = float(bn_momentum)
    return model


def _check(known, size, classes, channels, width) -> None:
    for what, value, least in (
        ("images of", size, SMALLEST),
        ("classes:", classes, 2),
        ("channels:", channels, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadBaseline(
                f"{known.title} cannot be built with {what} {value!r}; give a whole number from "
                f"{least} on."
            )
    if not 0 < width <= 4:
        raise BadBaseline(
            f"{known.title}: width is {width!r}; give a factor above 0 and at most 4, 1 for the "
            "published network."
        )


def reduction(width: float) -> str:
    """The sentence that results of a narrower network must carry; empty at width 1."""
    return "" if width == 1 else f"hand-designed networks {width:g} times as wide as published"


def trainable(model: keras.Model) -> int:
    """Number of trainable parameters, the paper's column."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _scaled(layer, width: float):
    """A copy of a layer, not built, of another width."""
    config = layer.get_config()
    for key in ("filters", "units"):
        if key in config and layer.name != "logit":
            config[key] = max(1, round(config[key] * width))
    return type(layer).from_config(config)


def _resnet(x, depth: int, classes: int):
    base = {50: keras.applications.ResNet50, 101: keras.applications.ResNet101}[depth](
        include_top=False, weights=None, input_tensor=x
    )
    return heads.classifier_head(
        base.output, "gap", dense=None, dropout=0.0, classes=classes, seed=None
    )


def _vgg(x, depth: int, classes: int):
    for block, count in enumerate(VGG[depth], start=1):
        for number in range(1, count + 1):
            x = layers.Conv2D(
                min(512, 32 * 2**block),
                3,
                padding="same",
                kernel_initializer="he_normal",
                name=f"block{block}_conv{number}",
            )(x)
            x = layers.ReLU(name=f"block{block}_relu{number}")(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = _hidden(x, f"dense{number}")
    return _probabilities(x, classes)


def _densenet(x, depth: int, classes: int, growth: int = 12):
    x = layers.Conv2D(2 * growth, 3, padding="same", kernel_initializer="he_normal", name="stem")(x)
    for block in (1, 2, 3):
        for number in range(1, (depth - 4) // 6 + 1):
            new = _preactivated(x, 4 * growth, 1, f"block{block}_unit{number}_a")
            new = _preactivated(new, growth, 3, f"block{block}_unit{number}_b")
            x = layers.Concatenate(name=f"block{block}_unit{number}")([x, new])
        if block < 3:
            x = _preactivated(x, x.shape[-1] // 2, 1, f"transition{block}")
            x = layers.AveragePooling2D(2, name=f"transition{block}_pool")(x)
    x = layers.ReLU(name="final_relu")(layers.BatchNormalization(epsilon=1e-5, name="final_bn")(x))
    return _probabilities(_hidden(layers.GlobalAveragePooling2D(name="gap")(x), "dense"), classes)


def _preactivated(x, filters: int, kernel: int, name: str):
    x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    x = layers.ReLU(name=f"{name}_relu")(x)
    return layers.Conv2D(
        filters, kernel, padding="same", kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)


def _hidden(x, name: str):
    return layers.Dense(HIDDEN, activation="relu", kernel_initializer="he_normal", name=name)(x)


def _probabilities(x, classes: int):
    return layers.Activation("softmax", name="probability")(layers.Dense(classes, name="logit")(x))
