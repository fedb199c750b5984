"""Time of a 3D candidate's step against the same network in PyTorch, alternating in one run: ``python -m kit.nas.benchmark3d --torch PYTHON``.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

from kit import record
from kit.errors import KitError
from kit.nas import benchmark, cells3d, networks3d
from kit.nas.released3d import RELEASED

SCRIPT = Path(__file__).with_name("benchmark3d_torch.py")
_CHAIN = ((0, 1, 0), (0, 0, 1), (0, 0, 0))
NETWORKS = {  # of this benchmark, beside the released ones
    "three": cells3d.Network3D(((0, 1, 1, 0), (0, 0, 1, 1), (0, 0, 0, 1), (0, 0, 0, 0)), (0, 12), 2, 2, 8),
    "wide": cells3d.Network3D(((0, 1, 0, 1), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)), (3, 10), 1, 1, 16),
    "seven": cells3d.Network3D(_CHAIN, (5,), 1, 1, 8),
    "smallest": cells3d.Network3D(_CHAIN, (9,), 1, 1, 8),
}


class NoSuchNetwork(KitError):
    """A name that is neither a released network nor one of the benchmark's."""


@dataclass(frozen=True)
class Settings:
    """What both sides build: a network as JSON, volumes of a batch, voxels along an edge, classes, threads; `torch.compile`."""

    network: dict
    batch: int = 32
    edge: int = 28
    classes: int = 2
    threads: int = 2
    compiled: bool = False


def network(name: str) -> cells3d.Network3D:
    """A network by its name in `NETWORKS` or `kit.nas.released3d.RELEASED`.

    Raises
    ------
    NoSuchNetwork
    """
    if name not in NETWORKS and name not in RELEASED:
        raise NoSuchNetwork(f"There is no network {name!r}; choose one of {', '.join([*NETWORKS, *RELEASED])}.")
    return NETWORKS[name] if name in NETWORKS else RELEASED[name].network


def settings(name: str, **options) -> Settings:
    """Settings for a network by its name; see `network` and `Settings`."""
    found = network(name)
    return Settings({"matrix": [list(row) for row in found.matrix], "operations": list(found.operations), "cells": found.cells, "stacks": found.stacks,
                     "filters": found.filters}, **options)


class Ours:
    """Our side: Keras' own compiled training and test step of a network on one batch.

    Parameters
    ----------
    chosen : Settings
    plain : bool
        With Keras' normalisations and activations in place of those of `kit.nas.layers3d`.
    xla : bool
        Compile the whole step.
    """

    def __init__(self, chosen: Settings, plain: bool = False, xla: bool = False):
        import keras
        import tensorflow as tf

        rng = np.random.default_rng(0)
        model = networks3d.build(cells3d.Network3D(**chosen.network), chosen.classes, chosen.edge)
        self.model = keras.models.clone_model(model, clone_function=_plain) if plain else model
        self.model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=xla)
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
    """Keras' counterpart of a layer of `kit.nas.layers3d`; other layers are copied."""
    import keras

    from kit.nas import layers3d

    class Pair(keras.layers.Layer):
        """A normalisation and an activation as two operations."""

        def __init__(self, norm, activation, name):
            super().__init__(name=name)
            self.norm, self.activation = norm, keras.activations.get(activation)

        def build(self, shape):
            self.norm.build(shape)

        def call(self, x, training=None, mask=None):
            return self.activation(self.norm(x))

    if isinstance(layer, layers3d.Activate):
        return keras.layers.Activation(layer.activation, name=layer.name)
    if isinstance(layer, layers3d.InstanceNorm):
        return Pair(keras.layers.GroupNormalization(-1, epsilon=layer.epsilon), layer.activation, layer.name)
    if isinstance(layer, layers3d.BatchNorm):
        return Pair(keras.layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon), layer.activation, layer.name)
    return type(layer).from_config(layer.get_config())


def compare(chosen: Settings, python: str | None = None, rounds: int = 5, also=()) -> pd.DataFrame:
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
        Columns side, part ("train", "evaluate"), first, median, low and high, in seconds, and ratio, our median over the side's.

    Raises
    ------
    kit.nas.benchmark.NoTorch
    """
    sides = {"ours": Ours(chosen)} | {name: Ours(chosen, **{name: True}) for name in also}
    torch = benchmark.Torch(python, chosen, SCRIPT) if python else None
    try:
        if torch:
            sides["pytorch"] = torch
        times = {name: [] for name in sides}
        for _ in range(rounds + 1):
            for name, side in sides.items():
                times[name].append(side.step())
    finally:
        if torch:
            torch.__exit__()
    rows = [{"side": name, "part": part, "first": found[0][part], "median": np.median(later), "low": min(later), "high": max(later)}
            for name, found in times.items() for part in found[0] for later in ([one[part] for one in found[1:]],)]
    ours = {row["part"]: row["median"] for row in rows if row["side"] == "ours"}
    return pd.DataFrame(rows).assign(ratio=[ours[row["part"]] / row["median"] for row in rows])


def main(arguments=None) -> int:
    """Command line; prints a table for every network and writes them with --out."""
    parser = argparse.ArgumentParser(prog="python -m kit.nas.benchmark3d", description="Time of a 3D candidate's step against the same network in PyTorch, alternating.")
    parser.add_argument("networks", nargs="*", default=["adrenal-90"], help=f"of {', '.join([*NETWORKS, *RELEASED])}")
    for name in ("batch", "edge", "classes", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings({}), name))
    parser.add_argument("--compiled", action="store_true", help="use torch.compile")
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter that has PyTorch; without it our side alone is timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--also", nargs="*", default=(), choices=("plain", "xla"), help="Keras' own layers; the whole step compiled by XLA")
    parser.add_argument("--out", type=Path, help="JSON file for the settings and times")
    told = vars(parser.parse_args(arguments))
    benchmark._limit_threads(told["threads"])
    found = {}
    try:
        for name in told["networks"]:
            chosen = settings(name, **{key: told[key] for key in ("batch", "edge", "classes", "threads", "compiled")})
            table = compare(chosen, told["torch"], told["rounds"], told["also"])
            print(f"{name}, batch {chosen.batch}", table.round(3).to_string(index=False), sep="\n", flush=True)
            found[name] = {"settings": asdict(chosen), "times": table.to_dict("records")}
    except KitError as error:
        print(error, file=sys.stderr)
        return 1
    if told["out"]:
        record.write_json(told["out"], {"device": record.device_name(), "networks": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
