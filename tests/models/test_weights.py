"""Weights: the PyTorch file read safely, the converted network against an independent computation,
and what happens without a network.
"""

import hashlib
import http.server
import inspect
import io
import os
import pickle
import struct
import sys
import threading
import time
import types
from collections import OrderedDict
from functools import partial
from importlib.machinery import ModuleSpec

import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from sklearn.datasets import load_sample_image

from kit.models import backbones, pretrained, scaling, torchfile, transfer, weights
from kit.models.lite0 import efficientnet_lite0

# ImageNet-1k classes by their position: those that fit scikit-learn's two photographs
DAISY, BELL_COTE, MONASTERY, PALACE = 985, 442, 663, 698


@pytest.fixture(scope="module")
def state():
    return pretrained.lite0_state()


@pytest.fixture(scope="module")
def small():
    """EfficientNet-Lite0 with its classifier at 64 px, ImageNet weights."""
    model = efficientnet_lite0(64, classes=1000)
    pretrained.load_lite0(model, pretrained.lite0_state())
    return model


# --- an independent forward pass, straight from the state dict, channels first --------------------


def _windows(x, kernel, stride):
    """Sliding windows (n, c, h, w, k, k) with TensorFlow's "same" padding: the odd pixel goes to
    the bottom and right.
    """
    total = max((-(-x.shape[2] // stride) - 1) * stride + kernel - x.shape[2], 0)
    x = np.pad(
        x, ((0, 0), (0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2))
    )
    return sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]


def _numpy_lite0(state, x):
    def norm(x, name, relu=True):
        gamma, beta, mean, var = (
            state[f"{name}.{part}"].astype("f8")[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / np.sqrt(var + 1e-3) * gamma + beta
        return np.clip(x, 0, 6) if relu else x

    def pointwise(x, name):
        return np.einsum("oi,nihw->nohw", state[name][:, :, 0, 0].astype("f8"), x)

    x = np.moveaxis(x.astype("f8"), -1, 1)
    x = norm(
        np.einsum("oikl,nihwkl->nohw", state["_conv_stem.weight"].astype("f8"), _windows(x, 3, 2)),
        "_bn0",
    )
    strided = {1, 3, 5, 11}
    for i in range(16):
        block, inputs = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in state:
            x = norm(pointwise(x, f"{block}._expand_conv.weight"), f"{block}._bn0")
        kernel = state[f"{block}._depthwise_conv.weight"].astype("f8")
        x = norm(
            np.einsum(
                "ckl,nchwkl->nchw",
                kernel[:, 0],
                _windows(x, kernel.shape[-1], 2 if i in strided else 1),
            ),
            f"{block}._bn1",
        )
        x = norm(pointwise(x, f"{block}._project_conv.weight"), f"{block}._bn2", relu=False)
        x = x + inputs if x.shape == inputs.shape else x
    x = norm(pointwise(x, "_conv_head.weight"), "_bn1")
    return x.mean((2, 3)) @ state["_fc.weight"].T.astype("f8") + state["_fc.bias"]


def test_logits_equal_an_independent_computation(state, small):
    photos = [
        np.asarray(Image.fromarray(load_sample_image(name)).resize((64, 64)))
        for name in ("china.jpg", "flower.jpg")
    ]
    x = scaling.prepare("efficientnet_lite0", np.stack(photos))
    ours, expected = small.predict(x, verbose=0), _numpy_lite0(state, x)
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=1e-4)


def test_classes_of_real_photographs():
    model = efficientnet_lite0(224, classes=1000)
    pretrained.load_lite0(model, pretrained.lite0_state())
    box = (
        133,
        27,
        506,
        400,
    )  # central 224/256 of the shorter side of 640 x 427 pixels, as in the official evaluation
    photos = [
        np.asarray(
            Image.fromarray(load_sample_image(name)).crop(box).resize((224, 224), Image.BICUBIC)
        )
        for name in ("china.jpg", "flower.jpg")
    ]
    scores = keras.ops.softmax(
        model.predict(scaling.prepare("efficientnet_lite0", np.stack(photos)), verbose=0)
    ).numpy()
    assert scores.argmax(1).tolist() == [PALACE, DAISY]
    assert set(np.argsort(-scores[0])[:3]) == {PALACE, BELL_COTE, MONASTERY}
    assert (scores.max(1) > 0.25).all()


def test_pretrained_backbone_has_the_same_features_and_says_where_from(small):
    base, provenance = transfer.pretrained("efficientnet_lite0", 64)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("f4")
    maps = base.predict(x, verbose=0)
    kernel, bias = small.get_layer("logits").get_weights()
    np.testing.assert_allclose(
        maps.mean((1, 2)) @ kernel + bias, small.predict(x, verbose=0), atol=1e-4
    )
    assert not base.trainable_weights
    assert provenance["sha256"].startswith("57934424")  # the file's own name ends in it
    assert (provenance["backbone"], provenance["trained_on"]) == (
        "efficientnet_lite0",
        "ImageNet-1k",
    )


# --- the reader -----------------------------------------------------------------------------------


def _rebuild(*arguments):
    """Stands for torch._utils._rebuild_tensor_v2 while a file is written."""


class _Storage:
    """Stands for a PyTorch storage while a file is written."""

    def __init__(self, key, values):
        self.key, self.values = key, np.asarray(values, "<f4")


class _Tensor:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return _rebuild, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return (
                "storage",
                sys.modules["torch"].FloatStorage,
                value.key,
                "cpu",
                len(value.values),
                None,
            )


@pytest.fixture
def write_torch(tmp_path, monkeypatch):
    """Write a file of the old PyTorch format, with stand-ins for the two names of PyTorch that it
    mentions.
    """
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = _rebuild
    monkeypatch.setattr(_rebuild, "__module__", "torch._utils")
    monkeypatch.setattr(_rebuild, "__name__", "_rebuild_tensor_v2")
    monkeypatch.setattr(_rebuild, "__qualname__", "_rebuild_tensor_v2")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def write(tensors, storages, keys=None, counts=None):
        buffer = io.BytesIO()
        header = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
        for value in (*header, tensors, keys or [s.key for s in storages]):
            _Pickler(buffer, 2).dump(value)
        for storage, count in zip(
            storages, counts or [len(s.values) for s in storages], strict=True
        ):
            buffer.write(struct.pack("<q", count) + storage.values.tobytes())
        path = tmp_path / "model.pth"
        path.write_bytes(buffer.getvalue())
        return path

    return write


def test_reader_understands_offsets_strides_and_shared_storages(write_torch):
    storage = _Storage("7", np.arange(12))
    tensors = OrderedDict(
        plain=_Tensor(storage, 0, (3, 4), (4, 1), False, OrderedDict()),
        transposed=_Tensor(storage, 0, (4, 3), (1, 4), False, OrderedDict()),
        part=_Tensor(storage, 5, (2, 2), (4, 1), False, OrderedDict()),
        scalar=_Tensor(storage, 11, (), (), False, OrderedDict()),
    )
    read = torchfile.read_torch(write_torch(tensors, [storage]))
    grid = np.arange(12, dtype="f4").reshape(3, 4)
    for name, expected in {
        "plain": grid,
        "transposed": grid.T,
        "part": grid[1:, 1:3],
        "scalar": grid[2, 3],
    }.items():
        np.testing.assert_array_equal(read[name], expected)
        assert read[name].flags.c_contiguous
        assert read[name].dtype == np.float32


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(0, (4, 4), (4, 1)), (10, (3,), (1,)), (0, (2, 2), (-4, 1)), (-1, (2,), (1,))],
)
def test_tensors_outside_their_storage_are_refused(write_torch, offset, shape, stride):
    storage = _Storage("7", np.arange(12))
    path = write_torch(
        {"t": _Tensor(storage, offset, shape, stride, False, OrderedDict())}, [storage]
    )
    with pytest.raises(weights.DamagedWeights, match="outside"):
        torchfile.read_torch(path)


def test_a_file_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path = tmp_path / "model.pth"
    path.write_bytes(
        b"".join(
            pickle.dumps(value, 2)
            for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, Evil())
        )
    )
    with pytest.raises(weights.DamagedWeights, match="mkdir"):
        torchfile.read_torch(path)
    assert not (tmp_path / "owned").exists()


def test_truncated_empty_and_foreign_files_are_refused(tmp_path, write_torch):
    storage = _Storage("7", np.arange(12))
    whole = write_torch(
        {"t": _Tensor(storage, 0, (12,), (1,), False, OrderedDict())}, [storage]
    ).read_bytes()
    for content in (
        b"",
        whole[:5],
        whole[:100],
        whole[:-1],
        b"PK\x03\x04" + whole,
        pickle.dumps(3),
    ):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(weights.DamagedWeights, match=r"bad\.pth"):
            torchfile.read_torch(tmp_path / "bad.pth")


def test_the_packaged_file_is_checked(tmp_path):
    (tmp_path / "other.pth").write_bytes(b"not it")
    with pytest.raises(weights.DamagedWeights, match="published"):
        pretrained.lite0_state(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("_bn0.bias"),
        lambda s: s.update(extra=np.zeros(3)),
        lambda s: s.update({"_conv_stem.weight": np.zeros((3, 3, 3, 3))}),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(state, small, change):
    changed = dict(state)
    change(changed)
    with pytest.raises(weights.DamagedWeights):
        pretrained.load_lite0(efficientnet_lite0(32), changed)


# --- finding and downloading ----------------------------------------------------------------------


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """No weights on disk, downloads refused by an unused local port."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(weights.paths, "ROOT", tmp_path)
    monkeypatch.delenv("KIT_OFFLINE", raising=False)
    monkeypatch.delenv("KIT_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "KERAS_URL", "http://127.0.0.1:9/")
    monkeypatch.setattr(weights, "_failures", {})
    return tmp_path


@pytest.fixture
def server(empty_machine, monkeypatch):
    """A local server with a small file under the name of Keras' ResNet50V2 weights."""
    (_, name, _), content = weights.KERAS_FILES["resnet50v2"], b"weights" * 1000
    (empty_machine / "www").mkdir()
    (empty_machine / "www" / name).write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=empty_machine / "www")
    )
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(weights, "KERAS_URL", f"http://127.0.0.1:{httpd.server_port}/")
    monkeypatch.setattr(
        weights, "KERAS_FILES", {"resnet50v2": ("", name, hashlib.md5(content).hexdigest())}
    )
    yield empty_machine / "keras" / "models" / name
    httpd.shutdown()
    httpd.server_close()


def test_without_network_auto_falls_back_and_says_so(empty_machine):
    start = time.monotonic()
    assert weights.resolve_backbone("auto") == weights.Choice(
        "efficientnet_lite0", weights.STAND_IN
    )
    with pytest.raises(
        weights.WeightsUnavailable,
        match=r"put resnet50v2_weights_tf_dim_ordering_tf_kernels_notop\.h5 from",
    ):
        weights.resolve_backbone("resnet50v2")
    assert time.monotonic() - start < 10
    assert not list(empty_machine.rglob("*.h5"))


def test_offline_variable_forbids_the_download(server, monkeypatch):
    monkeypatch.setenv("KIT_OFFLINE", "1")
    with pytest.raises(weights.WeightsUnavailable, match="KIT_OFFLINE"):
        weights.find("resnet50v2")
    assert weights.resolve_backbone("auto").name == "efficientnet_lite0"
    with pytest.raises(transfer.UnknownBackbone):
        weights.resolve_backbone("alexnet")


def test_download_is_checked_kept_and_used_again(server, monkeypatch):
    assert weights.resolve_backbone("auto") == weights.Choice("resnet50v2", None)
    assert server.read_bytes() == b"weights" * 1000
    monkeypatch.setattr(weights, "KERAS_URL", "http://127.0.0.1:9/")
    assert weights.find("resnet50v2") == server
    server.write_bytes(b"cut short")
    with pytest.raises(weights.DamagedWeights, match="delete it"):
        weights.resolve_backbone("auto")


def test_a_wrong_download_leaves_nothing_behind(server, monkeypatch):
    monkeypatch.setattr(weights, "KERAS_FILES", {"resnet50v2": ("", server.name, "0" * 32)})
    with pytest.raises(weights.WeightsUnavailable, match="DamagedWeights"):
        weights.find("resnet50v2")
    assert not list(server.parent.glob("*"))
    assert not list(server.parent.glob(".*"))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("resnet50v2", "ResNet50V2"),
        ("resnet50", "ResNet50"),
        ("vgg19", "VGG19"),
        ("mobilenetv2", "MobileNetV2"),
        ("inceptionv3", "InceptionV3"),
        ("xception", "Xception"),
    ],
)
def test_address_cache_name_and_checksum_are_those_of_keras(name, function, monkeypatch):
    """Keras' own functions are called, with its download replaced by a note of what it
    would fetch.
    """
    module = sys.modules[getattr(keras.applications, function).__module__]
    module = (
        sys.modules["keras.src.applications.resnet"] if function.startswith("ResNet") else module
    )
    asked = []

    class Stop(Exception):
        pass

    def note(fname, origin, cache_subdir=None, file_hash=None, **_):
        asked.append((fname, origin, file_hash))
        raise Stop

    monkeypatch.setattr(module.file_utils, "get_file", note)
    with pytest.raises(Stop):
        getattr(keras.applications, function)(
            include_top=False, weights="imagenet", input_shape=(224, 224, 3)
        )
    filename = weights.KERAS_FILES[name][1]
    assert asked == [
        (
            weights._CACHED_AS.get(filename, filename),
            weights._address(name),
            weights.KERAS_FILES[name][2],
        )
    ]


def test_nasnetlarge_is_fetched_from_the_address_of_keras():
    """Keras would build it first, which takes long; its constants are read instead."""
    nasnet = sys.modules[keras.applications.NASNetLarge.__module__]
    assert weights._address("nasnetlarge") == nasnet.NASNET_LARGE_WEIGHT_PATH_NO_TOP
    _, filename, md5 = weights.KERAS_FILES["nasnetlarge"]
    source = "".join(inspect.getsource(nasnet.NASNet).split())
    call = (
        f'"{weights._CACHED_AS[filename]}",NASNET_LARGE_WEIGHT_PATH_NO_TOP,'
        f'cache_subdir="models",file_hash="{md5}"'
    )
    assert call in source


def test_a_dead_host_is_asked_once_a_process(empty_machine, monkeypatch):
    import requests

    calls = []

    def refused(address, **_):
        calls.append(address)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", refused)
    starts = {name: weights.initialisation(name) for name in weights.KERAS_FILES}
    assert len(calls) == 1
    assert {(start.weights, start.stand_in) for start in starts.values()} == {
        (None, "random initialisation: ImageNet weights could not be fetched")
    }
    with pytest.raises(weights.WeightsUnavailable, match=r"xception.*tried once in this process"):
        weights.initialisation("xception", "imagenet")


def test_a_missing_file_does_not_condemn_the_others(server, monkeypatch):
    """The host answers, but has only ResNet50V2's file."""
    monkeypatch.setattr(
        weights, "KERAS_FILES", {"vgg19": ("", "absent.h5", "0" * 32), **weights.KERAS_FILES}
    )
    assert weights.initialisation("vgg19").stand_in == weights.RANDOM
    assert weights.initialisation("resnet50v2") == weights.Initialisation(
        "imagenet", "ImageNet weights", None
    )


def test_a_start_by_choice_is_said(empty_machine):
    assert (
        weights.initialisation("xception", None).stand_in
        == "random initialisation, by choice, in place of ImageNet weights"
    )
    assert weights.initialisation("efficientnet_lite0").weights == "imagenet"
    with pytest.raises(ValueError, match="auto"):
        weights.initialisation("xception", "random")
    with pytest.raises(transfer.UnknownBackbone):
        weights.initialisation("alexnet")


def test_a_file_without_published_checksum_must_be_hdf5_that_fits(empty_machine):
    path = empty_machine / "weights" / weights.KERAS_FILES["mobilenetv2"][1]
    path.parent.mkdir()
    path.write_bytes(b"<html>Log in to the guest network</html>")
    with pytest.raises(weights.DamagedWeights, match="HDF5"):
        weights.find("mobilenetv2")
    _save_keras2(path, keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    with pytest.raises(weights.DamagedWeights, match="does not fit"):
        transfer.pretrained("mobilenetv2", 32)


def _save_keras2(path, model):
    """Write weights as the files of keras.applications hold them."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_a_network_to_be_fine_tuned_takes_a_local_file(empty_machine):
    path = empty_machine / "weights" / weights.KERAS_FILES["mobilenetv2"][1]
    path.parent.mkdir()
    donor = transfer.backbone("mobilenetv2", 32, weights=None)
    _save_keras2(path, donor)
    for matched in (False, True):
        tuned = backbones.fine_tuned("mobilenetv2", 32, matched=matched)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(donor.get_weights(), tuned.get_weights(), strict=False)
        )
        assert len(tuned.get_weights()) == len(donor.get_weights()) + 2


def test_resnet50v2_takes_a_local_file_of_the_published_format(empty_machine, monkeypatch):
    name = weights.KERAS_FILES["resnet50v2"][1]
    donor = transfer.backbone("resnet50v2", 32, weights=None)
    path = empty_machine / "weights" / name
    path.parent.mkdir()
    _save_keras2(path, donor)
    monkeypatch.setattr(
        weights,
        "KERAS_FILES",
        {"resnet50v2": ("", name, hashlib.md5(path.read_bytes()).hexdigest())},
    )
    model, provenance = transfer.pretrained("resnet50v2", 32)
    assert all(
        np.array_equal(a, b) for a, b in zip(model.get_weights(), donor.get_weights(), strict=True)
    )
    assert provenance["md5"] == weights.KERAS_FILES["resnet50v2"][2]
    assert weights.resolve_backbone("auto").stand_in is None


# --- MobileNetV2 from a quantised model -----------------------------------------------------------


@pytest.fixture
def dequantised(empty_machine, monkeypatch):
    """A file in the layout of Keras' notop file under the other name, in the folder KIT_WEIGHTS."""
    folder = empty_machine / "own"
    folder.mkdir()
    keras.utils.set_random_seed(3)
    model = backbones.build("mobilenetv2", 96)
    name, _ = weights.QUANTISED["mobilenetv2"]
    model.save_weights(folder / "x.weights.h5")
    (folder / "x.weights.h5").rename(folder / name)
    monkeypatch.setenv("KIT_WEIGHTS", str(folder))
    monkeypatch.setattr(
        weights, "QUANTISED", {"mobilenetv2": (name, weights.checksum(folder / name))}
    )
    monkeypatch.setattr(
        pretrained, "_load_keras", lambda made, path: made.set_weights(model.get_weights())
    )
    return folder / name, model


def test_weights_of_a_quantised_model_are_taken_under_their_own_name_only(dequantised):
    path, model = dequantised
    start = weights.initialisation("mobilenetv2")
    assert start.weights == "imagenet_quantised"
    assert "8-bit" in start.stand_in
    assert "in place of Keras' own" in start.stand_in
    with pytest.raises(weights.WeightsUnavailable):
        weights.initialisation("mobilenetv2", "imagenet")
    assert weights.initialisation("mobilenetv2", None).weights is None
    assert weights.initialisation("vgg19").weights is None
    with pytest.raises(weights.WeightsUnavailable, match="quantised vgg19"):
        weights.initialisation("vgg19", "imagenet_quantised")
    made = backbones.fine_tuned("mobilenetv2", 96, weights=start.weights)
    np.testing.assert_array_equal(made.get_layer("Conv1").get_weights()[0], model.get_weights()[0])
    facts = pretrained.load(backbones.build("mobilenetv2", 96), "mobilenetv2", start.weights)
    assert facts["file"] == path.name
    assert "quant.tflite" in facts["source"]


def test_the_quantised_file_is_never_taken_for_keras_own(dequantised):
    path, _ = dequantised
    keras_name = weights.KERAS_FILES["mobilenetv2"][1]
    (path.parent / keras_name).write_bytes(path.read_bytes())
    with pytest.raises(weights.DamagedWeights, match="is not Keras' file"):
        weights.find("mobilenetv2")
    (path.parent / keras_name).unlink()
    path.write_bytes(b"\x89HDF\r\n\x1a\nanother")
    with pytest.raises(weights.DamagedWeights, match="not the published file"):
        weights.initialisation("mobilenetv2")


def test_a_package_of_which_only_the_folder_is_left_is_called_missing(monkeypatch):
    monkeypatch.setattr(
        weights.importlib.util, "find_spec", lambda name: ModuleSpec(name, None, is_package=True)
    )
    with pytest.raises(weights.WeightsUnavailable, match="install the package"):
        weights.find("efficientnet_lite0")
