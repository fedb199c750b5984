"""Weights converted from elsewhere for `kit.models.architectures`: PyTorch's and Keras' files, read
without PyTorch and fitted with clear errors.

The thesis starts every network from torchvision's ImageNet weights, which Keras does not offer for
RegNet, ShuffleNetV2, MNASNet and SqueezeNet. Here a file of the user is fitted: a PyTorch state
dict (either format; layer names are PyTorch's), an npz of the same names, or HDF5 and npz files
whose tensors stand in the network's order. A classifier of another number of classes is left out.
Differences from torchvision's weights are those of the file: MobileNetV3, ConvNeXt and
EfficientNetV2 get Keras' own, and SqueezeNet 1.1 may come from its authors' Caffe model, whose
blue-green-red input in 0..255 is folded into the first convolution.
"""

import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from kit.models import pretrained, torchfile, weights
from kit.models.architecture_catalog import CODINGS, HEAD, entry
from kit.models.torchfile import DamagedWeights
from kit.models.weights import Initialisation, WeightsUnavailable

# Published files of keras.applications: address below Keras' and MD5 or SHA-256 as Keras gives it
_V3 = "keras-applications/mobilenet_v3/"
KERAS_FILES = {
    "mobilenetv3_small": (
        _V3,
        "weights_mobilenet_v3_small_224_1.0_float.h5",
        "8768d4c2e7dee89b9d02b2d03d65d862",
    ),
    "mobilenetv3_large": (
        _V3,
        "weights_mobilenet_v3_large_224_1.0_float.h5",
        "59e551e166be033d707958cf9e29a6a7",
    ),
    "convnext_tiny": (
        "keras-applications/convnext/",
        "convnext_tiny.h5",
        "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
    ),
    "efficientnetv2_s": (
        "keras-applications/efficientnet_v2/",
        "efficientnetv2-s.h5",
        "e1d88a8495beba45748fedd0cecbe016",
    ),
}
# Files of other origin that are recognised by name; the number is the mean of blue, green and red
# that SqueezeNet's Caffe model subtracts
CAFFE = {"squeezenet1_1_imagenet_notop.h5": (104.006, 116.669, 122.679)}
_ENDINGS = (".npz", ".h5", ".pth", ".pt")
_BN_PARTS = ("weight", "bias", "running_mean", "running_var")


def find(name: str, download: bool = True) -> Path:
    """Return the file of an architecture's ImageNet weights; download it if it is one of Keras'
    own.

    Looked for as ``<name>.npz``, ``.h5``, ``.pth`` or ``.pt`` and under the published name (Keras'
    file, checked against its checksum) in `kit.models.weights.folders`.

    Raises
    ------
    kit.models.weights.WeightsUnavailable, kit.models.weights.DamagedWeights,
    kit.models.architecture_catalog.UnknownArchitecture
    """
    known = entry(name)
    if name == "efficientnet_lite0":
        return weights.find(name)
    names = [name + ending for ending in _ENDINGS] + (
        list(CAFFE) if name == "squeezenet_1.1" else []
    )
    published = KERAS_FILES.get(name, ("", "", ""))[1]
    for path in (
        folder / file for folder in weights.folders() for file in names if file != published
    ):
        if path.is_file():
            return path
    if published:
        return _keras_file(name, download)
    raise WeightsUnavailable(
        f"There are no ImageNet weights of {known.title} here: save torchvision's state dict as "
        f"{name}.pth or {name}.npz in "
        f"{weights.folders()[0]}, or start at random."
    )


def _keras_file(name: str, download: bool) -> Path:
    below, file, checksum = KERAS_FILES[name]
    if path := weights.here((folder / file for folder in weights.folders()), checksum):
        return path
    address, path = weights.KERAS_URL + below + file, weights.folders()[-1] / file
    if (
        reason := weights.fetch(address, path, checksum, weights.KERAS_URL)
        if download
        else "downloads are off"
    ):
        raise WeightsUnavailable(
            f"The ImageNet weights of {name} are unavailable ({reason}): put {file} from {address} "
            f"into {weights.folders()[0]}, or start at random."
        )
    return path


def initialisation(name: str, choice: str | None = "auto") -> Initialisation:
    """Decide how a network starts, with the sentence that results must carry if random weights
    stand in for ImageNet's.

    Parameters
    ----------
    name : str
        Key of `kit.models.architecture_catalog.ARCHITECTURES`.
    choice : {"auto", "imagenet", None}
        ImageNet if they can be had and else random; ImageNet or an error; random.

    Returns
    -------
    kit.models.weights.Initialisation
        Its `weights` is what to give to `kit.models.architectures.build`.
    """
    return weights.decided(choice, lambda: find(name))


def start(model: keras.Model, name: str, choice: Path | str) -> dict | None:
    """Give a network made by `kit.models.architectures.build` its starting weights, in place.

    Parameters
    ----------
    model : keras.Model
    name : str
        Its architecture.
    choice : {"auto", "imagenet"} or path-like

    Returns
    -------
    dict or None
        What `load` returns; None where "auto" finds no weights and the network stays as it is.

    Raises
    ------
    kit.models.weights.WeightsUnavailable, kit.models.weights.DamagedWeights
    """
    if choice in ("auto", "imagenet"):
        if not initialisation(name, choice).weights:
            return None
        choice = find(name)
    if not Path(choice).is_file():
        raise WeightsUnavailable(f"There is no file of weights {choice}; check the path.")
    return load(model, name, Path(choice))


def load(model: keras.Model, name: str, path: Path | str) -> dict:
    """Fit a file of weights into a network, in place.

    Tensors named as in PyTorch are fitted by name, others by order: they have to follow the order
    of ``model.weights`` with the same shapes, where axes of length one do not count. A classifier
    that is missing, or has another number of classes, leaves the network's own.

    Parameters
    ----------
    model : keras.Model
        Made by `kit.models.architectures.build` with three channels.
    name : str
        Its architecture.
    path : path-like
        ``.pth`` or ``.pt`` (state dict of either format), ``.npz``, ``.h5``, or a network's own
        ``.weights.h5``.

    Returns
    -------
    dict
        file, sha256, head (whether the classifier was fitted), by ("name", "order", or "file" for
        one that this network was saved to).

    Raises
    ------
    kit.models.weights.DamagedWeights
        If the file cannot be read or a tensor is missing, left over or of another shape.
    """
    path, by, head = Path(path), "name", False
    tensors = {} if path.name.endswith(".weights.h5") else read(path)
    if not tensors:
        by, head = _own_file(model, path), True
    elif name == "efficientnet_lite0":
        pretrained.load_lite0(keras.Model(model.input, model.get_layer("features").output), tensors)
    else:
        by = "name" if any(key.endswith(".weight") for key in tensors) else "order"
        values = (_by_name if by == "name" else _by_order)(model, name, tensors, path)
        for layer, arrays in values.items():
            model.get_layer(layer).set_weights(arrays)
        head = HEAD in values
    if path.name in CAFFE:
        _fold_caffe(model.get_layer("features.0"), CAFFE[path.name])
    return {"file": path.name, "sha256": weights.checksum(path), "head": head, "by": by}


def _own_file(model: keras.Model, path: Path) -> str:
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise DamagedWeights(
            f"{path} does not fit {model.name} ({str(error).splitlines()[0]}); use a file that "
            "this network was saved to."
        ) from error
    return "file"


def _by_name(model: keras.Model, name: str, tensors: dict, path: Path) -> dict:
    """Layer -> arrays in Keras' order and axes, from tensors under PyTorch's names."""
    if entry(name).factory:
        raise DamagedWeights(
            f"{path} has PyTorch's names, which are not known for {entry(name).title}; give it "
            f"Keras' own file {KERAS_FILES[name][1]}."
        )
    tensors = {
        key.removeprefix("module."): value
        for key, value in tensors.items()
        if not key.endswith("num_batches_tracked")
    }
    values, used = {}, set()
    for layer in (layer for layer in model.layers if layer.weights):
        names = _torch_names(layer, name)
        used.update(names)
        if absent := [key for key in names if key not in tensors]:
            if layer.name == HEAD:
                continue
            raise DamagedWeights(
                f"{path} has no tensor {absent[0]}, which {entry(name).title} needs; it may be of "
                "another network."
            )
        arrays = [_keras_axes(layer, tensors[key]) for key in names]
        wrong = [
            key
            for key, array, weight in zip(names, arrays, layer.weights, strict=True)
            if array.shape != tuple(weight.shape)
        ]
        if wrong and layer.name != HEAD:
            raise DamagedWeights(
                f"Tensor {wrong[0]} of {path} has the shape {tensors[wrong[0]].shape}, which does "
                f"not fit {entry(name).title}; it is of another network."
            )
        if not wrong:
            values[layer.name] = arrays
    if left := sorted(set(tensors) - used):
        raise DamagedWeights(
            f"{path} has {len(left)} tensors that {entry(name).title} does not have, e.g. "
            f"{left[0]}; it is of another network."
        )
    return values


def _torch_names(layer, name: str) -> list[str]:
    torch = layer.name
    if torch == HEAD:
        torch = "fc" if name.startswith(("regnet", "shufflenet")) else "classifier.1"
    parts = (
        _BN_PARTS
        if isinstance(layer, keras.layers.BatchNormalization)
        else ("weight", "bias")[: len(layer.weights)]
    )
    return [f"{torch}.{part}" for part in parts]


def _keras_axes(layer, tensor: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, height, width) as Keras' (height, width, in, out), depthwise (height,
    width, channels, 1); dense layers transposed.
    """
    if tensor.ndim == 4:
        return tensor.transpose(
            (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
        )
    return tensor.T if tensor.ndim == 2 else tensor


def _by_order(model: keras.Model, name: str, tensors: dict, path: Path) -> dict:
    """Layer -> arrays, from tensors that follow the network's order; the classifier's may be absent
    or of another size.
    """
    slots = [
        (layer.name, tuple(weight.shape)) for layer in model.layers for weight in layer.weights
    ]
    body = sum(layer != HEAD for layer, _ in slots)
    if len(tensors) not in {body, len(slots)}:
        raise DamagedWeights(
            f"{path} holds {len(tensors)} tensors where {entry(name).title} has {body} and "
            f"{len(slots) - body} of its classifier; it is of another network."
        )
    values: dict[str, list[np.ndarray]] = {}
    for (layer, shape), (key, array) in zip(slots, tensors.items(), strict=False):
        if [n for n in shape if n > 1] == [n for n in array.shape if n > 1]:
            values.setdefault(layer, []).append(array.reshape(shape))
        elif layer != HEAD:
            raise DamagedWeights(
                f"Tensor {key} of {path} has the shape {array.shape} where layer {layer} of "
                f"{entry(name).title} has {shape}; it is of another network."
            )
    if len(values.get(HEAD, ())) != len(slots) - body:
        values.pop(HEAD, None)
    return values


def _fold_caffe(layer, mean: tuple) -> None:
    """Make a first convolution on BGR in 0..255 less its mean one on ImageNet-normalised RGB;
    exact, since SqueezeNet's does not pad.
    """
    kernel, bias = (weight.astype("f8") for weight in layer.get_weights())
    scale, offset = (np.array(values) for values in CODINGS["imagenet"])
    kernel = kernel[:, :, ::-1]
    bias = bias - np.einsum("hwio,i->o", kernel, offset / scale + np.array(mean[::-1]))
    layer.set_weights([kernel / scale[:, None], bias])


def read(path: Path | str) -> dict:
    """Read a file of tensors: a PyTorch state dict of either format, npz, or HDF5 as Keras 1 and 2
    wrote it.

    Returns
    -------
    dict of str to numpy.ndarray
        In the file's order; HDF5 in the order that the layers stand in the network.

    Raises
    ------
    kit.models.weights.DamagedWeights
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                if not all(name.endswith(".npy") for name in stored.zip.namelist()):
                    raise ValueError("it holds more than arrays")
                return dict(stored)
        if path.suffix == ".h5":
            return _read_h5(path)
        return _read_torch_zip(path) if zipfile.is_zipfile(path) else torchfile.read_torch(path)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        IndexError,
    ) as error:
        raise DamagedWeights(
            f"{path} cannot be read ({str(error).splitlines()[0]}); give a PyTorch state dict, an "
            "npz or HDF5 file as Keras 2 wrote it."
        ) from error


def _read_h5(path: Path) -> dict:
    with h5py.File(path) as file:
        root = file.get("model_weights", file)
        if "layer_names" not in root.attrs:
            raise ValueError("no list of layers")
        groups = {_text(layer): root[_text(layer)] for layer in root.attrs["layer_names"]}
        return {
            f"{layer}:{_text(key)}": group[_text(key)][()]
            for layer, group in groups.items()
            for key in group.attrs["weight_names"]
        }


def _text(name) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


class _ZipUnpickler(torchfile._Unpickler):
    """The same refusal of anything but tensors, for the zip files that PyTorch writes since 1.6."""

    def persistent_load(self, pid):
        kind, dtype, key, _device, count = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it contains an unknown kind of storage")
        return dtype, key, count


def _read_torch_zip(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = pickled.removesuffix("data.pkl")
        order = (
            archive.read(folder + "byteorder")
            if folder + "byteorder" in archive.namelist()
            else b"little"
        )
        if order != b"little":
            raise ValueError("another byte order")
        with archive.open(pickled) as file:
            tensors = _ZipUnpickler(file).load()
        storages = {
            key: np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)
            for (dtype, key, _), *_ in tensors.values()
        }
    return {
        name: torchfile._strided(storages[key], offset, shape, stride)
        for name, ((_, key, _), offset, shape, stride) in tensors.items()
    }
