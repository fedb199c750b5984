"""Time of a 3D candidate's step against the same network in PyTorch, alternating in one run:
``python -m kit.benchmarks.nas3d --torch PYTHON``.

Both sides make a training step (forward, backward, Adam) and an evaluation with its loss on one
batch; ours are Keras' own compiled steps. PyTorch's network (`kit.benchmarks.nas3d_torch`) runs in
a process of its own, as in `kit.benchmarks.nas`.

What was tried, in milliseconds of two hyperthreads for one convolution of 8 volumes of 28^3,
forward and then both gradients:

===========================================  ==============  ==============  ==============
filters and kernel                           8, 3^3          8, 7^3          16, 5^3
===========================================  ==============  ==============  ==============
TensorFlow's conv3d (oneDNN, channels last)  8.3 + 13.8      68.5 + 118.6    48.4 + 97.4
sum over depth taps of 2D convolutions       10.5 + 60.6     73.3 + 218.3    61.6 + 231.5
depth taps stacked into input channels       11.0 + 61.4     68.3 + 208.5    58.5 + 261.7
depth taps as output channels, then a sum    11.5 + 71.3     56.8 + 244.2    64.1 + 342.4
matrix product of unfolded volumes           39.0 + 380.5                    381.8 + 3725.4
===========================================  ==============  ==============  ==============

- Two neighbouring voxels' outputs at once (`kit.search.nas3d.convolution`), all three passes, 16
  volumes: 31.6 in place of 37.4 for 8 filters of 3^3, 98.8 for 139.3 of 5^3, 255.3 for
  360.5 of 7^3; four voxels less (43 against 32 forward, 5^3); for 16 filters slower (30.6 against
  24.2, 108.2 against 92.5 forward). Kept for up to 8 filters.
- Normalisation with the activation and its gradient compiled by XLA as one layer
  (`kit.search.nas3d.layers`): instance normalisation of 32 volumes, 8 channels, 26 in place of 62
  with
  its gradient, Mish 20 in place of 43 (beside other work; fused batch normalisation volume by
  volume 27, but unrolled). Of a step it saved 1 to 18 %; a new shape costs about 0.3 s.
- TensorFlow's inverse FFT of volumes has no gradient.

Measured on two hyperthreads of an EPYC, everything else stopped, PyTorch 2.15 eager, 28^3, batches
of 32; seconds, ours over PyTorch's:

=============================================  ==================  ==================
network                                        training step       evaluation
=============================================  ==================  ==================
adrenal-90 (8 filters, two 5^3, one 3^3)       0.60 / 1.79 = 0.33  0.22 / 0.26 = 0.83
three (8 and 16 filters, 3^3 only, 2 x 2)      0.56 / 1.22 = 0.46  0.19 / 0.28 = 0.66
wide (16 filters, one 3^3 with norm, one 5^3)  0.91 / 1.48 = 0.62  0.28 / 0.61 = 0.46
seven (8 filters, one 7^3 with norm)           0.62 / 1.86 = 0.33  0.18 / 0.27 = 0.69
=============================================  ==================  ==================

Before pairing, adrenal-90 took 0.46 and 0.94 of PyTorch's time, seven 0.45 and 1.04, three 0.45 and
0.74; with Keras' own layers throughout adrenal-90 took 0.78 s a step, three 0.62, seven 0.87, wide
0.92. Batches of 128, adrenal-90: 2.25 / 6.91 = 0.33 a training step, 0.65 / 1.67 = 0.39 an
evaluation. XLA over the whole step has no use for oneDNN's convolutions: adrenal-90 13.3 s a step
in place of 0.56, three 6.7 in place of 0.42.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kit import files, record
from kit.benchmarks.sides import Torch, alternate, limit_threads
from kit.errors import KitError
from kit.search.nas3d import layers, networks, space
from kit.search.nas3d.released import RELEASED

SCRIPT = Path(__file__).with_name("nas3d_torch.py")
_CHAIN = ((0, 1, 0), (0, 0, 1), (0, 0, 0))
NETWORKS = {  # of this benchmark, beside the released ones
    "three": space.Network3D(
        ((0, 1, 1, 0), (0, 0, 1, 1), (0, 0, 0, 1), (0, 0, 0, 0)), (0, 12), 2, 2, 8
    ),
    "wide": space.Network3D(
        ((0, 1, 0, 1), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)), (3, 10), 1, 1, 16
    ),
    "seven": space.Network3D(_CHAIN, (5,), 1, 1, 8),
    "smallest": space.Network3D(_CHAIN, (9,), 1, 1, 8),
}


class NoSuchNetwork(KitError):
    """A name that is neither a released network nor one of the benchmark's."""


@dataclass(frozen=True)
class Settings:
    """What both sides build: a network as JSON, volumes of a batch, voxels along an edge, classes,
    threads; `torch.compile`.
    """

    network: dict
    batch: int = 32
    edge: int = 28
    classes: int = 2
    threads: int = 2
    compiled: bool = False


def network(name: str) -> space.Network3D:
    """A network by its name in `NETWORKS` or `kit.search.nas3d.released.RELEASED`.

    Raises
    ------
    NoSuchNetwork
    """
    if name not in NETWORKS and name not in RELEASED:
        raise NoSuchNetwork(
            f"There is no network {name!r}; choose one of {', '.join([*NETWORKS, *RELEASED])}."
        )
    return NETWORKS[name] if name in NETWORKS else RELEASED[name].network


def settings(name: str, **options: Any) -> Settings:
    """Settings for a network by its name; see `network` and `Settings`."""
    found = network(name)
    return Settings(asdict(found), **options)


class Ours:
    """Our side: Keras' own compiled training and test step of a network on one batch.

    Parameters
    ----------
    chosen : Settings
    plain : bool
        With Keras' own convolutions, normalisations and activations.
    xla : bool
        Compile the whole step.
    """

    def __init__(self, chosen: Settings, plain: bool = False, xla: bool = False) -> None:
        rng = np.random.default_rng(0)
        model = networks.build(space.Network3D(**chosen.network), chosen.classes, chosen.edge)
        self.model = keras.models.clone_model(model, clone_function=_plain) if plain else model
        self.model.compile(
            keras.optimizers.Adam(1e-3, epsilon=1e-8),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=xla,
        )
        self.model.make_train_function()
        self.model.make_test_function()
        self.steps = {"train": self.model.train_function, "evaluate": self.model.test_function}
        x = rng.random((chosen.batch, *[chosen.edge] * 3, 1), np.float32)
        self.batch = tf.constant(x), tf.constant(rng.integers(0, chosen.classes, chosen.batch))
        self.batches = iter(tf.data.Dataset.from_tensors(self.batch).repeat())

    def step(self) -> dict:
        """Seconds of a training step and of an evaluation with its loss."""
        times = {}
        for name, run in self.steps.items():
            start = perf_counter()
            float(run(self.batches)["loss"])
            times[name] = perf_counter() - start
        return times


def _plain(layer):
    """Keras' counterpart of a layer of `kit.search.nas3d.layers` or `kit.search.nas3d.convolution`;
    other layers are copied.
    """

    class Pair(keras.layers.Layer):
        """A normalisation and an activation as two operations."""

        def __init__(self, norm, activation, name):
            super().__init__(name=name)
            self.norm, self.activation = norm, keras.activations.get(activation)

        def build(self, shape):
            self.norm.build(shape)

        def call(self, x, training=None, mask=None):
            return self.activation(self.norm(x))

    if isinstance(layer, layers.Activate):
        return keras.layers.Activation(layer.activation, name=layer.name)
    if isinstance(layer, layers.InstanceNorm):
        return Pair(
            keras.layers.GroupNormalization(-1, epsilon=layer.epsilon), layer.activation, layer.name
        )
    if isinstance(layer, layers.BatchNorm):
        return Pair(
            keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon),
            layer.activation,
            layer.name,
        )
    return (
        keras.layers.Conv3D if isinstance(layer, keras.layers.Conv3D) else type(layer)
    ).from_config(layer.get_config())


def compare(
    chosen: Settings, python: str | None = None, rounds: int = 5, also: Sequence[str] = ()
) -> pd.DataFrame:
    """Time the sides in turn.

    Parameters
    ----------
    chosen : Settings
    python : str or None
        Interpreter that has PyTorch; None times our sides alone.
    rounds : int
        Steps of each side after the first, which traces or compiles.
    also : sequence of str
        "plain" and "xla", see `Ours`.

    Returns
    -------
    pandas.DataFrame
        Columns side, part ("train", "evaluate"), first, median, low and high, in seconds, and
        ratio, our median over the side's.

    Raises
    ------
    kit.benchmarks.sides.NoTorch
    """
    sides = {"ours": Ours(chosen)} | {name: Ours(chosen, **{name: True}) for name in also}
    torch = Torch(python, chosen, SCRIPT) if python else None
    try:
        if torch:
            sides["pytorch"] = torch
        table = alternate({name: side.step for name, side in sides.items()}, rounds)
    finally:
        if torch:
            torch.__exit__()
    ours = table[table["side"] == "ours"].set_index("part")["median"]
    return table.assign(ratio=table["part"].map(ours) / table["median"])


def main(arguments: list[str] | None = None) -> int:
    """Command line; prints a table for every network and writes them with --out."""
    parser = argparse.ArgumentParser(
        prog="python -m kit.benchmarks.nas3d",
        description="Time of a 3D candidate's step against the same network in PyTorch, "
        "alternating.",
    )
    parser.add_argument(
        "networks",
        nargs="*",
        default=["adrenal-90"],
        help=f"of {', '.join([*NETWORKS, *RELEASED])}",
    )
    for name in ("batch", "edge", "classes", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings({}), name))
    parser.add_argument("--compiled", action="store_true", help="use torch.compile")
    parser.add_argument(
        "--torch",
        metavar="PYTHON",
        help="interpreter that has PyTorch; without it our side alone is timed",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--also",
        nargs="*",
        default=(),
        choices=("plain", "xla"),
        help="Keras' own layers; the whole step compiled by XLA",
    )
    parser.add_argument("--out", type=Path, help="JSON file for the settings and times")
    told = vars(parser.parse_args(arguments))
    limit_threads(told["threads"])
    found = {}
    try:
        for name in told["networks"]:
            chosen = settings(
                name,
                **{key: told[key] for key in ("batch", "edge", "classes", "threads", "compiled")},
            )
            table = compare(chosen, told["torch"], told["rounds"], told["also"])
            print(
                f"{name}, batch {chosen.batch}",
                table.round(3).to_string(index=False),
                sep="\n",
                flush=True,
            )
            found[name] = {"settings": asdict(chosen), "times": table.to_dict("records")}
    except KitError as error:
        print(error, file=sys.stderr)
        return 1
    if told["out"]:
        files.write_json(told["out"], {"device": record.device_name(), "networks": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
