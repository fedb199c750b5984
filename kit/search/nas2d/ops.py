"""The eight operations of the DARTS search space as plain functions of tensors.

`primitive` composes an operation as the publications define it, one edge at a time: the plain
reference that the tests hold against outputs of the authors' code and against the supernet. The
other functions are its parts, which the supernet shares between edges. All maps are (N, H, W, C);
BatchNorm always normalises by the batch.

Differences from TensorFlow's own layers: padding at stride 2 is symmetric as in PyTorch, average
pooling leaves the padding out of the count, and the batch normalisation is one whose second
derivatives are right (``tf.nn.moments`` stops a gradient inside the variance).
"""

import weakref
from collections.abc import Callable, Sequence

import tensorflow as tf

from kit.search.nas2d.batchnorm import normalise
from kit.search.nas2d.space import PRIMITIVES  # noqa: F401

_CONSTANTS = weakref.WeakKeyDictionary()


def constant(key: tuple, make: Callable) -> tf.Tensor:
    """A constant of the graph that is being built, made once: most of a graph's nodes would else be
    constants.

    Parameters
    ----------
    key : hashable
        Names the value.
    make : callable
        () -> array or tensor.
    """
    if tf.executing_eagerly():
        return tf.constant(make())
    known = _CONSTANTS.setdefault(tf.compat.v1.get_default_graph(), {})
    if key not in known:
        known[key] = tf.constant(make())
    return known[key]


def pointwise(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """1x1 convolution, kernel (1, 1, C_in, C_out)."""
    return tf.raw_ops.Conv2D(input=x, filter=kernel, strides=[1, 1, 1, 1], padding="VALID")


def _pad(x, amount: int, value=0):
    return tf.pad(x, [[0, 0], [amount, amount], [amount, amount], [0, 0]], constant_values=value)


def tiny(x: tf.Tensor) -> bool:
    """Whether maps are so small that nodes saved when the graph is traced are worth more than
    faster kernels.
    """
    return x.shape[2] * x.shape[3] <= 512


def depthwise(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, dilation: int = 1) -> tf.Tensor:
    """Depthwise convolution with PyTorch's symmetric padding.

    Parameters
    ----------
    x : tensor (N, H, W, C)
    kernel : tensor (k, k, C, 1)
    stride, dilation : int
        1 or 2. Dilation 2 at stride 2 is an ordinary convolution on the even sub-lattice.
    """
    if dilation == 2:
        even = (
            sub_lattices(x)[0]
            if stride == 2 and not (x.shape[1] % 2 or x.shape[2] % 2)
            else x[:, ::2, ::2]
        )
        return (
            depthwise(even, kernel)
            if stride == 2
            else tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=(2, 2))
        )
    if stride == 2:
        return tf.raw_ops.DepthwiseConv2dNative(
            input=_pad(x, kernel.shape[0] // 2),
            filter=kernel,
            strides=[1, 2, 2, 1],
            padding="VALID",
        )
    if kernel.shape[0] == 5 and not tiny(x):
        return _wide(x, kernel)
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME"
    )


@tf.custom_gradient
def _wide(x, kernel):
    """5x5 depthwise convolution whose kernel gradient is computed as two of 5x3, for which the CPU
    kernels are five times as fast together.
    """

    def backward(gradient):
        padded, width = _pad(x, 2), x.shape[2] + 2
        parts = [
            tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=tf.slice(padded, [0, 0, start, 0], [-1, -1, width, -1]),
                filter_sizes=(5, 3, x.shape[3], 1),
                out_backprop=gradient,
                strides=[1, 1, 1, 1],
                padding="VALID",
            )
            for start in (0, 2)
        ]
        return _wide(gradient, tf.reverse(kernel, [0, 1])), tf.concat(
            [parts[0], parts[1][:, 1:]], 1
        )

    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME"
    ), backward


def copies(x: tf.Tensor, count: int) -> tf.Tensor:
    """Maps behind one another several times: (N, H, W, C) -> (N, H, W, count * C)."""

    @tf.custom_gradient
    def repeat(x):
        return tf.concat([x] * count, -1), lambda gradient: tf.reduce_sum(
            tf.reshape(gradient, (-1, *x.shape[1:3], count, x.shape[3])), 3
        )

    return repeat(x) if count > 1 else x


def dense_kernel(depth: tf.Tensor, point: tf.Tensor) -> tf.Tensor:
    """Kernel (k, k, C, n * O) of the convolutions that n pairs of a depthwise (k, k, n * C, 1) and
    a pointwise (n, C, 1, O) kernel make on one input.
    """
    size, (edges, channels, _, outputs) = depth.shape[0], point.shape
    product = tf.reshape(depth, (size, size, edges, channels, 1)) * tf.reshape(
        point, (edges, channels, outputs)
    )
    return tf.reshape(
        tf.transpose(product, (0, 1, 3, 2, 4)), (size, size, channels, edges * outputs)
    )


def sub_lattices(x: tf.Tensor) -> list:
    """The four sub-lattices of even sides, (N, H/2, W/2, C) each: even rows and columns first, odd
    rows and columns last.
    """
    return tf.split(tf.raw_ops.SpaceToBatch(input=x, paddings=[[0, 0], [0, 0]], block_size=2), 4)


def max_pool(x: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """3x3 max pooling, padding 1 that never wins."""
    if stride == 1:
        return tf.nn.max_pool2d(x, 3, 1, "SAME")
    return tf.nn.max_pool2d(_pad(x, 1, x.dtype.min), 3, 2, "VALID")


def avg_pool(x: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """3x3 average pooling, padding 1 left out of the count."""
    if stride == 1:
        return tf.nn.avg_pool2d(x, 3, 1, "SAME")
    count = tf.nn.avg_pool2d(_pad(tf.ones_like(x[:1, :, :, :1]), 1), 3, 2, "VALID")
    return tf.nn.avg_pool2d(_pad(x, 1), 3, 2, "VALID") / count


def halves(lattices: list) -> tf.Tensor:
    """Input of a factorised reduction from the `sub_lattices`: even and odd behind one another, (N,
    H/2, W/2, 2C).
    """
    return tf.concat([lattices[0], lattices[3]], -1)


def halves_kernel(even: tf.Tensor, odd: tf.Tensor) -> tf.Tensor:
    """Kernel (1, 1, 2C, n * O) that does to `halves` what the two 1x1 convolutions (1, C, n, O/2)
    of n factorised reductions do.
    """
    rest, half = [[0, 0]] * 3, even.shape[-1]
    both = tf.concat([tf.pad(even, [*rest, [0, half]]), tf.pad(odd, [*rest, [half, 0]])], 1)
    return tf.reshape(both, (1, 1, both.shape[1], -1))


def _separable(name, x, weights, stride):
    for number, step in zip((0, 2), (stride, 1), strict=False):
        x = normalise(
            pointwise(depthwise(tf.nn.relu(x), weights[number], step), weights[number + 1])
        )
    return x


def primitive(name: str, x: tf.Tensor, weights: Sequence = (), stride: int = 1) -> tf.Tensor:
    """One operation of the supernet on one edge, composed literally.

    Parameters
    ----------
    name : str
        One of `PRIMITIVES`.
    x : tensor (N, H, W, C)
    weights : sequence of tensors
        sep_conv: depthwise (k, k, C, 1), pointwise (1, 1, C, C), depthwise, pointwise; dil_conv:
        depthwise, pointwise; skip_connect at stride 2: the even and the odd kernel (1, C, 1, C/2);
        else empty.
    stride : int
        1 or 2.

    Returns
    -------
    tensor (N, H / stride, W / stride, C)
    """
    if name == "none":
        return tf.zeros_like(x[:, ::stride, ::stride])
    if name == "skip_connect":
        return (
            x
            if stride == 1
            else normalise(pointwise(halves(sub_lattices(tf.nn.relu(x))), halves_kernel(*weights)))
        )
    if name.endswith("pool_3x3"):
        return normalise((max_pool if name.startswith("max") else avg_pool)(x, stride))
    if name.startswith("sep"):
        return _separable(name, x, weights, stride)
    return normalise(pointwise(depthwise(tf.nn.relu(x), weights[0], stride, 2), weights[1]))
