"""The edges of a supernet's cell: everything by which one state enters the later nodes, computed
for all edges at once; how is told in :mod:`kit.search.nas2d.supernet`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kit.search.nas2d import ops
from kit.search.nas2d.space import LEAVING, PRIMITIVES, SKIP, Space


class Mixture:
    """What the cells of one type and width share: mixing weights as scales of the normalisations
    and as kernels of the operations without weights.
    """

    def __init__(self, space: Space, weight: tf.Tensor, width: int) -> None:
        self.space, self.width, self.weight = space, width, weight
        spread = tf.transpose(weight)[:, :, None] * ops.constant(
            (1, width, weight.dtype), lambda: np.ones((1, 1, width), weight.dtype.as_numpy_dtype)
        )
        self.rows = tf.unstack(tf.reshape(spread, (len(PRIMITIVES), -1)))
        self.scales, self.kernels = {}, {}

    def scale(self, source: int, primitive: int) -> tf.Tensor:
        """Mixing weight of every output channel, (edges * C,)."""
        if primitive not in self.scales:
            self.scales[primitive] = tf.split(
                self.rows[primitive], [len(edges) * self.width for edges in LEAVING]
            )
        return self.scales[primitive][source]

    def kernel(self, source: int, free: tuple[int, ...]) -> tf.Tensor:
        """Kernel (1, 1, operations * C, edges * C) that mixes the maps of the operations without
        weights.
        """
        if free not in self.kernels:
            spread = tf.reshape(
                tf.stack([self.rows[primitive] for primitive in free]),
                (len(free), 1, -1, self.width),
            )
            eye = ops.constant(
                ("eye", self.width, spread.dtype),
                lambda: np.eye(self.width, dtype=spread.dtype.as_numpy_dtype)[:, None, :],
            )
            self.kernels[free] = tf.split(spread * eye, [len(edges) for edges in LEAVING], 2)
        return tf.reshape(self.kernels[free][source], (1, 1, len(free) * self.width, -1))


def _edge_kernel(kernels, place):
    """Stacked pointwise kernels (n, C, 1, O) as one kernel (1, 1, n * C, e * O); place (n, e) says
    which edge is which.
    """
    edges, channels, _, outputs = kernels.shape
    place = ops.constant(
        (place.shape, place.tobytes(), kernels.dtype),
        lambda: place[:, None, :, None].astype(kernels.dtype.as_numpy_dtype),
    )
    return tf.reshape(kernels * place, (1, 1, edges * channels, place.shape[2] * outputs))


# width up to which a 3x3 depthwise and a pointwise kernel are made one ordinary convolution: faster
# and fewer nodes; 5x5 only in small maps
DENSE = 16


class Leaving:
    """Everything by which one state enters the later nodes.

    Parameters
    ----------
    cell : Cell
    source : int
    x : tensor (N, H, W, C)
        State, of a partial network the channels that pass the operations.
    mixture : Mixture
    """

    def __init__(self, cell: Any, source: int, x: tf.Tensor, mixture: Mixture) -> None:
        self.source, self.x, self.mixture, self.edges = source, x, mixture, LEAVING[source]
        self.stride = 2 if cell.reduction and source < 2 else 1
        self.positive, self.made = tf.nn.relu(x), {}
        self.present = {
            primitive
            for edge in self.edges
            for primitive in mixture.space.edge_ops(cell.reduction)[edge]
        }

    def terms(self, convolutions: dict[int, tuple], identity: bool) -> list[tf.Tensor]:
        """Terms whose sum enters the later nodes, (N, H, W, edges * C) each.

        Parameters
        ----------
        convolutions : dict of int to (list of tensors, tuple of edges)
        identity : bool
            Whether the skip connection of stride 1 is to be mixed in.
        """
        terms, dilated = self.free(identity), []
        for primitive, (weights, edges) in convolutions.items():
            place, scale = (
                np.array([[edge == other for other in self.edges] for edge in edges], float),
                self.mixture.scale(self.source, primitive),
            )
            if primitive == SKIP:
                terms.append(self.reduced(weights, place, scale))
            elif primitive < 6:
                terms.append(self.separable(weights, place, scale))
            else:
                dilated.append(ops.normalise(self.first(weights, place, self.lattice()), scale))
        if dilated and self.spread():
            dilated = [
                tf.raw_ops.BatchToSpace(
                    input=tf.add_n(dilated), crops=[[0, 0], [0, 0]], block_size=2
                )
            ]
        return terms + dilated

    def free(self, identity: bool) -> list[tf.Tensor]:
        """Pools and identity: one 1x1 convolution mixes them into all edges."""
        pools = tuple(primitive for primitive in (1, 2) if primitive in self.present)
        maps = [
            ops.normalise((ops.max_pool, ops.avg_pool)[primitive - 1](self.x, self.stride))
            for primitive in pools
        ]
        free, maps = ((*pools, SKIP), [*maps, self.x]) if identity else (pools, maps)
        return (
            [ops.pointwise(tf.concat(maps, -1), self.mixture.kernel(self.source, free))]
            if free
            else []
        )

    def once(self, name: str | tuple, make: Callable[[], Any]) -> Any:
        """What several operations need and the first of them makes."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    def lattices(self) -> list[tf.Tensor]:
        """The four sub-lattices of the rectified state."""
        return self.once("lattices", lambda: ops.sub_lattices(self.positive))

    def spread(self) -> bool:
        """Whether dilated convolutions are computed on the four sub-lattices that they do not mix,
        stacked as a batch.
        """
        return self.stride == 1 and self.x.shape[1] % 2 == 0 == self.x.shape[2] % 2

    def lattice(self) -> tuple[tf.Tensor, str, int, int]:
        """Input of the dilated convolutions, where they are ordinary ones if the sides are even."""
        if self.stride == 2:
            return self.lattices()[0], "even", 1, 1
        if not self.spread():
            return self.positive, "plain", 1, 2
        return (
            self.once(
                "spread",
                lambda: tf.raw_ops.SpaceToBatch(
                    input=self.positive, paddings=[[0, 0], [0, 0]], block_size=2
                ),
            ),
            "spread",
            1,
            1,
        )

    def first(self, weights: Sequence[tf.Tensor], place: np.ndarray, source: tuple) -> tf.Tensor:
        """Depthwise and pointwise convolution of the rectified state for several edges."""
        (maps, name, stride, dilation), size, count = source, weights[0].shape[0], len(place)
        if (
            stride == dilation == 1
            and maps.shape[3] * (1 if size == 3 else maps.shape[2] / 8) <= DENSE
            and count == place.shape[1]
        ):
            return tf.raw_ops.Conv2D(
                input=maps,
                filter=ops.dense_kernel(*weights[:2]),
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        maps = self.once((name, count), lambda: ops.copies(maps, count))
        return ops.pointwise(
            ops.depthwise(maps, weights[0], stride, dilation), _edge_kernel(weights[1], place)
        )

    def separable(
        self, weights: Sequence[tf.Tensor], place: np.ndarray, scale: tf.Tensor
    ) -> tf.Tensor:
        """Separable convolutions."""
        maps = tf.nn.relu(
            ops.normalise(
                self.first(weights, np.eye(len(place)), (self.positive, "plain", self.stride, 1))
            )
        )
        return ops.normalise(
            ops.pointwise(ops.depthwise(maps, weights[2]), _edge_kernel(weights[3], place)), scale
        )

    def reduced(
        self, weights: Sequence[tf.Tensor], place: np.ndarray, scale: tf.Tensor
    ) -> tf.Tensor:
        """Factorised reductions, the skip connections of stride 2."""
        if len(place) < place.shape[1]:
            weights = [
                tf.einsum("icno,ne->iceo", kernels, tf.constant(place, self.x.dtype))
                for kernels in weights
            ]
        return ops.normalise(
            ops.pointwise(ops.halves(self.lattices()), ops.halves_kernel(*weights)), scale
        )
