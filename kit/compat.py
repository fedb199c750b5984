"""Every TensorFlow and Keras quirk, and nothing else; each function says what it works around.

What has to be set before TensorFlow is imported stands in the package's ``__init__``. Nothing here
has a counterpart in a publication.
"""

import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


def deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and make TensorFlow's kernels deterministic.

    TensorFlow prepares everything that was traced before anew afterwards; code whose random numbers
    are all stateless does without (`same_bits`).
    """
    keras.utils.set_random_seed(seed)
    same_bits()


def same_bits() -> None:
    """Make TensorFlow's kernels deterministic.

    Without op determinism the threads of a gradient reduction finish in any order and the last bits
    differ from run to run.
    """
    tf.config.experimental.enable_op_determinism()


def use_xla() -> bool:
    """Whether to compile training steps with XLA: on a GPU only.

    Keras' ``jit_compile="auto"`` also chooses XLA on CPUs, where compiling takes longer than a
    quick run.
    """
    return bool(tf.config.list_physical_devices("GPU"))


def onednn() -> bool:
    """Whether TensorFlow calculates with oneDNN's CPU kernels, as it says itself; what it is asked
    for, without importing it, says :func:`kit.kernels.onednn`.
    """
    from tensorflow.python.util import _pywrap_util_port  # there is no public way to ask

    return _pywrap_util_port.IsMklEnabled()


def seed_generators(model: keras.Model) -> list:
    """All seed generators (dropout, noise, augmentation layers) of a model, in layer order, nested
    models included.
    """
    found = []
    for layer in model._flatten_layers(include_self=False):
        found += [v for v in vars(layer).values() if isinstance(v, keras.random.SeedGenerator)]
    return found


def reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """Set the random state of every layer from (seed, epoch) alone.

    Keras keeps a running counter in each dropout layer, so an epoch's masks depend on all epochs
    before it and are lost with the process. Drawn anew from (seed, epoch), they are the same after
    a resume.
    """
    for number, generator in enumerate(seed_generators(model)):
        words = np.random.SeedSequence([seed, epoch, number]).generate_state(2, dtype=np.uint32)
        generator.state.assign(words.astype(generator.state.dtype))


def in_batch() -> bool:
    """True where output goes to a log (run_all.sh, papermill jobs), False in an interactive Jupyter
    session.
    """
    return os.environ.get("KIT_BATCH") == "1"


def grouped_gradients() -> bool:
    """Whether TensorFlow's grouped convolution has gradients here: on a GPU, or where oneDNN is on.

    Its own CPU kernel, which runs where oneDNN is off, only goes forward.
    """
    return onednn() or bool(tf.config.list_physical_devices("GPU"))


def grouped_convolution(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    strides: Sequence[int],
    padding: str,
    dilations: Sequence[int],
) -> tf.Tensor:
    """A grouped convolution of images that can be differentiated on every machine.

    Parameters
    ----------
    inputs : tensor
        (N, H, W, groups * channels).
    kernel : tensor
        (height, width, channels, filters), the filters of the first group first.
    strides, dilations : tuple of int
        Along height and width.
    padding : {"SAME", "VALID"}

    Returns
    -------
    tensor
        (N, H', W', filters), always of TensorFlow's own kernel.
    """

    def convolve(x, k):
        return tf.nn.conv2d(x, k, strides, padding, dilations=dilations)

    @tf.custom_gradient
    def convolve_with_gradient(x, k):
        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch([x, k])
                same = _convolution_by_taps(x, k, strides, padding, dilations)
            return tape.gradient(same, [x, k], upstream)

        return convolve(x, k), gradient

    if grouped_gradients():
        return convolve(inputs, kernel)
    return convolve_with_gradient(inputs, tf.convert_to_tensor(kernel))


def _convolution_by_taps(x, kernel, strides, padding, dilations):
    """The grouped convolution as one matrix product a group, over shifted copies of the maps.

    Its work does not grow with the number of groups, as that of one convolution a group would.
    """
    height, width, channels, filters = kernel.shape
    groups = x.shape[-1] // channels
    sizes = tf.shape(x)[1:3]
    spans = [(n - 1) * d for n, d in zip((height, width), dilations, strict=True)]
    if padding == "SAME":
        lacking = [
            tf.maximum((-(-n // step) - 1) * step + span + 1 - n, 0)
            for n, step, span in zip(tf.unstack(sizes), strides, spans, strict=True)
        ]
        x = tf.pad(x, [(0, 0), *((lack // 2, lack - lack // 2) for lack in lacking), (0, 0)])
        sizes = tf.shape(x)[1:3]
    x = tf.reshape(x, [-1, sizes[0], sizes[1], groups, channels])
    x = tf.transpose(x, [3, 0, 1, 2, 4])
    ends = [sizes[0] - spans[0], sizes[1] - spans[1]]
    taps = [
        x[
            :,
            :,
            i * dilations[0] : i * dilations[0] + ends[0] : strides[0],
            j * dilations[1] : j * dilations[1] + ends[1] : strides[1],
        ]
        for i in range(height)
        for j in range(width)
    ]
    k = tf.reshape(kernel, [height * width * channels, groups, filters // groups])
    product = tf.einsum("gnhwc,cgf->nhwgf", tf.concat(taps, -1), k)
    return tf.reshape(product, [-1, *tf.unstack(tf.shape(product)[1:3]), filters])
