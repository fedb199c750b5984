"""The paired convolution is Keras' convolution, forward and back, and is taken where it pays."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kit import compat
from kit.models import macs
from kit.search.nas3d import convolution, networks
from kit.search.nas3d.space import Network3D


@pytest.mark.parametrize(
    ("kernel", "entering", "filters"), [(3, 1, 8), (5, 3, 4), (7, 8, 8), (3, 12, 2)]
)
def test_three_passes_are_those_of_keras(kernel, entering, filters):
    rng = np.random.default_rng(kernel)
    x = tf.constant(rng.normal(0, 1, (2, 5, 6, 8, entering)), tf.float32)
    factor = tf.constant(rng.normal(0, 1, (2, 5, 6, 8, filters)), tf.float32)
    ours, theirs = (
        convolution.PairedConv3D(filters, kernel, padding="same", activation="relu"),
        layers.Conv3D(filters, kernel, padding="same", activation="relu"),
    )
    results = []
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.set_weights(
            [
                np.random.default_rng(1).normal(0, 0.1, layer.kernel.shape),
                np.linspace(-1, 1, filters),
            ]
        )
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * factor)
        results.append([y, *tape.gradient(loss, [x, *(weight.value for weight in layer.weights)])])
    assert all(np.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(*results, strict=True))


def test_it_is_taken_for_few_filters_on_a_processor(monkeypatch, tmp_path):
    cell = Network3D(((0, 1, 0), (0, 0, 1), (0, 0, 0)), (9,), 1, 2, 8)
    model = networks.build(cell, 2, 16)
    kinds = {layer.name: type(layer) for layer in model.layers if isinstance(layer, layers.Conv3D)}
    few, many = convolution.PairedConv3D, layers.Conv3D
    assert kinds == {
        "stem_conv": few,
        "cell1_node1_conv": few,
        "cell2_entry": many,
        "cell2_node1_conv": many,
    }
    model.save(tmp_path / "model.keras")
    loaded, x = (
        keras.models.load_model(tmp_path / "model.keras"),
        np.random.default_rng(0).random((2, 16, 16, 16, 1), np.float32),
    )
    assert np.array_equal(model(x), loaded(x))
    assert type(loaded.get_layer("stem_conv")) is few
    monkeypatch.setattr(compat, "use_xla", lambda: True)
    other = networks.build(cell, 2, 16)
    assert type(other.get_layer("stem_conv")) is many
    assert macs.macs(other) == macs.macs(model)
    other.set_weights(model.get_weights())
    assert np.allclose(other(x), model(x), atol=1e-5)
    monkeypatch.undo()
    assert type(networks.build(cell, 2, 8).get_layer("stem_conv")) is many
    assert type(networks.build(cell, 2, 17).get_layer("stem_conv")) is many
