"""The optimisers against PyTorch's formulas written out in NumPy, and the schedules against the
values of the reference code.
"""

import numpy as np
import pytest
import tensorflow as tf

from kit.training import rules

SHAPES = [(3, 2), (5,), (2, 2, 1)]


def tensors(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal(s) for s in SHAPES]


def global_norm(arrays):
    return np.sqrt(sum((a**2).sum() for a in arrays))


def assert_equal(got, want, tolerance=1e-12):
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(g), w, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [1.0, 40.0])  # below and above the clipping norm
def test_sgd_steps_as_torch_does(scale):
    weights, buffers = tensors(0), [np.zeros(s) for s in SHAPES]
    ours, ours_buffers = [tf.constant(w) for w in weights], [tf.constant(b) for b in buffers]
    for step, lr in enumerate([0.025, 0.02]):
        gradients = tensors(10 + step, scale / 4)
        ours, ours_buffers = rules.sgd(ours, [tf.constant(g) for g in gradients], ours_buffers, lr)
        shrink = min(1, 5 / (global_norm(gradients) + 1e-6))
        buffers = [
            0.9 * b + (shrink * g + 3e-4 * w)
            for w, g, b in zip(weights, gradients, buffers, strict=False)
        ]
        weights = [w - lr * b for w, b in zip(weights, buffers, strict=False)]
        assert (shrink < 1) == (scale > 1)
    assert_equal(ours, weights)
    assert_equal(ours_buffers, buffers)


def test_a_new_rate_acts_on_the_next_step_in_full():
    """PyTorch multiplies the buffer by the rate of the step that is being taken; Keras keeps old
    rates inside the buffer.
    """
    weights, buffers = rules.sgd(
        [tf.constant([1.0])], [tf.constant([2.0])], [tf.constant([0.0])], 0.1, decay=0.0
    )
    still, _ = rules.sgd(weights, [tf.constant([0.0])], buffers, 0.0, decay=0.0)
    np.testing.assert_array_equal(still[0], weights[0])


@pytest.mark.parametrize("clip", [None, 0.5])
def test_adam_steps_as_torch_does(clip):
    arch, first, second = tensors(1), [np.zeros(s) for s in SHAPES], [np.zeros(s) for s in SHAPES]
    ours = [tf.constant(a) for a in arch]
    state = rules.adam_state(ours)
    for step in (1, 2, 3):
        raw = tensors(20 + step)
        ours, state = rules.adam(ours, [tf.constant(g) for g in raw], state, 3e-4, clip=clip)
        shrink = 1 if clip is None else min(1, clip / (global_norm(raw) + 1e-6))
        gradients = [shrink * g + 1e-3 * a for a, g in zip(arch, raw, strict=False)]
        first = [0.5 * m + 0.5 * g for m, g in zip(first, gradients, strict=False)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients, strict=False)]
        roots = [np.sqrt(v) / np.sqrt(1 - 0.999**step) + 1e-8 for v in second]
        arch = [
            a - 3e-4 / (1 - 0.5**step) * m / r for a, m, r in zip(arch, first, roots, strict=False)
        ]
    assert int(state.step) == 3
    assert_equal(ours, arch)
    assert_equal(state.second, second)


def test_adam_in_float32_keeps_its_digits():
    arch = [tf.constant([0.5, -0.25])]
    moved, _ = rules.adam(
        arch, [tf.constant([1e-3, -2.0])], rules.adam_state(arch), 3e-4, decay=0.0
    )
    np.testing.assert_allclose(
        moved[0], [0.5 - 3e-4, -0.25 + 3e-4], rtol=2e-7
    )  # the first step has the length of the rate


def test_one_traced_step_serves_every_rate():
    step = tf.function(lambda w, g, b, lr: rules.sgd([w], [g], [b], lr))
    for lr in (0.1, 0.2):
        (moved,), _ = step(
            tf.constant([1.0]), tf.constant([1.0]), tf.constant([0.0]), tf.constant(lr)
        )
        np.testing.assert_allclose(moved, [1 - lr * (1 + 3e-4)], rtol=1e-6)
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.025), (1, 0.0249763207), (10, 0.0227082039), (25, 0.013), (49, 0.0010236793)],
)
def test_rate_of_the_search(epoch, rate):
    assert rules.cosine(epoch, 50, 0.025, 0.001) == pytest.approx(rate, abs=5e-11)


@pytest.mark.parametrize(
    ("epoch", "epochs", "rate"),
    [
        (0, 25, 0.025),
        (10, 25, 0.01636271),
        (24, 25, 9.857e-05),
        (1500, 3000, 0.0125),
        (2999, 3000, 6.8539e-09),
    ],
)
def test_rates_that_end_at_zero(epoch, epochs, rate):
    assert rules.cosine(epoch, epochs, 0.025) == pytest.approx(rate, rel=5e-5)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.384), (5, 0.304), (9, 0.24), (10, 0.4), (11, 0.327492), (17, 0.098639), (24, 0.024324)],
)
def test_dropout_after_the_identity(epoch, rate):
    assert rules.skip_rate(epoch, 0.4) == pytest.approx(rate, abs=5e-7)
    assert rules.skip_rate(epoch, 0.8) == pytest.approx(2 * rules.skip_rate(epoch, 0.4))


def test_drop_path_rises_from_zero():
    assert rules.drop_path(0, 600, 0.3) == 0
    assert rules.drop_path(300, 600, 0.3) == pytest.approx(0.15)


def test_an_epoch_beyond_the_schedule_is_refused():
    with pytest.raises(rules.BadSchedule, match="epoch 50 is not one of the 50"):
        rules.cosine(50, 50, 0.025)
    with pytest.raises(rules.BadSchedule):
        rules.skip_rate(-1, 0.4)
