"""The convolutions of a Keras model: which there are, which belong to the classifier head, and what
they give while the model runs.

The thesis's code wraps convolutions of PyTorch modules, which renames the weights; here a
convolution is listened to for the length of one call of the model, whatever class of model it is in
(functional, Sequential, subclassed, nested), and its raw output, before a fused activation, is
collected.
"""

import functools
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import numpy as np

TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    *TRANSPOSED,
    *DEPTHWISE,
    *SEPARABLE,
)

_LOCAL = threading.local()  # what the convolutions gave in the pass that this thread listens to
_LISTENED: Counter[int] = Counter()  # listeners of each layer, by its id


def kernel_of(layer: keras.Layer) -> keras.Variable:
    """The kernel whose last filters make the layer's output: of a separable convolution the
    pointwise one.
    """
    return layer.pointwise_kernel if isinstance(layer, SEPARABLE) else layer.kernel


def factor_shape(layer: keras.Layer) -> tuple:
    """Shape that lets one factor an output channel multiply the kernel; its product is the number
    of filters.
    """
    shape = tuple(kernel_of(layer).shape)
    if isinstance(layer, DEPTHWISE):  # output channel = input channel * multiplier + its copy
        return (1,) * (len(shape) - 2) + shape[-2:]
    return (shape[-2], 1) if isinstance(layer, TRANSPOSED) else shape[-1:]


def filters_last(layer: keras.Layer) -> np.ndarray:
    """A layer's kernel as a float matrix with one column an output filter."""
    kernel = np.asarray(kernel_of(layer))
    kernel = np.moveaxis(kernel, -2, -1) if isinstance(layer, TRANSPOSED) else kernel
    return kernel.reshape(-1, int(np.prod(factor_shape(layer))))


def _is_model(operation) -> bool:
    return isinstance(operation, keras.Sequential) or (
        isinstance(operation, keras.Model) and hasattr(operation, "_nodes_by_depth")
    )


def _steps(model, inputs, steps, names) -> list:
    """Append (operation, input names, output names, output shape) of a graph model in running
    order, inner models opened; return its output names.
    """

    def run(operation, given, shapes):
        if _is_model(operation):
            return _steps(operation, given, steps, names)
        given_back = [next(names) for _ in shapes]
        steps.append((operation, given, given_back, tuple(shapes[0])))
        return given_back

    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            inputs = run(layer, inputs, [layer.output.shape])
        return inputs
    place = {id(tensor): name for tensor, name in zip(model.inputs, inputs, strict=True)}
    for depth in sorted(
        model._nodes_by_depth, reverse=True
    ):  # Keras has no public way to the calls of a layer
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                given_back = run(
                    node.operation,
                    [place[id(t)] for t in node.input_tensors],
                    [t.shape for t in node.output_tensors],
                )
                place.update(zip(map(id, node.output_tensors), given_back, strict=False))
    return [place[id(tensor)] for tensor in model.outputs]


def _single(shape) -> bool:
    """Whether a map is one pixel, or a vector."""
    return sum(size != 1 for size in shape[1:]) <= 1


def _pooled_heads(steps, inputs, outputs) -> set:
    """Convolutions with one-pixel maps behind a one-pixel tensor that everything passes
    (squeeze-and-excitation leaves the map beside it).
    """
    last = {name: i for i, step in enumerate(steps) for name in step[1]} | dict.fromkeys(
        outputs, len(steps)
    )
    live, collapsed, heads = set(inputs), False, set()
    for i, (operation, _, given_back, shape) in enumerate(steps):
        if collapsed and isinstance(operation, CONVOLUTIONS) and _single(shape):
            heads.add(id(operation))
        live = {name for name in live.union(given_back) if last.get(name, -1) > i}
        collapsed = collapsed or (live == set(given_back) and len(live) == 1 and _single(shape))
    return heads


def _last_heads(steps, outputs) -> set:
    """Convolutions that no layer with weights follows: their filters are the classes."""
    makers, heads, waiting, seen = (
        {name: step for step in steps for name in step[2]},
        set(),
        list(outputs),
        set(),
    )
    while waiting:
        name = waiting.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        operation, given = makers[name][:2]
        if not getattr(operation, "weights", None):
            waiting.extend(given)
        elif isinstance(operation, CONVOLUTIONS):
            heads.add(id(operation))
    return heads


def convolutions(model: keras.Model) -> list:
    """The convolutions that astrocytes watch: all, also inside inner models and composite layers,
    without those of the classifier head.

    The head of a functional or Sequential model is any convolution behind the global pooling
    (MobileNetV3 of Keras) or without a layer with weights after it (SqueezeNet's). Of other models,
    whose graph is unknown, all are given.
    """
    if _is_model(model) and model.built:
        steps: list[tuple] = []
        names = itertools.count()
        inputs = [next(names) for _ in model.inputs]
        outputs = _steps(model, inputs, steps, names)
        heads = _pooled_heads(steps, inputs, outputs) | _last_heads(steps, outputs)
        layers = [
            layer
            for step in steps
            if isinstance(step[0], keras.Layer)
            for layer in step[0]._flatten_layers()
        ]
    else:
        heads, layers = set(), model._flatten_layers()
    found = {id(layer): layer for layer in layers if isinstance(layer, CONVOLUTIONS)}
    return [layer for key, layer in found.items() if key not in heads]


def _listening_call(layer, *args, **kwargs):
    """Stands in for a layer's call: keeps the output before a fused activation."""
    activation, vars(layer)["activation"] = (
        layer.activation,
        None,
    )  # not by setattr: Keras tracks activations that are layers
    try:
        raw = type(layer).call(layer, *args, **kwargs)
    finally:
        vars(layer)["activation"] = activation
    taken = getattr(_LOCAL, "taken", None)
    if taken is not None:
        taken.setdefault(id(layer), []).append(raw)
    return raw if activation is None else activation(raw)


@contextmanager
def listening(layers: Sequence[keras.Layer]) -> Iterator[dict[int, list]]:
    """Collect {id of layer: [raw outputs]} of the passes within; replicas are threads that may take
    turns in the middle of a pass.
    """
    before = getattr(_LOCAL, "taken", None)
    taken: dict[int, list] = {}
    for layer in layers:
        _LISTENED[id(layer)] += 1
        vars(layer)["call"] = functools.partial(_listening_call, layer)
    _LOCAL.taken = taken
    try:
        yield taken
    finally:
        _LOCAL.taken = before
        for layer in layers:
            _LISTENED[id(layer)] -= 1
            if not _LISTENED[id(layer)]:
                del _LISTENED[id(layer)]
                vars(layer).pop("call", None)
