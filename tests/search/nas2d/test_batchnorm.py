"""The fused BatchNorm against the explicit formula in float64: value, gradient and second
derivatives in all directions.
"""

import numpy as np
import pytest
import tensorflow as tf

from kit.search.nas2d import batchnorm


def problem(dtype, seed=0):
    rng = np.random.default_rng(seed)
    x, scale = 2 * rng.standard_normal((4, 5, 5, 3)) + 0.5, np.array([0.5, 1.5, -1.0])
    vectors = [rng.standard_normal(x.shape), np.array([0.3, -0.7, 0.9])]
    return [tf.constant(a, dtype) for a in (x, scale, rng.standard_normal(x.shape), *vectors)]


def derivatives(function, x, scale, weight, u, t):
    """Value, gradients, and second derivatives along (u, t) of a loss that is curved in the
    output.
    """
    with tf.GradientTape() as outer:
        outer.watch([x, scale, weight])
        with tf.GradientTape() as inner:
            inner.watch([x, scale])
            loss = tf.reduce_sum(tf.sin(function(x, scale)) * weight)
        first = inner.gradient(loss, [x, scale])
    return [loss, *first, *outer.gradient(first, [x, scale, weight], output_gradients=[u, t])]


def explicit(x, scale):
    mean = tf.reduce_mean(x, [0, 1, 2])
    return (x - mean) / tf.sqrt(tf.reduce_mean((x - mean) ** 2, [0, 1, 2]) + 1e-5) * scale


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-12)])
def test_derivatives_of_both_orders(dtype, tolerance):
    wanted = derivatives(explicit, *problem("float64"))
    for got, want in zip(derivatives(batchnorm.normalise, *problem(dtype)), wanted, strict=True):
        assert np.linalg.norm(np.asarray(got, float) - want) < tolerance * np.linalg.norm(want)


def test_traced_with_an_open_batch_size():
    traced = tf.function(
        lambda *p: derivatives(batchnorm.normalise, *p),
        input_signature=[
            tf.TensorSpec((None, 5, 5, 3) if p.shape.rank == 4 else p.shape)
            for p in problem("float32")
        ],
    )
    for got, want in zip(
        traced(*problem("float32")),
        derivatives(batchnorm.normalise, *problem("float32")),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_one_is_the_scale_that_is_left_out():
    x = problem("float32")[0]
    np.testing.assert_array_equal(batchnorm.normalise(x), batchnorm.normalise(x, tf.ones(3)))
    np.testing.assert_allclose(np.std(batchnorm.normalise(x), axis=(0, 1, 2)), 1, rtol=1e-4)
