"""The eight operations of the DARTS search space as plain functions of tensors.

`primitive` composes an operation as the publications define it, one edge at a time: the plain reference that the tests hold against the oracles and
against the supernet. The other functions are its parts, which the supernet shares between edges. All maps are (N, H, W, C); BatchNorm always
normalises by the batch.

Differences from TensorFlow's own layers: padding at stride 2 is symmetric as in PyTorch, average pooling leaves the padding out of the count, and
the batch normalisation is one whose second derivatives are right (``tf.nn.moments`` stops a gradient inside the variance).
"""

import tensorflow as tf

PRIMITIVES = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
KERNEL = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "dil_conv_3x3": 3, "dil_conv_5x5": 5}
EPSILON = 1e-5


def moments(x):
    """Mean and biased variance over all axes but the last, right to any order of differentiation."""
    axes = list(range(x.shape.rank - 1))
    mean = tf.reduce_mean(x, axes)
    return mean, tf.reduce_mean(tf.square(x - mean), axes)


def normalise(x, scale=None):
    """BatchNorm by the batch's moments, epsilon 1e-5, times a scale (C,) if one is given; no shift.

    float32 takes TensorFlow's fused kernel, whose second derivatives are right too; other types the explicit formula.
    """
    if x.dtype == tf.float32:
        ones, empty = tf.ones(x.shape[-1]), tf.zeros(0)
        return tf.raw_ops.FusedBatchNormV3(x=x, scale=ones if scale is None else scale, offset=tf.zeros(x.shape[-1]), mean=empty, variance=empty, epsilon=EPSILON)[0]
    mean, variance = moments(x)
    factor = tf.math.rsqrt(variance + EPSILON)
    return (x - mean) * (factor if scale is None else factor * scale)


def pointwise(x, kernel):
    """1x1 convolution, kernel (C_in, C_out)."""
    return tf.raw_ops.Conv2D(input=x, filter=tf.reshape(kernel, (1, 1, *kernel.shape)), strides=[1, 1, 1, 1], padding="VALID")


def _pad(x, amount: int, value=0):
    return tf.pad(x, [[0, 0], [amount, amount], [amount, amount], [0, 0]], constant_values=tf.cast(value, x.dtype))


def depthwise(x, kernel, stride: int = 1, dilation: int = 1):
    """Depthwise convolution with PyTorch's symmetric padding.

    Parameters
    ----------
    x : tensor (N, H, W, C)
    kernel : tensor (k, k, C, E)
        E filters per channel; output channel c * E + e.
    stride, dilation : int
        1 or 2. Dilation 2 at stride 2 is an ordinary convolution on the even sub-lattice.
    """
    if dilation == 2:
        return depthwise(x[:, ::2, ::2], kernel) if stride == 2 else tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=(2, 2))
    if stride == 1:
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME")
    return tf.raw_ops.DepthwiseConv2dNative(input=_pad(x, kernel.shape[0] // 2), filter=kernel, strides=[1, 2, 2, 1], padding="VALID")


def max_pool(x, stride: int = 1):
    """3x3 max pooling, padding 1 that never wins."""
    if stride == 1:
        return tf.nn.max_pool2d(x, 3, 1, "SAME")
    return tf.nn.max_pool2d(_pad(x, 1, x.dtype.min), 3, 2, "VALID")


def avg_pool(x, stride: int = 1):
    """3x3 average pooling, padding 1 left out of the count."""
    if stride == 1:
        return tf.nn.avg_pool2d(x, 3, 1, "SAME")
    count = tf.nn.avg_pool2d(_pad(tf.ones_like(x[:1, :, :, :1]), 1), 3, 2, "VALID")
    return tf.nn.avg_pool2d(_pad(x, 1), 3, 2, "VALID") / count


def halves(x):
    """The two inputs of a factorised reduction, even and odd sub-lattice, behind one another: (N, H, W, C) -> (N, H/2, W/2, 2C)."""
    return tf.concat([x[:, ::2, ::2], x[:, 1::2, 1::2]], -1)


def halves_kernel(even, odd):
    """Kernel (2C, ..., O) that does to `halves` what the two 1x1 convolutions (C, ..., O/2) of a factorised reduction do."""
    rest = [[0, 0]] * (even.shape.rank - 1)
    return tf.concat([tf.pad(even, [*rest, [0, odd.shape[-1]]]), tf.pad(odd, [*rest, [even.shape[-1], 0]])], 0)


def _separable(name, x, weights, stride):
    for number, step in zip((0, 2), (stride, 1)):
        x = normalise(pointwise(depthwise(tf.nn.relu(x), weights[number], step), weights[number + 1]))
    return x


def primitive(name: str, x, weights=(), stride: int = 1):
    """One operation of the supernet on one edge, composed literally.

    Parameters
    ----------
    name : str
        One of `PRIMITIVES`.
    x : tensor (N, H, W, C)
    weights : sequence of tensors
        sep_conv: depthwise (k, k, C, 1), pointwise (C, C), depthwise, pointwise; dil_conv: depthwise, pointwise; skip_connect at stride 2: the even
        and the odd 1x1 kernel (C, C/2); else empty.
    stride : int
        1 or 2.

    Returns
    -------
    tensor (N, H / stride, W / stride, C)
    """
    if name == "none":
        return tf.zeros_like(x[:, ::stride, ::stride])
    if name == "skip_connect":
        return x if stride == 1 else normalise(pointwise(halves(tf.nn.relu(x)), halves_kernel(*weights)))
    if name.endswith("pool_3x3"):
        return normalise((max_pool if name.startswith("max") else avg_pool)(x, stride))
    if name.startswith("sep"):
        return _separable(name, x, weights, stride)
    return normalise(pointwise(depthwise(tf.nn.relu(x), weights[0], stride, 2), weights[1]))
