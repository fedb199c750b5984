"""ResNets on volumes: published counts, PyTorch's logits from PyTorch's names, the ACS convolution,
and what cannot be built.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.models import backbones
from kit.models import macs as macs_module
from kit.search.nas3d import resnet

# Trainable parameters for 2, 3 and 11 classes, and multiply-accumulates for 2
COUNTS = {
    ("resnet18", "3d"): ((33_140_802, 33_141_315, 33_145_419), 17_749_103_616),
    ("resnet18", "2.5d"): ((11_168_706, 11_169_219, 11_173_323), 5_944_439_808),
    ("resnet50", "3d"): ((46_138_946, 46_140_995, 46_157_387), 23_940_882_432),
    ("resnet50", "acs"): ((23_503_298, 23_505_347, 23_521_739), 12_489_523_200),
}
# Logits of PyTorch 2.15, from definitions written for this purpose, at a sixteenth of the width,
# with `_values` and the volume RandomState(6).rand(1, 9, 9, 9)
TORCH_LOGITS = {
    ("resnet18", "3d"): [1.39235, 0.8629, 2.10288],
    ("resnet50", "3d"): [1.46776, 0.06947, -0.42493],
    ("resnet18", "2.5d"): [0.72586, 1.21904, 1.31322],
    ("resnet50", "2.5d"): [1.28746, 0.23057, 0.4859],
    ("resnet18", "acs"): [0.68365, 1.15769, 1.26294],
    ("resnet50", "acs"): [1.28746, 0.4268, 0.58082],
}
TORCH_AXES = {5: (4, 3, 0, 1, 2), 4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}


@pytest.mark.parametrize(("name", "variant"), COUNTS)
def test_parameters_and_macs_are_the_published_ones(name, variant):
    parameters, macs = COUNTS[name, variant]
    assert [resnet.costs(name, variant, classes)[0] for classes in (2, 3, 11)] == list(parameters)
    assert resnet.costs(name, variant)[1] == macs
    features = {"resnet18": 512, "resnet50": 2048}[name]
    assert parameters[1] - parameters[0] == features + 1
    assert parameters[2] - parameters[0] == 9 * (features + 1)


@pytest.mark.parametrize("variant", resnet.VARIANTS)
@pytest.mark.parametrize("name", resnet.BLOCKS)
def test_costs_are_those_of_the_built_network(name, variant):
    options = {"classes": 3, "edge": 9, "channels": 2, "width": 0.07}
    model = resnet.build(name, variant, **options)
    assert resnet.costs(name, variant, **options) == (
        sum(np.prod(w.shape) for w in model.trainable_weights),
        macs_module.macs(model),
    )


def test_stage_sizes_and_channels():
    model = resnet.build("resnet18", "acs", 3, channels=3, width=0.125)
    assert [model.get_layer(f"layer{stage}.1.out").output.shape[1:] for stage in (1, 2, 3, 4)] == [
        (28,) * 3 + (8,),
        (14,) * 3 + (16,),
        (7,) * 3 + (32,),
        (4,) * 3 + (64,),
    ]
    assert backbones.last_map(model) == "layer4.1.out"
    assert model.output_shape == (None, 3)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert resnet.costs("resnet18", "3d", channels=3)[0] - 33_140_802 == 3456
    assert resnet.costs("resnet18", "acs", channels=3)[0] - 11_168_706 == 1152
    assert resnet.title("resnet18", "acs") == "ResNet-18 (ACS)"
    assert resnet.reduction(1) == ""
    assert "0.125 times" in resnet.reduction(0.125)


def _values(model) -> dict:
    """Layer -> weights, drawn in the order of PyTorch's names: kernels normal / sqrt(fan in),
    vectors 1 + normal / 10.
    """
    shapes = {}
    for layer in model.layers:
        for part, weight in zip(
            ("weight", "bias", "running_mean", "running_var"), layer.weights, strict=False
        ):
            shape = tuple(weight.shape)
            shapes[f"{layer.name}.{part}"] = tuple(shape[axis] for axis in TORCH_AXES[len(shape)])
    rng, values = np.random.RandomState(5), {}
    for name in sorted(shapes):
        shape = shapes[name]
        values[name] = rng.standard_normal(shape) * (
            0.1 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5
        ) + (len(shape) == 1)
    return {
        layer.name: [
            values[f"{layer.name}.{part}"].transpose(np.argsort(TORCH_AXES[len(weight.shape)]))
            for part, weight in zip(
                ("weight", "bias", "running_mean", "running_var"), layer.weights, strict=False
            )
        ]
        for layer in model.layers
        if layer.weights
    }


@pytest.mark.parametrize(("name", "variant"), TORCH_LOGITS)
def test_logits_are_those_of_pytorch(name, variant, tmp_path):
    model = resnet.build(name, variant, 3, 9, width=1 / 16)
    for layer, arrays in _values(model).items():
        model.get_layer(layer).set_weights(arrays)
    x = np.random.RandomState(6).rand(1, 9, 9, 9, 1).astype("f4")
    logits = np.asarray(model(x))
    assert np.abs(logits - TORCH_LOGITS[name, variant]).max() < 5e-5
    if (name, variant) == ("resnet18", "acs"):
        model.save(tmp_path / "model.keras")
        assert np.array_equal(
            np.asarray(keras.models.load_model(tmp_path / "model.keras")(x)), logits
        )


def test_an_acs_convolution_sees_each_plane_with_its_share():
    layer = resnet.ACSConv3D(8, 3)
    layer.build((None, 5, 5, 5, 2))
    layer.kernel.assign(np.ones(layer.kernel.shape))
    assert layer.shares() == [3, 3, 2]
    assert layer.kernel.shape == (3, 3, 2, 8)
    x = np.zeros((1, 5, 5, 5, 2), "f4")
    x[0, 2, 2, 2] = 1
    y = np.asarray(layer(x))[0]
    for channels, axis in ((slice(0, 3), 0), (slice(3, 6), 1), (slice(6, 8), 2)):
        reached = np.argwhere(y[..., channels].any(-1))
        assert len(reached) == 9
        assert (reached[:, axis] == 2).all()
        assert set(np.unique(y[..., channels])) == {0, 2}
    strided = resnet.ACSConv3D(1, 3, 2)
    assert (
        strided(x).shape
        == strided.compute_output_shape(x.shape)
        == (
            1,
            3,
            3,
            3,
            1,
        )
    )
    assert strided.shares() == [1, 0, 0]


def test_seeds_fix_the_weights_and_gradients_reach_them():
    one, same, other = (
        resnet.build("resnet18", "acs", 2, 8, width=1 / 16, seed=seed) for seed in (1, 1, 2)
    )
    kernels = [model.get_layer("layer1.0.conv1").get_weights()[0] for model in (one, same, other)]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
    assert 0.9 < np.abs(kernels[0]).max() * 6 <= 1
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(
            tf.sin(one(np.random.RandomState(0).rand(4, 8, 8, 8, 1).astype("f4"), training=True))
        )
    assert all(
        np.isfinite(part).all() and np.any(part)
        for part in tape.gradient(loss, one.trainable_weights)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet34"}, "no 'resnet34' in '3d'"),
        ({"variant": "2d"}, "choose one of resnet18"),
        ({"classes": 1}, "classes 1; give"),
        ({"edge": 0}, "edge 0"),
        ({"channels": 1.0}, "channels 1.0"),
        ({"width": 0}, "width is 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_built_is_named(options, message):
    with pytest.raises(resnet.BadResNet, match=message):
        resnet.build(**({"name": "resnet18"} | options))
