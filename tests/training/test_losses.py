"""The five losses against values of the released code, their edge cases, and the switch between
them.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.training import losses

LOGITS = np.random.RandomState(0).randn(4, 5) * 2
TARGETS = np.eye(5)[[0, 2, 4, 1]]
SAMPLES = {
    "cross_entropy": [1.628951, 2.668670, 2.442721, 0.211052],
    "label_smoothing": [1.879672, 2.925828, 2.682776, 0.518450],
    "logit_penalty": [1.649333, 2.671965, 2.447404, 0.216193],
    "logit_normalization": [3.443193, 19.185913, 14.765664, 0.0],
    "sigmoid_cross_entropy": [11.541566, 4.808931, 6.695616, 2.860493],
}
MEANS = dict(
    zip(losses.NAMES, (1.737848, 2.001681, 1.758231, 9.348693, 6.476652), strict=False)
)  # of the released code, so with compat
# of the mean loss, sample 0, and the sum of the absolute values of all 20; released code
GRADIENTS = {
    "cross_entropy": ([-0.200966, 0.003205, 0.010195, 0.127255, 0.060311], 1.418932),
    "label_smoothing": ([-0.201074, -0.001994, 0.005772, 0.135839, 0.061457], 1.413533),
    "logit_penalty": ([-0.198144, 0.003845, 0.011761, 0.130840, 0.063300], 1.424889),
    "logit_normalization": ([-0.900514, -0.012011, -0.029267, 0.722391, 0.001716], 10.137396),
    "sigmoid_cross_entropy": ([-0.007131, 0.172510, 0.219065, 0.247203, 0.244172], 2.844485),
}


def value_and_gradient(function, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = function(logits)
    return value, tape.gradient(value, logits).numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", losses.NAMES)
def test_values_of_each_sample(name, dtype):
    got = losses.FUNCTIONS[name](TARGETS, LOGITS.astype(dtype))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, SAMPLES[name], atol=2e-5 if dtype == "float32" else 1e-6)


@pytest.mark.parametrize("name", losses.NAMES)
def test_mean_and_gradient_of_the_released_code(name):
    value, gradient = value_and_gradient(
        lambda z: losses.get(name, compat=True)(TARGETS, z), LOGITS.astype("float32")
    )
    first, total = GRADIENTS[name]
    assert float(value) == pytest.approx(MEANS[name], abs=2e-5)
    np.testing.assert_allclose(gradient[0], first, atol=2e-5)
    assert np.abs(gradient).sum() == pytest.approx(total, abs=2e-5)


def test_variants_of_the_cited_publications():
    assert np.mean(losses.logit_penalty(TARGETS, LOGITS)) == pytest.approx(1.746224, abs=1e-6)
    assert np.mean(losses.logit_penalty(TARGETS, LOGITS, beta=6e-4 / 2)) == pytest.approx(
        1.744130, abs=1e-6
    )
    assert np.mean(losses.sigmoid_cross_entropy(TARGETS, LOGITS - np.log(5))) == pytest.approx(
        3.702426, abs=1e-6
    )


def test_relations_to_the_losses_of_keras():
    smooth = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)(
        TARGETS, LOGITS
    )
    binary = keras.losses.BinaryCrossentropy(from_logits=True)(TARGETS, LOGITS)
    assert np.mean(losses.label_smoothing(TARGETS, LOGITS)) == pytest.approx(
        float(smooth) / 0.9, rel=1e-6
    )
    assert np.mean(losses.sigmoid_cross_entropy(TARGETS, LOGITS)) == pytest.approx(
        5 * float(binary), rel=1e-6
    )


@pytest.mark.parametrize("name", losses.NAMES)
@pytest.mark.parametrize(
    "logits", [[200.0, 0, -200], [-200.0, 0, 200], [0.0, 0, 0], [1e15, -1e15, 0], [1e-30, 0, 0]]
)
def test_extreme_logits_stay_finite(name, logits):
    logits = np.asarray([logits], "float32")
    value, gradient = value_and_gradient(lambda z: losses.FUNCTIONS[name](np.eye(3)[:1], z), logits)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


def test_values_at_extreme_logits():
    first, second = [[1.0, 0.0]], [[0.0, 1.0]]
    cases = [
        (losses.cross_entropy, first, [[200.0, 0.0]], 0),
        (losses.cross_entropy, second, [[200.0, 0.0]], 200),
        (losses.logit_normalization, first, [[200.0, 0.0]], 0),
        (losses.logit_normalization, first, [[0.0, 0.0]], np.log(2)),
        (losses.sigmoid_cross_entropy, first, [[0.0, 0.0]], 2 * np.log(2)),
    ]
    for function, targets, logits, want in cases:
        np.testing.assert_allclose(function(targets, logits), [want], atol=1e-6)


def test_the_norm_does_not_depend_on_the_scale_of_the_logits():
    """Scaling keeps the squares from overflowing; the smallest norm acts far below the usual logits
    only.
    """
    want = losses.logit_normalization(TARGETS, LOGITS)
    for factor in (1e30, 0.1):
        np.testing.assert_allclose(
            losses.logit_normalization(TARGETS, factor * LOGITS), want, rtol=1e-5
        )
    np.testing.assert_allclose(
        losses.logit_normalization(TARGETS, (1e30 * LOGITS).astype("float32")),
        want,
        rtol=1e-5,
        atol=2e-6,
    )


@pytest.mark.parametrize("name", losses.NAMES)
def test_mixed_labels_give_the_mixture_of_the_losses(name):
    other = np.eye(5)[[1, 2, 0, 3]]
    function = losses.FUNCTIONS[name]
    want = 0.3 * function(TARGETS, LOGITS) + 0.7 * function(other, LOGITS)
    np.testing.assert_allclose(function(0.3 * TARGETS + 0.7 * other, LOGITS), want, rtol=1e-10)


def test_compat_charges_the_norm_of_the_first_sample():
    extra = losses.logit_penalty(TARGETS, LOGITS, compat=True) - losses.cross_entropy(
        TARGETS, LOGITS
    )
    np.testing.assert_allclose(extra, np.full(4, 4e-4 * 50.957239), rtol=1e-6)


def test_one_traced_function_serves_all_losses():
    traces = []

    @tf.function
    def step(number, targets, logits):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = tf.reduce_mean(losses.selected(number, targets, logits))
        return value, tape.gradient(value, logits)

    for number, name in enumerate(losses.NAMES):
        value, gradient = step(tf.constant(number), tf.constant(TARGETS), tf.constant(LOGITS))
        want, want_gradient = value_and_gradient(
            lambda z, name=name: tf.reduce_mean(losses.FUNCTIONS[name](TARGETS, z)), LOGITS
        )
        assert float(value) == pytest.approx(float(want), abs=1e-12)
        np.testing.assert_allclose(gradient, want_gradient, atol=1e-12)
    assert len(traces) == 1


def test_losses_that_are_not_chosen_cannot_spoil_the_gradient():
    """The squared norm is infinite here; multiplied by 0 it would be nan."""
    logits = np.asarray([[1e25, 0]], "float32")
    value, gradient = value_and_gradient(
        lambda z: losses.selected(tf.constant(0), [[1.0, 0]], z), logits
    )
    assert np.isinf(losses.logit_penalty([[1.0, 0]], logits)).all()
    assert value == 0
    assert np.isfinite(gradient).all()


def test_the_choice_compiles_and_takes_variables():
    number = tf.Variable(3, dtype=tf.int32)
    compiled = tf.function(lambda: losses.selected(number, TARGETS, LOGITS), jit_compile=True)
    np.testing.assert_allclose(compiled(), SAMPLES["logit_normalization"], atol=1e-6)
    number.assign(4)
    np.testing.assert_allclose(compiled(), SAMPLES["sigmoid_cross_entropy"], atol=1e-6)


def test_a_number_that_is_no_loss():
    with pytest.raises(losses.UnknownLoss, match=r"0\.\.4"):
        losses.selected(5, TARGETS, LOGITS)
    assert np.isnan(losses.selected(tf.constant(5), TARGETS, LOGITS)).all()
    assert np.isnan(losses.selected(tf.constant(-1), TARGETS, LOGITS)).all()


def test_half_precision_is_computed_in_float32():
    got = losses.logit_penalty(
        tf.constant([[1.0, 0]], tf.float16), tf.constant([[300.0, 0]], tf.float16)
    )  # 300 ** 2 is inf in float16
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, [36.0], rtol=1e-6)


def test_names_and_shapes_are_checked():
    assert losses.index("Sigmoid cross-entropy") == 4
    with pytest.raises(losses.UnknownLoss, match="hinge"):
        losses.get("hinge")
    for targets in ([0, 2, 4, 1], [[0], [2], [4], [1]]):
        with pytest.raises(losses.BadTargets, match="one-hot"):
            losses.cross_entropy(targets, LOGITS)


@pytest.mark.parametrize("name", losses.NAMES)
def test_keras_loss_survives_its_configuration(name):
    again = keras.losses.deserialize(keras.losses.serialize(losses.get(name, compat=True)))
    assert (again.loss, again.compat, again.name) == (name, True, name)
    assert float(again(TARGETS, LOGITS)) == pytest.approx(MEANS[name], abs=2e-5)


def test_a_model_trains_and_is_saved_with_the_loss(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    model.compile("sgd", losses.get("label_smoothing"))
    model.fit(LOGITS, TARGETS, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss.loss == "label_smoothing"
    assert again.evaluate(LOGITS, TARGETS, verbose=0) == pytest.approx(
        model.evaluate(LOGITS, TARGETS, verbose=0)
    )
