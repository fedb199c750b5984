"""A derived cell as one Keras layer: two states in, the joined nodes out.

The reference builds every operation from framework layers. A network of 20 cells is then over a thousand of them, and Keras takes most of a minute to
trace it; here a cell is one layer that holds its weights, named as in the reference, and computes with plain TensorFlow. Three things follow the
reference's framework where TensorFlow differs (card section 2): the operations of `kit.nas.ops` pad symmetrically at stride 2 too, and the
moving variance is the unbiased one. Odd image sizes, which the reference cannot halve, get one row and column of zeros. Dropped paths are
drawn from a seed that each epoch sets anew, one draw for a whole cell, and their rate is given from outside with `dropping`.
"""

import contextlib
import math

import keras
import tensorflow as tf
from keras import initializers, layers

from kit.nas import ops
from kit.nas.genotype import NODES

KIT = keras.saving.register_keras_serializable(package="kit.nas")
_RATE = [None]  # rate of dropped paths of the training step that is being computed or traced


@contextlib.contextmanager
def dropping(rate):
    """Drop paths at `rate` (scalar tensor or float, 0 up to below 1; None: no path) in what is computed within, where ``training=True``."""
    _RATE.append(rate)
    try:
        yield
    finally:
        _RATE.pop()


@KIT
class Norm(layers.BatchNormalization):
    """Batch normalisation with the reference's momentum (0.1 there, 0.9 here) and epsilon, 1e-5, and an unbiased moving variance."""

    def __init__(self, momentum=0.9, epsilon=1e-5, **options):
        super().__init__(momentum=momentum, epsilon=epsilon, **options)

    def call(self, inputs, training=None, mask=None):
        """Normalise (N, H, W, C) over all but the last axis."""
        return self.normalise(tf.convert_to_tensor(inputs), bool(training))

    def normalise(self, x, training: bool):
        """The same without the checks of a Keras call."""
        gamma, beta = self.gamma.value, self.beta.value
        if not training:
            scale = gamma * tf.math.rsqrt(self.moving_variance.value + self.epsilon)
            return x * scale + (beta - self.moving_mean.value * scale)
        if x.dtype == tf.float32:  # one kernel; its variance is unbiased
            y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=self.epsilon)
        else:
            mean, variance = tf.nn.moments(x, [0, 1, 2])
            y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, self.epsilon)
            count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
            variance *= count / tf.maximum(count - 1, 1)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.value.assign_sub((moving.value - value) * (1 - self.momentum))
        return y


def uniform(fan_in: int):
    """The reference's default initial weights: uniform within 1/sqrt(fan_in)."""
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


@KIT
class Cell(layers.Layer):
    """A cell of a derived network.

    Parameters
    ----------
    pairs : sequence of (str, int)
        A cell of a `kit.nas.genotype.Genotype`.
    width : int
        Channels of a node; the output has four times as many.
    reduction : bool
        Whether the edges from the inputs have stride 2.
    reduced_before : bool
        Whether the cell before is a reduction, so that c_{k-2} is twice as large as c_{k-1}.
    """

    def __init__(self, pairs, width: int, reduction: bool, reduced_before: bool, **options):
        super().__init__(**options)
        self.pairs, self.width = [[str(operation), int(source)] for operation, source in pairs], width
        self.reduction, self.reduced_before = reduction, reduced_before
        self.seeds = keras.random.SeedGenerator()  # `kit.compat.reseed` sets it from (seed, epoch)

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

    def build(self, shapes):
        """Make the weights of the two preprocessing steps and the eight operations."""
        self.kernels, self.norms = {}, {}
        if self.reduced_before:
            self._halving("preprocess0", shapes[0][-1])
        else:
            self._pointwise("preprocess0", shapes[0][-1], 1)
        self._pointwise("preprocess1", shapes[1][-1], 1)
        for place, (operation, _) in enumerate(self.pairs):
            name = f"_ops.{place}"
            if "conv" in operation:
                for first in (1, 5) if operation.startswith("sep") else (1,):
                    self._separable(name, first, int(operation[-1]))
            elif operation == "skip_connect" and self.stride(place) == 2:
                self._halving(name, self.width)
        self.built = True

    def _kernel(self, name: str, shape: tuple, fan_in: int) -> None:
        self.kernels[name] = self.add_weight(name=name, shape=shape, initializer=uniform(fan_in))

    def _norm(self, name: str) -> None:
        self.norms[name] = Norm(name=name, dtype=self.dtype_policy)
        self.norms[name].build((None, None, None, self.width))

    def _pointwise(self, name: str, channels: int, first: int) -> None:
        self._kernel(f"{name}.op.{first}", (1, 1, channels, self.width), channels)
        self._norm(f"{name}.op.{first + 1}")

    def _separable(self, name: str, first: int, side: int) -> None:
        self._kernel(f"{name}.op.{first}", (side, side, self.width, 1), side * side)
        self._pointwise(name, self.width, first + 1)

    def _halving(self, name: str, channels: int) -> None:
        half = self.width // 2
        self._kernel(f"{name}.conv_1", (1, 1, channels, half), channels)
        self._kernel(f"{name}.conv_2", (1, 1, channels, self.width - half), channels)
        self._norm(f"{name}.bn")

    def compute_output_shape(self, shapes) -> tuple:
        """(N, H, W, 4 width); half of c_{k-1}'s height and width in a reduction cell."""
        batch, *sizes, _ = shapes[1]
        return (batch, *(-(-size // 2) if self.reduction else size for size in sizes), NODES * self.width)

    def call(self, states, training=False):
        """Compute the cell from [c_{k-2}, c_{k-1}], each (N, H, W, C)."""
        active = [tf.nn.relu(state) for state in states]
        first = self._halved("preprocess0", active[0], training) if self.reduced_before else self._mixed("preprocess0", 1, active[0], training)
        nodes = [first, self._mixed("preprocess1", 1, active[1], training)]
        active, kept = [tf.nn.relu(node) for node in nodes], self._kept(tf.shape(nodes[0])[0], training)
        for node in range(NODES):
            parts = [self._operation(place, nodes, active, training, kept) for place in (2 * node, 2 * node + 1)]
            nodes.append(parts[0] + parts[1])
            active.append(tf.nn.relu(nodes[-1]))
        return tf.concat(nodes[2:], -1)

    def _kept(self, count, training):
        """Factors (8, N, 1, 1, 1): 0 for a dropped path, 1 / (1 - rate) for one that is kept; None where nothing is dropped."""
        rate = _RATE[-1]
        if not training or rate is None:
            return None
        keep = 1 - tf.cast(rate, self.compute_dtype)
        draws = tf.random.stateless_uniform((2 * NODES, count, 1, 1, 1), tf.cast(self.seeds.next(), tf.int32), dtype=self.compute_dtype)
        return tf.floor(keep + draws) / keep

    def _operation(self, place: int, nodes, active, training, kept):
        operation, source = self.pairs[place]
        y = self._plain(operation, f"_ops.{place}", nodes[source], active[source], self.stride(place), training)
        return y if kept is None or not self.dropped(place) else y * kept[place]

    def _plain(self, operation: str, name: str, x, positive, stride: int, training):
        if operation.endswith("pool_3x3"):
            return (ops.max_pool if operation.startswith("max") else ops.avg_pool)(x, stride)
        if operation == "skip_connect":
            return x if stride == 1 else self._halved(name, positive, training)
        if operation.startswith("dil"):
            return self._mixed(name, 2, ops.depthwise(positive, self._value(f"{name}.op.1"), stride, 2), training)
        y = self._mixed(name, 2, ops.depthwise(positive, self._value(f"{name}.op.1"), stride), training)
        return self._mixed(name, 6, ops.depthwise(tf.nn.relu(y), self._value(f"{name}.op.5")), training)

    def _value(self, name: str):
        return self.kernels[name].value

    def _mixed(self, name: str, first: int, x, training):
        """1x1 convolution and normalisation."""
        y = tf.nn.conv2d(x, self._value(f"{name}.op.{first}"), 1, "VALID")
        return self.norms[f"{name}.op.{first + 1}"].normalise(y, training)

    def _halved(self, name: str, x, training):
        """Every second pixel, and those between, through a 1x1 convolution each."""
        odd = [[0, 0], *([0, size % 2] for size in x.shape[1:3]), [0, 0]]
        between = tf.pad(x, odd)[:, 1::2, 1::2]
        halves = [tf.nn.conv2d(part, self._value(f"{name}.conv_{n}"), 1, "VALID") for n, part in ((1, x[:, ::2, ::2]), (2, between))]
        return self.norms[f"{name}.bn"].normalise(tf.concat(halves, -1), training)
