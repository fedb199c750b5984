import itertools
import subprocess
import sys
from contextlib import contextmanager

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit import paths
from kit.models import astrocyte_readings, astrocytes, convolutions

layers = keras.layers
PER_STEP = [
    [0.995041, -0.995090, 0.151948, 0.921008],
    [0.983264, -0.997211, 0.153832, 0.879022],
    [0.993169, -0.999463, 0.149571, 0.960657],
    [0.999412, -0.987884, 0.141687, 0.829931],
]


def oracle(dtype=None):
    """The single convolution on which the released NeuronGliaUnit was run with PyTorch, and its
    four batches in NHWC.
    """
    kernel = np.random.RandomState(1).randn(4, 3, 3, 3) * 0.2
    kernel[2] *= 0.02
    batches = (
        np.random.RandomState(2).randn(4, 2, 3, 8, 8).transpose(0, 1, 3, 4, 2).astype(np.float32)
    )
    conv = layers.Conv2D(4, 3, padding="same", dtype=dtype)
    model = keras.Sequential([layers.Input((8, 8, 3)), conv])
    conv.set_weights([kernel.transpose(2, 3, 1, 0), np.array([0, -3, 0.05, 0])])
    return model, conv, batches


def step_of(unit, optimizer=None, loss_of=None, order="after"):
    """One traced training step."""

    @tf.function
    def step(x, strong, weak):
        with tf.GradientTape() as tape:
            y, taken = unit.forward(x)
            loss = loss_of(y) if loss_of else 0.0
        if order == "before":
            unit.after_step(taken, strong, weak)
        if optimizer:
            variables = unit.model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=False))
        if order == "after":
            unit.after_step(taken, strong, weak)
        return y

    return step


def mass(conv):
    """Sum of absolute values of each filter's kernel."""
    return np.abs(convolutions.filters_last(conv)).sum(0)


def test_counters_and_scaling_are_the_oracles():
    model, conv, batches = oracle()
    unit = astrocytes.Astrocytes(model, layers=[conv])
    step, counters = step_of(unit), np.zeros(4)
    bias = conv.get_weights()[1]
    for batch, expected in zip(batches, PER_STEP, strict=False):
        np.testing.assert_allclose(mass(conv), [4.714643, 3.634397, 0.084094, 2.729175], atol=2e-6)
        np.testing.assert_allclose(astrocyte_readings.increments(model(batch)), expected, atol=2e-5)
        y = step(batch, 0.5, 1.5)
        counters += expected
        if unit.state()["tick"]:
            np.testing.assert_allclose(unit.state()["counters"], counters, atol=5e-5)
    np.testing.assert_allclose(counters, [3.970886, -3.979648, 0.597038, 3.590619], atol=5e-6)
    np.testing.assert_allclose(mass(conv), [2.357322, 5.451595, 0.084094, 1.364588], atol=2e-6)
    assert unit.state()["tick"] == 0
    assert not unit.state()["counters"].any()
    assert list(unit.state()["tally"]) == [2, 1, 1]
    np.testing.assert_array_equal(conv.get_weights()[1], bias)
    y = model.predict(batches[0], verbose=0)
    np.testing.assert_allclose(y[0, 4, 4], [-0.221183, -4.257183, 0.068171, 0.104069], atol=2e-6)
    np.testing.assert_allclose(
        y.sum((0, 1, 2)), [7.326496, -371.818444, 6.191157, 2.143166], atol=2e-4
    )


@pytest.mark.parametrize(
    ("order", "l1", "corner"),
    [
        (
            "before",
            [2.310792, 5.377080, 0.083109, 1.337860],
            [0.159755, -0.279696, -0.000789, -0.019938],
        ),
        (
            "after",
            [2.321611, 5.377513, 0.083109, 1.342347],
            [0.160412, -0.280216, -0.000789, -0.019917],
        ),
    ],
)
def test_both_orders_of_scaling_and_optimizer(order, l1, corner):
    model, conv, batches = oracle()
    unit = astrocytes.Astrocytes(model, layers=[conv.name])
    step = step_of(unit, keras.optimizers.SGD(0.01), lambda y: tf.reduce_mean(y**2), order)
    for number, batch in enumerate(batches):
        step(batch, 0.5, 1.5)
        if number == 2:
            before = unit.state()["counters"]
    _y, _ = unit.forward(
        batches[3]
    )  # the counters of the fourth batch are gone; those before it show the trajectory
    np.testing.assert_allclose(
        before[:3],
        np.array([3.970198, -3.978481, 0.593536]) - [0.99941, -0.9879, 0.1413],
        atol=2e-3,
    )
    np.testing.assert_allclose(mass(conv), l1, atol=1e-5)
    np.testing.assert_allclose(conv.get_weights()[0][0, 0, 0], corner, atol=2e-6)


def test_other_readings_are_not_taken():
    x = tf.random.stateless_normal((2, 5, 9, 3), (1, 2), dtype=tf.float64)
    expected = np.tanh(x.numpy().sum(0)).max((0, 1))
    np.testing.assert_allclose(astrocyte_readings.increments(x), expected)
    np.testing.assert_allclose(
        astrocyte_readings.increments(tf.transpose(x, (0, 3, 1, 2)), channels_first=True), expected
    )
    for other in (np.tanh(x.numpy().sum((0, 1, 2))), np.tanh(x.numpy().mean(0)).max((0, 1))):
        assert np.abs(other - expected).max() > 0.05


def test_factors_at_the_threshold_and_without_numbers():
    given = astrocyte_readings.factors(tf.constant([2.0, 2.1, -2.0, -2.1, 0.0, np.nan]), -0.25, 0)
    np.testing.assert_array_equal(given, [1, -0.25, 1, 0, 1, 1])


EVERY_KIND = {
    "Conv1D": lambda: layers.Conv1D(4, 3),
    "Conv2D": lambda: layers.Conv2D(4, 3),
    "Conv3D": lambda: layers.Conv3D(4, 2),
    "grouped": lambda: layers.Conv2D(6, 3, groups=3),
    "relu": lambda: layers.Conv2D(4, 3, activation="relu"),
    "Conv1DTranspose": lambda: layers.Conv1DTranspose(4, 3),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(4, 3),
    "Conv3DTranspose": lambda: layers.Conv3DTranspose(4, 2),
    "DepthwiseConv1D": lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "SeparableConv1D": lambda: layers.SeparableConv1D(4, 3),
    "SeparableConv2D": lambda: layers.SeparableConv2D(4, 3),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_convolution_scales_its_own_outputs(kind):
    conv = EVERY_KIND[kind]()
    model = keras.Sequential([layers.Input((*(7, 5, 6)[: conv.rank], 3)), conv])
    unit = astrocytes.Astrocytes(model, decisions=1, threshold=0.3, layers=[conv])
    x = np.random.default_rng(3).normal(size=(2, *model.input_shape[1:])).astype(np.float32) * 0.5
    conv.bias.assign(np.resize([-4.0, 0, 4], conv.bias.shape))
    activation, conv.activation = conv.activation, None
    raw = model(x).numpy()
    conv.activation = activation
    scales = np.asarray(
        astrocyte_readings.factors(astrocyte_readings.increments(raw), 0.5, 3.0, 0.3)
    )
    assert {0.5, 3.0} <= set(scales)
    y, taken = unit.forward(x)
    np.testing.assert_allclose(taken[0][0], raw, atol=1e-6)
    np.testing.assert_array_equal(y, model(x))
    unit.after_step(taken, 0.5, 3.0)
    conv.activation = None
    np.testing.assert_allclose(model(x), (raw - conv.bias) * scales + conv.bias, atol=1e-5)


@contextmanager
def precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy or "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def small(policy=None, size=(9, 6)):
    """Two convolutions with BatchNorm, one of them with an activation of its own, on maps that are
    no squares.
    """
    keras.utils.set_random_seed(5)
    with precision(policy):
        inputs = keras.Input((*size, 2))
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name="a")(inputs)
        x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="b")(x))
        x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
        return keras.Model(inputs, layers.Dense(3, dtype="float32")(x))


def sample(count=24, size=(9, 6), seed=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *size, 2)).astype(np.float32), np.eye(3, dtype=np.float32)[
        rng.integers(0, 3, count)
    ]


def fitted(epochs=1, policy=None, wrap=True, callbacks=(), order="after", **settings):
    network = small(policy)
    model = astrocytes.astrocyte_model(network, order=order, **settings) if wrap else network
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    x, y = sample()
    history = model.fit(
        x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks)
    ).history
    return model, network, history


def same_weights(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "released", "strong": 0.0, "weak": 1.0},
        {"mode": "released", "strong": 1.5, "weak": 0.5},
        {"mode": "off"},
        {"mode": "algorithm", "order": "before"},
        {"mode": "algorithm"},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_released_off_and_factors_of_one_are_the_control_bit_for_bit(settings, control):
    model, network, history = fitted(**settings)
    assert same_weights(network, control[1])
    assert history == control[2]
    assert bool(model.astrocytes.state()["tally"].sum()) == (settings["mode"] != "off")


@pytest.fixture(scope="module")
def control():
    return fitted(wrap=False)


def test_fit_scales_and_the_schedule_sets_each_epoch(control):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((float(self.model.strong.numpy()), float(self.model.weak.numpy())))

    schedule = astrocytes.AstrocyteSchedule([(1, 1), (0.0, 1.25)])
    _model, network, _ = fitted(epochs=2, callbacks=[schedule, Look()])
    assert seen == [(1.0, 1.0), (0.0, 1.25)]
    assert not same_weights(network, control[1])
    assert len(network.weights) == len(control[1].weights)


def test_evaluation_counts_nothing_and_the_state_is_stored_and_restored(tmp_path):
    model, _network, _ = fitted(epochs=1, decisions=4)
    state = model.astrocytes.state()
    assert state["tick"] == 2
    assert state["counters"].any()
    x, y = sample()
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    assert all(np.array_equal(state[k], v) for k, v in model.astrocytes.state().items())
    model.save_weights(tmp_path / "w.weights.h5")
    model.astrocytes.reset()
    assert not model.astrocytes.state()["counters"].any()
    model.load_weights(tmp_path / "w.weights.h5")
    assert all(np.array_equal(state[k], v) for k, v in model.astrocytes.state().items())
    other = astrocytes.Astrocytes(small())
    other.restore(state)
    assert other.state()["tick"] == 2
    with pytest.raises(astrocytes.BadAstrocytes, match="same model"):
        astrocytes.Astrocytes(small(), layers=["a"]).restore(state)


def test_zeroed_filters_are_counted():
    network = small()
    unit = astrocytes.Astrocytes(network, decisions=1, threshold=0)
    unit.after_step(unit.forward(sample(4)[0])[1], 0.0, 1.0)
    above = unit.state()["tally"][0]
    assert 0 < above == sum(unit.zeroed().values())
    assert set(unit.zeroed()) == {"a", "b"}


def test_nothing_of_the_listening_stays_behind():
    network = small()
    config, unit = network.get_config(), astrocytes.Astrocytes(network)
    unit.forward(sample(4)[0])
    assert "call" not in vars(network.get_layer("a"))
    assert network.get_config() == config
    assert not convolutions._LISTENED
    assert network.get_layer("a").activation is keras.activations.relu
    with pytest.raises(ValueError, match="incompatible with the layer"):
        unit.forward(np.zeros((2, 4)))
    assert "call" not in vars(network.get_layer("a"))
    assert not convolutions._LISTENED


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_counts_in_float32(policy):
    network = small(policy)
    unit = astrocytes.Astrocytes(network, decisions=1, threshold=0.5, layers=["a"])
    x = sample(16)[0] * 100  # sums of float16 outputs of this size overflow in float16
    kernel = network.get_layer("a").kernel.numpy()
    _, taken = unit.forward(x)
    assert taken[0][0].dtype == policy.removeprefix("mixed_")
    expected = np.asarray(
        astrocyte_readings.factors(
            np.tanh(np.float32(taken[0][0]).sum(0)).max((0, 1)), 0.5, 2.0, 0.5
        )
    )
    unit.after_step(taken, 0.5, 2.0)
    after = network.get_layer("a").kernel
    assert after.dtype == "float32"
    np.testing.assert_allclose(after, kernel * expected, rtol=1e-6)
    model, _, history = fitted(epochs=1, policy=policy, strong=0.9, weak=1.1)
    assert np.isfinite(history["loss"]).all()
    assert model.astrocytes.state()["tally"].sum() > 0


REPLICAS = """
import numpy as np
from kit import compat
from kit.models import astrocytes
import tensorflow as tf
from tests.models.test_astrocytes import fitted, sample, small

processor, part = tf.config.list_physical_devices("CPU")[0], tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(processor, [part] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.concatenate([sample(4)[0] - 0.2, sample(4, seed=9)[0] + 0.2])
alone = small()
unit = astrocytes.Astrocytes(alone, decisions=2, threshold=0.4)
with strategy.scope():
    shared = small()
    both = astrocytes.Astrocytes(shared, decisions=2, threshold=0.4)
shared.set_weights(alone.get_weights())
data = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices(x).batch(8))

@tf.function
def step(batch):
    def one(part):
        # in training BatchNorm takes the moments of each replica by itself
        _, taken = both.forward(part, training=False)
        both.after_step(taken, 0.5, 1.5)
    strategy.run(one, args=(batch,))

for tick in (1, 0):
    for batch in data:
        step(batch)
    unit.after_step(unit.forward(x, training=False)[1], 0.5, 1.5)
    np.testing.assert_allclose(both.state()["counters"], unit.state()["counters"], atol=1e-5)
    assert both.state()["tick"] == unit.state()["tick"] == tick
assert list(both.state()["tally"]) == list(unit.state()["tally"]) and unit.state()["tally"][0] > 0
for a, b in zip(shared.get_weights(), alone.get_weights(), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
for name in "ab":
    copies = shared.get_layer(name).kernel.value.values
    assert len(copies) == 2 and np.array_equal(*copies)

with strategy.scope():
    model, network, history = fitted(callbacks=[astrocytes.AstrocyteSchedule([(0.5, 1.5)])])
    assert np.isfinite(history["loss"]).all() and model.astrocytes.state()["tally"].sum() == 12
"""


def test_replicas_decide_as_one():
    """In a process of its own: virtual CPUs have to be made before TensorFlow starts."""
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def headed(pooled):
    """Squeeze-and-excitation inside, and a head of convolutions behind the pooling or before it."""
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="expand")(
        layers.Conv2D(2, 1, activation="relu", name="reduce")(gate)
    )
    x = layers.Conv2D(8, 1, name="last")(layers.Multiply()([x, gate]))
    if pooled:
        x = layers.Conv2D(16, 1, name="head")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        x = layers.Flatten()(layers.Conv2D(4, 1, name="logits")(x))
    else:
        x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(4, 1, name="logits")(x)))
    return keras.Model(inputs, layers.Softmax()(x), name="headed")


@pytest.mark.parametrize("pooled", [True, False])
def test_head_convolutions_are_left_out_and_inner_models_opened(pooled):
    expected = ["stem", "reduce", "expand", "last"]
    assert [layer.name for layer in convolutions.convolutions(headed(pooled))] == expected
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(
        inputs,
        keras.Sequential([layers.Input((8, 8, 3)), layers.Rescaling(0.5), headed(pooled)])(inputs),
    )
    assert [layer.name for layer in convolutions.convolutions(outer)] == expected
    unit = astrocytes.Astrocytes(outer)
    y, taken = unit.forward(np.ones((2, 8, 8, 3), np.float32))
    assert y.shape == (2, 4)
    assert [t[0].shape[-1] for t in taken] == [8, 2, 8, 8]


def test_subclassed_models_and_shared_layers():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(3, 3, padding="same")

        def call(self, x):
            return self.conv(self.conv(x))

    model, x = Twice(), np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32) / 10
    once = model.conv(x)
    twice = model(x)
    unit = astrocytes.Astrocytes(model, decisions=9)
    unit.after_step(unit.forward(x)[1], 1, 1)
    np.testing.assert_allclose(
        unit.state()["counters"],
        astrocyte_readings.increments(once) + astrocyte_readings.increments(twice),
        atol=1e-6,
    )


def test_plain_outputs_are_taken_too_and_values_trace_once():
    model, conv, batches = oracle()
    unit, traces = astrocytes.Astrocytes(model, layers=[conv]), itertools.count()

    @tf.function
    def step(x, strong, weak):
        next(traces)
        unit.after_step([conv(x)], strong, weak)

    for strong in (0.5, 0.75, 1.0, 1.25):
        step(batches[0], tf.constant(strong), tf.constant(1.0))
    assert next(traces) == 1


def test_bad_settings_are_refused():
    model = small()
    for wrong in (
        {"mode": "on"},
        {"decisions": 0},
        {"decisions": 1.5},
        {"threshold": -1},
        {"threshold": float("nan")},
        {"layers": ["dense"]},
    ):
        with pytest.raises(astrocytes.BadAstrocytes):
            astrocytes.Astrocytes(model, **wrong)
    with pytest.raises(astrocytes.BadAstrocytes, match="no convolution"):
        astrocytes.Astrocytes(keras.Sequential([layers.Input((4,)), layers.Dense(2)]))
    with pytest.raises(astrocytes.BadAstrocytes, match="order"):
        astrocytes.astrocyte_model(model, order="never")
    with pytest.raises(astrocytes.BadAstrocytes, match="1 epochs, the training 2"):
        fitted(epochs=2, callbacks=[astrocytes.AstrocyteSchedule([(1, 1)])])
    unit = astrocytes.Astrocytes(model)
    unit.layers = astrocytes.convolutions(small())
    with pytest.raises(astrocytes.BadAstrocytes, match="no part"):
        unit.forward(sample(2)[0])
