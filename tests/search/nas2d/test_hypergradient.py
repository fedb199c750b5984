"""Architecture gradients against those of the reference networks and against brute force, and the
trap of BatchNorm's second derivative.
"""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from reference_values import oracle

from kit.search.nas2d import hypergradient, ops, supernet

SPACES = {
    "darts_tiny": supernet.Space("darts", 4, 3),
    "pcdarts_tiny": supernet.Space("pcdarts", 16, 3),
}
TINY = list(SPACES)


def reference(name):
    """The reference supernet as (forward, weights, arch, training batch, validation batch),
    float64.
    """
    data, space = oracle("lease", name), SPACES[name]
    mapping = {key[2:]: value for key, value in data.items() if key.startswith("w:")}
    weights = [tf.constant(w) for w in supernet.from_torch(space, mapping)]
    arch = [tf.constant(data[f"arch:{i}"]) for i in range(4 if space.family == "pcdarts" else 2)]
    batches = [
        (tf.constant(data[f"x_{part}"].transpose(0, 2, 3, 1)), tf.constant(data[f"y_{part}"]))
        for part in ("train", "val")
    ]
    return (
        lambda weights, arch, x: supernet.forward(space, weights, arch, x),
        weights,
        arch,
        *batches,
    )


def length(tensors):
    return float(np.sqrt(sum((np.asarray(t) ** 2).sum() for t in tensors)))


def assert_gradients(got, data, key, tolerance):
    for i, gradient in enumerate(got):
        np.testing.assert_allclose(
            gradient,
            data[f"{key}:{i}"],
            rtol=0,
            atol=tolerance * length([data[f"{key}:{j}"] for j in range(len(got))]),
        )


@pytest.mark.parametrize("name", TINY)
def test_first_order_of_the_reference(name):
    forward, weights, arch, _, val = reference(name)
    result = hypergradient.first_order(forward, weights, arch, val)
    assert float(result.loss) == pytest.approx(float(oracle("lease", name)["loss_val"]), abs=1e-10)
    assert float(result.norm) == pytest.approx(
        {"darts_tiny": 2.03742792e-01, "pcdarts_tiny": 3.88033062e-02}[name], rel=1e-7
    )
    assert_gradients(result.gradients, oracle("lease", name), "dA_first_order", 1e-9)


@pytest.mark.parametrize(("mode", "tolerance"), [("exact", 1e-6), ("finite", 1e-3)])
@pytest.mark.parametrize("name", TINY)
def test_second_order_of_the_reference(name, mode, tolerance):
    forward, weights, arch, train, val = reference(name)
    buffers = [tf.zeros_like(w) for w in weights]
    result = hypergradient.second_order(
        forward, weights, arch, train, val, 0.025, buffers, mode=mode
    )
    data = oracle("lease", name)
    assert float(result.loss) == pytest.approx(float(data["loss_unrolled"]), abs=1e-9)
    assert float(result.train_loss) == pytest.approx(float(data["loss_train"]), abs=1e-9)
    assert float(result.vector_norm) == pytest.approx(float(data["vnorm"]), rel=1e-7)
    assert_gradients(
        result.gradients,
        data,
        f"dA_second_order_{'fd' if mode == 'finite' else 'exact'}",
        tolerance,
    )
    assert not np.allclose(
        result.gradients[0], result.direct[0], atol=0.01 * float(result.norm)
    )  # the second order matters here


# --- a smooth network that is small enough for brute force ----------------------------------------


def smooth(weights, arch, x):
    """A network of two tanh layers whose first mixes two activations by `arch`."""
    hidden = tf.reshape(x, [x.shape[0], -1]) @ weights[0]
    mix = tf.nn.softmax(arch[0])
    return (mix[0] * tf.tanh(hidden) + mix[1] * tf.sin(2 * hidden)) @ weights[1]


def smooth_problem(seed=0):
    rng = np.random.default_rng(seed)
    weights = [tf.constant(rng.standard_normal(shape) * 0.5) for shape in [(12, 5), (5, 3)]]
    batches = [
        (tf.constant(rng.uniform(size=(6, 2, 2, 3))), tf.constant(rng.integers(0, 3, 6)))
        for _ in range(2)
    ]
    return weights, [tf.constant([0.3, -0.2], tf.float64)], *batches


def loss_after_a_step(arch, weights, train, val, buffers):
    gradients = hypergradient.derivatives(
        lambda: hypergradient.cross_entropy(smooth(weights, arch, train[0]), train[1]), weights
    )[1]
    moved = [
        w - 0.1 * (0.9 * b + g + 3e-4 * w)
        for w, g, b in zip(weights, gradients, buffers, strict=False)
    ]
    return float(hypergradient.cross_entropy(smooth(moved, arch, val[0]), val[1]))


@pytest.mark.parametrize(("mode", "tolerance"), [("exact", 1e-7), ("finite", 1e-4)])
def test_second_order_by_brute_force(mode, tolerance):
    weights, arch, train, val = smooth_problem()
    buffers = [0.3 * tf.ones_like(w) for w in weights]
    result = hypergradient.second_order(
        smooth, weights, arch, train, val, 0.1, buffers, mode=mode, r=1e-4
    )  # at the published 0.01 truncation costs 0.7 %
    for i, unit in enumerate(np.eye(2)):
        ahead, behind = (
            loss_after_a_step([arch[0] + h * unit], weights, train, val, buffers)
            for h in (1e-5, -1e-5)
        )
        assert float(result.gradients[0][i]) == pytest.approx(
            (ahead - behind) / 2e-5, rel=tolerance
        )


def test_no_buffers_are_zero_buffers():
    weights, arch, train, val = smooth_problem()
    without = hypergradient.second_order(smooth, weights, arch, train, val, 0.1)
    zeros = hypergradient.second_order(
        smooth, weights, arch, train, val, 0.1, [tf.zeros_like(w) for w in weights]
    )
    np.testing.assert_array_equal(without.gradients[0], zeros.gradients[0])


def test_a_product_with_nothing_is_nothing():
    weights, arch, train, _ = smooth_problem()
    for mode in hypergradient.MODES:
        step = hypergradient.unroll(smooth, weights, arch, train, 0.1, mode=mode)
        np.testing.assert_array_equal(
            step.pull_back([tf.zeros_like(w) for w in weights])[0], [0, 0]
        )


def test_a_mode_that_does_not_exist():
    with pytest.raises(hypergradient.UnknownMode, match="exact, finite"):
        hypergradient.second_order(smooth, *smooth_problem(), 0.1, mode="central")


def test_one_trace_serves_all_passes_of_a_step():
    calls = []

    @tf.function(autograph=False)
    def traced(weights, arch, x):
        calls.append(1)
        return smooth(weights, arch, x)

    problem = smooth_problem()
    for mode in hypergradient.MODES:
        step = tf.function(
            partial(hypergradient.second_order, traced, lr=0.1, mode=mode), autograph=False
        )
        np.testing.assert_allclose(
            step(*problem).gradients[0],
            hypergradient.second_order(smooth, *problem, 0.1, mode=mode).gradients[0],
            rtol=1e-9,
        )
    assert len(calls) == 1


# --- BatchNorm ------------------------------------------------------------------------------------


def by_moments(x):
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    return (x - mean) * tf.math.rsqrt(variance + 1e-5)


@pytest.mark.parametrize(("normalise", "right"), [(ops.normalise, True), (by_moments, False)])
def test_second_derivative_of_batch_norm(normalise, right):
    """The kit's is right; that of ``tf.nn.moments``, and so of Keras' layer, is not, although its
    first derivative is.
    """
    rng = np.random.default_rng(0)
    x, vector = (
        [tf.constant(rng.standard_normal((4, 5, 5, 2)))],
        [tf.constant(rng.standard_normal((4, 5, 5, 2)))],
    )
    weight = tf.constant(rng.standard_normal((4, 5, 5, 2)))

    def gradient(at):
        return hypergradient.derivatives(
            lambda: tf.reduce_sum(weight * tf.sin(normalise(at[0]))), at
        )[1]

    with tf.GradientTape() as tape:
        tape.watch(x)
        first = gradient(x)
    exact = tape.gradient(first, x, output_gradients=vector)
    difference = hypergradient.central_difference(gradient, x, vector, 1e-4)
    error = length([exact[0] - difference[0]]) / length(exact)
    assert error < 1e-7 if right else 1e-4 < error < 1e-1
    np.testing.assert_allclose(
        first[0],
        hypergradient.derivatives(lambda: tf.reduce_sum(weight * tf.sin(ops.normalise(x[0]))), x)[
            1
        ][0],
        atol=1e-12,
    )
