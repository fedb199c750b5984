"""Every TensorFlow and Keras quirk, and nothing else; each function says what it works around.

Importing this module before TensorFlow silences its start-up log. Nothing here has a counterpart in a publication.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and make TensorFlow's kernels deterministic.

    TensorFlow prepares everything that was traced before anew afterwards; code whose random numbers are all stateless does without (`same_bits`).
    """
    keras.utils.set_random_seed(seed)
    same_bits()


def same_bits() -> None:
    """Make TensorFlow's kernels deterministic.

    Without op determinism the threads of a gradient reduction finish in any order and the last bits differ from run to run.
    """
    tf.config.experimental.enable_op_determinism()


def use_xla() -> bool:
    """Whether to compile training steps with XLA: on a GPU only.

    Keras' ``jit_compile="auto"`` also chooses XLA on CPUs, where compiling takes longer than a quick run.
    """
    return bool(tf.config.list_physical_devices("GPU"))


def seed_generators(model: keras.Model) -> list:
    """All seed generators (dropout, noise, augmentation layers) of a model, in layer order, nested models included."""
    found = []
    for layer in model._flatten_layers(include_self=False):
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                found.append(value)
    return found


def reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """Set the random state of every layer from (seed, epoch) alone.

    Keras keeps a running counter in each dropout layer, so an epoch's masks depend on all epochs before it and are lost with the process.
    Drawn anew from (seed, epoch), they are the same after a resume.
    """
    for number, generator in enumerate(seed_generators(model)):
        words = np.random.SeedSequence([seed, epoch, number]).generate_state(2, dtype=np.uint32)
        generator.state.assign(words.astype(generator.state.dtype))


def in_batch() -> bool:
    """True where output goes to a log (run_all.sh, papermill jobs), False in an interactive Jupyter session."""
    return os.environ.get("KIT_BATCH") == "1"
