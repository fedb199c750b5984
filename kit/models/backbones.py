"""The six ImageNet networks of the CAD paper, fully fine-tuned, and the two other backbones of the
kit.

Built as the authors' code builds them: no layer is frozen although the
paper speaks of freezing, the head is global average pooling, dropout 0.4 and four softmax units,
and images enter as blue, green, red in [0, 1] whatever the ImageNet weights were trained on. Three
things differ. The softmax is a layer of its own, ``probability``, after the linear ``logit`` that
Grad-CAM needs: one layer more than published, the same parameters and the same function.
``matched=True`` puts the scaling that the weights expect in front. Where ImageNet weights cannot be
fetched the networks start at random, and `kit.models.weights.initialisation` has the sentence that
results must carry.
"""

import keras
from keras import layers

from kit.models import backbone_catalog, heads, pretrained, seeds
from kit.models import weights as weights_module
from kit.models.backbone_catalog import InputTooSmall
from kit.models.lite0 import efficientnet_lite0


def build(name: str, input_size: int, inputs: keras.KerasTensor | None = None) -> keras.Model:
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
        Named `name`, everything trainable, weights drawn from Keras' global seed; output (N, h, w,
        c).

    Raises
    ------
    UnknownBackbone, InputTooSmall
    """
    known = backbone_catalog.entry(name)
    if input_size < known.smallest:
        raise InputTooSmall(
            f"{known.title} needs inputs of {known.smallest} pixels or more, not {input_size}; "
            "enlarge them or choose another backbone."
        )
    if not known.factory:
        return efficientnet_lite0(input_size, inputs=inputs)
    source = (
        {"input_shape": (input_size, input_size, 3)} if inputs is None else {"input_tensor": inputs}
    )
    return getattr(keras.applications, known.factory)(
        include_top=False, weights=None, name=name, **source
    )


def fine_tuned(
    name: str,
    input_size: int | None = None,
    classes: int = 4,
    dropout: float = 0.4,
    weights: str | None = "auto",
    seed: int | None = None,
    bn_momentum: float | None = None,
    matched: bool = False,
) -> keras.Model:
    """Build a network of the CAD paper for full fine-tuning: GAP, dropout, one
    dense layer, softmax; nothing frozen.

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
    weights : {"auto", "imagenet", "imagenet_quantised", None}
        ImageNet if they can be had and else random; ImageNet or an error (Keras' file, or that of a
        quantised model); random.
        `kit.models.weights.initialisation` tells what "auto" takes, for the record of the run.
    seed : int, optional
        Fixes random initial weights and dropout masks; None takes Keras' global seed.
    bn_momentum : float, optional
        Momentum of every BatchNormalization layer; None leaves each network's own (Keras'
        MobileNetV2 has 0.999, so that its moving statistics need thousands of steps).
    matched : bool
        Put a fixed layer in front that turns [0, 1] BGR into what the ImageNet weights were trained
        on. A departure from the publication.

    Returns
    -------
    keras.Model
        Flat functional model; takes float32 (N, S, S, 3), blue, green, red in [0, 1], gives
        probabilities (N, classes).

    Raises
    ------
    UnknownBackbone, InputTooSmall
    kit.models.weights.WeightsUnavailable
        Only if "imagenet" is asked for.
    """
    size = input_size or backbone_catalog.entry(name).input_size
    start = weights_module.initialisation(name, weights)
    inputs = layers.Input((size, size, 3), name="image")
    with seeds._seeded(seed):
        base = build(
            name,
            size,
            matched_input(inputs, backbone_catalog.entry(name).preprocess) if matched else inputs,
        )
    if start.weights:
        pretrained.load(base, name, start.weights)
    if bn_momentum is not None:
        for layer in base.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = float(bn_momentum)
    return keras.Model(
        inputs,
        heads.classifier_head(
            base.output, "gap", dense=None, dropout=dropout, classes=classes, seed=seed
        ),
        name=f"{name}_fine_tuned",
    )


def matched_input(images: keras.KerasTensor, mode: str) -> keras.KerasTensor:
    """Fixed layers from BGR in [0, 1] to what ImageNet weights expect; without parameters, saved
    with the model.

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
    """Layer for Grad-CAM of a model made by `fine_tuned`; by position where its name is numbered
    anew in every process (NASNetLarge).
    """
    return backbone_catalog.entry(name).last_conv_layer or last_map(model)


def last_map(model: keras.Model) -> str:
    """Name of the layer whose feature map the head averages; it is the Grad-CAM layer but for
    VGG19, which pools once more.
    """
    return model.get_layer("gap").input._keras_history.operation.name


def stage_layers(model: keras.Model, name: str) -> list:
    """Names of the layers that end the stages of a model made by `fine_tuned`, from large maps to
    small; ResNet-50's are S1 to S5.
    """
    return [stage or gradcam_layer(model, name) for stage in backbone_catalog.entry(name).stages]
