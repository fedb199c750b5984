"""Grad-CAM: the identities it must fulfil, and the same maps whichever way a model is put
together.
"""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kit.explain import gradcam
from kit.models import heads, scaling, transfer
from kit.search.nas3d import networks
from kit.search.nas3d.space import Network3D
from kit.studies.br35h import network


@pytest.fixture(scope="module")
def images():
    """Random images, deliberately not square, 20 x 16 RGB."""
    return np.random.default_rng(0).random((5, 20, 16, 3), np.float32)


def _stem():
    inputs = layers.Input((20, 16, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="conv_a")(inputs)
    x = layers.BatchNormalization(name="norm")(
        layers.Conv2D(8, 3, strides=2, padding="same", name="conv_b")(x)
    )
    return keras.Model(inputs, layers.ReLU(name="last")(x), name="stem")


@pytest.fixture(scope="module")
def gap_model():
    """Stem, global average pooling, linear layer of four classes, softmax."""
    keras.utils.set_random_seed(1)
    stem = _stem()
    return heads.join(
        stem, heads.head_model(stem.output_shape[1:], "gap", dense=None, dropout=0.4, classes=4)
    )


@pytest.fixture(scope="module")
def yes_no_model():
    keras.utils.set_random_seed(2)
    stem = _stem()
    return heads.join(stem, heads.head_model(stem.output_shape[1:], dense=10))


def test_published_cnn_gives_maps_of_117_by_117():
    model = network.br35h_cnn(240, dense=4, seed=0)
    image = np.random.default_rng(0).random((1, 240, 240, 1), np.float32)
    assert gradcam.find_layer(model).name == "conv2"
    maps = gradcam.gradcam(model, image, target=int(model(image)[0, 0] < 0.5))
    assert (maps.shape, maps.dtype) == ((1, 117, 117), np.float32)
    assert gradcam.gradcam(model, image, upsample=True).shape == (1, 240, 240)


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet50v2", None), ("efficientnet_lite0", "imagenet")]
)
def test_transfer_models_give_maps_of_8_by_8(name, weights):
    keras.utils.set_random_seed(0)
    base = transfer.backbone(name, 240, weights)
    model = heads.join(base, heads.head_model(base.output_shape[1:], dense=32))
    assert gradcam.find_layer(model).name == transfer.entry(name).last_conv_layer
    image = scaling.prepare(
        name, np.random.default_rng(0).integers(0, 256, (1, 240, 240), dtype=np.uint8)
    )
    raw = gradcam.gradcam(model, image, target=1, rectify=False)
    assert raw.shape == (1, 8, 8)
    upsampled = gradcam.gradcam(model, image, target=int(raw.max() > 0), upsample=True)
    assert (upsampled.shape, upsampled.max()) == ((1, 240, 240), 1)
    assert upsampled.min() >= 0


def test_no_is_the_exact_negative_of_yes(yes_no_model, images):
    yes, no = (
        gradcam.gradcam(yes_no_model, images, target=target, rectify=False) for target in (1, 0)
    )
    assert np.abs(yes).max() > 0
    np.testing.assert_array_equal(yes, -no)
    positive, negative = (
        gradcam.gradcam(yes_no_model, images, target=target) > 0 for target in (1, 0)
    )
    assert positive.any()
    assert negative.any()
    assert not (positive & negative).any()
    np.testing.assert_array_equal(
        gradcam.gradcam(yes_no_model, images, target="logit"),
        gradcam.gradcam(yes_no_model, images, target=1),
    )


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_default_target_is_the_predicted_class(gap_model, yes_no_model, images, score):
    centred = images - images.mean((1, 2), keepdims=True) * np.linspace(0, 2, 5)[
        :, None, None, None
    ].astype("f4")
    for model in (gap_model, yes_no_model):
        output = model.predict(centred, verbose=0)
        predicted = output.argmax(1) if output.shape[1] > 1 else (output[:, 0] > 0.5).astype(int)
        np.testing.assert_array_equal(
            gradcam.gradcam(model, centred, score=score),
            gradcam.gradcam(model, centred, target=predicted, score=score),
        )


@pytest.mark.parametrize("target", range(4))
def test_after_global_average_pooling_it_is_the_classic_cam(gap_model, images, target):
    """cad/oracle.md section 6: the weight of channel k is W[k, c] / (h w)."""
    features = keras.Model(gap_model.input, gap_model.get_layer("last").output).predict(
        images, verbose=0
    )
    kernel = gap_model.get_layer("logit").get_weights()[0]
    cam = features @ kernel[:, target] / (features.shape[1] * features.shape[2])
    np.testing.assert_allclose(
        gradcam.gradcam(gap_model, images, target=target, rectify=False), cam, atol=1e-7
    )
    for found, rectified in zip(
        gradcam.gradcam(gap_model, images, target=target), np.maximum(cam, 0), strict=True
    ):
        np.testing.assert_allclose(found, rectified / (rectified.max() or 1), atol=1e-5)
    np.testing.assert_allclose(
        gradcam.gradcam(gap_model, images, target=target, variant="hirescam", rectify=False),
        cam,
        atol=1e-7,
    )


def test_softmax_score_mixes_the_classes(gap_model, images):
    """cad/oracle.md section 6: with the softmax score the weights are sum_j p_c (delta_cj - p_j)
    W[k, j] / (h w).
    """
    features = keras.Model(gap_model.input, gap_model.get_layer("last").output).predict(
        images, verbose=0
    )
    kernel, p = gap_model.get_layer("logit").get_weights()[0], gap_model.predict(images, verbose=0)
    mixed = p[:, [2]] * (np.eye(4)[2] - p) @ kernel.T / (features.shape[1] * features.shape[2])
    expected = np.einsum("nhwk,nk->nhw", features, mixed)
    np.testing.assert_allclose(
        gradcam.gradcam(gap_model, images, target=2, score="probability", rectify=False),
        expected,
        atol=1e-7,
    )


def _assemblies(stem, units):
    """The same layers as flat, nested, doubly nested and Sequential models, with the activation in
    or after the dense layer.
    """
    activation = "sigmoid" if units == 1 else "softmax"
    inside = [layers.Flatten(name="flat"), layers.Dense(units, activation=activation, name="out")]
    after = [
        layers.Flatten(name="flat2"),
        layers.Dense(units, name="linear"),
        layers.Activation(activation, name="act"),
    ]

    def chain(x, parts):
        for part in parts:
            x = part(x)
        return x

    flat = keras.Model(stem.input, chain(stem.output, inside), name="flat_model")
    nested_input = layers.Input((20, 16, 3))
    nested = keras.Model(nested_input, chain(stem(nested_input), inside), name="nested")
    inner = keras.Sequential([stem], name="inner")
    outer_input = layers.Input((20, 16, 3))
    double = keras.Model(
        outer_input, keras.Sequential(inside, name="top")(inner(outer_input)), name="double"
    )
    plain = keras.Sequential([layers.Input((20, 16, 3)), *stem.layers[1:], *inside], name="plain")
    sequential = keras.Sequential([layers.Input((20, 16, 3)), stem, *after], name="sequential")
    operation = keras.Model(
        stem.input, getattr(keras.ops, activation)(chain(stem.output, after[:2])), name="operation"
    )
    softmax = (
        [
            keras.Sequential(
                [layers.Input((20, 16, 3)), stem, *after[:2], layers.Softmax()], name="softmax"
            )
        ]
        if units > 1
        else []
    )
    after[1].set_weights(inside[1].get_weights())
    return [flat, nested, double, plain, sequential, operation, *softmax]


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("variant", ["gradcam", "layercam"])
def test_every_way_to_put_a_model_together_gives_the_same_maps(images, units, variant, tmp_path):
    keras.utils.set_random_seed(3)
    together = _assemblies(_stem(), units)
    expected = gradcam.gradcam(together[0], images, variant=variant)
    assert expected.shape == (5, 9, 7)
    assert (expected.max((1, 2)) > 0).any()
    for i, model in enumerate(together):
        model.save(tmp_path / f"{i}.keras")
        for copy in (model, keras.models.load_model(tmp_path / f"{i}.keras")):
            np.testing.assert_allclose(
                gradcam.gradcam(copy, images, variant=variant),
                expected,
                atol=1e-5,
                err_msg=copy.name,
            )
            raw = gradcam.gradcam(
                copy, images, layer="conv_a", target=0, rectify=False, variant=variant
            )
            np.testing.assert_allclose(
                raw,
                gradcam.gradcam(
                    together[0], images, layer="conv_a", target=0, rectify=False, variant=variant
                ),
                atol=1e-6,
            )


def test_gradient_agrees_with_a_model_of_two_outputs(yes_no_model, images):
    """The usual recipe, which works for flat models, as an independent computation."""
    joined = yes_no_model.get_layer("dense")._inbound_nodes[
        -1
    ]  # its first call was in the head alone
    both = keras.Model(
        yes_no_model.input, [yes_no_model.get_layer("conv_b").output, joined.output_tensors[0]]
    )
    kernel, bias = yes_no_model.get_layer("logit").get_weights()
    with tf.GradientTape() as tape:
        features, hidden = both(images, training=False)
        logit = hidden @ kernel + bias
    gradient = tape.gradient(logit, features)
    expected = (tf.reduce_mean(gradient, (1, 2), keepdims=True) * features).numpy().sum(-1)
    np.testing.assert_allclose(
        gradcam.gradcam(yes_no_model, images, "conv_b", 1, rectify=False), expected, atol=1e-6
    )


def test_batches_dropout_and_frozen_layers_do_not_matter(gap_model, images):
    expected = gradcam.gradcam(gap_model, images)
    np.testing.assert_allclose(gradcam.gradcam(gap_model, images, batch=2), expected, atol=1e-6)
    gap_model.trainable = False
    np.testing.assert_array_equal(gradcam.gradcam(gap_model, images), expected)
    gap_model.trainable = True


def test_nothing_positive_gives_zeros_without_a_warning(images):
    keras.utils.set_random_seed(4)
    stem = _stem()
    model = heads.join(stem, heads.head_model(stem.output_shape[1:], "gap", dense=None))
    model.get_layer("logit").set_weights([-np.ones((8, 1)), np.zeros(1)])
    with np.errstate(all="raise"):
        for variant in gradcam.VARIANTS:
            maps = gradcam.gradcam(model, images, target=1, variant=variant, upsample=True)
            assert maps.shape == (5, 20, 16)
            assert not maps.any()
    assert gradcam.gradcam(model, images, target=0).max((1, 2)).tolist() == [1] * 5


def test_variants_by_their_formulas():
    rng = np.random.default_rng(0)
    a, g = rng.random((2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    plus = np.zeros((2, 3, 4))
    for n in range(2):
        for k in range(5):
            alpha = g[n, ..., k] ** 2 / (
                2 * g[n, ..., k] ** 2 + a[n, ..., k].sum() * g[n, ..., k] ** 3
            )
            plus[n] += (alpha * np.maximum(g[n, ..., k], 0)).sum() * a[n, ..., k]
    np.testing.assert_allclose(gradcam.VARIANTS["gradcam++"](a, g), plus)
    np.testing.assert_allclose(
        gradcam.VARIANTS["layercam"](a, g), (np.where(g > 0, g, 0) * a).sum(-1)
    )
    np.testing.assert_allclose(
        gradcam.VARIANTS["gradcam"](a, g), np.einsum("nk,nhwk->nhw", g.mean((1, 2)), a)
    )


def test_a_callable_variant_gets_maps_and_gradients(gap_model, images):
    """For instance the most active channel of the CAD paper's notebook, which looks at no class."""

    def most_active(maps, gradients):
        assert maps.shape == gradients.shape == (5, 9, 7, 8)
        return np.take_along_axis(maps, maps.mean((1, 2)).argmax(-1)[:, None, None, None], -1)[
            ..., 0
        ]

    assert gradcam.gradcam(gap_model, images, variant=most_active).max() == 1


def test_volumes():
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 8, 1)),
            layers.Conv3D(4, 3),
            layers.GlobalAveragePooling3D(),
            layers.Dense(2),
        ]
    )
    volume = np.random.default_rng(0).random((2, 8, 8, 8, 1), np.float32)
    assert gradcam.gradcam(model, volume, target=1).shape == (2, 6, 6, 6)
    assert gradcam.gradcam(model, volume, upsample=True).shape == (2, 8, 8, 8)


@pytest.fixture(scope="module")
def searched():
    """A found network of two stacks with the direct edge, three classes, volumes of 8 x 8 x 8."""
    cell = ((0, 1, 1, 1), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0))
    model = networks.build(Network3D(cell, (3, 9), 1, 2, 8), 3, edge=8, seed=2)
    return model, np.random.default_rng(1).random((3, 8, 8, 8, 1), np.float32)


@pytest.mark.parametrize("variant", ["gradcam", "hirescam"])
def test_found_3d_networks_give_the_classic_cam(searched, variant):
    """Behind global average pooling the weight of channel k is W[k, c] / voxels, in three
    dimensions too.
    """
    model, volumes = searched
    last = networks.feature_layer(model)
    assert gradcam.find_layer(model).name == last
    features = keras.Model(model.input, model.get_layer(last).output).predict(volumes, verbose=0)
    for target in range(3):
        cam = features @ model.get_layer("logit").get_weights()[0][:, target] / 4**3
        np.testing.assert_allclose(
            gradcam.gradcam(model, volumes, last, target, variant, rectify=False), cam, atol=1e-6
        )


@pytest.mark.parametrize("variant", gradcam.VARIANTS)
@pytest.mark.parametrize("layer", ["stem_norm", "cell1_out", "cell2_node1_norm", None])
def test_every_variant_and_map_of_a_found_3d_network(searched, variant, layer):
    model, volumes = searched
    predicted = model.predict(volumes, verbose=0).argmax(1)
    maps = gradcam.gradcam(model, volumes, layer, variant=variant, upsample=True)
    assert (maps.shape, maps.dtype) == ((3, 8, 8, 8), np.float32)
    assert maps.min() >= 0
    assert set(maps.max((1, 2, 3))) <= {0, 1}
    np.testing.assert_allclose(
        gradcam.gradcam(model, volumes, layer, predicted, variant, upsample=True, batch=2),
        maps,
        atol=1e-4,
    )


def test_variants_of_volumes_by_their_formulas():
    rng = np.random.default_rng(0)
    a, g = rng.random((2, 3, 4, 5, 6)), rng.normal(size=(2, 3, 4, 5, 6))
    flat_a, flat_g = a.reshape(2, 12, 5, 6), g.reshape(2, 12, 5, 6)
    np.testing.assert_allclose(
        gradcam.VARIANTS["gradcam"](a, g), np.einsum("nk,ndhwk->ndhw", g.mean((1, 2, 3)), a)
    )
    for (
        name,
        combine,
    ) in gradcam.VARIANTS.items():  # the formulas do not care how the places are arranged
        np.testing.assert_allclose(
            combine(a, g).reshape(2, 12, 5), combine(flat_a, flat_g), err_msg=name
        )


@pytest.mark.parametrize("size", [(8, 12, 20), (4, 5, 7)])
def test_resized_volumes_are_linear_along_each_axis(size):
    maps = np.random.default_rng(0).random((2, 4, 5, 6), np.float32)
    plane = (
        tf.image.resize(maps.transpose(0, 2, 3, 1), size[1:]).numpy().transpose(0, 3, 1, 2)
    )  # height and width, then depth
    expected = (
        tf.image.resize(plane.reshape(2, 4, -1, 1), (size[0], plane[0, 0].size))
        .numpy()
        .reshape(2, *size)
    )
    np.testing.assert_allclose(gradcam.resize(maps, size), expected, atol=1e-5)


def test_layers_that_are_not_there(gap_model, images):
    stem = _stem()
    entrance = layers.Input((20, 16, 3))
    twins = keras.Model(
        entrance,
        layers.Dense(1)(
            layers.Flatten()(layers.Add()([stem(entrance), _renamed(_stem(), "twin")(entrance)]))
        ),
    )
    with pytest.raises(gradcam.LayerNotFound, match=r"2 layers called 'conv_b'.*twin/last"):
        gradcam.gradcam(twins, images, layer="conv_b")
    assert gradcam.gradcam(twins, images, layer="twin/conv_b").shape == (5, 9, 7)
    with pytest.raises(gradcam.LayerNotFound, match="0 layers called 'conv_z'"):
        gradcam.gradcam(gap_model, images, layer="conv_z")
    with pytest.raises(gradcam.LayerNotFound, match="no layer with a feature map"):
        gradcam.find_layer(keras.Sequential([layers.Input((3,)), layers.Dense(1)]))


def _renamed(model, name):
    return keras.Model(model.input, model.output, name=name)


@pytest.mark.parametrize("target", [4, -2])
def test_classes_that_are_not_there(gap_model, images, target):
    with pytest.raises(gradcam.TargetNotFound, match="0 to 3"):
        gradcam.gradcam(gap_model, images, target=target)


def test_the_model_is_left_as_it_was_and_threads_do_not_disturb_each_other(gap_model, images):
    expected, results, before = (
        gradcam.gradcam(gap_model, images),
        [],
        gap_model.predict(images, verbose=0),
    )
    threads = [
        threading.Thread(target=lambda: results.append(gradcam.gradcam(gap_model, images)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    predictions = [gap_model(images, training=False).numpy() for _ in range(10)]
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)
    assert all(np.allclose(prediction, before, atol=1e-6) for prediction in predictions)
    assert not any("call" in vars(layer) for layer in gap_model.layers)


def test_an_error_in_the_model_leaves_no_trace(gap_model, images):
    with pytest.raises(ValueError, match="incompatible with the layer"):
        gradcam.gradcam(gap_model, images[..., :2])
    assert not any("call" in vars(layer) for layer in gap_model.layers)


@pytest.mark.parametrize("size", [(20, 16), (27, 33), (9, 70)])
def test_resize_is_tensorflows_bilinear(size):
    maps = np.random.default_rng(0).random((3, 9, 7), np.float32)
    np.testing.assert_allclose(
        gradcam.resize(maps, size),
        tf.image.resize(maps[..., None], size).numpy()[..., 0],
        atol=1e-5,
    )


def test_overlay_takes_gray_colour_and_small_maps():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1
    gray = np.full((40, 30), 100, np.uint8)
    reference = gradcam.overlay(gray, heat)
    assert (reference.shape, reference.dtype) == ((40, 30, 3), np.uint8)
    for same in (gray[..., None], np.repeat(gray[..., None], 3, -1), gray.astype("f4") / 255):
        np.testing.assert_array_equal(gradcam.overlay(same, heat), reference)
    assert np.array_equal(gradcam.overlay(gray, heat, alpha=0), np.repeat(gray[..., None], 3, -1))
    assert reference[0, 0].sum() > reference[-1, -1].sum()
    red, blue = gradcam.overlay(gray, heat, 1, "jet")[[0, -1], [0, -1]]
    assert red[0] > 100 > red[2]
    assert blue[2] > 100 > blue[0]
