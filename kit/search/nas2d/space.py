"""Search spaces of DARTS, PC-DARTS and P-DARTS: geometry, names and shapes of the weights, and how
they start.

As the publications and their code, but that the weights of one kind are
stacked over the edges of a cell, which leaves a fifth of the variables to trace, to update and to
perturb. Nothing here needs TensorFlow.
"""

import math
from dataclasses import dataclass

import numpy as np

from kit.errors import KitError

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
KERNEL = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "dil_conv_3x3": 3, "dil_conv_5x5": 5}
NODES = 4
EDGES = tuple((source, node) for node in range(NODES) for source in range(node + 2))
BY_SOURCE = tuple(sorted(range(len(EDGES)), key=lambda edge: EDGES[edge]))
LEAVING = tuple(
    tuple(edge for edge in BY_SOURCE if EDGES[edge][0] == source) for source in range(NODES + 1)
)
SKIP, CONVOLUTIONS = 3, (4, 5, 6, 7)
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
        Indices into `PRIMITIVES` that survive on each edge, equally many on all; None is all eight.
    """

    family: str
    channels: int = 16
    cells: int = 8
    classes: int = 4
    input_channels: int = 3
    normal: tuple | None = None
    reduce: tuple | None = None

    def __post_init__(self) -> None:
        if self.family not in ("darts", "pcdarts", "pdarts"):
            raise UnusableSpace(
                f"The family {self.family!r} is unknown; use darts, pcdarts or pdarts."
            )
        if self.cells < 3 or self.channels % (2 * self.partial):
            raise UnusableSpace(
                f"{self.cells} cells of {self.channels} channels cannot be built; use at least 3 "
                f"cells and a multiple of {2 * self.partial} channels."
            )
        for edges in (self.normal, self.reduce):
            if edges is not None and (
                len(edges) != len(EDGES) or len({len(edge) for edge in edges}) != 1
            ):
                raise UnusableSpace(
                    f"A cell has {len(EDGES)} edges with equally many operations each; give one "
                    "tuple of indices for every edge."
                )
            if edges is not None and any(
                not edge or sorted({*edge} & {*range(len(PRIMITIVES))}) != list(edge)
                for edge in edges
            ):
                raise UnusableSpace(
                    f"The operations of an edge are indices below {len(PRIMITIVES)}, at least one, "
                    "ascending and without repetition."
                )

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
        return (self.reduce if reduction else self.normal) or (
            tuple(range(len(PRIMITIVES))),
        ) * len(EDGES)


@dataclass(frozen=True)
class Cell:
    """Geometry of one cell: inputs of `before_last` and `last` channels become four nodes of
    `channels`, `width` of which pass the operations.
    """

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
        result.append(
            Cell(
                index,
                reduction=index in space.reductions,
                after_reduction=index - 1 in space.reductions,
                before_last=before_last,
                last=last,
                channels=channels,
                width=channels // space.partial,
            )
        )
        before_last, last = last, NODES * channels
    return result


def members(space: Space, cell: Cell, primitive: int) -> tuple:
    """Edges of a cell on which an operation with weights stands, in the order of the stacked
    weights (by source, then node).
    """
    chosen = tuple(edge for edge in BY_SOURCE if primitive in space.edge_ops(cell.reduction)[edge])
    return (
        tuple(edge for edge in chosen if cell.reduction and EDGES[edge][0] < 2)
        if primitive == SKIP
        else chosen
    )


def _cell_shapes(space, cell):
    name, wide, shapes = f"cell{cell.index}", cell.width, []
    if cell.after_reduction:
        shapes += [
            (f"{name}/pre0/{half}", (1, cell.before_last, 1, cell.channels // 2))
            for half in ("even", "odd")
        ]
    else:
        shapes.append((f"{name}/pre0", (1, 1, cell.before_last, cell.channels)))
    shapes.append((f"{name}/pre1", (1, 1, cell.last, cell.channels)))
    for primitive in (SKIP, *CONVOLUTIONS):
        edges, label = len(members(space, cell, primitive)), f"{name}/{PRIMITIVES[primitive]}"
        if edges and primitive == SKIP:
            shapes += [(f"{label}/{half}", (1, wide, edges, wide // 2)) for half in ("even", "odd")]
        elif edges:
            size = KERNEL[PRIMITIVES[primitive]]
            kernel = {"dw": (size, size, edges * wide, 1), "pw": (edges, wide, 1, wide)}
            shapes += [
                (f"{label}/{part}", kernel[part[:2]]) for part in _PARTS[PRIMITIVES[primitive][:3]]
            ]
    return shapes


def weight_shapes(space: Space) -> list:
    """Names and shapes of all trainable weights.

    Returns
    -------
    list of (str, tuple)
        Stem kernel, gain, shift; per cell the preprocessing (C_in, C) and per operation depthwise
        kernels (k, k, C, edges) and pointwise kernels (C_in, edges, C_out) with its edges in the
        order of `members`; classifier kernel and bias.
    """
    stem = 3 * space.channels
    shapes = [
        ("stem/kernel", (3, 3, space.input_channels, stem)),
        ("stem/gain", (stem,)),
        ("stem/shift", (stem,)),
    ]
    cells = cells_of(space)
    for cell in cells:
        shapes += _cell_shapes(space, cell)
    return [
        *shapes,
        ("classifier/kernel", (NODES * cells[-1].channels, space.classes)),
        ("classifier/bias", (space.classes,)),
    ]


def parameters(space: Space) -> int:
    """Number of trainable weights, the architecture's own not counted."""
    return sum(math.prod(shape) for _, shape in weight_shapes(space))


def _fan_in(name, shape, features):
    part = name.split("/")[-1]
    if part.startswith("dw"):
        return shape[0] * shape[1]
    if name.startswith("classifier"):
        return features
    return (
        math.prod(shape[:3])
        if name == "stem/kernel"
        else shape[{"pre0": 2, "pre1": 2}.get(part, 1)]
    )


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
        alpha of the normal and of the reduction cells (14, columns); for PC-DARTS also their betas
        (14,).
    """
    rng, edges = np.random.default_rng([seed, 1]), len(EDGES)
    shapes = [(edges, space.columns)] * 2 + [(edges,)] * 2 * (space.family == "pcdarts")
    return [(1e-3 * rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def from_torch(space: Space, mapping: dict) -> list:
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


_TORCH = {
    "stem/kernel": "stem.0.weight",
    "stem/gain": "stem.1.weight",
    "stem/shift": "stem.1.bias",
    "classifier/kernel": "classifier.weight",
    "classifier/bias": "classifier.bias",
    "even": "conv_1.weight",
    "odd": "conv_2.weight",
    "dw1": "op.1.weight",
    "pw1": "op.2.weight",
    "dw2": "op.5.weight",
    "pw2": "op.6.weight",
}


def _from_torch(space, name, mapping):
    if name in _TORCH:
        value = np.asarray(mapping[_TORCH[name]])
        return {4: value.transpose(2, 3, 1, 0) if value.ndim == 4 else value, 2: value.T}.get(
            value.ndim, value
        )
    cell, kind, *part = name.split("/")
    cell = cells_of(space)[int(cell[4:])]
    if kind in ("pre0", "pre1"):
        end = _TORCH[part[0]] if part else "op.1.weight"
        stored = mapping[f"cells.{cell.index}.preprocess{kind[-1]}.{end}"]
        kernel = np.asarray(stored)[:, :, 0, 0].T
        return kernel[None, :, None] if part else kernel[None, None]
    primitive = PRIMITIVES.index(kind)
    kernels = []
    for edge in members(space, cell, primitive):
        position = space.edge_ops(cell.reduction)[edge].index(primitive)
        kernels.append(
            np.asarray(mapping[f"cells.{cell.index}._ops.{edge}._ops.{position}.{_TORCH[part[0]]}"])
        )
    return _stacked(part[0], kernels)


def _stacked(part, kernels):
    if part.startswith("dw"):
        return np.concatenate([kernel[:, 0] for kernel in kernels]).transpose(1, 2, 0)[..., None]
    kernels = [kernel[:, :, 0, 0].T for kernel in kernels]
    return np.stack(kernels, 0)[:, :, None] if part.startswith("pw") else np.stack(kernels, 1)[None]


def macs(space: Space, size: int) -> int:
    """Multiply-accumulates of one image's forward pass in the published form, convolutions and
    classifier.

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
    _, kind, *_part = name.split("/")
    if kind in ("pre0", "pre1"):
        return math.prod(shape) * area
    edges = members(space, cell, PRIMITIVES.index(kind))
    each = math.prod(shape) // len(edges)
    return each * small * len(edges)
