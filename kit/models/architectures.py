"""The architectures of the thesis' search spaces (Tables 3.1 and 5.2, chapter 4) as networks of one
kind: images in, logits out.

The thesis takes all of them from torchvision with ImageNet weights and changes the last layer. Here
five families come from `kit.models.ported_networks`, MobileNetV3, ConvNeXt and EfficientNetV2 from
keras.applications with torchvision's heads, and EfficientNet-Lite0, which the thesis does not have,
from `kit.models.lite0`: it is the one whose ImageNet weights always are there. Differences:
SqueezeNet loses the ReLU behind its class convolution, which would keep logits from being negative;
new heads start from a seed, so that individuals of a population share them; and whatever scaling
the weights expect is a layer of the network, so all of them take the same ImageNet-normalised
images.
"""

from pathlib import Path

import keras
from keras import layers

from kit.models import architecture_catalog, ported_networks, ported_weights, seeds
from kit.models import macs as macs_module
from kit.models.architecture_catalog import Architecture, UnsuitableInput
from kit.models.lite0 import efficientnet_lite0


def build(  # noqa: PLR0913 - what a gene, a data set and a training each decide of a network
    name: str,
    classes: int,
    size: int | None = None,
    channels: int = 3,
    head_seed: int | None = 0,
    weights: Path | str | None = None,
    *,
    seed: int | None = None,
    images: str = "imagenet",
    bn_momentum: float | None = None,
) -> keras.Model:
    """Build a network whose last layer has `classes` linear units.

    Parameters
    ----------
    name : str
        Key of `ARCHITECTURES`.
    classes : int
        Units of the head, the layer `HEAD`: dense, for SqueezeNet a 1 x 1 convolution before the
        average.
    size : int, optional
        Side of square images in pixels; None leaves height and width open, so that one network
        takes every size.
    channels : int
        3, or another number for networks without pretrained weights, whose images are then taken as
        they are.
    head_seed : int, optional
        Fixes the head's kernel, uniform within one over the root of its fan-in as in PyTorch, its
        bias zero; None takes Keras' global seed.
    weights : None, {"auto", "imagenet"} or path-like
        Random; ImageNet if they can be had and else random; ImageNet or an error; a file (see
        `kit.models.ported_weights.load`).
    seed : int, optional
        Fixes the other random weights and the dropout masks; None takes Keras' global seed.
    images : {"imagenet", "0..1", "0..255"}
        How RGB images are coded: in [0, 1] with ImageNet's mean and standard deviation removed, in
        [0, 1], or in 0..255.
    bn_momentum : float, optional
        Momentum of every BatchNormalization; None leaves each network's own, up to 0.9997, which
        needs thousands of steps.

    Returns
    -------
    keras.Model
        Flat functional model named `name` from float32 (N, H, W, channels) to logits (N, classes),
        everything trainable.

    Raises
    ------
    UnknownArchitecture, UnsuitableInput
    kit.models.weights.WeightsUnavailable, kit.models.weights.DamagedWeights
        The former only if "imagenet" or a file is asked for.
    """
    known = architecture_catalog.entry(name)
    _check(known, classes, size=size, channels=channels, weights=weights, images=images)
    inputs = layers.Input((size, size, channels), name="image")
    with seeds._seeded(seed):
        scaled = _coded(inputs, images, known.coding) if channels == 3 else inputs
        model = keras.Model(
            inputs, _head(known, _body(known, inputs, scaled), classes, head_seed), name=name
        )
    if weights is not None:
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
        raise UnsuitableInput(
            f"{known.title} cannot be built for {classes} classes and {channels} channels; both "
            "have to be 1 or more."
        )
    if size is not None and size < 32:
        raise UnsuitableInput(
            f"{known.title} needs images of 32 pixels or more, not {size}; enlarge them."
        )
    if weights is not None and channels != 3:
        raise UnsuitableInput(
            f"Pretrained weights of {known.title} need 3 channels, not {channels}; stack greyscale "
            "images threefold or start at random."
        )


def _coded(x, given: str, wanted: str):
    """A fixed layer ``scale`` from one coding of RGB images to another; nothing if they are the
    same.
    """
    if given == wanted:
        return x
    (a, b), (c, d) = architecture_catalog.CODINGS[given], architecture_catalog.CODINGS[wanted]
    scale = [w / g for w, g in zip(c, a, strict=True)]
    return layers.Rescaling(
        scale,
        [offset - s * shift for offset, s, shift in zip(d, scale, b, strict=True)],
        name="scale",
    )(x)


def _body(known: Architecture, inputs, scaled):
    if known.factory:
        return _keras_body(known, inputs, scaled)
    if known.name == "efficientnet_lite0":
        return layers.Activation("linear", name="features")(
            efficientnet_lite0(inputs=scaled).output
        )
    family = known.name.split("_")[0].rstrip("xyv2")
    return getattr(ported_networks, family)(scaled, known.name)


def _keras_body(known: Architecture, inputs, scaled):
    """A network of keras.applications without its top and its own scaling, its inner models taken
    apart, reading `scaled` for `inputs`.
    """
    options = {"include_top": False, "weights": None, "include_preprocessing": False}
    whole = getattr(keras.applications, known.factory)(
        input_shape=tuple(inputs.shape[1:]), **options
    )
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

    copied = keras.models.clone_model(
        whole, input_tensors=inputs, clone_function=_copy, call_function=call
    )
    return layers.Activation("linear", name="features")(copied.output)


def _copy(layer):
    """A layer like this one; a convolution with as many groups as channels as the depthwise one it
    is.
    """
    if not isinstance(layer, layers.Layer):
        return layer
    config = layer.get_config()
    if isinstance(layer, layers.Conv2D) and layer.groups == layer.filters > 1:
        depthwise = {
            "depthwise_" + key.removeprefix("kernel_"): config[key]
            for key in ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
        }
        shared = {
            key: value
            for key, value in config.items()
            if not key.startswith("kernel_") and key not in {"filters", "groups"}
        }
        return layers.DepthwiseConv2D.from_config(
            {**shared, **depthwise, "kernel_size": layer.kernel_size}
        )
    return type(layer).from_config(config)


def _head(known: Architecture, x, classes: int, seed):
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
    if known.name == "squeezenet_1.1":
        x = layers.Conv2D(
            classes, 1, kernel_initializer=initializer, name=architecture_catalog.HEAD
        )(layers.Dropout(known.dropout, name="dropout")(x))
        return layers.GlobalAveragePooling2D(name="gap")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    if known.name == "convnext_tiny":
        x = layers.LayerNormalization(epsilon=1e-6, name="head_norm")(x)
    if known.hidden:
        x = layers.Activation("hard_swish", name="hidden_act")(
            layers.Dense(known.hidden, name="hidden")(x)
        )
    if known.dropout:
        x = layers.Dropout(known.dropout, name="dropout")(x)
    return layers.Dense(classes, kernel_initializer=initializer, name=architecture_catalog.HEAD)(x)


def feature_model(model: keras.Model) -> keras.Model:
    """The network of a model made by `build` from images to pooled features (N, C), on the same
    weights.
    """
    output = model.get_layer(architecture_catalog.feature_layer(model.name)).output
    return keras.Model(
        model.input, layers.GlobalAveragePooling2D()(output), name=f"{model.name}_features"
    )


def macs(network: str | keras.Model, size: int = 224, classes: int = 1000) -> int:
    """Multiply-accumulates of one image, as `kit.models.macs.macs` counts them.

    Parameters
    ----------
    network : str or keras.Model
        An architecture, built for this size and these classes, or a model of fixed input size.
    """
    return macs_module.macs(build(network, classes, size) if isinstance(network, str) else network)
