"""Keras networks of the PBC-NAS search space, and the loader of weights that PyTorch saved for
them.

A flat functional graph, so that Grad-CAM, drawings and files stay simple: stem (3x3x3 convolution,
batch normalisation, ReLU), stacks of one cell, halved in between, global average, dense layer,
logits. Vertices sum what enters them, the cell's input is added to its
output, twice if the cell has the direct edge. Two things differ from the released code. Its first
stack holds 1x1x1 convolutions that nothing reads; here there are none, and a file's are skipped.
Its biases start as PyTorch's do, uniform in +-1/sqrt(fan in); here at zero unless asked for. Every
layer draws from a seed of its own, made of the network's seed and the layer's number.

Names: ``stem_conv``, ``cell2_entry`` (the 1x1x1 convolution), ``cell2_node1_conv``,
``cell2_node1_norm`` (with the activation behind it), ``cell2_node1_act``, ``cell2_out``, ``pool1``,
``gap``, ``logit``. The last map, for Grad-CAM, is the ``cell*_out`` of the last cell:
`feature_layer`.
"""

import math
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from kit.errors import KitError
from kit.models import ported_weights
from kit.models.torchfile import DamagedWeights
from kit.search.nas3d.convolution import PairedConv3D, pays
from kit.search.nas3d.layers import Activate, BatchNorm, InstanceNorm
from kit.search.nas3d.space import OPERATIONS, Network3D

BIASES = ("zeros", "torch")
EPSILON = 1e-5


class BadBuild(KitError):
    """A network that cannot be built for such data."""


class _Draws:
    """Initialisers of the layers in the order they are made, each with a seed of its own."""

    def __init__(self, seed: int, biases: str):
        self.seed, self.biases, self.number = seed, biases, 0

    def _next(self) -> int:
        self.number += 1
        return int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0] >> 1)

    def __call__(self, fan_in: int) -> dict:
        kernel, bias, bound = self._next(), self._next(), 1 / math.sqrt(fan_in)
        return {
            "kernel_initializer": keras.initializers.GlorotUniform(kernel),
            "bias_initializer": keras.initializers.RandomUniform(-bound, bound, bias)
            if self.biases == "torch"
            else "zeros",
        }


def build(
    network: Network3D,
    classes: int,
    edge: int = 28,
    channels: int = 1,
    seed: int = 0,
    biases: str = "zeros",
) -> keras.Model:
    """Build a network with seeded random weights.

    Parameters
    ----------
    network : Network3D
    classes : int
        Logits, at least 2.
    edge, channels : int
        Of the volumes: voxels along each axis, and channels.
    seed : int
        Fixes the initial weights.
    biases : {"zeros", "torch"}
        How biases start: at zero, or as PyTorch's, which the publication left as they were.

    Returns
    -------
    keras.Model
        Takes float32 (N, edge, edge, edge, channels), gives logits (N, classes).

    Raises
    ------
    BadBuild
    """
    for what, value, least in (
        ("classes", classes, 2),
        ("channels", channels, 1),
        ("edge", edge, 2 ** (network.stacks - 1)),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise BadBuild(
                f"A network of {network.stacks} stacks cannot be built with {what} {value!r}; give "
                f"a whole number from {least} on."
            )
    if biases not in BIASES:
        raise BadBuild(f"biases is {biases!r}; choose {' or '.join(BIASES)}.")
    draw, inputs, number = (
        _Draws(seed, biases),
        layers.Input((edge, edge, edge, channels), name="volume"),
        0,
    )
    x = _conv(inputs, network.filters, 3, draw, "stem_conv")
    x = BatchNorm(activation="relu", momentum=0.9, epsilon=EPSILON, name="stem_norm")(x)
    for stack, width in enumerate(network.widths()):
        x = layers.MaxPooling3D(2, name=f"pool{stack}")(x) if stack else x
        for _ in range(network.cells):
            number += 1
            x = _cell(
                _conv(x, width, 1, draw, f"cell{number}_entry") if stack else x,
                network,
                draw,
                f"cell{number}",
            )
    x = layers.GlobalAveragePooling3D(name="gap")(x)
    return keras.Model(
        inputs, layers.Dense(classes, name="logit", **draw(x.shape[-1]))(x), name="pbcnas"
    )


def _conv(x, filters: int, kernel: int, draw, name: str):
    kind = PairedConv3D if pays(filters, kernel, x.shape[3]) else layers.Conv3D
    return kind(filters, kernel, padding="same", name=name, **draw(kernel**3 * x.shape[-1]))(x)


def _sum(tensors: list, name: str):
    return layers.Add(name=name)(tensors) if len(tensors) > 1 else tensors[0]


def _cell(x, network: Network3D, draw, name: str):
    outputs, last = [x], len(network.matrix) - 1
    for vertex in range(1, last + 1):
        entering = [outputs[source] for source in range(vertex) if network.matrix[source][vertex]]
        if vertex == last:
            return _sum([x, *entering], f"{name}_out")
        node = f"{name}_node{vertex}"
        outputs.append(
            _operation(
                _sum(entering, f"{node}_sum"),
                OPERATIONS[network.operations[vertex - 1]],
                draw,
                node,
            )
        )


def _operation(x, operation, draw, name: str):
    for step in operation.order:
        if step == "conv":
            x = _conv(x, x.shape[-1], operation.kernel, draw, f"{name}_conv")
        elif step == "norm":  # always followed by the activation
            x = InstanceNorm(EPSILON, operation.activation, name=f"{name}_norm")(x)
        elif not operation.norm:
            x = Activate(operation.activation, name=f"{name}_act")(x)
    return x


def feature_layer(model: keras.Model) -> str:
    """Name of the layer whose map the head averages, for Grad-CAM."""
    return model.get_layer("gap").input._keras_history.operation.name


def redraw(model: keras.Model, seed: int) -> None:
    """Draw all kernels anew, in place, and leave biases and normalisations as they are: how the
    publication starts its final trainings.

    Parameters
    ----------
    model : keras.Model
        Made by `build`.
    seed : int
    """
    draw = _Draws(seed, "zeros")
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(draw(1)["kernel_initializer"](layer.kernel.shape))


def load(model: keras.Model, source: Path | str | dict) -> list:
    """Fit a PyTorch state dict of the released code into a network, in place.

    Parameters
    ----------
    model : keras.Model
        Made by `build` for the same architecture, classes and channels.
    source : path-like or dict of str to array
        A file as `kit.models.ported_weights.read` takes it (state dict of either format, or npz),
        or its tensors.

    Returns
    -------
    list of str
        Tensors of the file that the network has no use for: second names, counters, and the
        convolutions of the first stack that nothing reads.

    Raises
    ------
    kit.models.torchfile.DamagedWeights
        If the file cannot be read, or a tensor is missing, of another shape, or left over; the
        network is unchanged then.
    """
    tensors, what = (
        (source, "The state dict")
        if isinstance(source, dict)
        else (ported_weights.read(source), str(Path(source)))
    )
    tensors = {name.removeprefix("module."): np.asarray(value) for name, value in tensors.items()}
    values: dict[str, list] = {}
    used: set[str] = set()
    for layer in (layer for layer in model.layers if layer.weights):
        names = _torch_names(layer, tensors)
        for name, weight in zip(names, layer.weights, strict=True):
            if name not in tensors:
                raise DamagedWeights(
                    f"{what} has no tensor {name}, which layer {layer.name} needs; it is of "
                    "another network."
                )
            array = _keras_axes(tensors[name])
            if array.shape != tuple(weight.shape):
                raise DamagedWeights(
                    f"Tensor {name} of {what} has the shape {tensors[name].shape}, which does not "
                    f"fit layer {layer.name}; it is of another network."
                )
            values.setdefault(layer.name, []).append(array)
        used.update(names)
    idle = sorted(set(tensors) - used)
    if left := [name for name in idle if not _expected(name, tensors, used)]:
        raise DamagedWeights(
            f"{what} has {len(left)} tensors that the network does not have, e.g. {left[0]}; it is "
            "of another network."
        )
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
    return idle


def _torch_names(layer, tensors: dict) -> list:
    """PyTorch's names of a layer's weights in Keras' order."""
    parts = ("weight", "bias", "running_mean", "running_var")[: len(layer.weights)]
    known = {"stem_conv": "stem_conv.0", "stem_norm": "stem_conv.1", "logit": "classifier"}
    if layer.name in known:
        return [f"{known[layer.name]}.{part}" for part in parts]
    found: Any = re.fullmatch(r"cell(\d+)_(?:node(\d+)_)?(\w+)", layer.name)
    cell, vertex, kind = found.groups()
    if kind == "entry":
        return [f"cells.{cell}.stem_conv.{part}" for part in parts]
    steps = (
        f"cells.{cell}.ops_list.{vertex}.op.{step}" for step in range(3)
    )  # a vertex has one convolution and at most one normalisation
    base = next(
        (
            step
            for step in steps
            if np.ndim(tensors.get(f"{step}.weight", 0.0)) == (5 if kind == "conv" else 1)
        ),
        f"cells.{cell}.ops_list.{vertex}.op.0",
    )
    return [f"{base}.{part}" for part in parts]


def _keras_axes(tensor: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, depth, height, width) as Keras' (depth, height, width, in, out); dense
    layers transposed.
    """
    return tensor.transpose(2, 3, 4, 1, 0) if tensor.ndim == 5 else tensor.T


def _expected(name: str, tensors: dict, used: set) -> bool:
    """Whether an unused tensor is one that the released code stores in vain."""
    if name.endswith("num_batches_tracked"):
        return True
    second = re.sub(r"^cells\.0\.", "stem_conv.", re.sub(r"\.ops_list\.0\.", ".stem_conv.", name))
    if second in used:
        return np.array_equal(tensors[name], tensors[second])
    dead = re.fullmatch(r"cells\.\d+\.stem_conv\.(weight|bias)", second)
    return bool(dead) and (tensors[name].ndim == 1 or tensors[name].shape[2:] == (1, 1, 1))
