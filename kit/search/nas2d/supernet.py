"""Supernets of DARTS, PC-DARTS and P-DARTS as one pure function of weights, architecture and
images.

The function is the publications' (of all three; partial channels and edge normalisation of
PC-DARTS; the shrinking sets of operations and the dropout after skips of P-DARTS); the tests hold
it against logits and gradients of the original networks. It is computed otherwise, for time and for
nodes to trace. All edges that leave one state share its ReLU, its poolings and, filters behind one
another, its convolutions; the edges' pointwise kernels are the diagonal blocks of one. The mixing
weight is the scale of the batch normalisation that ends an operation. What enters the four nodes is
summed for all of them at once. Dilated convolutions are ordinary ones on the four sub-lattices that
they do not mix (at stride 2: on the even one), narrow depthwise and pointwise pairs are made one
ordinary convolution, and the shuffle of PC-DARTS is done once a node. No variables live here:
whoever searches holds the lists, and may differentiate as often as he likes.
"""

import numpy as np
import tensorflow as tf

from kit.search.nas2d import ops
from kit.search.nas2d.edges import Leaving, Mixture
from kit.search.nas2d.space import (  # noqa: F401
    BY_SOURCE,
    CONVOLUTIONS,
    EDGES,
    LEAVING,
    NODES,
    PRIMITIVES,
    SKIP,
    Cell,
    Space,
    UnusableSpace,
    cells_of,
    from_torch,
    initial_arch,
    initial_weights,
    macs,
    members,
    parameters,
    weight_shapes,
)


def mixing(space: Space, arch: list, reduction: bool) -> tf.Tensor:
    """Weight of every operation on every edge.

    Parameters
    ----------
    space : Space
    arch : list of tensors
    reduction : bool

    Returns
    -------
    tensor (14, 8)
        Rows ordered by source (`BY_SOURCE`), columns as `ops.PRIMITIVES`: softmax of alpha, zero
        where an operation has been dropped, times the softmax of beta over the edges that enter a
        node.
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


def edge_weights(beta: tf.Tensor) -> tf.Tensor:
    """Softmax of beta over the edges that enter each node, (14,) in the order of `EDGES`."""
    return tf.concat(
        [tf.nn.softmax(part) for part in tf.split(beta, [node + 2 for node in range(NODES)])], 0
    )


class _Network:
    """One evaluation of the supernet: weights by name, mixing weights by cell type and width."""

    def __init__(self, space, weights, arch, skip_rate, seed):
        self.space, self.skip_rate = space, skip_rate
        self.weights = {
            name: weight for (name, _), weight in zip(weight_shapes(space), weights, strict=True)
        }
        self.mixing = [mixing(space, arch, reduction) for reduction in (False, True)]
        self.bypass = [tf.unstack(edge_weights(beta)) for beta in arch[2:]]
        self.mixtures = {}
        if skip_rate is not None:
            self.seeds = tf.random.stateless_uniform(
                (space.cells, NODES + 1, 2), seed, None, None, tf.int32
            )

    def logits(self, x):
        """(N, classes)."""
        x = (
            ops.normalise(
                tf.nn.conv2d(x, self.weights["stem/kernel"], 1, "SAME"), self.weights["stem/gain"]
            )
            + self.weights["stem/shift"]
        )
        before_last = last = tf.nn.relu(x)
        for cell in cells_of(self.space):
            before_last, last = last, self.cell(cell, before_last, last)
            x, last = last, tf.nn.relu(last)
        return (
            tf.matmul(tf.reduce_mean(x, (1, 2)), self.weights["classifier/kernel"])
            + self.weights["classifier/bias"]
        )

    def mixture(self, cell):
        """Of the cell's type and width."""
        key = cell.reduction, cell.width
        if key not in self.mixtures:
            self.mixtures[key] = Mixture(self.space, self.mixing[cell.reduction], cell.width)
        return self.mixtures[key]

    def cell(self, cell, before_last, last):
        """Output of a cell from the rectified outputs of the two before."""
        name = f"cell{cell.index}"
        if cell.after_reduction:
            kernel = ops.halves_kernel(
                self.weights[f"{name}/pre0/even"], self.weights[f"{name}/pre0/odd"]
            )
            states = [
                ops.normalise(ops.pointwise(ops.halves(ops.sub_lattices(before_last)), kernel))
            ]
        else:
            states = [ops.normalise(ops.pointwise(before_last, self.weights[f"{name}/pre0"]))]
        states.append(ops.normalise(ops.pointwise(last, self.weights[f"{name}/pre1"])))
        stacked, parts = (
            self.by_state(cell),
            [self.part(cell, 0, states[0]), self.part(cell, 1, states[1])],
        )
        entering = self.leaving(cell, 0, parts[0][0], stacked[0])
        for node in range(NODES):
            entering = tf.add_n(
                [*entering, *self.leaving(cell, node + 1, parts[node + 1][0], stacked[node + 1])]
            )
            later = (NODES - 1 - node) * cell.width
            mixed, entering = (
                tf.split(entering, [cell.width, later], -1) if later else (entering, None)
            )
            entering = [entering]
            states.append(
                mixed
                if cell.width == cell.channels
                else self.shuffled(cell, node, [rest for _, rest in parts], mixed)
            )
            parts.append(self.part(cell, node + 2, states[-1]))
        return tf.concat(states[2:], -1)

    def part(self, cell, source, x):
        """Channels of a state that pass the operations, and the others as they reach the later
        nodes.
        """
        if cell.width == cell.channels:
            return x, None
        x, rest = tf.split(x, [cell.width, cell.channels - cell.width], -1)
        return x, tf.nn.max_pool2d(rest, 2, 2, "VALID") if cell.reduction and source < 2 else rest

    def by_state(self, cell):
        """Per state its convolutions: dict of primitive to (list of tensors, tuple of edges)."""
        result = [{} for _ in range(NODES + 1)]
        for primitive in (SKIP, *CONVOLUTIONS):
            edges, prefix = (
                members(self.space, cell, primitive),
                f"cell{cell.index}/{PRIMITIVES[primitive]}/",
            )
            chosen = [
                tuple(edge for edge in edges if EDGES[edge][0] == source)
                for source in range(NODES + 1)
            ]
            sizes = [len(some) for some in chosen]
            parts = [self.parts(name, sizes) for name in self.weights if name.startswith(prefix)]
            for source, some in enumerate(chosen):
                if some:
                    result[source][primitive] = [part[source] for part in parts], some
        return result

    def parts(self, name, sizes):
        """Weights of one kind for each state."""
        kind, weight = name.split("/")[-1], self.weights[name]
        axis, factor = {"dw": (2, weight.shape[2] // sum(sizes)), "pw": (0, 1)}.get(
            kind[:2], (2, 1)
        )
        return tf.split(weight, [factor * size for size in sizes], axis)

    def leaving(self, cell, source, x, convolutions):
        """Terms by which a state enters the later nodes."""
        identity = not (cell.reduction and source < 2) and any(
            SKIP in self.space.edge_ops(cell.reduction)[edge] for edge in LEAVING[source]
        )
        mixture = self.mixture(cell)
        terms = Leaving(cell, source, x, mixture).terms(
            convolutions, identity and self.skip_rate is None
        )
        if identity and self.skip_rate is not None:
            terms.append(
                self.dropped(
                    cell,
                    source,
                    x,
                    tf.split(mixture.weight[:, SKIP], [len(edges) for edges in LEAVING])[source],
                )
            )
        if not terms:
            stride = 2 if cell.reduction and source < 2 else 1
            terms = [
                tf.zeros_like(tf.tile(x[:, ::stride, ::stride], (1, 1, 1, len(LEAVING[source]))))
            ]
        return terms

    def dropped(self, cell, source, x, weight):
        """Identity with its own element dropout on every edge, times the mixing weights: (N, H, W,
        edges * C).
        """
        edges = len(LEAVING[source])
        shape = tf.stack([tf.shape(x)[0], *x.shape[1:3], edges, cell.width])
        uniform = tf.random.stateless_uniform(shape, self.seeds[cell.index, source], dtype=x.dtype)
        rate = tf.cast(self.skip_rate, x.dtype)
        kept = tf.cast(uniform >= rate, x.dtype) * (weight[:, None] / (1 - rate))
        return tf.reshape(x[..., None, :] * kept, (-1, *x.shape[1:3], edges * cell.width))

    def shuffled(self, cell, node, rests, mixed):
        """A node of a network with partial channels: what enters it from the operations and past
        them, shuffled.
        """
        beta = self.bypass[cell.reduction]
        passing = tf.add_n(
            [
                beta[edge] * rests[source]
                for edge, (source, target) in enumerate(EDGES)
                if target == node
            ]
        )
        groups = [mixed, *tf.split(passing, self.space.partial - 1, -1)]
        return tf.reshape(tf.stack(groups, -1), (-1, *mixed.shape[1:3], cell.channels))


def forward(
    space: Space,
    weights: list,
    arch: list,
    x: tf.Tensor,
    skip_rate: tf.Tensor | None = None,
    seed: tf.Tensor | None = None,
) -> tf.Tensor:
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
        raise UnusableSpace(
            f"Images of {x.shape[1]} x {x.shape[2]} pixels do not fit the two halvings; resize "
            "them to a known multiple of 4."
        )
    return _Network(space, weights, arch, skip_rate, seed).logits(x)
