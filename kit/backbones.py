"""The six ImageNet networks of the CAD paper, fully fine-tuned, and the two other backbones of the kit.

Built as the authors' code builds them (card sections 4.1, 4.2): no layer is frozen although the paper speaks of freezing, the head is global
average pooling, dropout 0.4 and four softmax units, and images enter as blue, green, red in [0, 1] whatever the ImageNet weights were
trained on. Three things differ. The softmax is a layer of its own, ``probability``, after the linear ``logit`` that Grad-CAM needs: one
layer more than published, the same parameters and the same function. ``matched=True`` puts the scaling that the weights expect in front.
Where ImageNet weights cannot be fetched the networks start at random, and `kit.weights.initialisation` has the sentence that results must carry.
"""

import contextlib
import math
import random
from dataclasses import dataclass

import keras
from keras import layers

from kit.errors import KitError
from kit.lite0 import efficientnet_lite0


class UnknownBackbone(KitError):
    """A backbone name that is not in the registry."""


class InputTooSmall(KitError):
    """An input below the smallest that a backbone can be built for."""


class UncountedLayer(KitError):
    """A layer whose multiply-accumulates `macs` does not know how to count."""


@dataclass(frozen=True)
class Backbone:
    """What a caller needs to know of an ImageNet backbone.

    Attributes
    ----------
    name, title : str
        Key of the registry (also the Keras model's name), and the name for tables.
    preprocess : str
        Scaling that the weights were trained with, a mode of `kit.models.scale`.
    last_conv_layer : str
        Layer for Grad-CAM, the last spatial activation; empty where Keras numbers its name, see `gradcam_layer`.
    note : str
        Where the architecture comes from.
    stages : tuple of str
        Layers that end the stages, from large maps to small; an empty name stands for the Grad-CAM layer.
    factory : str
        Function of ``keras.applications``; empty for `kit.lite0`.
    input_size, smallest : int
        Side of the input in the CAD paper, and the smallest side that works, in pixels.
    in_paper : bool
        Whether it is one of the six networks of the CAD paper.
    """

    name: str
    title: str
    preprocess: str
    last_conv_layer: str
    note: str
    stages: tuple
    factory: str = ""
    input_size: int = 200
    smallest: int = 32
    in_paper: bool = True

    @property
    def label(self) -> str:
        """Title for the CAD paper's tables, which marks networks that the paper does not have."""
        return self.title if self.in_paper else f"{self.title} (not in the paper)"


_RESNET = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out")
_SOURCE = "keras.applications, "

BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone("resnet50v2", "ResNet50V2", "tf", "post_relu", _SOURCE + "He et al. 2016", ("conv1_conv", *_RESNET, "post_relu"), "ResNet50V2", in_paper=False),
        Backbone("efficientnet_lite0", "EfficientNet-Lite0", "lite", "top_relu", "Tan and Le 2019 without squeeze-excitation, with ReLU6",
                 ("stem_relu", "block2_add", "block4_add", "block10_add", "top_relu"), in_paper=False),
        Backbone("resnet50", "ResNet-50", "caffe", "conv5_block3_out", _SOURCE + "He et al. 2015", ("conv1_relu", *_RESNET, "conv5_block3_out"), "ResNet50"),
        Backbone("vgg19", "VGG19", "caffe", "block5_conv4", _SOURCE + "Simonyan and Zisserman 2014; the head reads block5_pool",
                 ("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4"), "VGG19"),
        Backbone("mobilenetv2", "MobileNetV2", "tf", "out_relu", _SOURCE + "Sandler et al. 2018",
                 ("Conv1_relu", "block_2_add", "block_5_add", "block_12_add", "out_relu"), "MobileNetV2"),
        Backbone("inceptionv3", "InceptionV3", "tf", "mixed10", _SOURCE + "Szegedy et al. 2015", ("mixed2", "mixed7", "mixed10"), "InceptionV3", smallest=75),
        Backbone("nasnetlarge", "NASNetLarge", "tf", "", _SOURCE + "Zoph et al. 2017",
                 ("reduction_concat_stem_1", "normal_concat_5", "normal_concat_12", ""), "NASNetLarge", 331),
        # Xception's residual sums have numbered names; these are the ReLUs that read them
        Backbone("xception", "Xception", "tf", "block14_sepconv2_act", _SOURCE + "Chollet 2016",
                 ("block1_conv2_act", "block3_sepconv1_act", "block4_sepconv1_act", "block13_sepconv1_act", "block14_sepconv2_act"), "Xception", smallest=71),
    )
}


def entry(name: str) -> Backbone:
    """Return the registry entry of a backbone.

    Raises
    ------
    UnknownBackbone
    """
    if name not in BACKBONES:
        raise UnknownBackbone(f"There is no backbone {name!r}; choose one of {', '.join(BACKBONES)}.")
    return BACKBONES[name]


def paper_networks() -> tuple:
    """Names of the six networks of the CAD paper."""
    return tuple(name for name, known in BACKBONES.items() if known.in_paper)


def build(name: str, input_size: int, inputs=None) -> keras.Model:
    """Build a network without its classifier and without weights.

    Parameters
    ----------
    name : str
        Key of `BACKBONES`.
    input_size : int
        Side of the square three-channel input in pixels.
    inputs : keras.KerasTensor, optional
        Tensor (N, input_size, input_size, 3) to build on; None makes an input layer.

    Returns
    -------
    keras.Model
        Named `name`, everything trainable, weights drawn from Keras' global seed; output (N, h, w, c).

    Raises
    ------
    UnknownBackbone, InputTooSmall
    """
    known = entry(name)
    if input_size < known.smallest:
        raise InputTooSmall(f"{known.title} needs inputs of {known.smallest} pixels or more, not {input_size}; enlarge them or choose another backbone.")
    if not known.factory:
        return efficientnet_lite0(input_size, inputs=inputs)
    source = {"input_shape": (input_size, input_size, 3)} if inputs is None else {"input_tensor": inputs}
    return getattr(keras.applications, known.factory)(include_top=False, weights=None, name=name, **source)


def fine_tuned(name, input_size=None, classes=4, dropout=0.4, weights="auto", seed=None, bn_momentum=None, matched=False) -> keras.Model:
    """Build a network of the CAD paper for full fine-tuning (card section 4.1): GAP, dropout, one dense layer, softmax; nothing frozen.

    Parameters
    ----------
    name : str
        Key of `BACKBONES`.
    input_size : int, optional
        Side of the square input; None takes the published one, 200 or 331 pixels.
    classes : int
        Softmax units.
    dropout : float
        Rate before the dense layer; 0 leaves the dropout layer out.
    weights : {"auto", "imagenet", None}
        ImageNet if they can be had and else random; ImageNet or an error; random. `kit.weights.initialisation` tells what "auto" takes,
        for the record of the run.
    seed : int, optional
        Fixes random initial weights and dropout masks; None takes Keras' global seed.
    bn_momentum : float, optional
        Momentum of every BatchNormalization layer; None leaves each network's own (Keras' MobileNetV2 has 0.999, so that its moving
        statistics need thousands of steps).
    matched : bool
        Put a fixed layer in front that turns [0, 1] BGR into what the ImageNet weights were trained on. A departure from the publication.

    Returns
    -------
    keras.Model
        Flat functional model; takes float32 (N, S, S, 3), blue, green, red in [0, 1], gives probabilities (N, classes).

    Raises
    ------
    UnknownBackbone, InputTooSmall
    kit.weights.WeightsUnavailable
        Only if "imagenet" is asked for.
    """
    from kit import models
    from kit import weights as pretrained

    size = input_size or entry(name).input_size
    start = pretrained.initialisation(name, weights)
    inputs = layers.Input((size, size, 3), name="image")
    with _seeded(seed):
        base = build(name, size, matched_input(inputs, entry(name).preprocess) if matched else inputs)
    if start.weights:
        pretrained.load(base, name)
    if bn_momentum is not None:
        for layer in base.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = float(bn_momentum)
    return keras.Model(inputs, models.classifier_head(base.output, "gap", None, dropout, classes, seed), name=f"{name}_fine_tuned")


@contextlib.contextmanager
def _seeded(seed):
    """Seed Python's generator, from which Keras draws the seeds of unseeded initialisers, and put its state back afterwards."""
    if seed is None:
        yield
        return
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def matched_input(images, mode: str):
    """Fixed layers from BGR in [0, 1] to what ImageNet weights expect; without parameters, saved with the model.

    Parameters
    ----------
    images : keras.KerasTensor
        (N, H, W, 3), blue, green, red.
    mode : {"caffe", "tf", "lite"}
        BGR minus the ImageNet mean of 0..255; RGB in [-1, 1]; RGB as (x - 127)/128.
    """
    if mode == "caffe":
        return layers.Rescaling(255.0, [-103.939, -116.779, -123.68], name="matched_scale")(images)
    scale, offset = {"tf": (2.0, -1.0), "lite": (255 / 128, -127 / 128)}[mode]
    return layers.Rescaling(scale, offset, name="matched_scale")(keras.ops.flip(images, axis=-1))


def gradcam_layer(model: keras.Model, name: str) -> str:
    """Layer for Grad-CAM of a model made by `fine_tuned`; by position where its name is numbered anew in every process (NASNetLarge)."""
    return entry(name).last_conv_layer or last_map(model)


def last_map(model: keras.Model) -> str:
    """Name of the layer whose feature map the head averages; it is the Grad-CAM layer but for VGG19, which pools once more."""
    return model.get_layer("gap").input._keras_history.operation.name


def stage_layers(model: keras.Model, name: str) -> list:
    """Names of the layers that end the stages of a model made by `fine_tuned`, from large maps to small; ResNet-50's are S1 to S5."""
    return [stage or gradcam_layer(model, name) for stage in entry(name).stages]


_COUNTED = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.SeparableConv1D, layers.SeparableConv2D)


def macs(model: keras.Model, table: bool = False):
    """Count the multiply-accumulates of one image: convolutions (also depthwise, grouped and separable) and dense layers.

    Every entry of a kernel is used once at each position of the layer's output. Biases, BatchNormalization, activations, pooling and
    additions are left out, as usual; they are a few per cent at most.

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
    import pandas as pd

    return pd.DataFrame([{"layer": layer.name, "type": type(layer).__name__, "output_shape": tuple(layer.output.shape[1:]),
                          "parameters": layer.count_params(), "macs": count} for layer, count in zip(model.layers, counts, strict=True)])


def _layer_macs(layer) -> int:
    kernels = [math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1]
    if not kernels:
        return 0
    if not (type(layer) in _COUNTED or getattr(layer, "uses_kernel_once", False)) or None in layer.output.shape[1:]:
        raise UncountedLayer(f"Multiply-accumulates of layer {layer.name} ({type(layer).__name__}) cannot be counted; give a flat model of convolutions and dense "
                             "layers with a fixed input size.")
    return math.prod(layer.output.shape[1:-1]) * sum(kernels)
