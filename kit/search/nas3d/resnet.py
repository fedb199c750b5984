"""The hand-designed networks of MedMNIST3D's benchmark: ResNet-18 and ResNet-50 on volumes, in 3D,
2.5D and ACS.

He et al.'s ResNets in the form for small images: a 3x3 stem at stride 1 and no pooling behind it,
stages of 64, 128, 256 and 512 channels at strides 1, 2, 2 and 2, each 2D convolution made one of
volumes. "3d" takes k x k x k kernels, "2.5d" 1 x k x k, and "acs" (Yang et al.
2021) k x k kernels that a third of the output channels each applies to the axial, coronal and
sagittal plane. Strides act along all three axes in all three, as the published counts of
multiply-accumulates have it. Two things are ours: kernels start as PyTorch's layers do, the 2D
kernels of ImageNet are not used, and `width` makes a network narrower for computers without an
accelerator.

Layers carry PyTorch's module paths as names (``layer2.0.conv1``) and pad as PyTorch does, zeros on
both sides, so PyTorch's weights give the same function.
"""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from kit.errors import KitError
from kit.search.nas3d.layers import BatchNorm

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
VARIANTS = {"3d": "3D", "2.5d": "2.5D", "acs": "ACS"}
STAGES = (64, 128, 256, 512)


class BadResNet(KitError):
    """A network that this module does not have, or cannot build for such data."""


@keras.saving.register_keras_serializable(package="kit")
class ACSConv3D(layers.Layer):
    """Axial-coronal-sagittal convolution: a 2D kernel whose output channels are shared out to the
    three planes of a volume; no bias.

    The first channels, one more where the number leaves a remainder of 3, see depth slices (1 x k x
    k), the next k x 1 x k, the last k x k x 1.

    Parameters
    ----------
    filters, kernel_size, strides : int
    kernel_initializer
        As in Keras' Conv2D; the weight is one ``kernel`` (k, k, C, filters), and `kernel_size` // 2
        zeros pad both sides within each plane.
    """

    uses_kernel_once = (
        True  # `kit.models.macs.macs`: every weight acts once at each position of the output
    )

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        kernel_initializer: str | dict | keras.Initializer = "glorot_uniform",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.filters, self.kernel_size, self.strides = int(filters), int(kernel_size), int(strides)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: tuple) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
        )

    def shares(self) -> list:
        """Output channels of the axial, coronal and sagittal part."""
        return [(self.filters + 2 - part) // 3 for part in range(3)]

    def call(self, inputs: Any) -> Any:
        import tensorflow as tf

        parts, pad = [], self.kernel_size // 2
        for axis, kernel in enumerate(
            tf.split(tf.convert_to_tensor(self.kernel), self.shares(), -1)
        ):
            if kernel.shape[-1]:
                sides = [
                    [0, 0],
                    *([0, 0] if along == axis else [pad, pad] for along in range(3)),
                    [0, 0],
                ]
                padded = tf.pad(inputs, sides) if pad else inputs
                parts.append(
                    tf.nn.conv3d(
                        padded, tf.expand_dims(kernel, axis), [1, *[self.strides] * 3, 1], "VALID"
                    )
                )
        return tf.concat(parts, -1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (
            input_shape[0],
            *(None if size is None else -(-size // self.strides) for size in input_shape[1:4]),
            self.filters,
        )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


class _Maker:
    """Convolutions and normalisations of one network, every kernel from a seed of its own; kernels
    start uniform in +-1/sqrt(fan in).
    """

    def __init__(self, variant: str, seed: int):
        self.variant, self.seed, self.number = variant, seed, 0

    def start(self):
        self.number += 1
        return keras.initializers.VarianceScaling(
            1 / 3,
            "fan_in",
            "uniform",
            int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0] >> 1),
        )

    def conv(self, x, filters: int, kernel: int, stride: int, name: str):
        shared = {"strides": stride, "kernel_initializer": self.start(), "name": name}
        if self.variant == "acs" and kernel > 1:
            return ACSConv3D(filters, kernel, **shared)(x)
        size = (1, kernel, kernel) if self.variant == "2.5d" else (kernel,) * 3
        if stride > 1 and kernel > 1:  # Keras' "same" pads one side only
            x = layers.ZeroPadding3D(tuple(n // 2 for n in size), name=f"{name}.pad")(x)
        return layers.Conv3D(
            filters, size, padding="valid" if stride > 1 else "same", use_bias=False, **shared
        )(x)

    def norm(self, x, name: str, activation: str = "relu"):
        return BatchNorm(activation, momentum=0.9, epsilon=1e-5, name=name)(x)

    def join(self, x, entering, name: str):
        return layers.ReLU(name=f"{name}.out")(layers.Add(name=f"{name}.add")([x, entering]))

    def body(self, x, name: str, width: float):
        """Stem and stages, up to what the head averages."""
        widths = [max(1, round(n * width)) for n in STAGES]
        x = self.norm(self.conv(x, widths[0], 3, 1, "conv1"), "bn1")
        for stage, (filters, count) in enumerate(zip(widths, BLOCKS[name], strict=True), start=1):
            for number in range(count):
                x = self.block(
                    x,
                    filters,
                    2 if stage > 1 and number == 0 else 1,
                    name == "resnet50",
                    f"layer{stage}.{number}",
                )
        return x

    def block(self, x, width: int, stride: int, bottleneck: bool, name: str):
        """Basic block of two 3x3 convolutions, or bottleneck of 1x1, 3x3 and 1x1 to four times the
        width.
        """
        kernels, out, entering = ((1, 3, 1), 4 * width, x) if bottleneck else ((3, 3), width, x)
        for number, kernel in enumerate(kernels, start=1):
            last = number == len(kernels)
            x = self.conv(
                x,
                out if last else width,
                kernel,
                stride if number == len(kernels) - 1 else 1,
                f"{name}.conv{number}",
            )
            x = self.norm(x, f"{name}.bn{number}", "linear" if last else "relu")
        if stride > 1 or entering.shape[-1] != out:
            entering = self.norm(
                self.conv(entering, out, 1, stride, f"{name}.shortcut.0"),
                f"{name}.shortcut.1",
                "linear",
            )
        return self.join(x, entering, name)


class _Counter(_Maker):
    """Counts weights and multiply-accumulates of the same body; `x` is a shape (edge, channels)."""

    def __init__(self, variant: str):
        self.variant, self.weights, self.macs = variant, 0, 0

    def conv(self, x, filters: int, kernel: int, stride: int, name: str):
        edge = -(-x.edge // stride)
        size = kernel ** (3 if self.variant == "3d" else 2) * x.channels * filters
        self.weights, self.macs = self.weights + size, self.macs + size * edge**3
        return _Shape(edge, filters)

    def norm(self, x, name: str, activation: str = "relu"):
        self.weights += 2 * x.channels
        return x

    def join(self, x, entering, name: str):
        return x


@dataclass(frozen=True)
class _Shape:
    edge: int
    channels: int

    @property
    def shape(self):
        return (None, *[self.edge] * 3, self.channels)


def build(
    name: str,
    variant: str = "3d",
    classes: int = 2,
    edge: int = 28,
    channels: int = 1,
    width: float = 1.0,
    seed: int = 0,
) -> keras.Model:
    """Build a network with seeded random weights.

    Parameters
    ----------
    name : {"resnet18", "resnet50"}
    variant : {"3d", "2.5d", "acs"}
    classes : int
        Logits, at least 2.
    edge, channels : int
        Of the volumes: voxels along each axis, and channels.
    width : float
        Factor on the channels of every stage; 1 is published, anything else a reduction that
        results must declare, see `reduction`.
    seed : int
        Fixes the initial weights.

    Returns
    -------
    keras.Model
        Flat functional model: float32 (N, edge, edge, edge, channels) to logits (N, classes). The
        layer that the head averages: `kit.models.backbones.last_map`.

    Raises
    ------
    BadResNet
    """
    _check(name, variant, classes=classes, edge=edge, channels=channels, width=width, seed=seed)
    make, inputs = _Maker(variant, seed), layers.Input((edge, edge, edge, channels), name="volume")
    x = make.body(inputs, name, width)
    x = layers.GlobalAveragePooling3D(name="gap")(x)
    bound = 1 / math.sqrt(x.shape[-1])
    bias = keras.initializers.RandomUniform(-bound, bound, seed)
    return keras.Model(
        inputs,
        layers.Dense(
            classes, kernel_initializer=make.start(), bias_initializer=bias, name="linear"
        )(x),
        name=f"{name}_{variant}",
    )


def _check(name, variant, *, classes, edge, channels, width, seed) -> None:
    if name not in BLOCKS or variant not in VARIANTS:
        raise BadResNet(
            f"There is no {name!r} in {variant!r}; choose one of {', '.join(BLOCKS)} in one of "
            f"{', '.join(VARIANTS)}."
        )
    for what, value, least in (
        ("classes", classes, 2),
        ("edge", edge, 1),
        ("channels", channels, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise BadResNet(
                f"{title(name, variant)} cannot be built with {what} {value!r}; give a whole "
                f"number from {least} on."
            )
    if not 0 < width <= 4:
        raise BadResNet(
            f"{title(name, variant)}: width is {width!r}; give a factor above 0 and at most 4, 1 "
            "for the published network."
        )


def title(name: str, variant: str) -> str:
    """Name for tables, such as "ResNet-18 (ACS)"."""
    return f"ResNet-{name.removeprefix('resnet')} ({VARIANTS[variant]})"


def reduction(width: float) -> str:
    """The sentence that results of a narrower network must carry; empty at width 1."""
    return "" if width == 1 else f"ResNets {width:g} times as wide as published"


def costs(
    name: str,
    variant: str = "3d",
    classes: int = 2,
    edge: int = 28,
    channels: int = 1,
    width: float = 1.0,
) -> tuple:
    """Trainable parameters and multiply-accumulates of one volume, from shapes alone.

    Raises
    ------
    BadResNet
    """
    _check(name, variant, classes=classes, edge=edge, channels=channels, width=width, seed=0)
    counter = _Counter(variant)
    last = counter.body(_Shape(edge, channels), name, width).channels
    return counter.weights + (last + 1) * classes, counter.macs + last * classes
