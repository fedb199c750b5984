"""The rules against trajectories of PyTorch 2.15 (computed apart, in float64), weight decay, and
the Keras optimizer that switches between them.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit import paths
from kit.training import optimizers
from kit.training.optimizers import DECAY_MODES, RULES, SETTINGS

START = np.array([0.5, -1.2, 2.0, 0.03, -0.7])
GRADIENTS = np.random.RandomState(5).randn(8, 5) * [1, 0.1, 3, 1e-3, 1]
GRADIENTS[2, 1] = 0
GRADIENTS[:, 4] = np.abs(GRADIENTS[:, 4])
GRADIENTS[4, 4] *= -1
RULES_PLACES = {name: number for number, name in enumerate(RULES)}
RATES = [0.05] * 3 + [0.02] * 5  # the rate falls on the way, as under a schedule

# the parameters after steps 5 and 8 (from step 6 on RAdam is rectified); ".code" are SGD and
# RMSprop with the released momentum of 0.9
TORCH = {
    "adam": [
        [0.402063979, -1.064626283, 1.896520012, 0.073428759, -0.856853917],
        [0.398625147, -1.050407177, 1.883372147, 0.094203187, -0.878614388],
    ],
    "sgd": [
        [0.492068539, -1.194388563, 1.718827053, 0.030011725, -0.79818157],
        [0.456974694, -1.193639028, 1.660906486, 0.030015418, -0.832576988],
    ],
    "sgd.code": [
        [0.375596058, -1.185825387, 0.964345227, 0.030032608, -0.904130192],
        [0.357168735, -1.180724182, 0.699267602, 0.030102514, -1.003810924],
    ],
    "adamax": [
        [0.414344538, -1.090902965, 1.914349343, 0.074859175, -0.81927706],
        [0.412329819, -1.082402053, 1.907433373, 0.083851137, -0.830618821],
    ],
    "rmsprop": [
        [-0.037354539, -0.283947475, 1.625209809, 0.018493489, -2.138712516],
        [-0.177845431, -0.243050272, 1.570867613, 0.040429937, -2.276061905],
    ],
    "rmsprop.code": [
        [-1.638818652, 1.422192467, 0.614675484, 0.556814775, -4.389195301],
        [-2.016369544, 2.073894277, 0.290368641, 0.866802603, -5.513620576],
    ],
    "adamw": [
        [0.402063979, -1.064626283, 1.896520012, 0.073428759, -0.856853917],
        [0.398625147, -1.050407177, 1.883372147, 0.094203187, -0.878614388],
    ],
    "adagrad": [
        [0.446041118, -1.108425265, 1.962436423, 0.028979258, -0.843875021],
        [0.432224616, -1.104388532, 1.957144882, 0.031133456, -0.857416519],
    ],
    "asgd": [
        [0.513063088, -1.19781637, 1.551630649, 0.030056399, -0.817509727],
        [0.477966554, -1.197059657, 1.493701362, 0.030059912, -0.851899874],
    ],
    "nadam": [
        [0.444596473, -1.096977068, 1.95261213, 0.034056742, -0.859392709],
        [0.423932674, -1.087862585, 1.940778316, 0.042165227, -0.885404389],
    ],
    "radam": [
        [0.421506776, -1.192923922, 1.375900697, 0.03001543, -0.775150457],
        [0.421368813, -1.192455468, 1.375457479, 0.030684847, -0.775879801],
    ],
    "rprop": [
        [0.456, -1.15, 1.9875, 0.0675, -0.9684],
        [0.4164, -1.195, 2.0205, 0.08125, -1.125648],
    ],
}

# after step 8 with weight_decay=0.1; PyTorch's Rprop has none
TORCH_DECAYED = {
    "adam": [0.392263215, -0.968435803, 1.875940088, 0.018164948, -0.865391203],
    "sgd": [0.445489311, -1.164049717, 1.617294237, 0.029273216, -0.814083609],
    "sgd.code": [0.326080712, -1.09356737, 0.591043644, 0.027910646, -0.947520912],
    "adamax": [0.407876147, -1.008984314, 1.903345837, 0.013420632, -0.821431014],
    "rmsprop": [-0.164032595, -0.17192242, 1.533288791, 0.001120554, -2.204375447],
    "rmsprop.code": [-1.826748199, 0.975690234, 0.216247104, 0.108951942, -5.084305581],
    "adamw": [0.387969532, -1.022806713, 1.835518865, 0.092516351, -0.859037331],
    "adagrad": [0.429481577, -1.060360678, 1.952592106, 0.000996169, -0.856321717],
    "asgd": [0.464970015, -1.163944148, 1.446211861, 0.029229505, -0.830887953],
    "nadam": [0.419406457, -1.018490756, 1.934339538, 0.001527382, -0.880810979],
    "radam": [0.412267584, -1.16851902, 1.341614109, 0.027561116, -0.762319026],
}


def trajectory(name, dtype, decay=0.0, mode="l2_all"):
    """Parameters after each of the eight steps, taken by the pure functions."""
    rule, _, group = name.partition(".")
    theta, slots = tf.constant(START, dtype), tf.zeros((3, 5), dtype)
    number, mode, path = RULES_PLACES[rule], DECAY_MODES.index(mode), []
    for step, (gradient, lr) in enumerate(zip(GRADIENTS, RATES, strict=False), start=1):
        theta, gradient = optimizers.decayed(
            theta, tf.constant(gradient, dtype), 1, number, mode, lr, decay
        )
        theta, slots = RULES[rule](theta, gradient, slots, step, lr, SETTINGS[group or "text"])
        path.append(theta.numpy())
    return path


def tolerance(name):
    """The numbers have nine decimals; PyTorch's ASGD keeps its rate in float32, whatever the
    parameters have.
    """
    return 2e-8 if name == "asgd" else 2e-9


@pytest.mark.parametrize("name", TORCH)
def test_trajectories_equal_those_of_torch(name):
    path, half = trajectory(name, "float64"), trajectory(name, "float32")
    for after, want in zip((5, 8), TORCH[name], strict=True):
        np.testing.assert_allclose(path[after - 1], want, rtol=0, atol=tolerance(name))
        np.testing.assert_allclose(
            half[after - 1], want, rtol=0, atol=1e-6 if name != "rmsprop.code" else 2e-6
        )


@pytest.mark.parametrize("name", TORCH_DECAYED)
def test_l2_all_is_the_weight_decay_of_torch(name):
    np.testing.assert_allclose(
        trajectory(name, "float64", decay=0.1)[-1],
        TORCH_DECAYED[name],
        rtol=0,
        atol=tolerance(name),
    )


def step_of(rule, mode, decay=0.1, lr=0.5):
    """Decayed parameters and gradient of one step; the second parameter is a bias."""
    numbers = RULES_PLACES[rule], DECAY_MODES.index(mode)
    theta, gradient = optimizers.decayed(
        tf.constant([2.0, 4.0]), tf.constant([1.0, 1.0]), 1, *numbers, lr, decay
    )
    return theta.numpy().tolist(), gradient.numpy().tolist()


@pytest.mark.parametrize(
    ("rule", "mode", "theta", "gradient"),
    [
        ("adam", "l2_all", [2, 4], [1.2, 1.4]),
        ("adam", "none_for_adam", [2, 4], [1, 1]),
        ("sgd", "none_for_adam", [2, 4], [1.2, 1.4]),
        ("sgd", "l2_no_bias", [2, 4], [1.4, 1]),
        ("sgd", "decoupled", [1.9, 3.8], [1, 1]),
        ("adamw", "l2_all", [1.9, 3.8], [1, 1]),
        ("adamw", "none_for_adam", [1.9, 3.8], [1, 1]),
        ("adamw", "l2_no_bias", [1.8, 4], [1, 1]),
        ("rprop", "l2_all", [2, 4], [1.2, 1.4]),
    ],
)
def test_modes_of_weight_decay(rule, mode, theta, gradient):
    got = step_of(rule, mode)
    np.testing.assert_allclose(got[0], theta, rtol=1e-6)
    np.testing.assert_allclose(got[1], gradient, rtol=1e-6)


def test_nominal_rates_and_names():
    assert set(optimizers.NOMINAL_LR["text"]) == set(optimizers.NOMINAL_LR["code"]) == set(RULES)
    code = {"adam": 1e-3, "sgd": 1e-2, "adamax": 2e-3, "rmsprop": 1e-3}
    assert {name: optimizers.NOMINAL_LR["code"][name] for name in code} == code
    assert list(RULES)[optimizers.rule_index("NAdam")] == "nadam"
    with pytest.raises(optimizers.RefusedRule, match="single batches"):
        optimizers.rule_index("LBFGS")
    with pytest.raises(optimizers.UnknownRule, match="lion"):
        optimizers.Switched("lion")
    with pytest.raises(optimizers.UnknownRule, match="l1"):
        optimizers.Switched(decay_mode="l1")
    with pytest.raises(optimizers.UnknownRule, match="thesis"):
        optimizers.Switched(settings="thesis")


def test_cosine():
    want = [
        1,
        0.977975,
        0.914058,
        0.814503,
        0.689058,
        0.55,
        0.410942,
        0.285497,
        0.185942,
        0.122025,
        0.1,
    ]
    np.testing.assert_allclose([optimizers.cosine(step, 10) for step in range(11)], want, atol=1e-6)
    np.testing.assert_allclose(
        [optimizers.cosine(tf.constant(step), 10) for step in range(11)], want, atol=1e-6
    )
    assert optimizers.cosine(12, 10) == pytest.approx(0.1)
    assert float(optimizers.cosine(tf.constant(12.0), 10)) == pytest.approx(0.1)
    assert optimizers.cosine(10, 10, minimum=0) == pytest.approx(0)
    for step, total in ((-1, 10), (0, 0)):
        with pytest.raises(optimizers.BadProgress):
            optimizers.cosine(step, total)


# --- the Keras optimizer --------------------------------------------------------------------------


def parts(dtype="float32"):
    """START as two variables, the second of two dimensions."""
    return [
        keras.Variable(START[:1], dtype=dtype, name="bias"),
        keras.Variable(START[1:].reshape(2, 2), dtype=dtype, name="kernel"),
    ]


def joined(variables):
    return np.concatenate([np.ravel(v) for v in variables])


def take(optimizer, variables, apply=None, steps=range(8)):
    for k in steps:
        optimizer.learning_rate = RATES[k]
        (apply or optimizer.apply)(
            [
                tf.constant(g, v.dtype)
                for g, v in zip(
                    (GRADIENTS[k][:1], GRADIENTS[k][1:].reshape(2, 2)), variables, strict=False
                )
            ],
            variables,
        )


def test_one_trace_serves_all_rules():
    traces, variables, optimizer = [], parts(), optimizers.Switched(settings="code")
    optimizer.build(variables)

    @tf.function
    def apply(gradients):
        traces.append(1)
        optimizer.apply(gradients, variables)

    for rule in RULES:
        for variable, start in zip(variables, (START[:1], START[1:].reshape(2, 2)), strict=False):
            variable.assign(start)
        optimizer.reset()
        optimizer.configure(rule, weight_decay=0.1 if rule == "sgd" else 0.0)
        take(optimizer, variables, lambda gradients, _: apply(gradients))
        name = f"{rule}.code" if f"{rule}.code" in TORCH else rule
        want = TORCH_DECAYED["sgd.code"] if rule == "sgd" else TORCH[name][1]
        np.testing.assert_allclose(joined(variables), want, rtol=0, atol=2e-6)
    assert len(traces) == 1


def test_biases_are_known_by_name():
    variables, optimizer = (
        parts(),
        optimizers.Switched(
            "sgd", 1.0, weight_decay=0.05, decay_mode="l2_no_bias", settings="text"
        ),
    )
    optimizer.apply([tf.zeros((1,)), tf.zeros((2, 2))], variables)
    np.testing.assert_allclose(joined(variables), np.r_[START[:1], 0.9 * START[1:]], rtol=1e-6)


def test_a_parameter_without_gradient_stays():
    variables, optimizer = parts(), optimizers.Switched("adam", weight_decay=0.1)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([tf.ones((1,)), None], variables)
    np.testing.assert_array_equal(variables[1], START[1:].reshape(2, 2).astype("float32"))
    assert variables[0].numpy()[0] != START[0].astype("float32")


def test_state_can_be_saved_and_an_interrupted_run_goes_on():
    variables, optimizer = parts("float64"), optimizers.Switched("nadam")
    take(optimizer, variables, steps=range(4))
    state, again = {}, optimizers.Switched()
    optimizer.save_own_variables(state)
    again.build(variables)
    again.load_own_variables(state)
    assert int(again.rule.numpy()) == RULES_PLACES["nadam"]
    take(again, variables, steps=range(4, 8))
    np.testing.assert_allclose(joined(variables), TORCH["nadam"][1], rtol=0, atol=1e-7)


def test_a_number_that_is_no_rule_does_not_pass():
    variables, optimizer = parts(), optimizers.Switched()
    optimizer.rule.assign(len(RULES))
    take(optimizer, variables, steps=[0])
    assert np.isnan(joined(variables)).all()


def test_configuration_comes_back():
    made = optimizers.Switched("RAdam", 0.01, 0.2, "decoupled", "text", global_clipnorm=3.0)
    made.configure("adamax", weight_decay=0.3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    config = again.get_config()
    assert (
        config["rule"],
        config["decay_mode"],
        config["settings"],
        config["global_clipnorm"],
    ) == ("adamax", "decoupled", "text", 3.0)
    assert (config["learning_rate"], config["weight_decay"]) == pytest.approx((0.01, 0.3))


def test_model_fit_compiles_and_restores(tmp_path):
    keras.utils.set_random_seed(0)
    x, y = (
        np.random.RandomState(0).randn(64, 4).astype("float32"),
        np.random.RandomState(1).randn(64, 1).astype("float32"),
    )
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizers.Switched("adam", 0.01), "mse", jit_compile=True)
    losses = model.fit(x, y, epochs=3, batch_size=32, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations.numpy()) == 6
    for slot, other in zip(model.optimizer.slots, again.optimizer.slots, strict=True):
        np.testing.assert_array_equal(slot, other)


def test_mixed_precision_scales_the_loss():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False, dtype="mixed_float16")]
    )
    model.compile(
        keras.optimizers.LossScaleOptimizer(
            optimizers.Switched("sgd", 0.5, settings="text"), initial_scale=8.0
        ),
        "mse",
    )
    model.layers[0].kernel.assign([[1.0], [0.0]])
    model.fit(np.ones((1, 2)), np.zeros((1, 1)), verbose=0)
    np.testing.assert_allclose(np.ravel(model.layers[0].kernel), [0.0, -1.0], atol=1e-3)


MIRRORED = """
import numpy as np, tensorflow as tf
processor, part = tf.config.list_physical_devices("CPU")[0], tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(processor, [part] * 2)
import keras
from kit.training import losses, optimizers, streaming
x = np.random.RandomState(0).randn(64, 4).astype("float32")
y = np.eye(3, dtype="float32")[np.random.RandomState(1).randint(0, 3, 64)]

def trained(strategy, rule):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        hidden = keras.layers.Dense(5, activation="tanh")
        model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3)])
        model.compile(
            optimizers.Switched(rule, 0.01, 0.01),
            losses.get("label_smoothing"),
            metrics=[streaming.MCC(3)],
            jit_compile=False,
        )
    logs = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    return model.get_weights(), logs["mcc"], model.optimizer.slots[0].numpy()

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one, two = (trained(s, "adam") for s in (tf.distribute.get_strategy(), mirrored))
for a, b in zip([*one[0], *one[1:]], [*two[0], *two[1:]], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
print("equal")
"""


def test_two_replicas_train_as_one():
    """Loss, optimizer and streamed MCC together; in a process of its own, because devices are fixed
    when TensorFlow starts.
    """
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
