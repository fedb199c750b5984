"""Operations of the search space against the reference's outputs and against plain TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from reference_values import oracle as stored_values

from kit.search.nas2d import ops, supernet


@pytest.fixture(scope="module")
def oracle():
    return stored_values("lease", "ops")


def torch_weights(oracle, prefix, kind=np.float64):
    """Kernels of one operation in the layout of `ops.primitive`."""
    kernels = [oracle[name] for name in oracle if name.startswith(f"{prefix}__w")]
    if prefix.startswith("skip"):
        return [tf.constant(kernel[:, :, 0, 0].T[None, :, None], kind) for kernel in kernels]
    return [
        tf.constant(
            kernel.transpose(2, 3, 0, 1) if kernel.shape[2] > 1 else kernel.transpose(2, 3, 1, 0),
            kind,
        )
        for kernel in kernels
    ]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ops.PRIMITIVES)
def test_operation_equals_the_reference(oracle, name, stride):
    x, expected = (
        oracle[key].transpose(0, 2, 3, 1) for key in ("x_nchw", f"{name}__s{stride}__y_nchw")
    )
    for kind, tolerance in ((np.float64, 1e-12), (np.float32, 2e-5)):
        y = ops.primitive(
            name, tf.constant(x, kind), torch_weights(oracle, f"{name}__s{stride}", kind), stride
        )
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)


def test_normalisation_has_right_second_derivatives():
    rng = np.random.default_rng(0)
    x, direction, weight = (tf.constant(rng.standard_normal((4, 5, 5, 2))) for _ in range(3))

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(weight * tf.sin(ops.normalise(x)))
        return tape.gradient(value, x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        along = tf.reduce_sum(slope(x) * direction)
    exact, step = tape.gradient(along, x), 1e-5
    near = (slope(x + step * direction) - slope(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(exact, near, atol=1e-8)
    small = tf.cast(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(small)
        with tf.GradientTape() as inner:
            inner.watch(small)
            value = tf.reduce_sum(tf.cast(weight, tf.float32) * tf.sin(ops.normalise(small)))
        along = tf.reduce_sum(inner.gradient(value, small) * tf.cast(direction, tf.float32))
    np.testing.assert_allclose(tape.gradient(along, small), exact, atol=2e-4)


def test_scale_of_the_normalisation_is_a_factor():
    x, scale = tf.random.stateless_normal((3, 4, 4, 5), (1, 2)), tf.constant([0.5, 2, 0, -1, 3.0])
    np.testing.assert_allclose(ops.normalise(x, scale), ops.normalise(x) * scale, atol=1e-6)


def gradients(function, *arguments):
    """Value, first derivatives and derivatives of the first derivatives' squares."""
    with tf.GradientTape() as outer:
        outer.watch(arguments)
        with tf.GradientTape() as inner:
            inner.watch(arguments)
            value = function(*arguments)
            loss = tf.reduce_sum(tf.sin(value))
        first = inner.gradient(loss, arguments)
        square = tf.add_n([tf.reduce_sum(part**2) for part in first])
    return [value, *first, *outer.gradient(square, arguments)]


def test_wide_depthwise_convolution_has_all_derivatives():
    x, kernel = (
        tf.constant(np.random.default_rng(1).standard_normal(shape))
        for shape in ((2, 8, 8, 80), (5, 5, 80, 1))
    )
    assert not ops.tiny(x)
    plain = gradients(
        lambda x, kernel: tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME"), x, kernel
    )
    for ours, expected in zip(gradients(ops.depthwise, x, kernel), plain, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_copies_have_all_derivatives():
    x = tf.constant(np.random.default_rng(2).standard_normal((2, 3, 4, 5)))
    for ours, expected in zip(
        gradients(lambda x: ops.copies(x, 3), x),
        gradients(lambda x: tf.tile(x, (1, 1, 1, 3)), x),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected)


def test_dense_kernel_is_both_convolutions():
    rng = np.random.default_rng(3)
    x, depth, point = (
        tf.constant(rng.standard_normal(shape))
        for shape in ((2, 6, 6, 3), (3, 3, 6, 1), (2, 3, 1, 4))
    )
    dense = tf.nn.conv2d(x, ops.dense_kernel(depth, point), 1, "SAME")
    for edge in range(2):
        single = ops.pointwise(
            ops.depthwise(x, depth[:, :, 3 * edge : 3 * edge + 3]),
            tf.reshape(point[edge], (1, 1, 3, 4)),
        )
        np.testing.assert_allclose(dense[..., 4 * edge : 4 * edge + 4], single, atol=1e-12)


@pytest.mark.parametrize("size", [7, 8])
def test_dilated_convolution_of_any_size(size):
    rng = np.random.default_rng(4)
    x, kernel = (
        tf.constant(rng.standard_normal((1, size, size, 2))),
        tf.constant(rng.standard_normal((3, 3, 2, 1))),
    )
    grown = np.zeros((5, 5, 2, 1))
    grown[::2, ::2] = kernel
    np.testing.assert_allclose(
        ops.depthwise(x, kernel, 1, 2),
        tf.nn.depthwise_conv2d(x, grown, [1, 1, 1, 1], "SAME"),
        atol=1e-12,
    )


def test_constants_are_made_once_a_graph():
    @tf.function(autograph=False)
    def twice():
        return (*(ops.constant("ones", lambda: np.ones(3)) for _ in range(2)),)

    nodes = [
        node
        for node in twice.get_concrete_function().graph.get_operations()
        if node.type == "Const"
    ]
    assert len(nodes) == 1
    assert np.array_equal(ops.constant("ones", lambda: np.ones(3)), np.ones(3))


def test_order_of_the_primitives():
    assert supernet.PRIMITIVES == ops.PRIMITIVES
    assert ops.PRIMITIVES[0] == "none"
    assert len(ops.PRIMITIVES) == 8
