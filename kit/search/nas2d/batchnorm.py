"""BatchNorm by the statistics of the batch, with a second derivative written out.

TensorFlow's fused kernel is the fastest BatchNorm on a processor, and the gradient of its gradient
is right (that of ``tf.nn.moments``, and so of Keras' layer, is not). But TensorFlow makes that
second derivative from a hundred small operations, which in a supernet of 131 normalisations is half
of the graph that an exact architecture gradient traces. The formulas here need a third of them: the
second derivative in x is a combination of x and the two incoming gradients with one coefficient a
channel, and the sums in the coefficients come out of the fused kernel.
"""

import numpy as np
import tensorflow as tf

EPSILON = 1e-5


def normalise(x: tf.Tensor, scale: tf.Tensor | None = None) -> tf.Tensor:
    """Normalise over all axes but the last: (x - mean) / sqrt(biased variance + 1e-5) * scale.

    Parameters
    ----------
    x : tf.Tensor
        Float (N, H, W, C). float32 takes the fused kernel, other types the explicit formula.
    scale : tf.Tensor or None
        (C,); None is 1.

    Returns
    -------
    tf.Tensor
        As x; differentiable twice.
    """
    if x.dtype == tf.float32:
        return _fused(x, _full(1, x) if scale is None else scale)
    centred = x - tf.reduce_mean(x, [0, 1, 2])
    factor = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), [0, 1, 2]) + EPSILON)
    return centred * (factor if scale is None else factor * scale)


def _full(value, x):
    return tf.constant(np.full(x.shape[-1], value, np.float32))


@tf.custom_gradient
def _fused(x, scale):
    empty = tf.constant(np.zeros(0, np.float32))
    y, mean, variance, *kept = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=_full(0, x), mean=empty, variance=empty, epsilon=EPSILON
    )

    @tf.custom_gradient
    def gradient(dy, x, scale):
        dx, dscale, dshift = _kernel_gradient(dy, x, scale, kept)
        return (dx, dscale), lambda u, t: _second(
            x, scale, mean, variance, kept, dy=dy, dscale=dscale, dshift=dshift, u=u, t=t
        )

    return y, lambda dy: gradient(dy, x, scale)


def _kernel_gradient(dy, x, scale, kept):
    """Of y: to x, scale and shift."""
    return tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy,
        x=x,
        scale=scale,
        reserve_space_1=kept[0],
        reserve_space_2=kept[1],
        reserve_space_3=kept[2],
        epsilon=EPSILON,
    )[:3]


_MAPS, _CHANNELS = tf.TensorSpec((None,) * 4), tf.TensorSpec((None,))


@tf.function(
    autograph=False,
    input_signature=[
        _MAPS,
        *[_CHANNELS] * 3,
        [_CHANNELS, _CHANNELS, tf.TensorSpec(None)],
        _MAPS,
        _CHANNELS,
        _CHANNELS,
        _MAPS,
        _CHANNELS,
    ],
)
def _second(  # noqa: PLR0913 (tensors of one formula)
    x, scale, mean, variance, kept, dy, dscale, dshift, u, t
):
    """Gradients in (dy, x, scale) of <u, dx> + <t, dscale>; traced once for all normalisations.

    With xhat = (x - mean) r, sums over the n pixels of a channel, and P(v) = v - sum(v) / n - xhat
    sum(v xhat) / n, the gradient of the first order is dx = scale r P(dy), dscale = sum(dy xhat);
    dxhat/dx' v = r P(v) and dr/dx = -r^2 xhat / n give the rest.
    """
    n = tf.cast(tf.size(x) // tf.shape(x)[3], x.dtype)
    r = tf.math.rsqrt(
        variance * ((n - 1) / n) + EPSILON
    )  # the kernel returns the unbiased variance
    back, u_xhat, u_sum = _kernel_gradient(u, x, scale, kept)
    product = tf.reduce_sum(u * dy, [0, 1, 2]) - (u_sum * dshift + u_xhat * dscale) / n
    common = -scale * r * r / n
    of_u, of_dy, t_r = common * dscale, common * u_xhat + t * r, t * r
    of_x = (common * product - (of_u * u_xhat + of_dy * dscale) / n) * r
    shift = -(of_u * u_sum + of_dy * dshift) / n - of_x * mean
    return back + t_r * (x - mean), of_x * x + of_u * u + of_dy * dy + shift, r * product
