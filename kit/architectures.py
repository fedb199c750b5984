"""The architectures of the thesis' search spaces (Tables 3.1 and 5.2, chapter 4) as networks of one kind: images in, logits out.

The thesis takes all of them from torchvision with ImageNet weights and changes the last layer. Here five families come from
`kit.ported_networks`, MobileNetV3, ConvNeXt and EfficientNetV2 from keras.applications with torchvision's heads, and EfficientNet-Lite0, which
the thesis does not have, from `kit.lite0`: it is the one whose ImageNet weights always are there. Differences: SqueezeNet loses the ReLU behind
its class convolution, which would keep logits from being negative; new heads start from a seed, so that individuals of a population share
them; and whatever scaling the weights expect is a layer of the network, so all of them take the same ImageNet-normalised images.
"""

from dataclasses import dataclass

import keras
from keras import layers

from kit import backbones, ported_networks
from kit.errors import KitError
from kit.evolution.genome import TABLE_3_1, TABLE_5_2
from kit.lite0 import efficientnet_lite0

# Mean and standard deviation of ImageNet's red, green and blue in [0, 1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEAD = "logits"
# Codings of RGB images as (scale, offset) a channel: coded = scale * (0..255) + offset
CODINGS = {
    "imagenet": (tuple(1 / (255 * s) for s in STD), tuple(-m / s for m, s in zip(MEAN, STD, strict=True))),
    "0..1": ((1 / 255,) * 3, (0.0,) * 3),
    "0..255": ((1.0,) * 3, (0.0,) * 3),
    "tf": ((1 / 127.5,) * 3, (-1.0,) * 3),
    "tf128": ((1 / 128,) * 3, (-1.0,) * 3),
    "lite": ((1 / 128,) * 3, (-127 / 128,) * 3),
}


class UnknownArchitecture(KitError):
    """An architecture that is not in the registry."""


class UnsuitableInput(KitError):
    """A number of channels, classes or pixels that a network cannot be built for."""


@dataclass(frozen=True)
class Architecture:
    """What a caller needs to know of an architecture.

    Attributes
    ----------
    name, title : str
        Key of the registry, and the name as the thesis prints it.
    coding : str
        Key of `CODINGS` that the ImageNet weights were trained with.
    flops : str
        What the thesis' Table 3.1 prints; empty where it prints nothing.
    parameters, buffers : int
        Trainable parameters and moving statistics of BatchNormalization with 1,000 classes (thesis card, section 7).
    macs : int
        Multiply-accumulates of convolutions and dense layers at 224 pixels with 1,000 classes.
    dropout : float
        Rate before the head.
    hidden : int
        Units of a dense layer with hard swish before the head; 0 for none.
    factory : str
        Function of ``keras.applications``; empty otherwise.
    feature : str
        Layer whose output, averaged over space, the thesis compares by PWCCA: the last feature map, for ShuffleNet that of stage 4.
    in_thesis : bool
    """

    name: str
    title: str
    coding: str
    flops: str
    parameters: int
    buffers: int
    macs: int
    dropout: float = 0.0
    hidden: int = 0
    factory: str = ""
    feature: str = "features"
    in_thesis: bool = True

    @property
    def label(self) -> str:
        """Title for tables, which marks what the thesis does not have."""
        return self.title if self.in_thesis else f"{self.title} (not in the thesis)"


ARCHITECTURES = {
    entry.name: entry
    for entry in (
        Architecture("convnext_tiny", "ConvNext-Tiny", "imagenet", "4.5 G", 28_589_128, 0, 4_455_531_264, factory="ConvNeXtTiny"),
        Architecture("efficientnetv2_s", "EfficientNet-V2-Small", "tf128", "8.8 G", 21_458_488, 153_872, 2_849_895_872, 0.2, factory="EfficientNetV2S"),
        Architecture("regnety_400mf", "RegNet-Y-400MF", "imagenet", "400 M", 4_344_144, 27_152, 401_842_848),
        Architecture("regnetx_400mf", "RegNet-X-400MF", "imagenet", "400 M", 5_495_976, 37_856, 413_812_608),
        Architecture("mobilenetv3_small", "MobileNet-V3-Small", "tf", "59 M", 2_542_856, 12_112, 56_510_400, 0.2, 1024, "MobileNetV3Small"),
        Architecture("mobilenetv3_large", "MobileNet-V3-Large", "tf", "225 M", 5_483_032, 24_400, 216_589_760, 0.2, 1280, "MobileNetV3Large"),
        Architecture("shufflenetv2_x1.0", "Shufflenet-v2-x1_0", "imagenet", "146 M", 2_278_604, 16_180, 144_907_992, feature="stage4"),
        Architecture("shufflenetv2_x1.5", "Shufflenet-v2-x1_5", "imagenet", "299 M", 3_503_624, 23_440, 295_759_392, feature="stage4"),
        Architecture("shufflenetv2_x2.0", "Shufflenet-v2-x2_0", "imagenet", "591 M", 7_393_996, 33_716, 583_253_464, feature="stage4"),
        Architecture("mnasnet_1.0", "Mnasnet-1_0", "imagenet", "", 4_383_312, 37_920, 314_415_872, 0.2),
        Architecture("squeezenet_1.1", "Squeezenet-1_1", "imagenet", "", 1_235_496, 0, 349_151_936, 0.5),
        Architecture("efficientnet_lite0", "EfficientNet-Lite0", "lite", "", 4_652_008, 42_016, 385_187_552, 0.2, in_thesis=False),
    )
}

# Architecture genes in the order that decoding needs: Table 3.1 in the released code's order, Table 5.2, and the three of chapter 4
SPACES = {"table-3-1": TABLE_3_1, "table-5-2": TABLE_5_2, "chapter-4": ("shufflenetv2_x1.5", "mobilenetv3_large", "regnety_400mf")}


def entry(name: str) -> Architecture:
    """Return the registry entry of an architecture.

    Raises
    ------
    UnknownArchitecture
    """
    if name not in ARCHITECTURES:
        raise UnknownArchitecture(f"There is no architecture {name!r}; choose one of {', '.join(ARCHITECTURES)}.")
    return ARCHITECTURES[name]


def build(name: str, classes: int, size: int | None = None, channels: int = 3, head_seed: int | None = 0, weights=None, *, seed: int | None = None,
          images: str = "imagenet", bn_momentum: float | None = None) -> keras.Model:
    """Build a network whose last layer has `classes` linear units.

    Parameters
    ----------
    name : str
        Key of `ARCHITECTURES`.
    classes : int
        Units of the head, the layer `HEAD`: dense, for SqueezeNet a 1 x 1 convolution before the average.
    size : int, optional
        Side of square images in pixels; None leaves height and width open, so that one network takes every size.
    channels : int
        3, or another number for networks without pretrained weights, whose images are then taken as they are.
    head_seed : int, optional
        Fixes the head's kernel, uniform within one over the root of its fan-in as in PyTorch, its bias zero; None takes Keras' global seed.
    weights : None, {"auto", "imagenet"} or path-like
        Random; ImageNet if they can be had and else random; ImageNet or an error; a file (see `kit.ported_weights.load`).
    seed : int, optional
        Fixes the other random weights and the dropout masks; None takes Keras' global seed.
    images : {"imagenet", "0..1", "0..255"}
        How RGB images are coded: in [0, 1] with ImageNet's mean and standard deviation removed, in [0, 1], or in 0..255.
    bn_momentum : float, optional
        Momentum of every BatchNormalization; None leaves each network's own, up to 0.9997, which needs thousands of steps.

    Returns
    -------
    keras.Model
        Flat functional model named `name` from float32 (N, H, W, channels) to logits (N, classes), everything trainable.

    Raises
    ------
    UnknownArchitecture, UnsuitableInput
    kit.weights.WeightsUnavailable, kit.weights.DamagedWeights
        The former only if "imagenet" or a file is asked for.
    """
    known = entry(name)
    _check(known, classes, size, channels, weights, images)
    inputs = layers.Input((size, size, channels), name="image")
    with backbones._seeded(seed):
        scaled = _coded(inputs, images, known.coding) if channels == 3 else inputs
        model = keras.Model(inputs, _head(known, _body(known, inputs, scaled), classes, head_seed), name=name)
    if weights is not None:
        from kit import ported_weights

        ported_weights.start(model, name, weights)
    if bn_momentum is not None:
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = float(bn_momentum)
    return model


def _check(known: Architecture, classes: int, size, channels: int, weights, images: str) -> None:
    if images not in {"imagenet", "0..1", "0..255"}:
        raise ValueError(f"images is {images!r}; choose 'imagenet', '0..1' or '0..255'.")
    if classes < 1 or channels < 1:
        raise UnsuitableInput(f"{known.title} cannot be built for {classes} classes and {channels} channels; both have to be 1 or more.")
    if size is not None and size < 32:
        raise UnsuitableInput(f"{known.title} needs images of 32 pixels or more, not {size}; enlarge them.")
    if weights is not None and channels != 3:
        raise UnsuitableInput(f"Pretrained weights of {known.title} need 3 channels, not {channels}; stack greyscale images threefold or start at random.")


def _coded(x, given: str, wanted: str):
    """A fixed layer ``scale`` from one coding of RGB images to another; nothing if they are the same."""
    if given == wanted:
        return x
    (a, b), (c, d) = CODINGS[given], CODINGS[wanted]
    scale = [w / g for w, g in zip(c, a, strict=True)]
    return layers.Rescaling(scale, [offset - s * shift for offset, s, shift in zip(d, scale, b, strict=True)], name="scale")(x)


def _body(known: Architecture, inputs, scaled):
    if known.factory:
        return _keras_body(known, inputs, scaled)
    if known.name == "efficientnet_lite0":
        return layers.Activation("linear", name="features")(efficientnet_lite0(inputs=scaled).output)
    family = known.name.split("_")[0].rstrip("xyv2")
    return getattr(ported_networks, family)(scaled, known.name)


def _keras_body(known: Architecture, inputs, scaled):
    """A network of keras.applications without its top and its own scaling, its inner models taken apart, reading `scaled` for `inputs`."""
    options = {"include_top": False, "weights": None, "include_preprocessing": False}
    whole = getattr(keras.applications, known.factory)(input_shape=tuple(inputs.shape[1:]), **options)
    if known.name == "convnext_tiny":
        # Keras normalises the map where torchvision normalises its average; _head does the latter
        whole = keras.Model(whole.input, whole.layers[-1].input)

    def call(layer, x, *others, **named):
        x = scaled if x is inputs else x
        if not isinstance(layer, keras.Sequential):
            return layer(x, *others, **named)
        for part in layer.layers:
            x = part(x)
        return x

    copied = keras.models.clone_model(whole, input_tensors=inputs, clone_function=_copy, call_function=call)
    return layers.Activation("linear", name="features")(copied.output)


def _copy(layer):
    """A layer like this one; a convolution with as many groups as channels as the depthwise one it is."""
    if not isinstance(layer, layers.Layer):
        return layer
    config = layer.get_config()
    if isinstance(layer, layers.Conv2D) and layer.groups == layer.filters > 1:
        depthwise = {"depthwise_" + key.removeprefix("kernel_"): config[key] for key in ("kernel_initializer", "kernel_regularizer", "kernel_constraint")}
        shared = {key: value for key, value in config.items() if not key.startswith("kernel_") and key not in {"filters", "groups"}}
        return layers.DepthwiseConv2D.from_config({**shared, **depthwise, "kernel_size": layer.kernel_size})
    return type(layer).from_config(config)


def _head(known: Architecture, x, classes: int, seed):
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
    if known.name == "squeezenet_1.1":
        x = layers.Conv2D(classes, 1, kernel_initializer=initializer, name=HEAD)(layers.Dropout(known.dropout, name="dropout")(x))
        return layers.GlobalAveragePooling2D(name="gap")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    if known.name == "convnext_tiny":
        x = layers.LayerNormalization(epsilon=1e-6, name="head_norm")(x)
    if known.hidden:
        x = layers.Activation("hard_swish", name="hidden_act")(layers.Dense(known.hidden, name="hidden")(x))
    if known.dropout:
        x = layers.Dropout(known.dropout, name="dropout")(x)
    return layers.Dense(classes, kernel_initializer=initializer, name=HEAD)(x)


def feature_layer(name: str) -> str:
    """Name of the layer whose output the thesis averages over space and compares by PWCCA (thesis card, 4.26)."""
    return entry(name).feature


def feature_model(model: keras.Model) -> keras.Model:
    """The network of a model made by `build` from images to pooled features (N, C), on the same weights."""
    output = model.get_layer(feature_layer(model.name)).output
    return keras.Model(model.input, layers.GlobalAveragePooling2D()(output), name=f"{model.name}_features")


def macs(network: str | keras.Model, size: int = 224, classes: int = 1000) -> int:
    """Multiply-accumulates of one image, as `kit.backbones.macs` counts them.

    Parameters
    ----------
    network : str or keras.Model
        An architecture, built for this size and these classes, or a model of fixed input size.
    """
    return backbones.macs(build(network, classes, size) if isinstance(network, str) else network)
