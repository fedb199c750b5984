"""Backbones: parameter counts, layer inventories and maps of the CAD paper's networks, their
inputs, and multiply-accumulates.
"""

import random
from collections import Counter

import keras
import numpy as np
import pytest

from kit.explain import gradcam
from kit.models import backbone_catalog, backbones, macs, scaling, transfer
from kit.models.lite0 import LITE0_STAGES

# total, trainable, not trainable, layers of the paper's model, trainable tensors, last map, layer
# inventory, counted in plain Keras
ORACLE = {
    "vgg19": (20_026_436, 20_026_436, 0, 25, 34, (6, 6, 512), {"Conv2D": 16, "MaxPooling2D": 5}),
    "inceptionv3": (
        21_810_980,
        21_776_548,
        34_432,
        314,
        190,
        (4, 4, 2048),
        {
            "Conv2D": 94,
            "BatchNormalization": 94,
            "Activation": 94,
            "MaxPooling2D": 4,
            "AveragePooling2D": 9,
            "Concatenate": 15,
        },
    ),
    "resnet50": (
        23_595_908,
        23_542_788,
        53_120,
        178,
        214,
        (7, 7, 2048),
        {
            "Conv2D": 53,
            "BatchNormalization": 53,
            "Activation": 49,
            "Add": 16,
            "ZeroPadding2D": 2,
            "MaxPooling2D": 1,
        },
    ),
    "xception": (
        20_869_676,
        20_815_148,
        54_528,
        135,
        156,
        (7, 7, 2048),
        {
            "Conv2D": 6,
            "SeparableConv2D": 34,
            "BatchNormalization": 40,
            "Activation": 35,
            "Add": 12,
            "MaxPooling2D": 4,
        },
    ),
    "mobilenetv2": (
        2_263_108,
        2_228_996,
        34_112,
        157,
        158,
        (7, 7, 1280),
        {
            "Conv2D": 35,
            "DepthwiseConv2D": 17,
            "BatchNormalization": 52,
            "ReLU": 35,
            "Add": 10,
            "ZeroPadding2D": 4,
        },
    ),
    "nasnetlarge": (
        84_932_950,
        84_736_282,
        196_668,
        1042,
        1018,
        (11, 11, 4032),
        {
            "Conv2D": 48,
            "SeparableConv2D": 220,
            "BatchNormalization": 264,
            "Activation": 264,
            "Add": 110,
            "Concatenate": 26,
            "AveragePooling2D": 70,
            "MaxPooling2D": 8,
            "ZeroPadding2D": 24,
            "Cropping2D": 4,
        },
    ),
}
FIVE = [name for name in ORACLE if name != "nasnetlarge"]


@pytest.fixture(scope="module")
def five():
    """The networks that are quick to build, at the published size, with random weights."""
    return {name: backbones.fine_tuned(name, weights=None, seed=0) for name in FIVE}


def _run(model, images):
    """Outputs by an eager call; `predict` would compile a graph for a handful of images."""
    return model(images, training=False).numpy()


def _size(weights) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _check(model, name):
    total, trainable, fixed, count, tensors, shape, inventory = ORACLE[name]
    assert (
        model.count_params(),
        _size(model.trainable_weights),
        _size(model.non_trainable_weights),
    ) == (total, trainable, fixed)
    assert len(model.trainable_weights) == tensors
    kinds = Counter(type(layer).__name__ for layer in model.layers)
    # the softmax is a layer of its own: one layer more than published
    assert len(model.layers) == count + 1
    assert {
        **inventory,
        "Activation": inventory.get("Activation", 0) + 1,
        "GlobalAveragePooling2D": 1,
        "Dropout": 1,
        "Dense": 1,
        "InputLayer": 1,
    } == dict(kinds)
    assert [layer.name for layer in model.layers[-4:]] == [
        "gap",
        "head_dropout",
        "logit",
        "probability",
    ]
    assert (model.get_layer("head_dropout").rate, model.output_shape, model.input_shape[1]) == (
        0.4,
        (None, 4),
        backbone_catalog.entry(name).input_size,
    )
    assert model.get_layer(backbones.last_map(model)).output.shape[1:] == shape
    sides = [
        model.get_layer(layer).output.shape[1] for layer in backbones.stage_layers(model, name)
    ]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == len(sides) >= 3
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


@pytest.mark.parametrize("name", FIVE)
def test_counts_and_layers_are_those_of_the_oracle(five, name):
    _check(five[name], name)


def test_nasnetlarge():
    """The one test that builds it: 85 million parameters."""
    model = backbones.fine_tuned("nasnetlarge", weights=None)
    _check(model, "nasnetlarge")
    last = backbones.gradcam_layer(model, "nasnetlarge")
    # fourth from the end in the paper's model, fifth here
    assert (model.layers[-5].name, type(model.get_layer(last)).__name__) == (last, "Activation")
    assert gradcam.find_layer(model).name == last
    # published with the classifier of 1,000 classes: 23.8 billion
    assert macs.macs(model) + 4032 * 1000 == pytest.approx(23.8e9, abs=0.05e9)


def test_resnet50_stages_are_those_of_the_oracle(five):
    model = five["resnet50"]
    shapes = {
        name: model.get_layer(name).output.shape[1:]
        for name in backbones.stage_layers(model, "resnet50")
    }
    assert shapes == {
        "conv1_relu": (100, 100, 64),
        "conv2_block3_out": (50, 50, 256),
        "conv3_block4_out": (25, 25, 512),
        "conv4_block6_out": (13, 13, 1024),
        "conv5_block3_out": (7, 7, 2048),
    }
    assert sum("conv" in layer.name for layer in model.layers) == 172
    assert model.get_layer("conv1_conv").count_params() == 9_472


@pytest.mark.parametrize("name", [name for name in FIVE if name != "vgg19"])
def test_gradcam_layer_is_the_map_that_the_head_reads(five, name):
    assert backbones.gradcam_layer(five[name], name) == backbones.last_map(five[name])


def test_vgg19_is_explained_before_its_last_pooling(five):
    model = five["vgg19"]
    assert (backbones.last_map(model), backbones.gradcam_layer(model, "vgg19")) == (
        "block5_pool",
        "block5_conv4",
    )
    assert model.get_layer("block5_conv4").output.shape[1:] == (12, 12, 512)
    assert gradcam.find_layer(model).name == "block5_conv4"


def test_every_published_title_and_the_mark_of_the_stranger():
    assert set(backbone_catalog.paper_networks()) == set(ORACLE)
    assert backbone_catalog.entry("resnet50").label == "ResNet-50"
    assert (
        backbone_catalog.entry("efficientnet_lite0").label
        == "EfficientNet-Lite0 (not in the paper)"
    )
    assert transfer.entry("xception") is backbone_catalog.entry("xception")


@pytest.fixture(scope="module")
def lite0():
    return backbones.fine_tuned("efficientnet_lite0", 64, seed=1)


def test_efficientnet_lite0_starts_from_imagenet_and_can_be_trained_whole(lite0):
    reference = transfer.backbone("efficientnet_lite0", 64)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(reference.get_weights(), lite0.get_weights(), strict=False)
    )
    assert _size(lite0.trainable_weights) == 3_371_008 + 1280 * 4 + 4
    assert (
        backbones.stage_layers(lite0, "efficientnet_lite0")[-1]
        == backbones.last_map(lite0)
        == "top_relu"
    )


def test_gradcam_of_the_logit_is_the_class_activation_map(lite0):
    """With GAP and one dense layer, Grad-CAM equals the dense kernel's weighting of the
    last map.
    """
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    inner = keras.Model(lite0.input, lite0.get_layer("top_relu").output)
    kernel = lite0.get_layer("logit").kernel.numpy()
    expected = _run(inner, images) @ kernel[:, 2] / 4  # map of 2 x 2 positions
    for layer in ("top_relu", None):
        np.testing.assert_allclose(
            gradcam.gradcam(lite0, images, layer, target=2, rectify=False),
            expected,
            rtol=1e-4,
            atol=1e-6,
        )


def test_one_step_of_training_moves_every_trainable_tensor(lite0):
    model = keras.models.clone_model(lite0)
    model.set_weights(lite0.get_weights())
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(np.random.default_rng(0).random((4, 64, 64, 3), np.float32), np.arange(4))
    assert all(
        not np.array_equal(a, b) for a, b in zip(before, model.trainable_weights, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "mode"), [("efficientnet_lite0", "lite"), ("mobilenetv2", "tf"), ("vgg19", "caffe")]
)
def test_matched_input_is_what_the_weights_were_trained_on(name, mode, tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    bgr = rgb[..., ::-1] / np.float32(255)
    plain, matched = (
        backbones.fine_tuned(name, 32, weights=None, seed=3, matched=matched)
        for matched in (False, True)
    )
    front = keras.Model(matched.input, matched.get_layer("matched_scale").output)
    np.testing.assert_allclose(
        _run(front, bgr), scaling.scale(rgb, mode), atol=2e-3 if mode == "caffe" else 1e-5
    )
    assert transfer.entry(name).preprocess == mode
    assert matched.count_params() == plain.count_params()
    np.testing.assert_allclose(_run(matched, bgr), _run(plain, scaling.scale(rgb, mode)), atol=1e-5)
    matched.save(tmp_path / "model.keras")
    np.testing.assert_allclose(
        _run(keras.models.load_model(tmp_path / "model.keras"), bgr), _run(matched, bgr), atol=1e-6
    )


def test_momentum_of_all_batch_normalisation(tmp_path):
    def momenta(model):
        return {
            layer.momentum
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        }

    published, changed = (
        backbones.fine_tuned("mobilenetv2", 32, weights=None, bn_momentum=momentum)
        for momentum in (None, 0.9)
    )
    assert momenta(published) == {0.999}
    assert momenta(changed) == {0.9}
    changed.save(tmp_path / "model.keras")
    assert momenta(keras.models.load_model(tmp_path / "model.keras")) == {0.9}


def test_a_seed_fixes_all_weights_and_leaves_the_global_seed_alone():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    first, same, other = (
        backbones.fine_tuned("mobilenetv2", 32, weights=None, seed=seed).get_weights()
        for seed in (1, 1, 2)
    )
    assert random.random() == expected
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[-2], other[-2])


@pytest.mark.parametrize(
    ("name", "smallest"), [("xception", 71), ("inceptionv3", 75), ("vgg19", 32)]
)
def test_too_small_inputs_are_refused(name, smallest):
    with pytest.raises(backbone_catalog.InputTooSmall, match=str(smallest)):
        backbones.fine_tuned(name, smallest - 1, weights=None)
    assert backbones.fine_tuned(name, smallest, weights=None).input_shape == (
        None,
        smallest,
        smallest,
        3,
    )


def test_macs_of_single_layers_by_hand():
    inputs = keras.layers.Input((8, 6, 4))
    x = keras.layers.Conv2D(10, 3, padding="same", strides=2, groups=2)(
        inputs
    )  # 4 x 3 positions, 3 x 3 x 2 inputs, 10 outputs
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.DepthwiseConv2D(5, padding="same", depth_multiplier=2)(x)  # 4 x 3, 5 x 5, 20
    x = keras.layers.SeparableConv2D(7, 3)(x)  # 2 x 1, 3 x 3 x 20 and 20 x 7
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(x)))  # 14 x 5
    by_hand = [0, 12 * 18 * 10, 0, 12 * 25 * 20, 2 * (180 + 140), 0, 70]
    table = macs.macs(model, table=True)
    assert table["macs"].tolist() == by_hand
    assert macs.macs(model) == sum(by_hand)
    assert table["parameters"].sum() == model.count_params()


def test_macs_of_resnet50_agree_with_the_literature():
    """3.86 billion at 224 px with the classifier of 1,000 classes; tolerance half of the last
    digit.
    """
    counted = macs.macs(transfer.backbone("resnet50", 224, weights=None)) + 2048 * 1000
    assert counted / 1e9 == pytest.approx(3.86, abs=0.005)


# Sandler et al. 2018, table 2: expansion, channels, repeats, stride, kernel
MOBILENETV2_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)


@pytest.mark.parametrize(
    ("name", "stages"), [("mobilenetv2", MOBILENETV2_STAGES), ("efficientnet_lite0", LITE0_STAGES)]
)
def test_macs_of_inverted_residuals_equal_a_count_from_the_published_table(name, stages):
    """MobileNetV2 comes to 301 million with the classifier, where its authors print 300."""
    side, channels = 112, 32
    expected = side**2 * 27 * 32
    for expansion, filters, repeats, stride, kernel in stages:
        for repeat in range(repeats):
            wide, after = channels * expansion, side // (stride if repeat == 0 else 1)
            expected += (side**2 * channels * wide if expansion > 1 else 0) + after**2 * wide * (
                kernel**2 + filters
            )
            side, channels = after, filters
    expected += side**2 * channels * 1280
    assert macs.macs(transfer.backbone(name, 224, weights=None)) == expected


def test_macs_of_vgg19_with_its_three_dense_layers():
    dense = 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    assert (
        macs.macs(transfer.backbone("vgg19", 224, weights=None)) + dense
    ) / 1e9 == pytest.approx(19.6, abs=0.05)


def test_layers_that_cannot_be_counted_are_refused(lite0):
    for layer in (
        keras.layers.Conv2DTranspose(3, 2),
        transfer.backbone("mobilenetv2", 32, weights=None),
    ):
        inputs = keras.layers.Input((32, 32, 3))
        with pytest.raises(macs.UncountedLayer, match="cannot be counted"):
            macs.macs(keras.Model(inputs, layer(inputs)))
    inputs = keras.layers.Input((None, None, 3))
    with pytest.raises(macs.UncountedLayer, match="fixed input size"):
        macs.macs(keras.Model(inputs, keras.layers.Conv2D(3, 2)(inputs)))
