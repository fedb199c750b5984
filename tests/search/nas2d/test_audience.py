"""The audience networks: exact parameter counts, the layers against Keras' own, and true second
derivatives.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kit.search.nas2d import audience

SMALL = {"width": 2}


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("resnet18", {"stem": "3x3"}, 11_170_884),
        ("resnet18", {"stem": "7x7"}, 11_178_564),
        ("vgg13", {}, 10_718_788),
    ],
)
def test_parameter_counts(name, options, count):
    assert audience.parameters(name, 4, 64, **options) == count


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"stem": "3x3"}),
        ("resnet18", {"stem": "7x7"}),
        ("vgg13", {}),
        ("vgg13", {"input_channels": 1}),
    ],
)
def test_weights_fit_their_shapes_and_are_all_used(name, options):
    weights = audience.initial_weights(name, 3, 32, seed=1, **SMALL, **options)
    assert [w.shape for w in weights] == [
        shape for _, shape in audience.weight_shapes(name, 3, 32, **SMALL, **options)
    ]
    x = tf.random.stateless_uniform((2, 32, 32, options.get("input_channels", 3)), (1, 2))
    tensors = [tf.constant(w) for w in weights]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        logits = audience.forward(name, tensors, x)
        loss = tf.reduce_sum(tf.square(logits))
    assert logits.shape == (2, 3)
    assert all(g is not None for g in tape.gradient(loss, tensors))


def test_weights_follow_from_the_seed():
    first, again, other = (
        audience.initial_weights("vgg13", 4, 32, seed, **SMALL) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def keras_vgg(classes, width):
    stack = [layers.Input((32, 32, 3))]
    for number, multiple in enumerate(audience.CONVOLUTIONS):
        stack.append(layers.Conv2D(multiple * width, 3, padding="same", activation="relu"))
        if number % 2:
            stack.append(layers.MaxPooling2D())
    model = keras.Sequential(
        [
            *stack,
            layers.Flatten(),
            *(layers.Dense(8 * width, "relu") for _ in range(2)),
            layers.Dense(classes),
        ]
    )
    return model, model.trainable_variables


def keras_resnet(classes, width, stem):
    made = []  # layers in the order of their making; a model sorts them by depth

    def convolved(x, channels, side, stride):
        made.extend(
            [
                layers.Conv2D(channels, side, stride, "valid", use_bias=False),
                layers.BatchNormalization(epsilon=1e-5),
            ]
        )
        return made[-1](made[-2](layers.ZeroPadding2D(side // 2)(x)))

    inputs = x = layers.Input((32, 32, 3))
    x = layers.ReLU()(convolved(x, width, stem, 2 if stem == 7 else 1))
    if stem == 7:
        x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage, multiple in enumerate(audience.STAGES):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = convolved(
                layers.ReLU()(convolved(x, multiple * width, 3, stride)), multiple * width, 3, 1
            )
            x = layers.ReLU()(y + (convolved(x, multiple * width, 1, 2) if stride == 2 else x))
    made.append(layers.Dense(classes))
    model = keras.Model(inputs, made[-1](layers.GlobalAveragePooling2D()(x)))
    return model, [v for layer in made for v in layer.trainable_variables]


@pytest.mark.parametrize(
    ("name", "stem"), [("vgg13", "3x3"), ("resnet18", "3x3"), ("resnet18", "7x7")]
)
def test_logits_equal_those_of_keras_layers(name, stem):
    model, variables = keras_vgg(3, 2) if name == "vgg13" else keras_resnet(3, 2, int(stem[0]))
    rng = np.random.default_rng(0)
    shapes = audience.weight_shapes(name, 3, 32, stem=stem, **SMALL)
    weights = [rng.standard_normal(shape).astype("float32") * 0.5 for _, shape in shapes]
    parts = [
        part
        for (label, _), w in zip(shapes, weights, strict=False)
        for part in (w if label.endswith(".norm") else [w])
    ]
    for variable, value in zip(variables, parts, strict=True):
        variable.assign(value)
    x = rng.uniform(size=(3, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(
        audience.forward(name, [tf.constant(w) for w in weights], tf.constant(x)),
        model(x, training=True),
        rtol=2e-3,
        atol=1e-4,
    )


def test_second_derivative_in_float64():
    """The derivative of the gradient along a direction, which LeaSE differentiates, against central
    differences.
    """
    weights = [
        tf.constant(w) for w in audience.initial_weights("resnet18", 3, 16, 0, "float64", width=1)
    ]
    rng = np.random.default_rng(1)
    x, direction = (
        rng.uniform(size=(2, 16, 16, 3)),
        [tf.constant(rng.standard_normal(w.shape)) for w in weights],
    )

    def along(x):
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(weights)
                loss = tf.reduce_sum(tf.sin(audience.forward("resnet18", weights, x)))
            gradients = inner.gradient(loss, weights)
            product = tf.add_n(
                [tf.reduce_sum(g * d) for g, d in zip(gradients, direction, strict=False)]
            )
        return product, outer.gradient(product, x)

    step = 1e-7 * rng.standard_normal(x.shape)
    difference = along(x + step)[0] - along(x - step)[0]
    assert float(difference) == pytest.approx(
        2 * float(tf.reduce_sum(along(x)[1] * step)), rel=1e-4
    )


def test_what_cannot_be_built_is_said():
    with pytest.raises(audience.UnknownAudience, match="resnet18, vgg13"):
        audience.forward("resnet50", [], tf.zeros((1, 8, 8, 3)))
    with pytest.raises(audience.UnknownAudience, match="32 pixels or more, not 16"):
        audience.parameters("vgg13", 4, 16)
    with pytest.raises(audience.UnknownAudience, match="stem"):
        audience.parameters("resnet18", 4, 64, stem="5x5")
