"""Architectures: counts of torchvision's definitions, maps of every size, PyTorch's padding and
shuffle, seeds, codings of the images, and refusals.
"""

import keras
import numpy as np
import pytest

from kit.models import architecture_catalog, architectures, ported_networks

# Convolutions that Algorithm 3 reaches in torchvision's networks (thesis and published reference),
# SqueezeNet's class convolution included
CONVOLUTIONS = {
    "convnext_tiny": 22,
    "efficientnetv2_s": 170,
    "regnety_400mf": 85,
    "regnetx_400mf": 71,
    "mobilenetv3_small": 52,
    "mobilenetv3_large": 62,
    "shufflenetv2_x1.0": 56,
    "shufflenetv2_x1.5": 56,
    "shufflenetv2_x2.0": 56,
    "mnasnet_1.0": 52,
    "squeezenet_1.1": 26,
    "efficientnet_lite0": 49,
}
# Channels compared by PWCCA (thesis; the others are the last maps' widths)
FEATURES = {
    "convnext_tiny": 768,
    "efficientnetv2_s": 1280,
    "regnety_400mf": 440,
    "regnetx_400mf": 400,
    "mobilenetv3_small": 576,
    "mobilenetv3_large": 960,
    "shufflenetv2_x1.0": 464,
    "shufflenetv2_x1.5": 704,
    "shufflenetv2_x2.0": 976,
    "mnasnet_1.0": 1280,
    "squeezenet_1.1": 512,
    "efficientnet_lite0": 1280,
}


def _size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.mark.parametrize("name", architecture_catalog.ARCHITECTURES)
def test_counts_equal_the_card_at_a_thousand_classes(name):
    known, model = architecture_catalog.entry(name), architectures.build(name, 1000, 224)
    buffers = [
        weight
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.non_trainable_weights
    ]
    assert (_size(model.trainable_weights), _size(buffers)) == (known.parameters, known.buffers)
    assert architectures.macs(model) == known.macs
    convolutions = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    ]
    assert len(convolutions) == CONVOLUTIONS[name]
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert (
        model.get_layer(architecture_catalog.feature_layer(name)).output.shape[-1] == FEATURES[name]
    )
    assert model.get_layer(architecture_catalog.HEAD).output.shape[-1] == 1000


def test_the_spaces_are_the_thesis_tables():
    titles = {
        space: [architecture_catalog.entry(name).title for name in names]
        for space, names in architecture_catalog.SPACES.items()
    }
    assert titles["table-3-1"] == [
        "ConvNext-Tiny",
        "EfficientNet-V2-Small",
        "RegNet-Y-400MF",
        "RegNet-X-400MF",
        "MobileNet-V3-Small",
        "MobileNet-V3-Large",
        "Shufflenet-v2-x1_0",
        "Shufflenet-v2-x1_5",
        "Shufflenet-v2-x2_0",
    ]
    assert titles["table-5-2"] == [
        "RegNet-Y-400MF",
        "RegNet-X-400MF",
        "MobileNet-V3-Large",
        "Shufflenet-v2-x2_0",
        "Mnasnet-1_0",
        "Squeezenet-1_1",
    ]
    assert titles["chapter-4"] == ["Shufflenet-v2-x1_5", "MobileNet-V3-Large", "RegNet-Y-400MF"]
    assert (
        architecture_catalog.entry("efficientnet_lite0").label
        == "EfficientNet-Lite0 (not in the thesis)"
    )
    assert all(
        architecture_catalog.entry(name).in_thesis
        for names in architecture_catalog.SPACES.values()
        for name in names
    )


# Side of the last map of a 70 x 101 image in PyTorch: five halvings rounded up; SqueezeNet's first
# convolution does not pad (34 x 50, then ceil)
@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("regnety_400mf", (3, 4)),
        ("shufflenetv2_x1.0", (3, 4)),
        ("mnasnet_1.0", (3, 4)),
        ("squeezenet_1.1", (4, 6)),
    ],
)
def test_one_network_takes_every_size(name, last):
    model = architectures.build(name, 3, seed=0)
    assert model.input.shape == (None, None, None, 3)
    images = np.random.default_rng(0).normal(size=(2, 70, 101, 3)).astype("f4")
    features, logits = keras.Model(model.input, [model.get_layer("features").output, model.output])(
        images
    )
    assert features.shape[1:3] == last
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    assert np.ptp(logits) > 0
    assert (np.min(logits) < 0) or name != "squeezenet_1.1"
    if name == "shufflenetv2_x1.0":
        assert architectures.feature_model(model)(images[:, :48, :48]).shape == (2, 464)


def test_shuffle_interleaves_the_halves():
    x = np.broadcast_to(np.arange(4, dtype="f4"), (2, 3, 5, 4))
    assert (ported_networks.ShuffleChannels()(x).numpy() == [0, 2, 1, 3]).all()


def test_a_strided_convolution_pads_on_both_sides():
    inputs = keras.layers.Input((None, None, 1))
    model = keras.Model(inputs, ported_networks.conv(inputs, "c", 1, 3, 2, initializer="ones"))
    # ones of 4 x 4 under a 3 x 3 kernel of ones: windows start at -1 and 1 (Keras' "same" would
    # start at 0 and 2)
    assert model(np.ones((1, 4, 4, 1), "f4")).numpy()[0, :, :, 0].tolist() == [[4, 6], [6, 9]]


def test_heads_start_from_their_seed_and_bodies_from_theirs():
    def weights(**seeds):
        model = architectures.build("squeezenet_1.1", 4, **seeds)
        return model.get_layer("features.0").kernel.numpy(), model.get_layer(
            "logits"
        ).kernel.numpy()

    (body, head), (other_body, same_head) = weights(seed=1), weights(seed=2)
    assert np.array_equal(head, same_head)
    assert not np.array_equal(body, other_body)
    same_body, other_head = weights(seed=1, head_seed=5)
    assert np.array_equal(body, same_body)
    assert not np.array_equal(head, other_head)
    assert np.abs(head).max() < 1 / np.sqrt(512) < 1.1 * np.abs(head).max()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("efficientnet_lite0", lambda raw: (raw - 127) / 128),
        ("mobilenetv3_small", lambda raw: raw / 127.5 - 1),
    ],
)
def test_the_first_convolution_sees_what_its_weights_were_trained_with(name, expected):
    raw = np.random.default_rng(0).uniform(0, 255, (2, 48, 48, 3)).astype("f4")
    coded = {
        "0..255": raw,
        "0..1": raw / 255,
        "imagenet": (raw / 255 - architecture_catalog.MEAN) / architecture_catalog.STD,
    }
    for images, batch in coded.items():
        model = architectures.build(name, 5, images=images)
        first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
        np.testing.assert_allclose(
            keras.Model(model.input, first.input)(batch.astype("f4")), expected(raw), atol=1e-5
        )
        assert [type(layer).__name__ for layer in model.layers[:2]] == ["InputLayer", "Rescaling"]
        assert len(model.layers[0].output._keras_history.operation._outbound_nodes) == 1


def test_networks_that_take_the_images_as_they_are_have_no_scaling():
    assert not any(
        isinstance(layer, keras.layers.Rescaling)
        for layer in architectures.build("squeezenet_1.1", 2).layers
    )


def test_a_shuffle_unit_comes_back_from_its_file(tmp_path):
    inputs = keras.layers.Input((None, None, 8))
    model = keras.Model(
        inputs, ported_networks.ShuffleChannels()(ported_networks._shuffle_unit(inputs, "u", 4, 1))
    )
    model.save(tmp_path / "m.keras")
    image = np.random.default_rng(0).normal(size=(1, 7, 5, 8)).astype("f4")
    output = model(image).numpy()
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(image), output)
    np.testing.assert_array_equal(output[..., ::2], image[..., :4])


def test_momentum_of_every_batch_normalisation_can_be_set():
    momenta = {
        m: {
            layer.momentum
            for layer in architectures.build("mnasnet_1.0", 2, bn_momentum=m).layers
            if isinstance(layer, keras.layers.BatchNormalization)
        }
        for m in (None, 0.5)
    }
    assert momenta == {None: {0.9997}, 0.5: {0.5}}


@pytest.mark.parametrize("stride", [1, 2])
def test_grouped_convolutions_equal_separate_ones_and_can_be_differentiated(stride):
    """Eagerly and in a graph, where TensorFlow may fuse a convolution with the normalisation behind
    it; TensorFlow long had no gradient on CPUs.
    """
    import tensorflow as tf

    images = np.random.default_rng(0).normal(size=(2, 7, 6, 8)).astype("f4")
    inputs = keras.layers.Input((None, None, 8))
    convolved = ported_networks.conv(inputs, "c", 4, 3, stride, groups=2)
    grouped = keras.Model(inputs, keras.layers.ReLU()(keras.layers.BatchNormalization()(convolved)))
    kernel = grouped.get_layer("c").kernel
    assert kernel.shape == (3, 3, 4, 4)

    def by_hand(x):
        padded = tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        halves = [
            tf.nn.conv2d(
                padded[..., 4 * g : 4 * g + 4], kernel[..., 2 * g : 2 * g + 2], stride, "VALID"
            )
            for g in (0, 1)
        ]
        return tf.nn.relu(tf.concat(halves, -1) / np.sqrt(1.001))

    def gradients(function):
        x = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(function(x) ** 2)
        return tape.gradient(total, [x, kernel])

    np.testing.assert_allclose(grouped(images), by_hand(images), atol=1e-5)
    np.testing.assert_allclose(tf.function(grouped)(images), by_hand(images), atol=1e-5)
    for run in (gradients, tf.function(gradients)):
        for ours, theirs in zip(run(grouped), gradients(by_hand), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (
            {"name": "resnet"},
            architecture_catalog.UnknownArchitecture,
            "There is no architecture 'resnet'; choose one of",
        ),
        ({"size": 16}, architecture_catalog.UnsuitableInput, "32 pixels or more, not 16"),
        ({"classes": 0}, architecture_catalog.UnsuitableInput, "0 classes"),
        (
            {"channels": 1, "weights": "auto"},
            architecture_catalog.UnsuitableInput,
            "need 3 channels, not 1",
        ),
        ({"images": "bgr"}, ValueError, "choose 'imagenet'"),
    ],
)
def test_refusals(change, error, sentence):
    with pytest.raises(error, match=sentence):
        architectures.build(**{"name": "squeezenet_1.1", "classes": 3, **change})
