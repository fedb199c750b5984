"""The network that is built from searched cells and trained from scratch: the evaluation phase's
model.

Built as the authors of DARTS build theirs for CIFAR-10, which the
publication stacks for its images. The auxiliary head expects maps of 8 pixels and breaks at the
publication's 64 x 64; a global average pooling before its last layer lets it take any size and
keeps the published number of parameters. Outputs are probabilities, after the linear ``logit`` that
Grad-CAM needs. The publication's text speaks of 12 cells, its column of parameters fits 20 cells
only (no cell reaches 3.57 million with 12 and 36 channels): `PRESETS` has both.
"""

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kit.errors import KitError
from kit.search.nas2d.cells import Cell, Norm, uniform
from kit.search.nas2d.genotype import NODES, Genotype

PRESETS = {
    "paper_text": {"channels": 36, "cells": 12},
    "paper_params": {"channels": 36, "cells": 20},
}
_AUXILIARY = (128, 768)  # channels of the auxiliary head's two convolutions


class UnusableNetwork(KitError):
    """A derived network that cannot be built, or weights that do not fit it."""


@dataclass(frozen=True)
class Place:
    """One cell of a network: its pairs, its width, whether it and the cell before reduce, and the
    channels of c_{k-2} and c_{k-1}.
    """

    pairs: tuple
    width: int
    reduction: bool
    reduced_before: bool
    channels: tuple

    @property
    def moved(self) -> int:
        """Stride-2 skip connections."""
        return (
            sum(op == "skip_connect" and source < 2 for op, source in self.pairs)
            if self.reduction
            else 0
        )


def plan(genotype: Genotype, channels: int, cells: int) -> tuple:
    """The cells of a network, in order; those at cells // 3 and 2 cells // 3 reduce and are twice
    as wide as the ones before.

    Raises
    ------
    UnusableNetwork
        If `channels` is below 2 or `cells` below 3.
    """
    if channels < 2 or cells < 3:
        raise UnusableNetwork(
            f"A network of {cells} cells and {channels} channels cannot be built; use at least 3 "
            "cells and 2 channels."
        )
    made, width, inputs = [], channels, (3 * channels, 3 * channels)
    for number in range(cells):
        reduction = number in (cells // 3, 2 * cells // 3)
        width *= 2 if reduction else 1
        reduced_before = bool(made) and made[-1].reduction
        made.append(
            Place(
                genotype.reduce if reduction else genotype.normal,
                width,
                reduction,
                reduced_before,
                inputs,
            )
        )
        inputs = (inputs[1], NODES * width)
    return tuple(made)


def parameters(
    genotype: Genotype,
    channels: int = 36,
    cells: int = 12,
    classes: int = 4,
    auxiliary: bool = False,
    input_channels: int = 3,
    parts: bool = False,
) -> int | dict:
    """Trainable parameters in closed form, without building anything.

    Parameters
    ----------
    genotype, channels, cells, classes, auxiliary, input_channels
        As for `network`. The publication's counter leaves the auxiliary head out.
    parts : bool
        Return the parts instead of the sum.

    Returns
    -------
    int or dict
        "stem", "cells" (a list), "classifier" and, with `auxiliary`, "auxiliary".
    """
    places = plan(genotype, channels, cells)
    counts = {
        "stem": (9 * input_channels + 2) * 3 * channels,
        "cells": [_cell_parameters(place) for place in places],
        "classifier": (NODES * places[-1].width + 1) * classes,
    }
    if auxiliary:
        narrow, wide = _AUXILIARY
        counts["auxiliary"] = (
            narrow * (NODES * places[2 * cells // 3].width + 2)
            + wide * (4 * narrow + 2)
            + (wide + 1) * classes
        )
    return (
        counts
        if parts
        else sum(sum(count) if isinstance(count, list) else count for count in counts.values())
    )


def _cell_parameters(place: Place) -> int:
    width, norm = place.width, 2 * place.width
    total = sum(place.channels) * width + 2 * norm + place.moved * (width * width + norm)
    for operation, _ in place.pairs:
        if "conv" in operation:
            times = 2 if operation.startswith("sep") else 1
            total += times * (int(operation[-1]) ** 2 * width + width * width + norm)
    return total


def macs(
    genotype: Genotype,
    size: int,
    channels: int = 36,
    cells: int = 12,
    classes: int = 4,
    input_channels: int = 3,
) -> int:
    """Multiply-accumulates of one image in inference: convolutions and the classifier, as
    `kit.models.macs.macs` counts them.

    Parameters
    ----------
    size : int
        Side of the image in pixels; others as for `network`.
    """
    places = plan(genotype, channels, cells)
    total, side = 27 * input_channels * channels * size * size, size
    for place in places:
        total += _cell_macs(place, side)
        side = math.ceil(side / 2) if place.reduction else side
    return total + NODES * places[-1].width * classes


def _cell_macs(place: Place, side: int) -> int:
    """Of one cell whose c_{k-1} has `side` pixels; c_{k-2} is brought to the same size."""
    width, within = place.width, (math.ceil(side / 2) if place.reduction else side) ** 2
    total = sum(place.channels) * width * side * side + place.moved * width * width * within
    for operation, _ in place.pairs:
        if "conv" in operation:
            times = 2 if operation.startswith("sep") else 1
            total += times * (int(operation[-1]) ** 2 + width) * width * within
    return total


def network(  # noqa: PLR0913 (what a network is, all but two by default)
    genotype: Genotype,
    size: int,
    channels: int = 36,
    cells: int = 12,
    classes: int = 4,
    auxiliary: bool = False,
    input_channels: int = 3,
    dtype: str = "float32",
    name: str = "derived",
) -> keras.Model:
    """Build a derived network with random weights.

    Parameters
    ----------
    genotype : Genotype
    size : int
        Side of the square image in pixels, at least 8.
    channels, cells, classes : int
        Width of the first cells, number of cells, softmax units.
    auxiliary : bool
        Add the auxiliary head's probabilities as a second output; for training only.
    input_channels : int
    dtype : {"float32", "float64"}
    name : str

    Returns
    -------
    keras.Model
        Flat functional model, one layer a cell ("cell_0", ...), then "gap", "logit" and
        "probability"; takes (N, size, size, input_channels) in [0, 1], gives probabilities (N,
        classes), or [probabilities, auxiliary probabilities].

    Raises
    ------
    UnusableNetwork
    """
    places = plan(genotype, channels, cells)
    if size < 8:
        raise UnusableNetwork(
            f"Images of {size} pixels are too small for a derived network; use at least 8."
        )
    images = layers.Input((size, size, input_channels), name="image", dtype=dtype)
    stem = layers.Conv2D(
        3 * channels,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer=uniform(9 * input_channels),
        dtype=dtype,
        name="stem",
    )(images)
    states, outputs = [Norm(dtype=dtype, name="stem_norm")(stem)] * 2, []
    for number, place in enumerate(places):
        cell = Cell(
            place.pairs,
            place.width,
            place.reduction,
            place.reduced_before,
            dtype=dtype,
            name=f"cell_{number}",
        )
        states = [states[1], cell(states)]
        if auxiliary and number == 2 * cells // 3:
            outputs = [_head(_auxiliary_features(states[1], dtype), classes, dtype, "aux_")]
    return keras.Model(
        images,
        [_head(states[1], classes, dtype), *outputs]
        if outputs
        else _head(states[1], classes, dtype),
        name=name,
    )


def _head(features, classes: int, dtype: str, prefix: str = ""):
    start = uniform(features.shape[-1])
    pooled = layers.GlobalAveragePooling2D(dtype=dtype, name=f"{prefix}gap")(features)
    logit = layers.Dense(
        classes,
        kernel_initializer=start,
        bias_initializer=start,
        dtype=dtype,
        name=f"{prefix}logit",
    )(pooled)
    return layers.Softmax(dtype=dtype, name=f"{prefix}probability")(logit)


def _auxiliary_features(x, dtype: str):
    """ReLU, 5x5 mean at stride 3, 1x1 and 2x2 convolution, each with BatchNorm and ReLU; windows
    that are larger than the map are cut or padded.
    """
    x = layers.ReLU(dtype=dtype, name="aux_relu")(x)
    x = layers.AveragePooling2D(min(5, x.shape[1]), 3, dtype=dtype, name="aux_pool")(x)
    for number, (filters, side) in enumerate(zip(_AUXILIARY, (1, 2), strict=False)):
        padding = "valid" if x.shape[1] >= side else "same"
        start = uniform(side * side * x.shape[-1])
        x = layers.Conv2D(
            filters,
            side,
            padding=padding,
            use_bias=False,
            kernel_initializer=start,
            dtype=dtype,
            name=f"aux_conv_{number}",
        )(x)
        x = layers.ReLU(dtype=dtype, name=f"aux_active_{number}")(
            Norm(dtype=dtype, name=f"aux_norm_{number}")(x)
        )
    return x


_TORCH = {
    "stem": "stem.0",
    "stem_norm": "stem.1",
    "logit": "classifier",
    "aux_conv_0": "auxiliary_head.features.2",
    "aux_norm_0": "auxiliary_head.features.3",
    "aux_conv_1": "auxiliary_head.features.5",
    "aux_norm_1": "auxiliary_head.features.6",
    "aux_logit": "auxiliary_head.classifier",
}
_STATISTICS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def from_torch(model: keras.Model, mapping: dict) -> None:
    """Put weights of the reference implementation into a model made by `network`, in place.

    Parameters
    ----------
    model : keras.Model
    mapping : dict of str to numpy.ndarray
        The names and layouts of the reference's state dict: convolutions (out, in / groups, h, w),
        dense (out, in). Moving statistics are optional.

    Raises
    ------
    UnusableNetwork
        If a weight is missing or has another shape.
    """
    for layer in model.layers:
        if layer.name.startswith("cell_"):
            _fill_cell(layer, mapping, f"cells.{layer.name[5:]}.")
        elif "norm" in layer.name:
            _fill_norm(layer, mapping, [_TORCH[layer.name]])
        elif layer.name in _TORCH:
            for variable, end in zip(layer.weights, ("weight", "bias"), strict=False):
                _assign(variable, _reordered(mapping, f"{_TORCH[layer.name]}.{end}"), layer.name)


def _fill_cell(cell, mapping: dict, start: str) -> None:
    names = [f"preprocess{n}" for n in (0, 1)]
    norms = [
        f"{name}.bn" if f"{start}{name}.bn.weight" in mapping else f"{name}.op.2" for name in names
    ]
    for variable, name in zip(cell.before, names, strict=False):
        _assign(
            variable, _point(mapping, f"{start}{name}.op.1", f"{start}{name}.conv"), start + name
        )
    for stack, variable in cell.stacks.items():
        of_stack = [name for name, (own, _) in cell.slots.items() if own == stack]
        if stack == "point":
            norms += [
                f"{name[:-5]}.bn" if name.endswith("conv") else f"{name[:-1]}{int(name[-1]) + 1}"
                for name in of_stack
            ]
        read = (
            _point
            if stack == "point"
            else lambda mapping, name: _reordered(mapping, f"{name}.weight", deep=True)
        )
        _assign(
            variable, np.stack([read(mapping, start + name) for name in of_stack]), start + stack
        )
    _fill_norm(cell.norms, mapping, [start + name for name in norms])


def _point(mapping: dict, name: str, halves: str | None = None):
    """Kernel (C_in, C_out) of a 1x1 convolution, or of the two of a factorised reduction side by
    side.
    """
    if f"{name}.weight" in mapping:
        return _reordered(mapping, f"{name}.weight")[0, 0]
    return np.concatenate(
        [_reordered(mapping, f"{halves or name}_{n}.weight")[0, 0] for n in (1, 2)], -1
    )


def _reordered(mapping: dict, name: str, deep: bool = False):
    if name not in mapping:
        raise UnusableNetwork(
            f"There is no weight {name!r}; give the state dict of a network with the same cells."
        )
    value = np.asarray(mapping[name])
    if value.ndim == 4:
        return value.transpose((2, 3, 0, 1) if deep else (2, 3, 1, 0))
    return value.T if value.ndim == 2 else value


def _fill_norm(norm, mapping: dict, names: list) -> None:
    for own, end in _STATISTICS.items():
        if own in ("gamma", "beta") or all(f"{name}.{end}" in mapping for name in names):
            values = np.stack([_reordered(mapping, f"{name}.{end}") for name in names])
            _assign(getattr(norm, own), values if norm.count else values[0], names[0])


def _assign(variable, value, name: str) -> None:
    if value.shape != tuple(variable.shape):
        raise UnusableNetwork(
            f"The weights of {name} have the shape {value.shape}, not {tuple(variable.shape)}; "
            "give the state dict of a network with the same cells."
        )
    variable.assign(value)
