"""The audience of LeaSE: ResNet-18 and VGG-13 as pure functions of their weights.

The publication names the two networks and nothing more. ResNet-18 is torchvision's, with its 7x7
stem or the 3x3 stem usual for small images; VGG-13 has no BatchNorm and the head 512-512-classes
behind the flattened map that fits the publication's parameter counts. Keras layers
hold their weights as variables, which cannot be differentiated twice as LeaSE needs it; here the
weights are a flat list of tensors. BatchNorm always uses the statistics of the batch. Two things
are the kit's own: `width` makes the same network thinner for small machines, and weights start as
He normal (torchvision's choice for convolutions; with PyTorch's default a VGG-13 without BatchNorm
loses its signal).
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from kit.errors import KitError
from kit.search.nas2d import batchnorm

NAMES, STEMS = ("resnet18", "vgg13"), ("3x3", "7x7")
STAGES = (1, 2, 4, 8)  # widths of ResNet-18 in units of `width`, two blocks each
CONVOLUTIONS = (1, 1, 2, 2, 4, 4, 8, 8, 8, 8)  # widths of VGG-13, a pool behind every second


class UnknownAudience(KitError):
    """There is no such audience, or it has no such option."""


def weight_shapes(
    name: str, classes: int, size: int, stem: str = "3x3", width: int = 64, input_channels: int = 3
) -> list:
    """List the trainable weights of an audience.

    Parameters
    ----------
    name : {"resnet18", "vgg13"}
    classes, size : int
        Size is the side of the images in pixels; only VGG-13's head depends on it.
    stem : {"3x3", "7x7"}
        Of ResNet-18: stride 1, or stride 2 and a max-pool. Without effect on VGG-13.
    width : int
        Channels of the first stage; 64 is the published network, less is a reduction to be
        declared.
    input_channels : int

    Returns
    -------
    list of (str, tuple)
        Name and shape in TensorFlow's layout; ".norm" holds scale and shift of a BatchNorm as two
        rows.

    Raises
    ------
    UnknownAudience
    """
    if name not in NAMES:
        raise UnknownAudience(f"There is no audience {name!r}; choose one of {', '.join(NAMES)}.")
    if stem not in STEMS or width < 1:
        raise UnknownAudience(
            f"An audience with stem {stem!r} and width {width} cannot be built; the stem is 3x3 or "
            "7x7, the width 1 or more."
        )
    if name == "vgg13" and size < 32:
        raise UnknownAudience(
            f"VGG-13 halves the image five times and needs 32 pixels or more, not {size}; enlarge "
            "the images or choose resnet18."
        )
    return (
        _resnet_shapes(classes, stem, width, input_channels)
        if name == "resnet18"
        else _vgg_shapes(classes, size, width, input_channels)
    )


def _resnet_shapes(classes, stem, width, channels):
    side = int(stem[0])
    shapes = [("stem.kernel", (side, side, channels, width)), ("stem.norm", (2, width))]
    before = width
    for stage, multiple in enumerate(STAGES):
        after = multiple * width
        for block in range(2):
            at = f"stage{stage + 1}.block{block + 1}"
            shapes += [
                (f"{at}.1.kernel", (3, 3, before, after)),
                (f"{at}.1.norm", (2, after)),
                (f"{at}.2.kernel", (3, 3, after, after)),
                (f"{at}.2.norm", (2, after)),
            ]
            if before != after:
                shapes += [
                    (f"{at}.shortcut.kernel", (1, 1, before, after)),
                    (f"{at}.shortcut.norm", (2, after)),
                ]
            before = after
    return [*shapes, ("classifier.kernel", (before, classes)), ("classifier.bias", (classes,))]


def _vgg_shapes(classes, size, width, channels):
    shapes, before = [], channels
    for number, multiple in enumerate(CONVOLUTIONS, start=1):
        after = multiple * width
        shapes += [
            (f"convolution{number}.kernel", (3, 3, before, after)),
            (f"convolution{number}.bias", (after,)),
        ]
        before = after
    before *= (size // 32) ** 2
    for layer, after in (("dense1", 8 * width), ("dense2", 8 * width), ("classifier", classes)):
        shapes += [(f"{layer}.kernel", (before, after)), (f"{layer}.bias", (after,))]
        before = after
    return shapes


def initial_weights(
    name: str, classes: int, size: int, seed: int, dtype: str = "float32", **options: Any
) -> list:
    """Draw the weights of an audience: He normal kernels (by the outputs of convolutions, the
    inputs of dense layers), no bias, neutral BatchNorm.

    Parameters
    ----------
    name, classes, size, **options : see :func:`weight_shapes`
    seed : int
    dtype : str

    Returns
    -------
    list of np.ndarray

    Raises
    ------
    UnknownAudience
    """
    rng, weights = np.random.default_rng([seed, 0xA0D1]), []
    for label, shape in weight_shapes(name, classes, size, **options):
        if label.endswith(".norm"):
            weights.append(np.stack([np.ones(shape[1]), np.zeros(shape[1])]))
        elif label.endswith(".bias"):
            weights.append(np.zeros(shape))
        else:
            fan, gain = (
                (shape[0], 1 if label.startswith("classifier") else 2)
                if len(shape) == 2
                else (shape[0] * shape[1] * shape[3], 2)
            )
            weights.append(rng.standard_normal(shape) * math.sqrt(gain / fan))
    return [w.astype(dtype) for w in weights]


def parameters(name: str, classes: int, size: int, **options: Any) -> int:
    """Count the trainable parameters of an audience (options as in :func:`weight_shapes`)."""
    return sum(math.prod(shape) for _, shape in weight_shapes(name, classes, size, **options))


def forward(name: str, weights: list, x: tf.Tensor) -> tf.Tensor:
    """Return the logits of a batch; BatchNorm uses the batch's own statistics. Stem and width show
    in the shapes of the weights.

    Parameters
    ----------
    name : {"resnet18", "vgg13"}
    weights : list of tf.Tensor
        As :func:`weight_shapes` lists them.
    x : tf.Tensor
        Float (N, size, size, channels).

    Returns
    -------
    tf.Tensor
        (N, classes)

    Raises
    ------
    UnknownAudience
    """
    if name not in NAMES:
        raise UnknownAudience(f"There is no audience {name!r}; choose one of {', '.join(NAMES)}.")
    return (_resnet if name == "resnet18" else _vgg)(iter(weights), x)


def _resnet(weights, x):
    kernel = next(weights)
    large = kernel.shape[0] == 7
    x = tf.nn.relu(_normalised(_convolved(x, kernel, 2 if large else 1), next(weights)))
    if large:
        x = tf.nn.max_pool2d(
            tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID"
        )  # zeros are no larger than what ReLU leaves
    for stage in range(len(STAGES)):
        for block in range(2):
            x = _block(weights, x, stride=2 if stage and not block else 1)
    return tf.reduce_mean(x, [1, 2]) @ next(weights) + next(weights)


def _block(weights, x, stride):
    y = tf.nn.relu(_normalised(_convolved(x, next(weights), stride), next(weights)))
    y = _normalised(_convolved(y, next(weights), 1), next(weights))
    if stride == 2:
        x = _normalised(_convolved(x, next(weights), 2), next(weights))
    return tf.nn.relu(x + y)


def _vgg(weights, x):
    for number in range(len(CONVOLUTIONS)):
        x = tf.nn.relu(tf.nn.bias_add(_convolved(x, next(weights), 1), next(weights)))
        if number % 2:
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    x = tf.reshape(x, [-1, math.prod(x.shape[1:])])
    for _ in range(2):
        x = tf.nn.relu(x @ next(weights) + next(weights))
    return x @ next(weights) + next(weights)


def _convolved(x, kernel, stride):
    if stride == 1:
        return tf.nn.conv2d(x, kernel, 1, "SAME")
    edge = kernel.shape[0] // 2  # SAME would pad one side only
    return tf.nn.conv2d(
        tf.pad(x, [[0, 0], [edge, edge], [edge, edge], [0, 0]]), kernel, stride, "VALID"
    )


def _normalised(x, affine):
    return batchnorm.normalise(x, affine[0]) + affine[1]
