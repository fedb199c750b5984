"""A derived cell as one Keras layer: two states in, the joined nodes out.

The reference builds every operation from framework layers. A network of 20 cells is then over a
thousand of them with as many variables, and Keras takes most of a minute to trace it; here a cell
is one layer that computes with plain TensorFlow, and its weights of equal shape are stacked into
one variable, at most ten a cell. Three things follow the reference's framework where TensorFlow
differs: the operations of `kit.search.nas2d.ops` pad symmetrically at stride 2
too, the moving variance is the unbiased one, and initial weights are uniform. Odd image sizes,
which the reference cannot halve, get one row and column of zeros. Dropped paths are drawn from a
seed that each epoch sets anew, one draw for a whole cell, and their rate is given from outside with
`dropping`.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import initializers, layers

from kit.search.nas2d import ops
from kit.search.nas2d.genotype import NODES

KIT = keras.saving.register_keras_serializable(package="kit.nas")
_RATE = [None]  # rate of dropped paths of the training step that is being computed or traced


@contextlib.contextmanager
def dropping(rate: float | tf.Tensor | None) -> Iterator[None]:
    """Drop paths at `rate` (scalar tensor or float, 0 up to below 1; None: no path) in what is
    computed within, where ``training=True``.
    """
    _RATE.append(rate)
    try:
        yield
    finally:
        _RATE.pop()


def uniform(fan_in: int) -> initializers.Initializer:
    """The reference's default initial weights: uniform within 1/sqrt(fan_in)."""
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


def _pointwise(x, kernel):
    return tf.nn.conv2d(x, kernel[None, None], 1, "VALID")


def batch_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tuple:
    """Normalise (N, H, W, C) by the batch.

    Returns
    -------
    y : tensor (N, H, W, C)
    mean, variance : tensors (C,)
        The variance is the unbiased one, for the moving statistics.
    """
    if x.dtype == tf.float32:
        return tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=epsilon)  # one kernel
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
    return (
        tf.nn.batch_normalization(
            x, mean, variance, offset=beta, scale=gamma, variance_epsilon=epsilon
        ),
        mean,
        variance * count / tf.maximum(count - 1, 1),
    )


@KIT
class Norm(layers.BatchNormalization):
    """Batch normalisation with the reference's momentum (0.1 there, 0.9 here) and epsilon, 1e-5; on
    request several, their weights stacked.

    Parameters
    ----------
    count : int, optional
        Number of normalisations; weights are then (count, channels), and only the parts `factors`
        and `remember` are used.
    """

    def __init__(
        self, count: int | None = None, momentum: float = 0.9, epsilon: float = 1e-5, **options: Any
    ) -> None:
        super().__init__(momentum=momentum, epsilon=epsilon, **options)
        self.count = count

    def get_config(self) -> dict:
        """What the layer is rebuilt from."""
        return {**super().get_config(), "count": self.count}

    def build(self, shape: tuple) -> None:
        """Make gain, shift and the moving statistics."""
        stacked = (shape[-1],) if self.count is None else (self.count, shape[-1])
        self.gamma = self.add_weight(name="gamma", shape=stacked, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=stacked, initializer="zeros")
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=stacked, initializer="zeros", trainable=False
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=stacked, initializer="ones", trainable=False
        )
        self.built = True

    def factors(self, training: bool) -> tuple:
        """Gain and shift: in training of the normalised values, else of the inputs."""
        if training:
            return self.gamma.value, self.beta.value
        gain = self.gamma.value * tf.math.rsqrt(self.moving_variance.value + self.epsilon)
        return gain, self.beta.value - self.moving_mean.value * gain

    def remember(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Move the moving statistics towards a batch's."""
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.value.assign_sub((moving.value - value) * (1 - self.momentum))

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalise (N, H, W, C) over all but the last axis."""
        x, (gain, shift) = tf.convert_to_tensor(inputs), self.factors(bool(training))
        if not training:
            return x * gain + shift
        y, mean, variance = batch_norm(x, gain, shift, self.epsilon)
        self.remember(mean, variance)
        return y


@KIT
class Cell(layers.Layer):
    """A cell of a derived network.

    Parameters
    ----------
    pairs : sequence of (str, int)
        A cell of a `kit.search.nas2d.genotype.Genotype`.
    width : int
        Channels of a node; the output has four times as many.
    reduction : bool
        Whether the edges from the inputs have stride 2.
    reduced_before : bool
        Whether the cell before is a reduction, so that c_{k-2} is twice as large as c_{k-1}.

    Attributes
    ----------
    slots : dict of str to (str, int)
        For each of the reference's convolutions the stack that holds its kernel ("point", "deep3",
        "deep5") and the place in it; the two of a stride-2 skip connection share one kernel, as its
        left and right half. The normalisation that follows a 1x1 convolution has the same place,
        but two more: the first two belong to the preprocessing.
    """

    def __init__(
        self,
        pairs: Sequence[Sequence],
        width: int,
        reduction: bool,
        reduced_before: bool,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.pairs, self.width = (
            [[str(operation), int(source)] for operation, source in pairs],
            width,
        )
        self.reduction, self.reduced_before = reduction, reduced_before
        self.seeds = keras.random.SeedGenerator()  # `kit.compat.reseed` sets it from (seed, epoch)
        self.slots, self.sizes = {}, {"point": 0, "deep3": 0, "deep5": 0}
        for place, (operation, _) in enumerate(self.pairs):
            self._plan(f"_ops.{place}", operation, self.stride(place))

    def _plan(self, name: str, operation: str, stride: int) -> None:
        stack = f"deep{operation[-1]}"
        if operation == "skip_connect" and stride == 2:
            self._slot(f"{name}.conv", "point")
        elif "conv" in operation:
            for first in (1, 5) if operation.startswith("sep") else (1,):
                self._slot(f"{name}.op.{first}", stack)
                self._slot(f"{name}.op.{first + 1}", "point")

    def _slot(self, name: str, stack: str) -> None:
        self.slots[name] = (stack, self.sizes[stack])
        self.sizes[stack] += 1

    def get_config(self) -> dict:
        """What the layer is rebuilt from."""
        own = {name: getattr(self, name) for name in ("width", "reduction", "reduced_before")}
        return {**super().get_config(), **own, "pairs": [list(pair) for pair in self.pairs]}

    def stride(self, place: int) -> int:
        """Stride of a pair's operation."""
        return 2 if self.reduction and self.pairs[place][1] < 2 else 1

    def dropped(self, place: int) -> bool:
        """Whether drop path applies to a pair: to all but the plain identity."""
        return self.pairs[place][0] != "skip_connect" or self.stride(place) == 2

    def build(self, shapes: Sequence[tuple]) -> None:
        """Make the kernels of the two preprocessing steps and the stacks of the eight operations'
        kernels.
        """
        width = self.width
        self.before = [
            self.add_weight(
                name=f"preprocess{n}", shape=(shape[-1], width), initializer=uniform(shape[-1])
            )
            for n, shape in enumerate(shapes)
        ]
        shape_of = {"point": (width, width), "deep3": (3, 3, width, 1), "deep5": (5, 5, width, 1)}
        fan_in = {"point": width, "deep3": 9, "deep5": 25}
        self.stacks = {
            stack: self.add_weight(
                name=stack, shape=(size, *shape_of[stack]), initializer=uniform(fan_in[stack])
            )
            for stack, size in self.sizes.items()
            if size
        }
        self.norms = Norm(2 + self.sizes["point"], name="norms", dtype=self.dtype_policy)
        self.norms.build((None, width))
        self.built = True

    def compute_output_shape(self, shapes: Sequence[tuple]) -> tuple:
        """(N, H, W, 4 width); half of c_{k-1}'s height and width in a reduction cell."""
        batch, *sizes, _ = shapes[1]
        return (
            batch,
            *(-(-size // 2) if self.reduction else size for size in sizes),
            NODES * self.width,
        )

    def call(self, states: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Compute the cell from [c_{k-2}, c_{k-1}], each (N, H, W, C)."""
        run, active = _Pass(self, bool(training)), [tf.nn.relu(state) for state in states]
        first = run.halved if self.reduced_before else run.mixed
        nodes = [
            first(active[0], self.before[0].value, 0),
            run.mixed(active[1], self.before[1].value, 1),
        ]
        active, kept = (
            [tf.nn.relu(node) for node in nodes],
            self._kept(tf.shape(nodes[0])[0], training),
        )
        for node in range(NODES):
            parts = []
            for place in (2 * node, 2 * node + 1):
                operation, source = self.pairs[place]
                part = run.operation(
                    operation, f"_ops.{place}", nodes[source], active[source], self.stride(place)
                )
                parts.append(
                    part if kept is None or not self.dropped(place) else part * kept[place]
                )
            nodes.append(parts[0] + parts[1])
            active.append(tf.nn.relu(nodes[-1]))
        run.close()
        return tf.concat(nodes[2:], -1)

    def _kept(self, count, training):
        """Factors (8, N, 1, 1, 1): 0 for a dropped path, 1 / (1 - rate) for one that is kept; None
        where nothing is dropped.
        """
        rate = _RATE[-1]
        if not training or rate is None:
            return None
        keep = 1 - tf.cast(rate, self.compute_dtype)
        draws = tf.random.stateless_uniform(
            (2 * NODES, count, 1, 1, 1),
            tf.cast(self.seeds.next(), tf.int32),
            dtype=self.compute_dtype,
        )
        return tf.floor(keep + draws) / keep


class _Pass:
    """One computation of a cell: its weights taken from their stacks, and the statistics that its
    batch has.
    """

    def __init__(self, cell: Cell, training: bool):
        self.cell, self.training = cell, training
        self.kernels = {stack: tf.unstack(weights.value) for stack, weights in cell.stacks.items()}
        self.gains, self.shifts = (tf.unstack(part) for part in cell.norms.factors(training))
        self.statistics = [None] * cell.norms.count

    def kernel(self, name: str):
        stack, place = self.cell.slots[name]
        return self.kernels[stack][place]

    def normalised(self, x, slot: int):
        if not self.training:
            return x * self.gains[slot] + self.shifts[slot]
        y, *self.statistics[slot] = batch_norm(
            x, self.gains[slot], self.shifts[slot], self.cell.norms.epsilon
        )
        return y

    def mixed(self, x, kernel, slot: int):
        """1x1 convolution and normalisation."""
        return self.normalised(_pointwise(x, kernel), slot)

    def halved(self, x, kernel, slot: int):
        """Every second pixel through the left half of the kernel, those between through the right
        half; normalisation.
        """
        odd = [[0, 0], *([0, size % 2] for size in x.shape[1:3]), [0, 0]]
        between, half = tf.pad(x, odd)[:, 1::2, 1::2], kernel.shape[1] // 2
        return self.normalised(
            tf.concat(
                [
                    _pointwise(x[:, ::2, ::2], kernel[:, :half]),
                    _pointwise(between, kernel[:, half:]),
                ],
                -1,
            ),
            slot,
        )

    def operation(self, operation: str, name: str, x, active, stride: int):
        """An operation on a state; `active` is its ReLU."""
        if operation == "skip_connect":
            return (
                x
                if stride == 1
                else self.halved(active, self.kernel(f"{name}.conv"), self._slot(f"{name}.conv"))
            )
        if operation.endswith("pool_3x3"):
            return (ops.max_pool if operation.startswith("max") else ops.avg_pool)(x, stride)
        if operation.startswith("dil"):
            return self._separable(name, 1, active, stride, 2)
        return self._separable(
            name, 5, tf.nn.relu(self._separable(name, 1, active, stride, 1)), 1, 1
        )

    def _separable(self, name: str, first: int, x, stride: int, dilation: int):
        deep = ops.depthwise(x, self.kernel(f"{name}.op.{first}"), stride, dilation)
        point = f"{name}.op.{first + 1}"
        return self.mixed(deep, self.kernel(point), self._slot(point))

    def _slot(self, name: str) -> int:
        return 2 + self.cell.slots[name][1]

    def close(self) -> None:
        """Let the moving statistics follow the batch's."""
        if self.training:
            self.cell.norms.remember(
                *(tf.stack(part) for part in zip(*self.statistics, strict=False))
            )
