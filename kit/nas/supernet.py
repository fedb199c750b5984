"""Supernets of DARTS, PC-DARTS and P-DARTS as one pure function of weights, architecture and images.

The function is the publications' (card section 2 for all three, 4 for partial channels and edge normalisation, 5 for the shrinking sets of
operations and the dropout after skips); the tests hold it against logits and gradients of the original networks. It is computed otherwise. All
edges that leave one state share its ReLU, its poolings and one depthwise convolution with as many filters per channel as there are edges; what an
edge's batch normalisation needs is taken from the moments of the convolutions' inputs, and then normalisation and mixing weight only scale the
pointwise kernels, so that each state's contribution to all later nodes is a single 1x1 convolution. Weights of one kind are stacked over the edges
of a cell. No variables live here: whoever searches holds the lists, and may differentiate as often as he likes.
"""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kit.errors import KitError
from kit.nas import ops
from kit.nas.ops import KERNEL, PRIMITIVES

NODES = 4
EDGES = tuple((source, node) for node in range(NODES) for source in range(node + 2))
BY_SOURCE = tuple(sorted(range(len(EDGES)), key=lambda edge: EDGES[edge]))
LEAVING = tuple(tuple(edge for edge in BY_SOURCE if EDGES[edge][0] == source) for source in range(NODES + 1))
_SKIP, _CONVOLUTIONS = 3, (4, 5, 6, 7)
_PARTS = {"sep": ("dw1", "pw1", "dw2", "pw2"), "dil": ("dw1", "pw1")}


class UnusableSpace(KitError):
    """A search space that cannot be built, or images that do not fit it."""


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes
    ----------
    family : str
        "darts", "pcdarts" or "pdarts".
    channels, cells, classes, input_channels : int
        Width of the first cells, number of cells, outputs, channels of the images.
    normal, reduce : tuple of 14 tuples of int, optional
        Indices into `ops.PRIMITIVES` that survive on each edge, equally many on all; None is all eight.
    """

    family: str
    channels: int = 16
    cells: int = 8
    classes: int = 4
    input_channels: int = 3
    normal: tuple | None = None
    reduce: tuple | None = None

    def __post_init__(self):
        if self.family not in ("darts", "pcdarts", "pdarts"):
            raise UnusableSpace(f"The family {self.family!r} is unknown; use darts, pcdarts or pdarts.")
        if self.cells < 3 or self.channels % (2 * self.partial):
            raise UnusableSpace(f"{self.cells} cells of {self.channels} channels cannot be built; use at least 3 cells and a multiple of {2 * self.partial} channels.")
        for edges in (self.normal, self.reduce):
            if edges is not None and (len(edges) != len(EDGES) or len({len(edge) for edge in edges}) != 1):
                raise UnusableSpace(f"A cell has {len(EDGES)} edges with equally many operations each; give one tuple of indices for every edge.")

    @property
    def partial(self) -> int:
        """One in how many channels passes the operations: 4 for PC-DARTS, else 1."""
        return 4 if self.family == "pcdarts" else 1

    @property
    def reductions(self) -> tuple:
        """Indices of the reduction cells."""
        return (self.cells // 3, 2 * self.cells // 3)

    @property
    def columns(self) -> int:
        """Operations per edge: columns of an alpha."""
        return len(self.edge_ops(False)[0])

    def edge_ops(self, reduction: bool) -> tuple:
        """Per edge the indices of its operations, 14 tuples."""
        return (self.reduce if reduction else self.normal) or (tuple(range(len(PRIMITIVES))),) * len(EDGES)


@dataclass(frozen=True)
class Cell:
    """Geometry of one cell: inputs of `before_last` and `last` channels become four nodes of `channels`, `width` of which pass the operations."""

    index: int
    reduction: bool
    after_reduction: bool
    before_last: int
    last: int
    channels: int
    width: int


def cells_of(space: Space) -> list:
    """Geometry of all cells, list of `Cell`."""
    before_last = last = 3 * space.channels
    channels, result = space.channels, []
    for index in range(space.cells):
        channels *= 2 if index in space.reductions else 1
        result.append(Cell(index, index in space.reductions, index - 1 in space.reductions, before_last, last, channels, channels // space.partial))
        before_last, last = last, NODES * channels
    return result


def members(space: Space, cell: Cell, primitive: int) -> tuple:
    """Edges of a cell on which an operation with weights stands, in the order of the stacked weights (by source, then node)."""
    chosen = tuple(edge for edge in BY_SOURCE if primitive in space.edge_ops(cell.reduction)[edge])
    return tuple(edge for edge in chosen if cell.reduction and EDGES[edge][0] < 2) if primitive == _SKIP else chosen


def _cell_shapes(space, cell):
    name, wide, shapes = f"cell{cell.index}", cell.width, []
    if cell.after_reduction:
        shapes += [(f"{name}/pre0/{half}", (1, cell.before_last, 1, cell.channels // 2)) for half in ("even", "odd")]
    else:
        shapes.append((f"{name}/pre0", (1, 1, cell.before_last, cell.channels)))
    shapes.append((f"{name}/pre1", (1, 1, cell.last, cell.channels)))
    for primitive in (_SKIP, *_CONVOLUTIONS):
        edges, label = len(members(space, cell, primitive)), f"{name}/{PRIMITIVES[primitive]}"
        if edges and primitive == _SKIP:
            shapes += [(f"{label}/{half}", (1, wide, edges, wide // 2)) for half in ("even", "odd")]
        elif edges:
            size = KERNEL[PRIMITIVES[primitive]]
            kernel = {"dw1": (size, size, wide, edges), "pw1": (wide, edges, 1, wide), "dw2": (size, size, edges * wide, 1), "pw2": (edges, wide, 1, wide)}
            shapes += [(f"{label}/{part}", kernel[part]) for part in _PARTS[PRIMITIVES[primitive][:3]]]
    return shapes


def weight_shapes(space: Space) -> list:
    """Names and shapes of all trainable weights.

    Returns
    -------
    list of (str, tuple)
        Stem kernel, gain, shift; per cell the preprocessing (C_in, C) and per operation depthwise kernels (k, k, C, edges) and pointwise kernels
        (C_in, edges, C_out) with its edges in the order of `members`; classifier kernel and bias.
    """
    stem = 3 * space.channels
    shapes = [("stem/kernel", (3, 3, space.input_channels, stem)), ("stem/gain", (stem,)), ("stem/shift", (stem,))]
    cells = cells_of(space)
    for cell in cells:
        shapes += _cell_shapes(space, cell)
    return [*shapes, ("classifier/kernel", (NODES * cells[-1].channels, space.classes)), ("classifier/bias", (space.classes,))]


def parameters(space: Space) -> int:
    """Number of trainable weights, the architecture's own not counted."""
    return sum(math.prod(shape) for _, shape in weight_shapes(space))


def _fan_in(name, shape, features):
    part = name.split("/")[-1]
    if part.startswith("dw"):
        return shape[0] * shape[1]
    if name.startswith("classifier"):
        return features
    return math.prod(shape[:3]) if name == "stem/kernel" else shape[{"pw1": 0, "pre0": 2, "pre1": 2}.get(part, 1)]


def initial_weights(space: Space, seed: int, dtype: str = "float32") -> list:
    """Weights at the start: PyTorch's default, uniform within 1 / sqrt(fan in); gain 1, shift 0.

    Returns
    -------
    list of numpy.ndarray
        As `weight_shapes`.
    """
    rng, result = np.random.default_rng([seed, 0]), []
    for name, shape in weight_shapes(space):
        if name.startswith("stem/") and len(shape) == 1:
            result.append(np.full(shape, name == "stem/gain", dtype))
            continue
        bound = 1 / math.sqrt(_fan_in(name, shape, NODES * cells_of(space)[-1].channels))
        result.append(rng.uniform(-bound, bound, shape).astype(dtype))
    return result


def initial_arch(space: Space, seed: int, dtype: str = "float32") -> list:
    """Architecture at the start, 1e-3 times standard normal.

    Returns
    -------
    list of numpy.ndarray
        alpha of the normal and of the reduction cells (14, columns); for PC-DARTS also their betas (14,).
    """
    rng, edges = np.random.default_rng([seed, 1]), len(EDGES)
    shapes = [(edges, space.columns)] * 2 + [(edges,)] * 2 * (space.family == "pcdarts")
    return [(1e-3 * rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def mixing(space: Space, arch, reduction: bool):
    """Weight of every operation on every edge.

    Parameters
    ----------
    space : Space
    arch : list of tensors
    reduction : bool

    Returns
    -------
    tensor (14, 8)
        Rows ordered by source (`BY_SOURCE`), columns as `ops.PRIMITIVES`: softmax of alpha, zero where an operation has been dropped, times the
        softmax of beta over the edges that enter a node.
    """
    weight = tf.nn.softmax(arch[int(reduction)])
    kept = space.edge_ops(reduction)
    if kept != (tuple(range(len(PRIMITIVES))),) * len(EDGES):
        place = np.zeros((len(EDGES), len(kept[0]), len(PRIMITIVES)))
        for edge, chosen in enumerate(kept):
            place[edge, range(len(chosen)), chosen] = 1
        weight = tf.einsum("ec,eco->eo", weight, tf.constant(place, weight.dtype))
    if len(arch) == 4:
        weight *= edge_weights(arch[2 + int(reduction)])[:, None]
    return tf.matmul(tf.constant(np.eye(len(EDGES))[list(BY_SOURCE)], weight.dtype), weight)


def edge_weights(beta):
    """Softmax of beta over the edges that enter each node, (14,) in the order of `EDGES`."""
    return tf.concat([tf.nn.softmax(part) for part in tf.split(beta, [node + 2 for node in range(NODES)])], 0)


class _Mixture:
    """What the cells of one type and width share: mixing weights as scales of the normalisations and as kernels of the operations without weights."""

    def __init__(self, space, weight, width):
        self.space, self.width, self.weight = space, width, weight
        spread = tf.transpose(weight)[:, :, None] * ops.constant((1, width, weight.dtype), lambda: np.ones((1, 1, width), weight.dtype.as_numpy_dtype))
        self.rows = tf.unstack(tf.reshape(spread, (len(PRIMITIVES), -1)))
        self.scales, self.kernels = {}, {}

    def scale(self, source, primitive):
        """Mixing weight of every output channel, (edges * C,)."""
        if primitive not in self.scales:
            self.scales[primitive] = tf.split(self.rows[primitive], [len(edges) * self.width for edges in LEAVING])
        return self.scales[primitive][source]

    def kernel(self, source, free):
        """Kernel (1, 1, operations * C, edges * C) that mixes the maps of the operations without weights."""
        if free not in self.kernels:
            spread = tf.reshape(tf.stack([self.rows[primitive] for primitive in free]), (len(free), 1, -1, self.width))
            eye = ops.constant(("eye", self.width, spread.dtype), lambda: np.eye(self.width, dtype=spread.dtype.as_numpy_dtype)[:, None, :])
            self.kernels[free] = tf.split(spread * eye, [len(edges) for edges in LEAVING], 2)
        return tf.reshape(self.kernels[free][source], (1, 1, len(free) * self.width, -1))


def _edge_kernel(kernels, place):
    """Stacked pointwise kernels as one kernel (1, 1, C * n, e * O): (C, n, 1, O) with place (n, e, 1), or (n, C, 1, O) with place (n, 1, e, 1)."""
    place = ops.constant((place.shape, place.tobytes(), kernels.dtype), lambda: place.astype(kernels.dtype.as_numpy_dtype))
    return tf.reshape(kernels * place, (1, 1, kernels.shape[0] * kernels.shape[1], -1))


def _leaving(cell, source, x, mixture, convolutions, identity):
    """Terms whose sum enters the later nodes, (N, H, W, edges * C) each.

    Parameters
    ----------
    cell : Cell
    source : int
    x : tensor (N, H, W, C)
        State, of a partial network the channels that pass the operations.
    mixture : _Mixture
    convolutions : dict of int to (list of tensors, tuple of edges)
    identity : bool
        Whether the skip connection of stride 1 is to be mixed in.
    """
    stride, positive, present = 2 if cell.reduction and source < 2 else 1, tf.nn.relu(x), mixture.space.edge_ops(cell.reduction)
    pools = tuple(primitive for primitive in (1, 2) if any(primitive in present[edge] for edge in LEAVING[source]))
    maps = [ops.normalise((ops.max_pool, ops.avg_pool)[primitive - 1](x, stride)) for primitive in pools]
    free = (*pools, _SKIP) if identity else pools
    terms = [ops.pointwise(tf.concat([*maps, x] if identity else maps, -1), mixture.kernel(source, free))] if free else []
    dilated = []
    for primitive, (weights, edges) in convolutions.items():
        place, scale = np.array([[edge == other for other in LEAVING[source]] for edge in edges], float), mixture.scale(source, primitive)
        if primitive == _SKIP:
            terms.append(_reduced(positive, weights, place, scale))
        elif primitive < 6:
            terms.append(_separable(positive, weights, place, scale, stride))
        else:
            dilated.append((weights, place, scale))
    return terms + _dilated(positive, dilated, stride)


def _reduced(x, weights, place, scale):
    """Factorised reductions, the skip connections of stride 2."""
    if len(place) < place.shape[1]:
        weights = [tf.einsum("icno,ne->iceo", kernels, tf.constant(place, x.dtype)) for kernels in weights]
    return ops.normalise(ops.pointwise(ops.halves(x), ops.halves_kernel(*weights)), scale)


def _separable(x, weights, place, scale, stride):
    first, second = _edge_kernel(weights[1], np.eye(len(place))[:, :, None]), _edge_kernel(weights[3], place[:, None, :, None])
    maps = tf.nn.relu(ops.normalise(ops.pointwise(ops.depthwise(x, weights[0], stride), first)))
    return ops.normalise(ops.pointwise(ops.depthwise(maps, weights[2]), second), scale)


def _dilated(x, convolutions, stride):
    """Dilated convolutions, computed on the four sub-lattices that they do not mix; of the even one alone at stride 2."""
    if not convolutions:
        return []
    even = stride == 1 and x.shape[1] % 2 == 0 == x.shape[2] % 2
    x = tf.raw_ops.SpaceToBatch(input=x, paddings=[[0, 0], [0, 0]], block_size=2) if even else x[:, ::2, ::2] if stride == 2 else x
    terms = []
    for weights, place, scale in convolutions:
        maps = ops.depthwise(x, weights[0], 1, 1 if even or stride == 2 else 2)
        terms.append(ops.normalise(ops.pointwise(maps, _edge_kernel(weights[1], place[:, :, None])), scale))
    return [tf.raw_ops.BatchToSpace(input=tf.add_n(terms), crops=[[0, 0], [0, 0]], block_size=2)] if even else terms


class _Network:
    """One evaluation of the supernet: weights by name, mixing weights by cell type and width."""

    def __init__(self, space, weights, arch, skip_rate, seed):
        self.space, self.skip_rate = space, skip_rate
        self.weights = {name: weight for (name, _), weight in zip(weight_shapes(space), weights, strict=True)}
        self.mixing = [mixing(space, arch, reduction) for reduction in (False, True)]
        self.bypass = [tf.unstack(edge_weights(beta)) for beta in arch[2:]]
        self.mixtures = {}
        if skip_rate is not None:
            self.seeds = tf.random.stateless_uniform((space.cells, NODES + 1, 2), seed, None, None, tf.int32)

    def logits(self, x):
        x = ops.normalise(tf.nn.conv2d(x, self.weights["stem/kernel"], 1, "SAME"), self.weights["stem/gain"]) + self.weights["stem/shift"]
        before_last = last = tf.nn.relu(x)
        for cell in cells_of(self.space):
            before_last, last = last, self.cell(cell, before_last, last)
            x, last = last, tf.nn.relu(last)
        return tf.matmul(tf.reduce_mean(x, (1, 2)), self.weights["classifier/kernel"]) + self.weights["classifier/bias"]

    def mixture(self, cell):
        key = cell.reduction, cell.width
        if key not in self.mixtures:
            self.mixtures[key] = _Mixture(self.space, self.mixing[cell.reduction], cell.width)
        return self.mixtures[key]

    def cell(self, cell, before_last, last):
        """Output of a cell from the rectified outputs of the two before."""
        name = f"cell{cell.index}"
        if cell.after_reduction:
            kernel = ops.halves_kernel(self.weights[f"{name}/pre0/even"], self.weights[f"{name}/pre0/odd"])
            states = [ops.normalise(ops.pointwise(ops.halves(before_last), kernel))]
        else:
            states = [ops.normalise(ops.pointwise(before_last, self.weights[f"{name}/pre0"]))]
        states.append(ops.normalise(ops.pointwise(last, self.weights[f"{name}/pre1"])))
        stacked = self.by_state(cell)
        entering = self.leaving(cell, 0, states[0], stacked[0])
        for node in range(NODES):
            entering = tf.add_n([*entering, *self.leaving(cell, node + 1, states[node + 1], stacked[node + 1])])
            rest = (NODES - 1 - node) * cell.width
            mixed, entering = tf.split(entering, [cell.width, rest], -1) if rest else (entering, None)
            entering = [entering]
            states.append(self.node(cell, node, states, mixed))
        return tf.concat(states[2:], -1)

    def by_state(self, cell):
        """Per state its convolutions: dict of primitive to (list of tensors, tuple of edges)."""
        result = [{} for _ in range(NODES + 1)]
        for primitive in (_SKIP, *_CONVOLUTIONS):
            edges, prefix = members(self.space, cell, primitive), f"cell{cell.index}/{PRIMITIVES[primitive]}/"
            chosen = [tuple(edge for edge in edges if EDGES[edge][0] == source) for source in range(NODES + 1)]
            sizes = [len(some) for some in chosen]
            parts = [self.parts(name, sizes) for name in self.weights if name.startswith(prefix)]
            for source, some in enumerate(chosen):
                if some:
                    result[source][primitive] = [part[source] for part in parts], some
        return result

    def parts(self, name, sizes):
        """Weights of one kind for each state."""
        kind, weight = name.split("/")[-1], self.weights[name]
        axis, factor = {"dw1": (3, 1), "pw1": (1, 1), "dw2": (2, weight.shape[2] // sum(sizes)), "pw2": (0, 1), "even": (2, 1), "odd": (2, 1)}[kind]
        return tf.split(weight, [factor * size for size in sizes], axis)

    def leaving(self, cell, source, x, convolutions):
        """Terms by which a state enters the later nodes."""
        x = x if cell.width == cell.channels else x[..., : cell.width]
        identity = not (cell.reduction and source < 2) and any(_SKIP in self.space.edge_ops(cell.reduction)[edge] for edge in LEAVING[source])
        mixture = self.mixture(cell)
        terms = _leaving(cell, source, x, mixture, convolutions, identity and self.skip_rate is None)
        if identity and self.skip_rate is not None:
            terms.append(self.dropped(cell, source, x, tf.split(mixture.weight[:, _SKIP], [len(edges) for edges in LEAVING])[source]))
        stride = 2 if cell.reduction and source < 2 else 1
        empty = tf.zeros_like(tf.repeat(x[:, ::stride, ::stride], len(LEAVING[source]), -1)) if not terms else None
        return terms or [empty]

    def dropped(self, cell, source, x, weight):
        """Identity with its own element dropout on every edge, times the mixing weights: (N, H, W, edges * C)."""
        shape = tf.concat([tf.shape(x)[:3], [len(LEAVING[source]), cell.width]], 0)
        uniform = tf.random.stateless_uniform(shape, self.seeds[cell.index, source], dtype=x.dtype)
        rate = tf.cast(self.skip_rate, x.dtype)
        kept = tf.cast(uniform >= rate, x.dtype) * (weight[:, None] / (1 - rate))
        return tf.reshape(x[..., None, :] * kept, tf.concat([tf.shape(x)[:3], [len(LEAVING[source]) * cell.width]], 0))

    def node(self, cell, node, states, mixed):
        """A node from the sum of what enters it; with partial channels the others pass by and all are shuffled."""
        if cell.width == cell.channels:
            return mixed
        beta, passing = self.bypass[cell.reduction], []
        for edge, (source, target) in enumerate(EDGES):
            if target == node:
                rest = states[source][..., cell.width :]
                passing.append(beta[edge] * (tf.nn.max_pool2d(rest, 2, 2, "VALID") if cell.reduction and source < 2 else rest))
        groups = [mixed, *tf.split(tf.add_n(passing), self.space.partial - 1, -1)]
        return tf.reshape(tf.stack(groups, -1), tf.concat([tf.shape(mixed)[:3], [cell.channels]], 0))


def forward(space: Space, weights, arch, x, skip_rate=None, seed=None):
    """Logits of the supernet, BatchNorm by the batch.

    Parameters
    ----------
    space : Space
    weights, arch : lists of tensors
        As `initial_weights`, `initial_arch`.
    x : tensor (N, H, W, input_channels)
        Sides divisible by 4.
    skip_rate : scalar tensor, optional
        Dropout after the identities (P-DARTS); None leaves it out of the graph.
    seed : int32 tensor (2,), optional
        Of that dropout.

    Returns
    -------
    tensor (N, classes)

    Raises
    ------
    UnusableSpace
        For sides that are not divisible by 4.
    """
    if any(side is None or side % 4 for side in x.shape[1:3]):
        raise UnusableSpace(f"Images of {x.shape[1]} x {x.shape[2]} pixels do not fit the two halvings; resize them to a known multiple of 4.")
    return _Network(space, weights, arch, skip_rate, seed).logits(x)


def from_torch(space: Space, mapping) -> list:
    """Weights from those of the original PyTorch networks.

    Parameters
    ----------
    space : Space
    mapping : mapping of str to array
        By the original's parameter names; convolutions (out, in / groups, k, k).

    Returns
    -------
    list of numpy.ndarray
        As `weight_shapes`.
    """
    return [_from_torch(space, name, mapping) for name, _ in weight_shapes(space)]


_TORCH = {"stem/kernel": "stem.0.weight", "stem/gain": "stem.1.weight", "stem/shift": "stem.1.bias", "classifier/kernel": "classifier.weight",
          "classifier/bias": "classifier.bias", "even": "conv_1.weight", "odd": "conv_2.weight", "dw1": "op.1.weight", "pw1": "op.2.weight",
          "dw2": "op.5.weight", "pw2": "op.6.weight"}


def _from_torch(space, name, mapping):
    if name in _TORCH:
        value = np.asarray(mapping[_TORCH[name]])
        return {4: value.transpose(2, 3, 1, 0) if value.ndim == 4 else value, 2: value.T}.get(value.ndim, value)
    cell, kind, *part = name.split("/")
    cell = cells_of(space)[int(cell[4:])]
    if kind in ("pre0", "pre1"):
        kernel = np.asarray(mapping[f"cells.{cell.index}.preprocess{kind[-1]}.{_TORCH[part[0]] if part else 'op.1.weight'}"])[:, :, 0, 0].T
        return kernel[None, :, None] if part else kernel[None, None]
    primitive = PRIMITIVES.index(kind)
    kernels = []
    for edge in members(space, cell, primitive):
        position = space.edge_ops(cell.reduction)[edge].index(primitive)
        kernels.append(np.asarray(mapping[f"cells.{cell.index}._ops.{edge}._ops.{position}.{_TORCH[part[0]]}"]))
    return _stacked(part[0], kernels)


def _stacked(part, kernels):
    if part == "dw1":
        return np.stack([kernel[:, 0] for kernel in kernels], -1).transpose(1, 2, 0, 3)
    if part == "dw2":
        return np.concatenate([kernel[:, 0] for kernel in kernels]).transpose(1, 2, 0)[..., None]
    stacked = np.stack([kernel[:, :, 0, 0].T for kernel in kernels], 0 if part == "pw2" else 1)
    return stacked[None] if part in ("even", "odd") else stacked[:, :, None]


def macs(space: Space, size: int) -> int:
    """Multiply-accumulates of one image's forward pass in the published form, convolutions and classifier.

    Parameters
    ----------
    space : Space
    size : int
        Side of the image in pixels.
    """
    pixels, total, cells = size * size, 0, {cell.index: cell for cell in cells_of(space)}
    for name, shape in weight_shapes(space):
        if name == "classifier/kernel":
            total += math.prod(shape)
        elif name.startswith("stem/kernel"):
            total += pixels * math.prod(shape)
        elif name.startswith("cell"):
            total += _macs(cells[int(name.split("/")[0][4:])], name, shape, pixels, space)
    return total


def _macs(cell, name, shape, pixels, space):
    area = pixels // 4 ** sum(cell.index > index for index in space.reductions)
    small = area // 4 if cell.reduction else area
    _, kind, *part = name.split("/")
    if kind in ("pre0", "pre1"):
        return math.prod(shape) * area
    edges = members(space, cell, PRIMITIVES.index(kind))
    each = math.prod(shape) // len(edges)
    return each * small * len(edges)
