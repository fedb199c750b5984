"""Models: parameter counts and map sizes of the publication, flat graphs, frozen backbones,
features and heads that fit together.
"""

import keras
import numpy as np
import pytest

from kit.models import heads, scaling, transfer
from kit.models.lite0 import efficientnet_lite0
from kit.studies.br35h import network

# channels, kernel, padding, pool, (conv1, conv2) parameters, map sizes, flatten length, total,
# counted in plain Keras
CNN_ORACLE = [
    (1, 3, "valid", 2, (320, 9_248), (238, 119, 117, 58), 107_648, 53_834_569),
    (1, 3, "same", 2, (320, 9_248), (240, 120, 120, 60), 115_200, 57_610_569),
    (1, 5, "valid", 2, (832, 25_632), (236, 118, 114, 57), 103_968, 52_011_465),
    (1, 5, "same", 2, (832, 25_632), (240, 120, 120, 60), 115_200, 57_627_465),
    (1, 3, "valid", 3, (320, 9_248), (238, 79, 77, 25), 20_000, 10_010_569),
    (1, 3, "valid", 4, (320, 9_248), (238, 59, 57, 14), 6_272, 3_146_569),
    (1, 5, "valid", 4, (832, 25_632), (236, 59, 55, 13), 5_408, 2_731_465),
    (3, 3, "valid", 2, (896, 9_248), (238, 119, 117, 58), 107_648, 53_835_145),
    (3, 3, "same", 2, (896, 9_248), (240, 120, 120, 60), 115_200, 57_611_145),
    (3, 5, "valid", 2, (2_432, 25_632), (236, 118, 114, 57), 103_968, 52_013_065),
]


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "pool", "convolutions", "sizes", "flat", "total"), CNN_ORACLE
)
def test_cnn_has_the_parameters_of_the_oracle(
    channels, kernel, padding, pool, convolutions, sizes, flat, total
):
    model = network.br35h_cnn(240, channels, kernel, padding, pool)
    assert (
        tuple(model.get_layer(name).count_params() for name in ("conv1", "conv2")) == convolutions
    )
    assert (
        tuple(
            model.get_layer(name).output.shape[1] for name in ("conv1", "pool1", "conv2", "pool2")
        )
        == sizes
    )
    assert model.get_layer("flatten").output.shape[1] == flat
    assert model.count_params() == total


def test_dropout_positions_and_rate():
    rates = {
        position: [
            layer.rate
            for layer in network.br35h_cnn(32, dropout=0.2, dropout_position=position).layers
            if "dropout" in layer.name
        ]
        for position in ("each", "last")
    }
    assert rates == {"each": [0.2, 0.2], "last": [0.2]}
    with pytest.raises(ValueError, match="each"):
        network.br35h_cnn(32, dropout_position="first")


def test_a_seed_fixes_initial_weights_and_dropout_masks():
    x = np.random.default_rng(0).random((4, 32, 32, 1), np.float32)
    first, same, other = (network.br35h_cnn(32, dense=8, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first(x, training=True), same(x, training=True))
    assert not np.allclose(first(x), other(x))
    keras.utils.set_random_seed(5)
    one = network.br35h_cnn(32, dense=8)
    keras.utils.set_random_seed(5)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            one.get_weights(), network.br35h_cnn(32, dense=8).get_weights(), strict=True
        )
    )


@pytest.fixture(scope="module")
def published():
    base = transfer.backbone("resnet50v2", 240, weights=None)
    return heads.join(base, heads.head_model(base.output_shape[1:]))


def test_transfer_model_has_the_parameters_of_the_oracle(published):
    assert published.count_params() == 89_101_801
    assert sum(int(np.prod(w.shape)) for w in published.trainable_weights) == 65_537_001
    assert [w.path for w in published.trainable_weights] == [
        "dense/kernel",
        "dense/bias",
        "logit/kernel",
        "logit/bias",
    ]
    assert published.get_layer("dense").count_params() == 65_536_500
    assert published.get_layer("logit").count_params() == 501


def test_transfer_model_is_flat_and_ends_in_8_by_8_by_2048(published):
    assert not any(isinstance(layer, keras.Model) for layer in published.layers)
    assert published.get_layer(transfer.entry("resnet50v2").last_conv_layer).output.shape == (
        None,
        8,
        8,
        2048,
    )


def test_resnet50v2_backbone_counts():
    base = transfer.backbone("resnet50v2", 240, weights=None)
    assert (base.count_params(), len(base.layers), base.output_shape) == (
        23_564_800,
        190,
        (None, 8, 8, 2048),
    )
    assert base.layers[-1].name == "post_relu"
    assert not base.trainable_weights
    base.trainable = True
    assert sum(int(np.prod(w.shape)) for w in base.trainable_weights) == 23_519_360


def test_efficientnet_lite0_counts():
    base = transfer.backbone("efficientnet_lite0", 224, weights=None)
    statistics = sum(int(np.prod(w.shape)) for w in base.weights if "moving" in w.path)
    assert (base.count_params(), statistics, base.output_shape) == (
        3_413_024,
        42_016,
        (None, 7, 7, 1280),
    )
    # 4,652,008 trainable parameters with the ImageNet classifier, as its authors state ("4.7M")
    assert efficientnet_lite0(224, 1000).count_params() - statistics == 4_652_008


@pytest.fixture(scope="module")
def base():
    """EfficientNet-Lite0 at 64 px with ImageNet weights: random ones would let the signal fade to
    nothing.
    """
    return transfer.backbone("efficientnet_lite0", 64)


@pytest.mark.parametrize(("head", "classes"), [("flatten", 1), ("gap", 4)])
def test_joined_model_equals_head_of_features(base, head, classes):
    top = heads.head_model(
        base.output_shape[1:], head, dense=16, dropout=0.3, classes=classes, seed=1
    )
    joined = heads.join(base, top)
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    x = scaling.prepare("efficientnet_lite0", images)
    expected = top(base(x)).numpy()
    assert expected.shape == (3, classes)
    np.testing.assert_allclose(joined(x), expected, atol=1e-6)
    assert not any(isinstance(layer, keras.Model) for layer in joined.layers)
    assert len(joined.trainable_weights) == 4


def test_training_the_head_on_cached_features_changes_the_joined_model(base, tmp_path):
    top = heads.head_model(base.output_shape[1:], dense=8, seed=0)
    joined = heads.join(base, top)
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 1), dtype=np.uint8)
    cached = transfer.features(base, images, batch=3)
    x = scaling.prepare("efficientnet_lite0", images)
    before = joined(x).numpy()
    top.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    top.fit(cached, np.array([0, 1] * 4), epochs=2, verbose=0)
    after = joined(x).numpy()
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, top(cached), atol=2e-3)  # float16 features
    joined.save(tmp_path / "joined.keras")
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "joined.keras")(x), after, atol=1e-6
    )


def test_features_take_gray_and_rgb_and_do_not_depend_on_the_batch(base):
    gray = np.random.default_rng(1).integers(0, 256, (5, 64, 64), dtype=np.uint8)
    reference = transfer.features(base, gray, batch=5)
    assert (reference.dtype, reference.shape) == (np.float16, (5, 2, 2, 1280))
    for same in (
        transfer.features(base, gray[..., None], 2),
        transfer.features(base, np.repeat(gray[..., None], 3, -1), 4),
    ):
        np.testing.assert_allclose(same.astype("f4"), reference.astype("f4"), rtol=2e-3, atol=1e-3)
    direct = base.predict(scaling.prepare("efficientnet_lite0", gray), verbose=0)
    assert np.array_equal(direct.astype(np.float16), reference)


def test_scaling_modes():
    pixel = np.array([[[[0, 127, 255]]]], np.uint8)
    assert scaling.scale(pixel, "unit").ravel().tolist() == pytest.approx([0, 127 / 255, 1])
    assert scaling.prepare("resnet50v2", pixel).ravel().tolist() == pytest.approx(
        [-1, 127 / 127.5 - 1, 1]
    )
    assert scaling.prepare("efficientnet_lite0", pixel).ravel().tolist() == pytest.approx(
        [-127 / 128, 0, 1]
    )
    assert scaling.scale(pixel, "caffe").ravel().tolist() == pytest.approx(
        [255 - 103.939, 127 - 116.779, -123.68]
    )
    assert scaling.scale(pixel, "torch").ravel().tolist() == pytest.approx(
        [-0.485 / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-5
    )
    assert pixel.ravel().tolist() == [0, 127, 255]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((8, 8), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(scaling.BadImages, match="uint8"):
        scaling.prepare("resnet50v2", images)


def test_wrong_size_and_unknown_backbone_are_refused(base):
    with pytest.raises(scaling.BadImages, match="resize"):
        transfer.features(base, np.zeros((1, 32, 32), np.uint8))
    with pytest.raises(transfer.UnknownBackbone, match="resnet50v2"):
        transfer.backbone("alexnet", 64, weights=None)
    with pytest.raises(ValueError, match="gap"):
        heads.head_model((2, 2, 4), "max")
