"""The search space of PBC-NAS in 3D: 29 genes, the cell and network they stand for, when two are
the same, and what a network costs.

The genome, the pruning and the limit of nine edges are the released code's. Three
things differ. The code calls two candidates the same if the paths and degrees of their raw graphs
are equal, whatever the numbers of cells, stacks and filters, so that a cell once seen is never
trained at another size, while operations on vertices that pruning removes make equal networks look
different; that test is here as ``"paper"``, and the default ``"phenotype"`` compares what is built:
the pruned cell up to the order of its vertices, and the numbers. The order is removed because two
orders of one graph add the same tensors: they are one network with another numbering, and training
both measures the noise of the initial weights. The code creates a 1x1x1 convolution in every cell
of the first stack that is never used; the weights are counted only on request, which the published
parameter counts need. And the space may be narrowed, for computers without an accelerator.

Pure NumPy; :mod:`kit.search.nas3d.networks` builds the networks, :mod:`kit.search.nas3d.released`
holds the published ones.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kit.errors import KitError

VERTICES, MOST_EDGES, GENES = (
    7,
    9,
    29,
)  # vertex 0 is the cell's input, 6 its output; the limit counts edges after pruning
PAIRS = tuple(
    itertools.combinations(range(VERTICES), 2)
)  # what genes 0 to 20 switch on, row by row of the upper triangle
CELLS, STACKS, FILTERS = (1, 2), (1, 2), (8, 16, 32)
DISCONNECTED, NO_OPERATION, TOO_MANY_EDGES = "disconnected", "no operation", "too many edges"
KEYS = ("phenotype", "paper")


class Infeasible(KitError):
    """Genes that stand for no network: input and output not connected, no operation between them,
    or too many edges.
    """


class BadNetwork(KitError):
    """A network, a genome or a narrowed space that cannot be."""


@dataclass(frozen=True)
class Operation:
    """What a vertex does; stride 1, zero padding, as many channels out as in, with bias.

    Attributes
    ----------
    name : str
        The steps in order, such as "conv5-norm-mish".
    kernel : int
        Edge of the cubic kernel.
    norm : bool
        With affine instance normalisation.
    order : tuple of str
        "conv", "norm" and "act" in the order in which they are applied.
    activation : str
        "relu" or "mish".
    """

    name: str
    kernel: int
    norm: bool
    order: tuple
    activation: str

    def parameters(self, channels: int) -> int:
        """Trainable weights at this width."""
        return self.kernel**3 * channels**2 + channels + 2 * channels * self.norm

    def macs(self, channels: int, voxels: int) -> int:
        """Multiply-adds of the convolution for one volume; bias, normalisation and activation are
        not counted.
        """
        return self.kernel**3 * channels**2 * voxels


_KINDS = (
    (("conv", "norm", "act"), "relu"),
    (("conv", "norm", "act"), "mish"),
    (("norm", "act", "conv"), "mish"),
    (("act", "conv"), "relu"),
    (("act", "conv"), "mish"),
)


def _operation(order, activation, kernel) -> Operation:
    words = {"conv": f"conv{kernel}", "norm": "norm", "act": activation}
    return Operation(
        "-".join(words[step] for step in order), kernel, "norm" in order, order, activation
    )


OPERATIONS = tuple(
    _operation(order, activation, kernel) for order, activation in _KINDS for kernel in (3, 5, 7)
)
NAMES = tuple(operation.name for operation in OPERATIONS)


@dataclass(frozen=True)
class Network3D:
    """A cell and how often it is stacked.

    Attributes
    ----------
    matrix : tuple of tuple of int
        (n, n) strictly upper triangular: 1 where the row's vertex feeds the column's. Row 0 is the
        cell's input, the last its output.
    operations : tuple of int
        (n - 2,) indices of OPERATIONS, of the inner vertices in order.
    cells : int
        Per stack.
    stacks : int
        The width doubles and the edge halves from one to the next.
    filters : int
        Width of the first stack.

    Raises
    ------
    BadNetwork
        If a vertex lies on no path from input to output, an index is unknown or a number is below
        1. The limit of nine edges is the search's, not checked here.
    """

    matrix: tuple
    operations: tuple
    cells: int
    stacks: int
    filters: int

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, int)
        object.__setattr__(self, "matrix", tuple(map(tuple, matrix.tolist())))
        object.__setattr__(self, "operations", tuple(int(index) for index in self.operations))
        n = len(self.operations) + 2
        if (
            n < 3
            or matrix.shape != (n, n)
            or np.tril(matrix).any()
            or not np.isin(matrix, (0, 1)).all()
            or len(_kept(matrix)) != n
        ):
            raise BadNetwork(
                f"A cell of {n - 2} operations needs a {n} x {n} upper triangular matrix in which "
                "every vertex lies on a path from first to last."
            )
        if (
            not set(self.operations) <= set(range(len(OPERATIONS)))
            or min(self.cells, self.stacks, self.filters) < 1
        ):
            raise BadNetwork(
                f"Operations are numbered 0 to {len(OPERATIONS) - 1}, and cells, stacks and "
                "filters start at 1."
            )

    @property
    def edges(self) -> int:
        """Edges of the cell, without the residual connection."""
        return sum(map(sum, self.matrix))

    def widths(self) -> tuple:
        """Channels of every stack."""
        return tuple(self.filters * 2**stack for stack in range(self.stacks))


def level(value: float, levels: int) -> int:
    """Index that a gene in [0, 1] chooses among `levels`: bins of equal width, 1 belongs to the
    last.
    """
    return min(int(value * levels), levels - 1)


@dataclass(frozen=True)
class Space:
    """The search space as :mod:`kit.search.evolution.opposition` asks for it, and the task that
    gives a network its cost.

    Attributes
    ----------
    classes, edge, channels : int
        Of the data: classes, voxels along an edge of the volume, channels of a voxel.
    operations : tuple of int
        Indices of OPERATIONS that genes 21 to 25 choose from; all 15 in the paper, fewer narrow the
        space.
    cells, stacks, filters : tuple of int
        What genes 26, 27 and 28 choose from.

    Raises
    ------
    BadNetwork
    """

    classes: int = 2
    edge: int = 28
    channels: int = 1
    operations: tuple = tuple(range(len(OPERATIONS)))
    cells: tuple = CELLS
    stacks: tuple = STACKS
    filters: tuple = FILTERS

    def __post_init__(self) -> None:
        for name in ("operations", "cells", "stacks", "filters"):
            object.__setattr__(self, name, tuple(int(n) for n in getattr(self, name)))
            if not getattr(self, name):
                raise BadNetwork(f"The space needs at least one entry in {name}.")
        if (
            not set(self.operations) <= set(range(len(OPERATIONS)))
            or min(self.cells + self.stacks + self.filters) < 1
            or self.edge // 2 ** (max(self.stacks) - 1) < 1
        ):
            raise BadNetwork(
                "The space names an unknown operation, a number below 1, or more stacks than the "
                "volume can be halved."
            )

    @property
    def genes(self) -> int:
        """Length of a genome."""
        return GENES

    def levels(self, x: ArrayLike) -> tuple:
        """The 29 choices of a genome: 21 edges, 5 indices into `operations`, 3 into `cells`,
        `stacks` and `filters`.

        Parameters
        ----------
        x : array-like
            (29,) floats in [0, 1].

        Raises
        ------
        BadNetwork
        """
        x = np.asarray(x, float)
        if x.shape != (GENES,) or not ((x >= 0) & (x <= 1)).all():
            raise BadNetwork(f"A genome is {GENES} numbers in [0, 1].")
        counts = (
            [2] * len(PAIRS)
            + [len(self.operations)] * (VERTICES - 2)
            + [len(self.cells), len(self.stacks), len(self.filters)]
        )
        return tuple(level(value, n) for value, n in zip(x.tolist(), counts, strict=True))

    def genome(self, levels: Sequence[int]) -> np.ndarray:
        """A genome that makes these 29 choices: the middles of their bins."""
        counts = (
            [2] * len(PAIRS)
            + [len(self.operations)] * (VERTICES - 2)
            + [len(self.cells), len(self.stacks), len(self.filters)]
        )
        return np.array([(index + 0.5) / n for index, n in zip(levels, counts, strict=True)])

    def raw(self, x: ArrayLike) -> tuple:
        """The graph before pruning: its (7, 7) int matrix and the 5 operations."""
        chosen, matrix = self.levels(x), np.zeros((VERTICES, VERTICES), int)
        for pair, on in zip(PAIRS, chosen, strict=False):
            matrix[pair] = on
        return matrix, tuple(self.operations[index] for index in chosen[21:26])

    def decode(self, x: ArrayLike) -> Network3D:
        """The network of a genome, its vertices in the genome's order.

        Raises
        ------
        Infeasible
            With one of DISCONNECTED, NO_OPERATION and TOO_MANY_EDGES as its text.
        """
        matrix, operations, _ = prune(*self.raw(x))
        cells, stacks, filters = self.levels(x)[26:]
        return Network3D(
            matrix, operations, self.cells[cells], self.stacks[stacks], self.filters[filters]
        )

    def reason(self, x: ArrayLike) -> str | None:
        """Why a genome stands for no network; None where it does."""
        try:
            prune(*self.raw(x))
        except Infeasible as error:
            return str(error)
        return None

    def key(self, x: ArrayLike, kind: str = "phenotype") -> tuple | Network3D | None:
        """What two genomes share if they count as the same; None for an infeasible genome under
        "phenotype", which equals nothing.

        Parameters
        ----------
        kind : str
            "phenotype": the canonical network. "paper": paths and degrees of the raw graph; equal
            exactly where the released code's distance is 0.
        """
        if kind not in KEYS:
            raise BadNetwork(f'The kind of key is "{kind}"; choose {" or ".join(KEYS)}.')
        if kind == "paper":
            matrix, operations = self.raw(x)
            return paths(matrix, operations), degrees(matrix, operations)
        return None if self.reason(x) else canonical(self.decode(x))

    def cost(self, x: ArrayLike) -> int:
        """Multiply-adds of a feasible genome's network for one volume."""
        return macs(self.decode(x), self.classes, self.edge, self.channels)


PAPER = Space()
levels, raw, decode, reason, key = PAPER.levels, PAPER.raw, PAPER.decode, PAPER.reason, PAPER.key


def _kept(matrix) -> list:
    """Vertices on a path from the first to the last; empty if there is none."""
    last = len(matrix) - 1
    ahead, behind = {0}, {last}
    for vertex in range(last):
        if vertex in ahead:
            ahead |= set(np.flatnonzero(matrix[vertex]).tolist())
    for vertex in range(last, 0, -1):
        if vertex in behind:
            behind |= set(np.flatnonzero(np.asarray(matrix)[:, vertex]).tolist())
    return sorted(ahead & behind) if last in ahead else []


def prune(matrix: ArrayLike, operations: Sequence[int]) -> tuple:
    """Remove what lies on no path from input to output.

    Parameters
    ----------
    matrix : array-like
        (n, n) strictly upper triangular.
    operations : sequence of int
        (n - 2,).

    Returns
    -------
    matrix, operations, kept
        The (m, m) matrix, its m - 2 operations, and the m vertices that stayed.

    Raises
    ------
    Infeasible
    """
    matrix = np.asarray(matrix, int)
    kept = _kept(matrix)
    if not kept:
        raise Infeasible(DISCONNECTED)
    if len(kept) == 2:
        raise Infeasible(NO_OPERATION)
    pruned = matrix[np.ix_(kept, kept)]
    if pruned.sum() > MOST_EDGES:
        raise Infeasible(TOO_MANY_EDGES)
    return pruned, tuple(operations[vertex - 1] for vertex in kept[1:-1]), tuple(kept)


@functools.lru_cache(4096)
def canonical(network: Network3D) -> Network3D:
    """The network with the vertices of its cell in a standard order: isomorphic cells, operations
    included, give the same.

    Of all orders of the inner vertices in which every edge points forward, the one with the
    smallest operations, then the smallest matrix.
    """
    matrix, n, found = np.array(network.matrix), len(network.matrix), []
    for inner in itertools.permutations(range(1, n - 1)):
        order = [0, *inner, n - 1]
        moved = matrix[np.ix_(order, order)]
        if not np.tril(moved).any():
            found.append(
                (
                    tuple(network.operations[vertex - 1] for vertex in inner),
                    tuple(map(tuple, moved.tolist())),
                )
            )
    operations, smallest = min(found)
    return Network3D(smallest, operations, network.cells, network.stacks, network.filters)


def paths(matrix: np.ndarray, operations: Sequence[int]) -> frozenset:
    """Sequences of operations along all paths from input to output; the direct edge gives the empty
    one.
    """
    last, found = len(matrix) - 1, set()

    def walk(vertex, sequence):
        for following in np.flatnonzero(matrix[vertex]).tolist():
            if following == last:
                found.add(sequence)
            else:
                walk(following, (*sequence, operations[following - 1]))

    walk(0, ())
    return frozenset(found)


def degrees(matrix: ArrayLike, operations: Sequence[int]) -> frozenset:
    """Triples (operation, "in" or "out", degree) of all vertices, pruned or not, with "input" and
    "output" for the ends; degrees of 0 are left out.
    """
    matrix = np.asarray(matrix)
    labels = ["input", *operations, "output"]
    triples = [
        (label, side, int(degree))
        for side, axis in (("out", 1), ("in", 0))
        for label, degree in zip(labels, matrix.sum(axis), strict=True)
    ]
    return frozenset(triple for triple in triples if triple[2])


def parameters(network: Network3D, classes: int, dead: bool = True, channels: int = 1) -> int:
    """Trainable weights.

    Parameters
    ----------
    network : Network3D
    classes : int
    dead : bool
        With the 1x1x1 convolutions of the first stack that the released code creates and never
        uses, as its counts are; False counts what is built here.
    channels : int
        Of a voxel.
    """
    total, entering = 27 * channels * network.filters + 3 * network.filters, channels
    for stack, width in enumerate(network.widths()):
        for _ in range(network.cells):
            total += entering * width + width if stack or dead else 0
            total += sum(OPERATIONS[index].parameters(width) for index in network.operations)
            entering = width
    return total + entering * classes + classes


def macs(network: Network3D, classes: int, edge: int = 28, channels: int = 1) -> int:
    """Multiply-adds of convolutions and dense layer for one volume of `edge` voxels along each
    axis; what the publication calls FLOPs.
    """
    total, entering = 27 * channels * network.filters * edge**3, network.filters
    for stack, width in enumerate(network.widths()):
        voxels = (edge // 2**stack) ** 3
        for _ in range(network.cells):
            total += entering * width * voxels if stack else 0
            total += sum(OPERATIONS[index].macs(width, voxels) for index in network.operations)
            entering = width
    return total + entering * classes


def to_json(network: Network3D) -> dict:
    """The network as plain JSON; operations by name."""
    return {
        "matrix": [list(row) for row in network.matrix],
        "operations": [NAMES[index] for index in network.operations],
        "cells": network.cells,
        "stacks": network.stacks,
        "filters": network.filters,
    }


def from_json(told: dict) -> Network3D:
    """The inverse of :func:`to_json`.

    Raises
    ------
    BadNetwork
    """
    try:
        return Network3D(
            told["matrix"],
            tuple(NAMES.index(name) for name in told["operations"]),
            told["cells"],
            told["stacks"],
            told["filters"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BadNetwork(
            f"This is no network of the search space ({error}); write it with to_json."
        ) from error
