"""A convolution of volumes for few filters on a processor: two neighbouring voxels' outputs at
once.

The processor's kernels multiply sixteen numbers at a time (AVX-512) and lay output channels side by
side, so that eight filters leave half of each multiplication unused. Here a kernel k x k x k with C
filters becomes one of k x k x (k + 1) with 2 C, the second half shifted by a voxel, at stride 2
along the last axis: its 2 C channels are those of two neighbouring voxels, in memory where they
belong. All three passes, forward, to the input and to the kernel, take that form; 8 filters gain 30
per cent (3x3x3 15), 16 lose (`kit.benchmarks.nas3d`). The layer is Keras' `Conv3D` but for the way
it computes.
"""

from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers

from kit import compat

PAIRED, LEAST = (
    8,
    16,
    # most filters that gain; voxels along an edge below which laying the operation out costs more
    # than it gains
)


def pays(filters: int, kernel: int, edge: int) -> bool:
    """Whether `PairedConv3D` is faster than Keras' layer: few filters, a kernel that is not 1, an
    even edge and not a small one, no GPU.
    """
    return (
        filters <= PAIRED
        and kernel > 1
        and edge >= LEAST
        and edge % 2 == 0
        and not compat.use_xla()
    )


def _pair(kernel):
    """Kernel (k, k, k + 1, C, 2 F) of two neighbouring voxels from (k, k, k, C, F)."""
    rest = [[0, 0]] * 2
    return tf.concat(
        [tf.pad(kernel, [*rest, [0, 1], *rest]), tf.pad(kernel, [*rest, [1, 0], *rest])], -1
    )


def _padded(x, kernel):
    reach = kernel.shape[0] // 2
    return tf.pad(x, [[0, 0], *[[reach, reach]] * 3, [0, 0]])


_STRIDES = [1, 1, 1, 2, 1]


def _forward(x, kernel):
    y = tf.nn.conv3d(_padded(x, kernel), _pair(kernel), _STRIDES, "VALID")
    return tf.reshape(y, (-1, *x.shape[1:4], kernel.shape[-1]))


@tf.custom_gradient
def paired(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Convolution at stride 1 with zero padding: x (N, D, H, W, C), W even, kernel (k, k, k, C, F),
    k odd; differentiable once.
    """
    size, filters = kernel.shape[0], kernel.shape[-1]

    def gradient(dy):
        turned = tf.transpose(tf.reverse(kernel, [0, 1, 2]), (0, 1, 2, 4, 3))
        dx = (
            _forward(dy, turned)
            if x.shape[-1] <= PAIRED
            else tf.raw_ops.Conv3DBackpropInputV2(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=dy,
                strides=[1] * 5,
                padding="SAME",
            )
        )
        pairs = tf.reshape(dy, (-1, *x.shape[1:3], x.shape[3] // 2, 2 * filters))
        both = tf.raw_ops.Conv3DBackpropFilterV2(
            input=_padded(x, kernel),
            filter_sizes=[size, size, size + 1, x.shape[-1], 2 * filters],
            out_backprop=pairs,
            strides=_STRIDES,
            padding="VALID",
        )
        return dx, both[:, :, :-1, :, :filters] + both[:, :, 1:, :, filters:]

    return _forward(x, kernel), gradient


@keras.saving.register_keras_serializable(package="kit")
class PairedConv3D(layers.Conv3D):
    """Keras' `Conv3D` of an odd cubic kernel at stride 1 with padding "same", computed as `paired`;
    volumes (N, D, H, W, C) with W even.
    """

    uses_kernel_once = (
        True  # `kit.models.macs.macs`: every weight acts once at each position of the output
    )

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return paired(tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel))
