"""The network that is built from searched cells and trained from scratch: the evaluation phase's model.

Built as the authors of DARTS build theirs for CIFAR-10 (card sections 2 and 8), which the publication stacks for its images. The auxiliary head expects
maps of 8 pixels and breaks at the publication's 64 x 64; a global average pooling before its last layer lets it take any size and keeps the published
number of parameters. Outputs are probabilities, after the linear ``logit`` that Grad-CAM needs. The publication's text speaks of 12 cells, its
column of parameters fits 20 cells only (no cell reaches 3.57 million with 12 and 36 channels): `PRESETS` has both.
"""

import math
from dataclasses import dataclass

from kit.errors import KitError
from kit.nas.genotype import NODES, Genotype

PRESETS = {"paper_text": {"channels": 36, "cells": 12}, "paper_params": {"channels": 36, "cells": 20}}
_AUXILIARY = (128, 768)  # channels of the auxiliary head's two convolutions


class UnusableNetwork(KitError):
    """A derived network that cannot be built, or weights that do not fit it."""


@dataclass(frozen=True)
class Place:
    """One cell of a network: its pairs, its width, whether it and the cell before reduce, and the channels of c_{k-2} and c_{k-1}."""

    pairs: tuple
    width: int
    reduction: bool
    reduced_before: bool
    channels: tuple

    @property
    def moved(self) -> int:
        """Stride-2 skip connections."""
        return sum(op == "skip_connect" and source < 2 for op, source in self.pairs) if self.reduction else 0


def plan(genotype: Genotype, channels: int, cells: int) -> tuple:
    """The cells of a network, in order; those at cells // 3 and 2 cells // 3 reduce and are twice as wide as the ones before.

    Raises
    ------
    UnusableNetwork
        If `channels` is below 2 or `cells` below 3.
    """
    if channels < 2 or cells < 3:
        raise UnusableNetwork(f"A network of {cells} cells and {channels} channels cannot be built; use at least 3 cells and 2 channels.")
    made, width, inputs = [], channels, (3 * channels, 3 * channels)
    for number in range(cells):
        reduction = number in (cells // 3, 2 * cells // 3)
        width *= 2 if reduction else 1
        reduced_before = bool(made) and made[-1].reduction
        made.append(Place(genotype.reduce if reduction else genotype.normal, width, reduction, reduced_before, inputs))
        inputs = (inputs[1], NODES * width)
    return tuple(made)


def parameters(genotype: Genotype, channels: int = 36, cells: int = 12, classes: int = 4, auxiliary: bool = False, input_channels: int = 3,
               parts: bool = False):
    """Trainable parameters in closed form (oracle section 2), without building anything.

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
    counts = {"stem": (9 * input_channels + 2) * 3 * channels, "cells": [_cell_parameters(place) for place in places],
              "classifier": (NODES * places[-1].width + 1) * classes}
    if auxiliary:
        narrow, wide = _AUXILIARY
        counts["auxiliary"] = narrow * (NODES * places[2 * cells // 3].width + 2) + wide * (4 * narrow + 2) + (wide + 1) * classes
    return counts if parts else sum(sum(count) if isinstance(count, list) else count for count in counts.values())


def _cell_parameters(place: Place) -> int:
    width, norm = place.width, 2 * place.width
    total = sum(place.channels) * width + 2 * norm + place.moved * (width * width + norm)
    for operation, _ in place.pairs:
        if "conv" in operation:
            times = 2 if operation.startswith("sep") else 1
            total += times * (int(operation[-1]) ** 2 * width + width * width + norm)
    return total


def macs(genotype: Genotype, size: int, channels: int = 36, cells: int = 12, classes: int = 4, input_channels: int = 3) -> int:
    """Multiply-accumulates of one image in inference: convolutions and the classifier, as `kit.backbones.macs` counts them.

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


def network(genotype: Genotype, size: int, channels: int = 36, cells: int = 12, classes: int = 4, auxiliary: bool = False, input_channels: int = 3,
            dtype: str = "float32", name: str = "derived"):
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
        Flat functional model, one layer a cell ("cell_0", ...), then "gap", "logit" and "probability"; takes (N, size, size, input_channels) in
        [0, 1], gives probabilities (N, classes), or [probabilities, auxiliary probabilities].

    Raises
    ------
    UnusableNetwork
    """
    import keras
    from keras import layers

    from kit.nas.cells import Cell, Norm, uniform

    places = plan(genotype, channels, cells)
    if size < 8:
        raise UnusableNetwork(f"Images of {size} pixels are too small for a derived network; use at least 8.")
    images = layers.Input((size, size, input_channels), name="image", dtype=dtype)
    stem = layers.Conv2D(3 * channels, 3, padding="same", use_bias=False, kernel_initializer=uniform(9 * input_channels), dtype=dtype, name="stem")(images)
    states, outputs = [Norm(dtype=dtype, name="stem_norm")(stem)] * 2, []
    for number, place in enumerate(places):
        cell = Cell(place.pairs, place.width, place.reduction, place.reduced_before, dtype=dtype, name=f"cell_{number}")
        states = [states[1], cell(states)]
        if auxiliary and number == 2 * cells // 3:
            outputs = [_head(_auxiliary_features(states[1], dtype), classes, dtype, "aux_")]
    return keras.Model(images, [_head(states[1], classes, dtype), *outputs] if outputs else _head(states[1], classes, dtype), name=name)


def _head(features, classes: int, dtype: str, prefix: str = ""):
    from keras import layers

    from kit.nas.cells import uniform

    start = uniform(features.shape[-1])
    pooled = layers.GlobalAveragePooling2D(dtype=dtype, name=f"{prefix}gap")(features)
    logit = layers.Dense(classes, kernel_initializer=start, bias_initializer=start, dtype=dtype, name=f"{prefix}logit")(pooled)
    return layers.Softmax(dtype=dtype, name=f"{prefix}probability")(logit)


def _auxiliary_features(x, dtype: str):
    """ReLU, 5x5 mean at stride 3, 1x1 and 2x2 convolution, each with BatchNorm and ReLU; windows that are larger than the map are cut or padded."""
    from keras import layers

    from kit.nas.cells import Norm, uniform

    x = layers.ReLU(dtype=dtype, name="aux_relu")(x)
    x = layers.AveragePooling2D(min(5, x.shape[1]), 3, dtype=dtype, name="aux_pool")(x)
    for number, (filters, side) in enumerate(zip(_AUXILIARY, (1, 2))):
        padding = "valid" if x.shape[1] >= side else "same"
        start = uniform(side * side * x.shape[-1])
        x = layers.Conv2D(filters, side, padding=padding, use_bias=False, kernel_initializer=start, dtype=dtype, name=f"aux_conv_{number}")(x)
        x = layers.ReLU(dtype=dtype, name=f"aux_active_{number}")(Norm(dtype=dtype, name=f"aux_norm_{number}")(x))
    return x


_TORCH = {"stem": "stem.0", "stem_norm": "stem.1", "logit": "classifier", "aux_conv_0": "auxiliary_head.features.2", "aux_norm_0": "auxiliary_head.features.3",
          "aux_conv_1": "auxiliary_head.features.5", "aux_norm_1": "auxiliary_head.features.6", "aux_logit": "auxiliary_head.classifier"}


def from_torch(model, mapping: dict) -> None:
    """Put weights of the reference implementation into a model made by `network`, in place.

    Parameters
    ----------
    model : keras.Model
    mapping : dict of str to numpy.ndarray
        The names and layouts of the reference's state dict: convolutions (out, in / groups, h, w), dense (out, in). Statistics are optional.

    Raises
    ------
    UnusableNetwork
        If a weight is missing or has another shape.
    """
    for layer in model.layers:
        if layer.name.startswith("cell_"):
            start = f"cells.{layer.name[5:]}."
            for key, variable in layer.kernels.items():
                _assign(variable, mapping, f"{start}{key}.weight")
            for key, norm in layer.norms.items():
                _assign_norm(norm, mapping, start + key)
        elif "norm" in layer.name:
            _assign_norm(layer, mapping, _TORCH[layer.name])
        elif layer.name in _TORCH:
            for variable, end in zip(layer.weights, ("weight", "bias")):
                _assign(variable, mapping, f"{_TORCH[layer.name]}.{end}")


def _assign_norm(norm, mapping: dict, start: str) -> None:
    _assign(norm.gamma, mapping, f"{start}.weight")
    _assign(norm.beta, mapping, f"{start}.bias")
    for variable, end in ((norm.moving_mean, "running_mean"), (norm.moving_variance, "running_var")):
        if f"{start}.{end}" in mapping:
            _assign(variable, mapping, f"{start}.{end}")


def _assign(variable, mapping: dict, name: str) -> None:
    if name not in mapping:
        raise UnusableNetwork(f"There is no weight {name!r}; give the state dict of a network with the same cells.")
    value = mapping[name]
    if value.ndim == 4:  # depthwise kernels are (C, 1, k, k) there and (k, k, C, 1) here
        value = value.transpose((2, 3, 0, 1) if variable.shape[-1] == 1 and variable.shape[0] > 1 else (2, 3, 1, 0))
    value = value.T if value.ndim == 2 else value
    if value.shape != tuple(variable.shape):
        raise UnusableNetwork(f"The weight {name!r} has the shape {value.shape} here expected as {tuple(variable.shape)}; the cells differ.")
    variable.assign(value)
