"""Weights from elsewhere: PyTorch's function from PyTorch's weights, Keras' from Keras',
SqueezeNet's real ones, and files that are refused.
"""

import base64
import zlib

import h5py
import keras
import numpy as np
import pytest
from conftest import shared_data
from PIL import Image
from sklearn.datasets import load_sample_image

from kit import paths
from kit.models import architecture_catalog, architectures, ported_weights, pretrained, weights

# Logits of PyTorch 2.15 for the second image of `_images` under the weights of `_state`, five
# classes, from definitions written for this purpose
TORCH_LOGITS = {
    "regnety_400mf": [-10.00059, -104.4931, 26.72875, 10.61586, -23.86865],
    "regnetx_400mf": [-18879.81, -46368.55, 28491.65, 11642.92, -16063.13],
    "shufflenetv2_x1.0": [-81.93517, 32.35052, 310.5403, -88.35475, -158.7],
    "shufflenetv2_x1.5": [-71.36291, -41.36935, 140.9138, -8.92218, -30.40272],
    "shufflenetv2_x2.0": [51.01299, 59.49676, 116.6629, -54.65494, -36.77322],
    "mnasnet_1.0": [-2071.051, 790.5318, -969.7715, 728.0389, 978.431],
    "squeezenet_1.1": [2.339587, -6.679646, 6.625282, -0.8774256, -0.1049215],
}
# A file that PyTorch 2.15 wrote: arange(12) as 3 x 4 "plain", its transpose, the view [1:, 1:3],
# the scalar [2, 3], and an int64 counter of 7
TORCH_ZIP = (
    "c-o~@U2D@&7(Qv!G-ln0bDwV0`Q3qbNxy8txvfZUBG^@w;7!TWtPN&KPjWgxKp2Px@4fOu#6RJ!e?c$2"
    "@<Q-J1VQlD8_#LdkYsCz^Uybe@;=Y|ocDd7RHZl#"
    "0Ly{{XADdMXIC+d)rNwUO#7iBRwlrM$k~sns%03Oige3#xI1=3v$e)8T}2!OD>X=^<pd^c8;Wkin2Ic0"
    "ZDr~mq#F)bx3%q#ZZzshGabvW?`1g{Pp9Q11~@oV"
    "X=;#mA)IJf3cBn5$-#t7;T#?^avZ<ab_XV<6oTxQ1f;k`ci{<%mZ&b|Ubcvc5d>2;I4W~E8QF^Iv@J(#"
    "z_Avt)}mX97SrnC#|fU6;$1i)QH18Ci=RaBR1Hqa"
    "G`WdlBRCyJ&TL5uDJI3baMrCn=OX73JY9neGDEJUDu!ai#VB@ZOBz{Oar4h0c(w+Ydo56{j)^oIo^t_S"
    "BW_z})9=IiULOQ_0W(nuUc~zQOqUS6T!U9SnW~gz"
    "+1Ec`y~C*_sskrJ4HmqKXLc-mS3&hX&35oy#mek~!Fxv_^zVOtc}|3o7)(D0%6)oox^>0So93=&BC%2!"
    "RAKlj=81syNAO1smxv7&Fb+070ozZIW|37DD{IHA"
    "+dqbmkf9L`FV?=zlQA<xHKf2sz*VcfSh?|E0$kSpb^O@CKOFlw-s1Rx<0}q)X)u9f83(^fls<m8bCW0j"
    "IYQ}7P^lnRCJ#}X^s)(W`}22;5V1pfN5PuM>u*>2"
    "_$|nBr1Hl%&3i}Be-Y&S3)s7oquDy%z^4lNcGdNUSmFO!2wx})0$(a*b48(Cyv`T0<-AZR<%-2JpXYOh"
    "e72Y`<#Q#Xa=x?#(pX2jr;;LKeVsvvjvY`Q{tid6"
    "LHkXIaK9;VxTB*KK?BW&D7Io?plhQnK?{tBSU&kIzV)Ku;8vzW;QMh9@=O#N+`BLm&>^G{MF#g~Gz64="
    "<baL^hq)NOs}DVV&8iZ^T=jC##IN}{HuC;Md5uZ*"
    "EyncR=6IfSzqSd+#jw46H}@|q?X5u"
)


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """A machine without files of weights or a network."""
    monkeypatch.setattr(weights, "folders", lambda: [tmp_path / "weights", tmp_path / "keras"])
    monkeypatch.setattr(weights, "_failures", {})
    monkeypatch.setenv("KIT_OFFLINE", "1")
    (tmp_path / "weights").mkdir()
    return tmp_path


def _torch_shapes(model, name) -> dict:
    """PyTorch's names and shapes of a network's tensors."""
    shapes = {}
    for layer in (layer for layer in model.layers if layer.weights):
        for key, weight in zip(
            ported_weights._torch_names(layer, name), layer.weights, strict=True
        ):
            shape = tuple(weight.shape)
            if len(shape) == 4:
                shape = (
                    (shape[2], 1, *shape[:2])
                    if isinstance(layer, keras.layers.DepthwiseConv2D)
                    else (shape[3], shape[2], *shape[:2])
                )
            shapes[key] = shape[::-1] if len(shape) == 2 else shape
    return shapes


def _state(model, name) -> dict:
    """Weights drawn tensor by tensor in the order of their names; kernels He normal by fan in."""
    random, state = np.random.RandomState(0), {}
    for key, shape in sorted(_torch_shapes(model, name).items()):
        if key.endswith("running_var"):
            values = 0.5 + random.rand(*shape)
        elif key.endswith(("running_mean", "bias")):
            values = 0.1 * random.randn(*shape)
        else:
            values = (
                1 + 0.1 * random.randn(*shape)
                if len(shape) == 1
                else random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
            )
        state[key] = values.astype("f4")
    return state


def _images():
    return np.random.RandomState(1).randn(2, 3, 70, 101).astype("f4").transpose(0, 2, 3, 1)


def _save(path, state, **changes):
    np.savez(path, **{key: value for key, value in (state | changes).items() if value is not None})
    return path


@pytest.fixture(scope="module")
def squeeze():
    """SqueezeNet of five classes and its PyTorch state."""
    model = architectures.build("squeezenet_1.1", 5, seed=0)
    return model, _state(model, "squeezenet_1.1")


@pytest.mark.parametrize("name", TORCH_LOGITS)
def test_pytorch_weights_give_pytorch_logits(name, tmp_path):
    model = architectures.build(name, 5)
    state = _state(model, name)
    counters = {
        key.replace("running_var", "num_batches_tracked"): np.int64(3)
        for key in state
        if key.endswith("running_var")
    }
    report = ported_weights.load(
        model,
        name,
        _save(
            tmp_path / "w.npz",
            {f"module.{key}": value for key, value in (state | counters).items()},
        ),
    )
    assert report["head"]
    assert report["by"] == "name"
    assert len(report["sha256"]) == 64
    np.testing.assert_allclose(
        model(_images()[1:]).numpy()[0],
        TORCH_LOGITS[name],
        rtol=1e-4,
        atol=1e-4 * np.abs(TORCH_LOGITS[name]).max(),
    )


def test_a_classifier_of_other_classes_keeps_the_seeded_start(tmp_path, squeeze):
    path = _save(tmp_path / "w.npz", squeeze[1])
    model = architectures.build("squeezenet_1.1", 3, head_seed=4)
    head = model.get_layer("logits").kernel.numpy()
    assert not ported_weights.load(model, "squeezenet_1.1", path)["head"]
    np.testing.assert_array_equal(model.get_layer("logits").kernel, head)
    np.testing.assert_array_equal(
        model.get_layer("features.12.squeeze").kernel[0, 0].numpy().T,
        squeeze[1]["features.12.squeeze.weight"][:, :, 0, 0],
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"features.3.squeeze.bias": None},
            "no tensor features.3.squeeze.bias, which Squeezenet-1_1 needs",
        ),
        (
            {"features.3.squeeze.weight": np.zeros((16, 64, 3, 3), "f4")},
            "shape .16, 64, 3, 3., which does not fit",
        ),
        (
            {"layer4.0.conv.weight": np.zeros(3, "f4")},
            "1 tensors that Squeezenet-1_1 does not have, e.g. layer4.0.conv.weight",
        ),
    ],
)
def test_a_state_of_another_network_is_refused(tmp_path, squeeze, changes, sentence):
    model, state = squeeze
    before = model.get_weights()
    with pytest.raises(weights.DamagedWeights, match=sentence):
        ported_weights.load(model, "squeezenet_1.1", _save(tmp_path / "w.npz", state, **changes))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_tensors_without_names_are_fitted_by_order_or_refused(tmp_path, squeeze):
    source, _ = squeeze
    arrays = source.get_weights()
    np.savez(tmp_path / "w.npz", *arrays)
    model = architectures.build("squeezenet_1.1", 5, seed=1, weights=tmp_path / "w.npz")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), arrays, strict=True))
    np.savez(tmp_path / "short.npz", *arrays[:-3])
    with pytest.raises(
        weights.DamagedWeights,
        match="holds 49 tensors where Squeezenet-1_1 has 50 and 2 of its classifier",
    ):
        ported_weights.load(model, "squeezenet_1.1", tmp_path / "short.npz")
    np.savez(tmp_path / "mixed.npz", *arrays[2:], *arrays[:2])
    with pytest.raises(
        weights.DamagedWeights, match=r"layer features\.0 of Squeezenet-1_1 has \(3, 3, 3, 64\)"
    ):
        ported_weights.load(model, "squeezenet_1.1", tmp_path / "mixed.npz")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_network_takes_back_its_own_file(tmp_path, squeeze):
    squeeze[0].save_weights(tmp_path / "own.weights.h5")
    model = architectures.build("squeezenet_1.1", 5, seed=1, weights=tmp_path / "own.weights.h5")
    assert all(
        np.array_equal(a, b)
        for a, b in zip(model.get_weights(), squeeze[0].get_weights(), strict=True)
    )
    with pytest.raises(weights.DamagedWeights, match=r"does not fit squeezenet_1\.1"):
        architectures.build("squeezenet_1.1", 4, weights=tmp_path / "own.weights.h5")


def _write_published(path, model):
    """HDF5 in the layout of the files that Keras publishes."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [
                f"{layer.name}/{number}:0".encode() for number in range(len(layer.weights))
            ]
            for number, value in enumerate(layer.get_weights()):
                group[f"{layer.name}/{number}:0"] = value


def test_keras_weights_give_keras_logits(tmp_path):
    """Keras' file of the whole network, with its 1 x 1 convolutions behind the pooling, in the
    network with dense layers; coded inputs agree.
    """
    original = keras.applications.MobileNetV3Small(
        weights=None, classes=5, classifier_activation=None, input_shape=(None, None, 3)
    )
    random = np.random.RandomState(0)
    original.set_weights(
        [
            w * (0.8 + 0.4 * random.rand(*w.shape)) + 0.02 * random.rand(*w.shape)
            for w in original.get_weights()
        ]
    )
    _write_published(tmp_path / "v3.h5", original)
    model = architectures.build("mobilenetv3_small", 5)
    report = ported_weights.load(model, "mobilenetv3_small", tmp_path / "v3.h5")
    assert report["head"]
    assert report["by"] == "order"
    raw = random.uniform(0, 255, (2, 64, 64, 3)).astype("f4")
    coded = ((raw / 255 - architecture_catalog.MEAN) / architecture_catalog.STD).astype("f4")
    expected = original(raw).numpy()
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(
        model(coded), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


def test_pytorch_names_for_a_network_of_keras_are_refused(tmp_path, squeeze):
    path = _save(tmp_path / "w.npz", {"features.0.0.weight": np.zeros((16, 3, 3, 3))})
    with pytest.raises(
        weights.DamagedWeights,
        match="not known for MobileNet-V3-Small; give it Keras' own file "
        "weights_mobilenet_v3_small",
    ):
        ported_weights.load(squeeze[0], "mobilenetv3_small", path)


# --- files ----------------------------------------------------------------------------------------


def test_a_zip_of_pytorch_is_read_without_pytorch(tmp_path):
    (tmp_path / "small.pth").write_bytes(zlib.decompress(base64.b85decode("".join(TORCH_ZIP))))
    read, grid = (
        ported_weights.read(tmp_path / "small.pth"),
        np.arange(12, dtype="f4").reshape(3, 4),
    )
    for name, expected in {
        "plain": grid,
        "transposed": grid.T,
        "part": grid[1:, 1:3],
        "scalar": grid[2, 3],
        "counter": np.int64(7),
    }.items():
        np.testing.assert_array_equal(read[name], expected)
        assert read[name].dtype == expected.dtype


def test_damaged_and_foreign_files_are_refused(tmp_path):
    whole = zlib.decompress(base64.b85decode("".join(TORCH_ZIP)))
    for name, content in {
        "a.pth": whole[:200],
        "b.pth": b"",
        "c.npz": whole,
        "d.h5": whole,
        "e.pt": whole.replace(b"FloatStorage", b"FloatStorags"),
        "f.npz": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(weights.DamagedWeights, match=name):
            ported_weights.read(tmp_path / name)
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(weights.DamagedWeights, match="no list of layers"):
        ported_weights.read(tmp_path / "g.h5")


def test_without_files_a_network_starts_at_random_and_says_so(nothing_here):
    for name in ("regnety_400mf", "mobilenetv3_large"):
        start = ported_weights.initialisation(name)
        assert (start.weights, start.stand_in) == (None, weights.RANDOM)
        with pytest.raises(
            weights.WeightsUnavailable,
            match=architecture_catalog.entry(name).title
            if name.startswith("reg")
            else "v3_large_224_1.0_float.h5",
        ):
            ported_weights.initialisation(name, "imagenet")
    assert ported_weights.initialisation("regnety_400mf", None).stand_in.startswith(
        "random initialisation, by choice"
    )
    assert ported_weights.initialisation("efficientnet_lite0").weights == "imagenet"
    with pytest.raises(weights.WeightsUnavailable, match="no file of weights"):
        architectures.build("squeezenet_1.1", 2, weights=nothing_here / "absent.npz")


def test_a_file_of_the_architectures_name_is_found_and_a_false_one_of_keras_refused(
    nothing_here, squeeze
):
    path = _save(nothing_here / "weights" / "squeezenet_1.1.npz", squeeze[1])
    assert ported_weights.find("squeezenet_1.1") == path
    assert ported_weights.initialisation("squeezenet_1.1").weights == "imagenet"
    model = architectures.build("squeezenet_1.1", 2, weights="auto")
    np.testing.assert_array_equal(model.get_layer("features.0").bias, squeeze[1]["features.0.bias"])
    (nothing_here / "weights" / ported_weights.KERAS_FILES["convnext_tiny"][1]).write_bytes(
        b"no weights"
    )
    with pytest.raises(weights.DamagedWeights, match=r"not the published file \(sha256"):
        ported_weights.find("convnext_tiny")


def test_addresses_and_checksums_are_those_of_keras():
    from keras.src.applications import convnext, efficientnet_v2, mobilenet_v3

    published = {
        "mobilenetv3_small": (
            mobilenet_v3.BASE_WEIGHT_PATH,
            mobilenet_v3.WEIGHTS_HASHES["small_224_1.0_float"][0],
        ),
        "mobilenetv3_large": (
            mobilenet_v3.BASE_WEIGHT_PATH,
            mobilenet_v3.WEIGHTS_HASHES["large_224_1.0_float"][0],
        ),
        "convnext_tiny": (convnext.BASE_WEIGHTS_PATH, convnext.WEIGHTS_HASHES["convnext_tiny"][0]),
        "efficientnetv2_s": (
            efficientnet_v2.BASE_WEIGHTS_PATH,
            efficientnet_v2.WEIGHTS_HASHES["-s"][0],
        ),
    }
    assert {
        name: (weights.KERAS_URL + below, checksum)
        for name, (below, _, checksum) in ported_weights.KERAS_FILES.items()
    } == published


# --- real weights ---------------------------------------------------------------------------------


def test_efficientnet_lite0_starts_from_the_packaged_weights():
    model = architectures.build("efficientnet_lite0", 3, weights="imagenet")
    np.testing.assert_array_equal(
        model.get_layer("top_bn").gamma, pretrained.lite0_state()["_bn1.weight"]
    )


@pytest.fixture(scope="module")
def caffe():
    """SqueezeNet's real ImageNet weights without class convolution."""
    path = (shared_data() or paths.ROOT).parent / "weights" / "squeezenet1_1_imagenet_notop.h5"
    if not path.is_file():
        pytest.skip("SqueezeNet's ImageNet weights are not on this machine")
    return path


def test_every_tensor_of_squeezenet_reaches_the_layer_of_its_name(caffe):
    model, stored = architectures.build("squeezenet_1.1", 2), ported_weights.read(caffe)
    assert ported_weights.load(model, "squeezenet_1.1", caffe)["by"] == "order"
    for fire, place in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            name = f"fire{fire}/{part}1x1" if part == "squeeze" else f"fire{fire}/{part}"
            kernel, bias = (value for key, value in stored.items() if key.startswith(name + ":"))
            np.testing.assert_array_equal(
                model.get_layer(f"features.{place}.{part}").kernel, kernel
            )
            np.testing.assert_array_equal(model.get_layer(f"features.{place}.{part}").bias, bias)


def test_the_folded_convolution_is_the_caffe_one_on_its_own_input(caffe):
    raw = np.asarray(load_sample_image("flower.jpg"))[100:164, 200:264].astype("f8")
    model = architectures.build("squeezenet_1.1", 2, weights=caffe)
    coded = ((raw / 255 - architecture_catalog.MEAN) / architecture_catalog.STD).astype("f4")
    ours = keras.Model(model.input, model.get_layer("features.0").output)(coded[None]).numpy()
    kernel, bias = list(ported_weights.read(caffe).values())[:2]
    blue_first = raw[..., ::-1] - ported_weights.CAFFE[caffe.name]
    windows = np.lib.stride_tricks.sliding_window_view(blue_first, (3, 3), axis=(0, 1))[::2, ::2]
    np.testing.assert_allclose(
        ours[0],
        np.einsum("yxihw,hwio->yxo", windows, kernel) + bias,
        rtol=1e-3,
        atol=1e-3 * np.abs(ours).max(),
    )


def _alignment(a, b) -> float:
    """Linear centred kernel alignment of two feature matrices."""
    a, b = a - a.mean(0), b - b.mean(0)
    return np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))


def test_squeezenet_sees_in_photographs_what_another_imagenet_network_sees(caffe, monkeypatch):
    """Features of 50 crops agree with EfficientNet-Lite0's, those of a random start and of shuffled
    kernels do not (the file has no classes to name).
    """
    monkeypatch.setenv("KIT_WEIGHTS", str(caffe.parent))
    random, crops = np.random.RandomState(0), []
    for picture in ("china.jpg", "flower.jpg"):
        image = load_sample_image(picture)
        for _ in range(25):
            side = random.randint(80, 240)
            top, left = (
                random.randint(0, image.shape[0] - side),
                random.randint(0, image.shape[1] - side),
            )
            crops.append(
                np.asarray(
                    Image.fromarray(image[top : top + side, left : left + side]).resize(
                        (96, 96), Image.BILINEAR
                    )
                )
            )
    coded = ((np.array(crops) / 255 - architecture_catalog.MEAN) / architecture_catalog.STD).astype(
        "f4"
    )

    def features(name, **options):
        return architectures.feature_model(architectures.build(name, 2, 96, **options))(
            coded
        ).numpy()

    other = features("efficientnet_lite0", weights="imagenet")
    real, start = features("squeezenet_1.1", weights="imagenet"), features("squeezenet_1.1", seed=0)
    assert _alignment(real, other) > 0.7 > 0.55 > _alignment(start, other)
