import keras
import numpy as np
import pytest

from kit.search.nas2d import baselines


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_parameters_are_the_identified_ones_and_fit_the_printed_digits(name):
    known, model = baselines.entry(name), baselines.build(name)
    assert baselines.trainable(model) == known.parameters
    assert round(known.parameters / 1e6, 2) == known.printed
    assert model.input_shape == (None, 64, 64, 3)
    assert model.output_shape == (None, 4)
    assert len(model.get_layer(known.last_conv_layer).output.shape) == 4
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


@pytest.mark.parametrize(
    ("name", "size", "classes", "channels", "parameters"),
    [
        ("vgg13", 96, 4, 3, 10_718_788 + 5 * 512 * 512),
        ("vgg13", 33, 2, 1, 10_718_788 - 3 * 512 * 512 - 2 * 513 - 2 * 9 * 64),
        ("densenet40", 32, 4, 3, 246_152),
        ("densenet40", 45, 8, 1, 246_152 + 4 * 513 - 2 * 9 * 24),
    ],
)
def test_size_classes_and_channels_change_what_they_must(name, size, classes, channels, parameters):
    model = baselines.build(name, size, classes, channels)
    assert baselines.trainable(model) == parameters
    scores = np.asarray(
        model(np.random.default_rng(0).random((2, size, size, channels), np.float32))
    )
    assert scores.shape == (2, classes)
    assert np.allclose(scores.sum(1), 1, atol=1e-5)


def test_densenet_without_its_dense_layer_has_the_other_known_count():
    model = baselines.build("densenet40")
    head = 132 * 512 + 512 + 512 * 4 + 4
    assert baselines.trainable(model) - head + 132 * 4 + 4 == 176_536


def test_a_narrow_network_is_seeded_and_keeps_its_outputs():
    one, same, other = (
        baselines.build("densenet40", 32, width=0.25, seed=seed, bn_momentum=0.8)
        for seed in (1, 1, 2)
    )
    assert [
        np.array_equal(a, b) for a, b in zip(one.get_weights(), same.get_weights(), strict=False)
    ].count(False) == 0
    assert not np.array_equal(
        one.get_layer("stem").get_weights()[0], other.get_layer("stem").get_weights()[0]
    )
    assert one.get_layer("stem").filters == 6
    assert one.get_layer("dense").units == 128
    assert one.get_layer("logit").units == 4
    assert one.get_layer("final_bn").momentum == 0.8
    assert baselines.reduction(1) == ""
    assert "0.25 times" in baselines.reduction(0.25)


def test_a_narrow_resnet_takes_any_channels():
    model = baselines.build("resnet50", 40, 2, 2, width=0.0625)
    assert model.output_shape == (None, 2)
    assert model.get_layer("conv5_block3_out").output.shape[-1] == 128
    assert np.isfinite(np.asarray(model(np.ones((1, 40, 40, 2), np.float32)))).all()


def test_vgg_without_batchnorm_learns_at_the_evaluations_rate_and_clipping():
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 32, 32, 1), np.float32), np.eye(2, dtype=np.float32)[[0] * 16 + [1] * 16]
    x[:16, 8:20, 8:20] *= 0.1
    model = baselines.build("vgg13", 32, 2, 1, width=0.25, seed=0)
    model.compile(
        keras.optimizers.SGD(0.025, 0.9, global_clipnorm=5), "categorical_crossentropy"
    )  # without clipping it stays at log 2
    assert min(float(model.train_on_batch(x, y)) for _ in range(40)) < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 31}, "images of 31; give a whole number from 32"),
        ({"size": 64.0}, "images of 64.0"),
        ({"classes": 1}, "classes: 1"),
        ({"channels": 0}, "channels: 0"),
        ({"width": 0}, "width is 0"),
        ({"width": float("nan")}, "width is nan"),
    ],
)
def test_what_cannot_be_built_is_named(changes, message):
    with pytest.raises(baselines.BadBaseline, match=message):
        baselines.build("vgg13", **changes)


def test_unknown_baselines_are_named():
    with pytest.raises(baselines.UnknownBaseline, match="choose one of resnet50, resnet101, vgg13"):
        baselines.build("alexnet")
