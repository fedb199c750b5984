"""3D networks: published counts, PyTorch's logits from PyTorch's tensors, seeds, and layers that
equal Keras' own.
"""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kit.models import macs
from kit.models.torchfile import DamagedWeights
from kit.search.nas3d import layers as nas3d_layers
from kit.search.nas3d import networks, released, space
from kit.search.nas3d.space import Network3D

CHAIN = ((0, 1, 0), (0, 0, 1), (0, 0, 0))
SMALL = Network3D(
    ((0, 1, 1, 0, 1), (0, 0, 0, 1, 0), (0, 0, 0, 1, 1), (0, 0, 0, 0, 1), (0, 0, 0, 0, 0)),
    (4, 6, 9),
    1,
    2,
    8,
)
# Logits of PyTorch 2.15, from a definition written for this purpose, for SMALL with `_state`,
# volumes RandomState(6).rand(2, 8, 8, 8)
TORCH_LOGITS = [[6.785459, 3.695305, -0.387196], [6.895809, 3.776087, -0.359899]]
RELEASED = {
    "adrenal-90": (18_042, 18_026),
    "nodule-197": (317_938, 317_922),
    "organ-72": (859_819, 859_755),
    "synapse-223": (217_954, 217_922),
}


def _state(model) -> dict:
    """A state dict of SMALL as the released code would save it: standard normal / 10, one more for
    vectors, drawn in the order of the names.
    """
    dead, width = (
        {"cells.1.stem_conv.weight": (8, 1, 1, 1, 1), "cells.1.stem_conv.bias": (8,)},
        {"1": 8, "2": 16},
    )
    shapes = dict(dead)
    for layer in (layer for layer in model.layers if layer.weights):
        kind = layer.name.rpartition("_")[2]
        names = networks._torch_names(layer, {})
        if (
            "node" in layer.name
        ):  # the place of the convolution and of the normalisation in PyTorch's sequence
            step = {"1conv": 0, "1norm": 1, "2conv": 2, "2norm": 0, "3conv": 1}[
                layer.name.partition("node")[2].replace("_", "")
            ]
            names = [name.replace("op.0", f"op.{step}") for name in names]
            assert layer.weights[-1].shape == (width[layer.name[4]],)
        for name, weight in zip(names, layer.weights, strict=True):
            shape = tuple(weight.shape)
            shapes[name] = (
                (shape[4], shape[3], *shape[:3])
                if kind in ("conv", "entry") and len(shape) == 5
                else shape[::-1]
            )
    for name in list(shapes):
        if name.startswith("stem_conv."):
            shapes[name.replace("stem_conv", "cells.0")] = shapes[name]
        elif ".stem_conv." in name:
            shapes[name.replace("stem_conv", "ops_list.0")] = shapes[name]
    rng = np.random.RandomState(5)
    state = {
        name: (rng.standard_normal(shapes[name]) * 0.1 + (len(shapes[name]) == 1)).astype("f4")
        for name in sorted(shapes)
    }
    for name in state:
        if name.startswith("cells.0."):
            state[name] = state[name.replace("cells.0", "stem_conv")]
        elif ".ops_list.0." in name:
            state[name] = state[name.replace("ops_list.0", "stem_conv")]
    return state | {
        name: np.array(3)
        for name in ("stem_conv.1.num_batches_tracked", "cells.0.1.num_batches_tracked")
    }


@pytest.mark.parametrize("name", RELEASED)
def test_released_networks_have_the_published_parameters(name):
    known = released.RELEASED[name]
    model = networks.build(known.network, known.classes)
    total, trainable = RELEASED[name]
    assert model.count_params() == total
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == trainable
    assert trainable == space.parameters(known.network, known.classes, dead=False)
    assert macs.macs(model) == space.macs(known.network, known.classes)
    assert model.input_shape == (None, 28, 28, 28, 1)
    assert model.output_shape == (
        None,
        known.classes,
    )
    assert model.get_layer(networks.feature_layer(model)).output.shape[1:4] == (
        (14,) * 3 if known.network.stacks == 2 else (28,) * 3
    )


@pytest.mark.parametrize("index", range(15))
def test_every_operation_keeps_the_shape(index):
    model = networks.build(Network3D(CHAIN, (index,), 1, 1, 8), 2, 8, seed=index)
    assert model.get_layer("cell1_out").output.shape == (None, 8, 8, 8, 8)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    order = [layer.name.rpartition("_")[2] for layer in model.layers if "node1" in layer.name]
    kinds = space.OPERATIONS[index].order
    assert order == [step for step in kinds if not (step == "act" and "norm" in kinds)]


def test_logits_are_those_of_pytorch(tmp_path):
    model, x = (
        networks.build(SMALL, 3, 8),
        np.random.RandomState(6).rand(2, 8, 8, 8).astype("f4")[..., None],
    )
    state = _state(model)
    idle = networks.load(model, state)
    assert sorted({name.split(".")[1] for name in idle}) == ["0", "1", "2"]
    assert "cells.1.stem_conv.weight" in idle
    assert len(idle) == 14
    assert np.abs(np.asarray(model(x)) - TORCH_LOGITS).max() < 2e-5
    np.savez(tmp_path / "model.npz", **{f"module.{name}": value for name, value in state.items()})
    other = networks.build(SMALL, 3, 8, seed=9)
    networks.load(other, tmp_path / "model.npz")
    assert np.abs(np.asarray(other(x)) - TORCH_LOGITS).max() < 2e-5
    other.save(tmp_path / "model.keras")
    assert np.array_equal(
        np.asarray(keras.models.load_model(tmp_path / "model.keras")(x)), np.asarray(other(x))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("cells.2.ops_list.3.op.1.weight"),
            "has no tensor cells.2.ops_list.3",
        ),
        (
            lambda state: state.update({"classifier.bias": np.zeros(2, "f4")}),
            "Tensor classifier.bias of The state dict has the shape",
        ),
        (
            lambda state: state.update({"cells.3.ops_list.1.op.0.bias": np.zeros(2, "f4")}),
            "1 tensors that the network does not have, e.g. cells.3",
        ),
        (lambda state: state.update({"cells.0.0.bias": np.zeros(8, "f4")}), "e.g. cells.0.0.bias"),
    ],
)
def test_tensors_of_another_network_are_refused_and_nothing_changes(change, message):
    model = networks.build(SMALL, 3, 8)
    before, state = model.get_weights(), _state(model)
    change(state)
    with pytest.raises(DamagedWeights, match=message):
        networks.load(model, state)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_seeds_fix_the_weights_and_layers_differ():
    one, same, other, torch = (
        networks.build(Network3D(CHAIN, (9,), 2, 1, 8), 2, 8, seed=seed, biases=biases)
        for seed, biases in ((1, "zeros"), (1, "zeros"), (2, "zeros"), (1, "torch"))
    )
    assert all(
        np.array_equal(a, b) for a, b in zip(one.get_weights(), same.get_weights(), strict=True)
    )
    kernels = [
        model.get_layer(f"cell{cell}_node1_conv").get_weights()[0]
        for model in (one, other)
        for cell in (1, 2)
    ]
    assert len({kernel.tobytes() for kernel in kernels}) == 4
    assert np.abs(kernels[0]).max() == pytest.approx(np.sqrt(6 / (2 * 27 * 8)), rel=0.02)
    bias = torch.get_layer("cell1_node1_conv").get_weights()[1]
    assert not one.get_layer("cell1_node1_conv").get_weights()[1].any()
    assert 0 < np.abs(bias).max() <= (27 * 8) ** -0.5
    assert np.array_equal(torch.get_layer("cell1_node1_conv").get_weights()[0], kernels[0])


def test_redrawn_kernels_leave_vectors_alone():
    model = networks.build(SMALL, 3, 8)
    networks.load(model, _state(model))
    before = model.get_weights()
    networks.redraw(model, 7)
    after = model.get_weights()
    assert all(np.array_equal(a, b) == (a.ndim == 1) for a, b in zip(before, after, strict=True))
    networks.redraw(model, 7)
    assert all(np.array_equal(a, b) for a, b in zip(after, model.get_weights(), strict=True))
    fresh = networks.build(SMALL, 3, 8, seed=7)
    assert np.array_equal(
        fresh.get_layer("logit").get_weights()[0], model.get_layer("logit").get_weights()[0]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes 1; give a whole number from 2"),
        ({"edge": 1}, "edge 1"),
        ({"channels": 0}, "channels 0"),
        ({"seed": True}, "seed True"),
        ({"biases": "ones"}, "biases is 'ones'"),
    ],
)
def test_what_cannot_be_built_is_named(options, message):
    with pytest.raises(networks.BadBuild, match=message):
        networks.build(SMALL, **({"classes": 2} | options))


def _gradients(layer, x, weights):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(tf.sin(y))
    return [np.asarray(part) for part in (y, *tape.gradient(loss, [x, *weights]))]


@pytest.mark.parametrize("activation", nas3d_layers.ACTIVATIONS)
def test_instance_norm_is_keras_group_normalisation(activation):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3, 2, (2, 3, 4, 5, 6)), tf.float32)
    ours, theirs = (
        nas3d_layers.InstanceNorm(activation=activation),
        layers.GroupNormalization(-1, epsilon=1e-5),
    )
    parts = [rng.normal(0, 1, 6).astype("f4") for _ in range(2)]
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.set_weights(parts)
    found = _gradients(ours, x, [ours.gamma.value, ours.beta.value])
    expected = _gradients(
        lambda x: keras.activations.get(activation)(theirs(x)),
        x,
        [theirs.gamma.value, theirs.beta.value],
    )
    assert all(np.allclose(a, b, atol=2e-5) for a, b in zip(found, expected, strict=True))


def _activated(layer, x, training: bool, relu: bool):
    y = layer(x, training=training)
    return keras.activations.relu(y) if relu else y


def test_batch_norm_is_keras_batch_normalisation():
    rng = np.random.default_rng(1)
    x = tf.constant(rng.normal(1, 2, (3, 4, 4, 4, 5)), tf.float32)
    ours, theirs = (
        nas3d_layers.BatchNorm("relu", momentum=0.9, epsilon=1e-5),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
    )
    results = []
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.set_weights(
            [
                np.float32([1, -1, 2, 0.5, 1]),
                np.float32([0, 1, 2, 3, -1]),
                np.zeros(5, "f4"),
                np.ones(5, "f4"),
            ]
        )
        whole = functools.partial(_activated, layer, relu=layer is theirs)
        results.append(
            [
                *_gradients(
                    functools.partial(whole, training=True),
                    x,
                    [layer.gamma.value, layer.beta.value],
                ),
                np.asarray(whole(x, training=False)),
                *map(np.asarray, layer.get_weights()),
            ]
        )
    assert all(np.allclose(a, b, atol=2e-5) for a, b in zip(*results, strict=True))
    assert results[0][6].any()


def test_mish_is_keras_mish_also_far_out():
    x = tf.constant([[-1e4, -90.0, -20.0, -1.0, 0.0, 1.0, 19.0, 21.0, 1e4]])
    found, expected = (
        _gradients(layer, x, [])
        for layer in (nas3d_layers.Activate("mish"), keras.activations.mish)
    )
    assert all(
        np.isfinite(a).all() and np.allclose(a, b, atol=1e-6, rtol=1e-6)
        for a, b in zip(found, expected, strict=True)
    )
    with pytest.raises(ValueError, match="activation is 'gelu'"):
        nas3d_layers.Activate("gelu")


def test_a_network_learns_with_a_last_batch_of_another_size():
    rng = np.random.default_rng(0)
    x, y = rng.random((22, 8, 8, 8, 1)).astype("f4"), np.arange(22) % 2
    x[y == 1, :4] += 1
    model = networks.build(Network3D(CHAIN, (0,), 1, 1, 8), 2, 8)
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    losses = model.fit(x, y, 16, 15, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0] / 2
    assert np.isfinite(model.evaluate(x, y, 16, verbose=0)).all()
