"""The bodies of the seven networks of the thesis that keras.applications lacks: RegNetY/X-400MF,
ShuffleNetV2 x1.0/1.5/2.0, MNASNet 1.0, SqueezeNet 1.1.

The thesis takes them from torchvision with ImageNet weights. Here they are written from their
papers' descriptions (Radosavovic et al. 2020, Ma et al. 2018, Tan et al. 2019, Iandola et al. 2016)
as flat functional graphs, so that every convolution's output can be tapped. Each layer carries
PyTorch's module path as its name and pads as PyTorch does (zeros on both sides, where Keras' "same"
would pad a strided layer on one), so PyTorch weights give the same function;
`kit.models.ported_weights` loads them. Grouped convolutions have a layer of their own, because
Keras compiles each of them anew by XLA for every size of the map. Without weights, kernels start as
RegNet's do (He normal, fan out) and SqueezeNet's as its own.
"""

from typing import Any

import keras
from keras import layers, ops

from kit import compat  # before TensorFlow: silences its start-up log

# Keras keeps `momentum` of the old moving statistics, PyTorch 1 - momentum of them
_BN = {"regnet": (1e-5, 0.9), "shufflenet": (1e-5, 0.9), "mnasnet": (1e-5, 0.9997)}
REGNETS: dict[str, dict[str, Any]] = {
    "regnety_400mf": {
        "depths": (1, 3, 6, 6),
        "widths": (48, 104, 208, 440),
        "group_width": 8,
        "squeeze": 0.25,
    },
    "regnetx_400mf": {
        "depths": (1, 2, 7, 12),
        "widths": (32, 64, 160, 400),
        "group_width": 16,
        "squeeze": None,
    },
}
SHUFFLENETS = {
    "shufflenetv2_x1.0": (116, 232, 464, 1024),
    "shufflenetv2_x1.5": (176, 352, 704, 1024),
    "shufflenetv2_x2.0": (244, 488, 976, 2048),
}
# kernel, stride of the first block, expansion, output channels, blocks
MNASNET_STACKS = (
    (3, 2, 3, 24, 3),
    (5, 2, 3, 40, 3),
    (5, 2, 6, 80, 3),
    (3, 1, 6, 96, 2),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# squeezed and expanded channels of a fire module, "pool" for a pooling layer; PyTorch counts the
# entries from features.2
SQUEEZENET_FEATURES: tuple[str | tuple[int, int], ...] = (
    "pool",
    (16, 64),
    (16, 64),
    "pool",
    (32, 128),
    (32, 128),
    "pool",
    (48, 192),
    (48, 192),
    (64, 256),
    (64, 256),
)


@keras.saving.register_keras_serializable(package="kit")
class ShuffleChannels(layers.Layer):
    """Interleave the two halves of the channels: channels 0 1 2 3 become 0 2 1 3 (ShuffleNet's
    shuffle with two groups); any map size.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        shape = ops.shape(inputs)
        x = ops.reshape(inputs, (-1, shape[1], shape[2], 2, inputs.shape[-1] // 2))
        return ops.reshape(ops.swapaxes(x, -1, -2), (-1, shape[1], shape[2], inputs.shape[-1]))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


@keras.saving.register_keras_serializable(package="kit")
class GroupedConv2D(layers.Conv2D):
    """A `Conv2D` with groups that calls TensorFlow's operation as it is; channels last.

    Where that has no gradients (CPUs without oneDNN), `kit.compat.grouped_convolution` adds them.
    """

    uses_kernel_once = (
        True  # `kit.models.macs.macs`: every weight acts once at each position of the output
    )

    def convolution_op(
        self, inputs: keras.KerasTensor, kernel: keras.KerasTensor
    ) -> keras.KerasTensor:
        return compat.grouped_convolution(
            inputs, kernel, self.strides, self.padding.upper(), self.dilation_rate
        )


def conv(  # noqa: PLR0913 - PyTorch's arguments of a convolution
    x: keras.KerasTensor,
    name: str,
    filters: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    pad: bool = True,
    initializer: keras.initializers.Initializer | None = None,
) -> keras.KerasTensor:
    """A convolution named as in PyTorch, with PyTorch's padding of ``kernel // 2`` zeros on every
    side.

    With as many groups as channels it is a `DepthwiseConv2D`. At stride 1 Keras' "same" is that
    padding; at larger strides a `ZeroPadding2D` does it.
    """
    initializer = initializer or keras.initializers.VarianceScaling(
        2.0, "fan_out", "untruncated_normal"
    )
    strided = stride > 1 and kernel > 1
    if strided and pad:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}.pad")(x)
    shared = {
        "strides": stride,
        "padding": "valid" if strided or not pad else "same",
        "use_bias": bias,
        "name": name,
    }
    if groups > 1 and groups == x.shape[-1] == filters:
        return layers.DepthwiseConv2D(kernel, depthwise_initializer=initializer, **shared)(x)
    kind = GroupedConv2D if groups > 1 else layers.Conv2D
    return kind(filters, kernel, groups=groups, kernel_initializer=initializer, **shared)(x)


def _norm(x, name: str, family: str, relu: bool = True, last: str | None = None):
    epsilon, momentum = _BN[family]
    x = layers.BatchNormalization(epsilon=epsilon, momentum=momentum, name=name)(x)
    return layers.ReLU(name=last or f"{name}.relu")(x) if relu else x


def regnet(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """RegNetY-400MF or RegNetX-400MF up to the last feature map (N, h/32, w/32, 440 or 400), layer
    ``features``.
    """
    settings = REGNETS[name]
    x = _norm(conv(x, "stem.0", 32, 3, 2), "stem.1", "regnet")
    for stage, (depth, width) in enumerate(
        zip(settings["depths"], settings["widths"], strict=True), 1
    ):
        for number in range(depth):
            final = stage == 4 and number == depth - 1
            path = f"trunk_output.block{stage}.block{stage}-{number}"
            x = _regnet_block(
                x,
                path,
                width=width,
                stride=1 if number else 2,
                groups=width // settings["group_width"],
                squeeze=settings["squeeze"],
                last="features" if final else None,
            )
    return x


def _regnet_block(
    x, name: str, width: int, stride: int, groups: int, squeeze: float | None, last: str | None
):
    entering, shortcut = x.shape[-1], x
    if stride > 1 or entering != width:
        shortcut = _norm(
            conv(x, f"{name}.proj.0", width, 1, stride), f"{name}.proj.1", "regnet", relu=False
        )
    x = _norm(conv(x, f"{name}.f.a.0", width), f"{name}.f.a.1", "regnet")
    x = _norm(
        conv(x, f"{name}.f.b.0", filters=width, kernel=3, stride=stride, groups=groups),
        f"{name}.f.b.1",
        "regnet",
    )
    if squeeze:
        x = _squeeze_excite(x, f"{name}.f.se", round(squeeze * entering))
    x = _norm(conv(x, f"{name}.f.c.0", width), f"{name}.f.c.1", "regnet", relu=False)
    return layers.ReLU(name=last or f"{name}.relu")(layers.Add(name=f"{name}.add")([shortcut, x]))


def _squeeze_excite(x, name: str, hidden: int):
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.avgpool")(x)
    gate = layers.ReLU(name=f"{name}.relu")(conv(gate, f"{name}.fc1", hidden, bias=True))
    gate = layers.Activation("sigmoid", name=f"{name}.sigmoid")(
        conv(gate, f"{name}.fc2", x.shape[-1], bias=True)
    )
    return layers.Multiply(name=f"{name}.scale")([x, gate])


def shufflenet(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """ShuffleNetV2 up to the last feature map (N, h/32, w/32, 1024 or 2048), layer ``features``;
    ``stage4`` is the output of its last unit.
    """
    *widths, final = SHUFFLENETS[name]
    x = _norm(conv(x, "conv1.0", 24, 3, 2), "conv1.1", "shufflenet")
    x = layers.MaxPooling2D(3, 2, name="maxpool")(layers.ZeroPadding2D(1, name="maxpool.pad")(x))
    for stage, (width, units) in enumerate(zip(widths, (4, 8, 4), strict=True), 2):
        for unit in range(units):
            x = _shuffle_unit(x, f"stage{stage}.{unit}", width // 2, 1 if unit else 2)
            x = ShuffleChannels(
                name=f"stage{stage}" if unit == units - 1 else f"stage{stage}.{unit}.shuffle"
            )(x)
    return _norm(conv(x, "conv5.0", final), "conv5.1", "shufflenet", last="features")


def _shuffle_unit(x, name: str, half: int, stride: int):
    if stride == 1:
        kept, x = ops.split(x, 2, axis=-1)
    else:
        kept = _norm(
            conv(
                x, f"{name}.branch1.0", filters=x.shape[-1], kernel=3, stride=2, groups=x.shape[-1]
            ),
            f"{name}.branch1.1",
            "shufflenet",
            relu=False,
        )
        kept = _norm(conv(kept, f"{name}.branch1.2", half), f"{name}.branch1.3", "shufflenet")
    x = _norm(conv(x, f"{name}.branch2.0", half), f"{name}.branch2.1", "shufflenet")
    x = _norm(
        conv(x, f"{name}.branch2.3", filters=half, kernel=3, stride=stride, groups=half),
        f"{name}.branch2.4",
        "shufflenet",
        relu=False,
    )
    x = _norm(conv(x, f"{name}.branch2.5", half), f"{name}.branch2.6", "shufflenet")
    return layers.Concatenate(name=f"{name}.concat")([kept, x])


def mnasnet(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """MNASNet 1.0 (the variant without squeeze-and-excitation) up to the last feature map (N, h/32,
    w/32, 1280), layer ``features``.
    """
    x = _norm(conv(x, "layers.0", 32, 3, 2), "layers.1", "mnasnet")
    x = _norm(conv(x, "layers.3", filters=32, kernel=3, stride=1, groups=32), "layers.4", "mnasnet")
    x = _norm(conv(x, "layers.6", 16), "layers.7", "mnasnet", relu=False)
    for stack, (kernel, stride, expansion, filters, blocks) in enumerate(MNASNET_STACKS, 8):
        for block in range(blocks):
            x = _inverted_residual(
                x,
                f"layers.{stack}.{block}.layers",
                kernel=kernel,
                stride=1 if block else stride,
                expansion=expansion,
                filters=filters,
            )
    return _norm(conv(x, "layers.14", 1280), "layers.15", "mnasnet", last="features")


def _inverted_residual(inputs, name: str, kernel: int, stride: int, expansion: int, filters: int):
    entering = inputs.shape[-1]
    wide = entering * expansion
    x = _norm(conv(inputs, f"{name}.0", wide), f"{name}.1", "mnasnet")
    x = _norm(
        conv(x, f"{name}.3", filters=wide, kernel=kernel, stride=stride, groups=wide),
        f"{name}.4",
        "mnasnet",
    )
    x = _norm(conv(x, f"{name}.6", filters), f"{name}.7", "mnasnet", relu=False)
    return layers.Add(name=f"{name}.add")([inputs, x]) if stride == 1 and entering == filters else x


def squeezenet(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """SqueezeNet 1.1 up to the last fire module (N, h/16, w/16, 512), layer ``features``; no
    BatchNormalization, every convolution with bias.
    """
    he = keras.initializers.HeUniform
    x = layers.ReLU(name="features.1")(
        conv(x, "features.0", 64, 3, 2, bias=True, pad=False, initializer=he())
    )
    for number, entry in enumerate(SQUEEZENET_FEATURES, 2):
        if isinstance(entry, str):
            x = _ceil_pool(x, f"features.{number}")
        else:
            x = _fire(
                x,
                f"features.{number}",
                entry[0],
                entry[1],
                he,
                "features" if number == 12 else f"features.{number}.concat",
            )
    return x


def _ceil_pool(x, name: str):
    """3 x 3 maxima at stride 2 with the size rounded up as PyTorch's ceil_mode does; x is not
    negative, so a zero never wins.
    """
    return layers.MaxPooling2D(3, 2, name=name)(
        layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}.pad")(x)
    )


def _fire(x, name: str, squeeze: int, expand: int, he, last: str):
    x = layers.ReLU(name=f"{name}.squeeze.relu")(
        conv(x, f"{name}.squeeze", squeeze, bias=True, initializer=he())
    )
    parts = [
        layers.ReLU(name=f"{name}.{part}.relu")(
            conv(x, f"{name}.{part}", expand, kernel, bias=True, initializer=he())
        )
        for part, kernel in (("expand1x1", 1), ("expand3x3", 3))
    ]
    return layers.Concatenate(name=last)(parts)
