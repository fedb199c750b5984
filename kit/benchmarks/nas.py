"""Time of a search step against the DARTS supernet in PyTorch, alternating in one run: ``python -m
kit.benchmarks.nas --torch PYTHON``.

Both sides do what a step of the first-order method does: forward and backward pass and SGD on the
weights, then forward pass, backward pass to the architecture alone and Adam on it. Ours are the
very steps that a search runs (`kit.search.nas2d.search_step`). PyTorch's network
(`kit.benchmarks.nas_torch`) is composed operation by operation like the original; unlike the
original it does not compute weight gradients that the architecture step throws away. PyTorch runs
in a process of its own, with any interpreter that has it, because two copies of OpenMP in one
process disturb each other.

What made the supernet fast, in milliseconds of one core for the four edges that leave a state (32
images, 32 px, 8 channels), forward and backward:

- One depthwise convolution over copies of the state, filters of the edges behind one another, 10.9
  for 5x5; with as many filters per channel, 16.8.
- The gradient of a 5x5 depthwise kernel as two of 5x3: 2.7 in place of 8.5, since oneDNN has a fast
  kernel for widths up to 3 only.
- Depthwise and pointwise kernel multiplied out into one ordinary convolution: 9.8 in place of 10.7
  for 3x3, and fewer nodes; it loses for more than
  16 channels, and for 5x5 (18.7 in place of 14.6) but in small maps.
- Every second row and column by SpaceToBatch and a split 1.1, by a strided slice 4.2 and its
  gradient as much; hence dilated convolutions on sub-lattices.
- The fused batch normalisation, 1.9 with its gradient (one addition of such maps takes 1.4), with
  the mixing weight as its scale. Taking the moments
  from those of the convolutions' inputs, so that normalised maps are never written, is exact too,
  but traced three times as many nodes and was slower.
- Constants made once a graph, edges' weights stacked, one sum and one split a node: 3 cells traced
  as 20,141 nodes at first and as 5,000 now.
- Second derivatives of the normalisation written out (`kit.search.nas2d.batchnorm`): exact second
  order traced in 27 s in place of 53 and took 2.6 first-order
  steps in place of 3.4.
- Not kept: matrix products in place of 1x1 convolutions (3.7 to 5.7, but at 16 channels no gain,
  and reshapes to trace); products batched over edges,
  which need another layout than the depthwise convolutions; XLA (over a minute to compile).

Measured on two hyperthreads of an EPYC, everything else stopped, PyTorch 2.15; ratios of medians,
ours over PyTorch eager, or over our first-order step:

=========================================  ====  ==================================================
8 channels, 4 cells, 32 px, batch 32       0.32  weights and architecture; 0.68 s against 2.12 s;
                                                 traced in 12 s
16 channels, 8 cells, 64 px, batch 12      0.33  4.6 s against 14.2 s; 32 s to the end of the first
                                                 step; of 32 images both at once need over 24 GB
second order, exact                        2.55  first step 27 s
second order, by differences               2.61  first step 14 s
LeaSE, exact, ResNet-18 with the 7x7 stem  4.66  first step 58 s
LeaSE, exact, ResNet-18 with the 3x3 stem  7.22  that audience alone has more multiply-accumulates
                                                 than this supernet
=========================================  ====  ==================================================

`torch.compile` had not compiled this supernet after nine minutes. Where both ran beside other work
the ratios were the same within a tenth.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from kit import files, record
from kit.benchmarks.sides import Torch, alternate, limit_threads
from kit.errors import KitError
from kit.search.nas2d import audience, search_step, supernet
from kit.search.nas2d.lease_settings import LeaseSettings
from kit.training import rules

SCRIPT = Path(__file__).with_name("nas_torch.py")


@dataclass(frozen=True)
class Settings:
    """A network and a batch: width of the first cells, number of cells, side of the images in
    pixels, images; threads of each side; `torch.compile`; and, for LeaSE alone, stem and width of
    the ResNet-18 that is its audience, and how second derivatives are taken.
    """

    channels: int = 8
    cells: int = 4
    size: int = 32
    batch: int = 32
    threads: int = 2
    classes: int = 4
    compiled: bool = False
    audience_stem: str = "3x3"
    audience_width: int = 64
    mode: str = "exact"


class Ours:
    """Our side: the steps of a search on one batch of random images.

    Parameters
    ----------
    settings : Settings
    also : sequence of str
        Further architecture steps to time: "second" (exact), "finite" (second order by differences)
        and "lease" (on the first order, ResNet-18).
    """

    def __init__(self, settings: Settings, also: Sequence[str] = ()) -> None:
        options = {"stem": settings.audience_stem, "width": settings.audience_width}
        rng, self.space = (
            np.random.default_rng(0),
            supernet.Space("darts", settings.channels, settings.cells, settings.classes),
        )
        self.weights, self.arch = (
            [tf.constant(part) for part in make(self.space, 0)]
            for make in (supernet.initial_weights, supernet.initial_arch)
        )
        self.buffers, self.moments = (
            [tf.zeros_like(weight) for weight in self.weights],
            rules.adam_state(self.arch),
        )
        self.batch = (
            tf.constant(
                rng.integers(0, 256, (settings.batch, settings.size, settings.size, 3)), tf.uint8
            ),
            tf.constant(rng.integers(0, settings.classes, settings.batch), tf.int32),
        )
        kind = {
            "space": self.space,
            "size": settings.size,
            "scale": 1 / 255,
            "sgd": (0.9, 3e-4, 5.0),
            "adam": ((0.5, 0.999), 1e-3, None),
        }
        self.kinds = {
            "arch": search_step.Kind(**kind),
            "second": search_step.Kind(**kind, order=2),
            "finite": search_step.Kind(**kind, order=2, mode="finite"),
            "lease": search_step.Kind(
                **kind,
                lease=LeaseSettings(),
                audience="resnet18",
                mode=settings.mode,
                options=tuple(options.items()),
            ),
        }
        self.kinds = {
            name: value for name, value in self.kinds.items() if name == "arch" or name in also
        }
        self.rates = search_step.Rates(
            *(tf.constant(value, tf.float32) for value in (0.025, 0.025, 3e-4, 0.0, 1.0, 1.0, 1.0)),
            seed=tf.constant([0, 0]),
        )
        self.told, self.delta = None, tf.zeros((settings.batch, settings.size, settings.size, 3))
        if "lease" in also:
            self.told = [
                tf.constant(weight)
                for weight in audience.initial_weights(
                    "resnet18", settings.classes, settings.size, 0, **options
                )
            ]
            self.delta = tf.constant(rng.uniform(-1, 1, self.delta.shape) * 8 / 2550, tf.float32)

    def step(self) -> dict:
        """Seconds of a step: "weights", "arch" and what else was asked for."""
        kind, times = self.kinds["arch"], {}
        times["weights"] = self._timed(
            search_step.weight_step(kind),
            (self.weights, self.buffers, self.arch, self.batch, self.rates),
        )
        for name, kind in self.kinds.items():
            if name == "lease":
                times[name] = self._timed(
                    search_step.lease_step(kind),
                    (
                        self.weights,
                        self.buffers,
                        self.arch,
                        self.moments,
                        self.told,
                        [0 * part for part in self.told],
                        self.batch,
                        self.batch,
                        self.batch,
                        self.delta,
                        self.rates,
                    ),
                )
            else:
                times[name] = self._timed(
                    search_step.arch_step(kind),
                    (
                        self.weights,
                        self.buffers,
                        self.arch,
                        self.moments,
                        self.batch,
                        self.batch,
                        self.rates,
                    ),
                )
        return times

    def _timed(self, step: Callable, arguments: tuple) -> float:
        start = time.perf_counter()
        for tensor in _tensors(step(*arguments)):
            tensor.numpy()
        return time.perf_counter() - start


def _tensors(result):
    return [part for part in tf.nest.flatten(result) if part.shape.rank == 0]


def compare(
    settings: Settings, python: str | None = None, rounds: int = 5, also: Sequence[str] = ()
) -> pd.DataFrame:
    """Time both sides in turn.

    Parameters
    ----------
    settings : Settings
    python : str or None
        Interpreter that has PyTorch; None times our side alone.
    rounds : int
        Steps of each side after the first.
    also : sequence of str
        See `Ours`.

    Returns
    -------
    pandas.DataFrame
        As :func:`alternate`.

    Raises
    ------
    kit.benchmarks.sides.NoTorch
    """
    sides, torch = (
        {"ours": Ours(settings, also)},
        Torch(python, settings, SCRIPT) if python else None,
    )
    try:
        if torch:
            sides["pytorch compiled" if settings.compiled else "pytorch eager"] = torch
        return alternate(
            {name: functools.partial(_with_sum, side) for name, side in sides.items()}, rounds
        )
    finally:
        if torch:
            torch.__exit__()


def _with_sum(side) -> dict:
    found = side.step()
    return {**found, "weights + arch": found["weights"] + found["arch"]}


def ratios(table: pd.DataFrame) -> dict:
    """Medians of `compare`, ours over PyTorch's by part, and our further architecture steps (each
    with the weight step) over the first-order step.
    """
    medians = table.set_index(["side", "part"])["median"]
    ours = medians["ours"]
    result = {
        f"{part}, ours over {side}": ours[part] / medians[side][part]
        for side in table["side"].unique()
        if side != "ours"
        for part in medians[side].index
    }
    return result | {
        f"{part} over first order": (ours[part] + ours["weights"]) / ours["weights + arch"]
        for part in ("second", "finite", "lease")
        if part in ours
    }


def main(arguments: list[str] | None = None) -> int:
    """Command line; prints the table and the ratios, and writes them with --out."""
    parser = argparse.ArgumentParser(
        prog="python -m kit.benchmarks.nas",
        description="Time of a search step against the same network in PyTorch, alternating.",
    )
    for name, value in asdict(Settings()).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value
        ) if name != "compiled" else parser.add_argument(
            "--compiled", action="store_true", help="use torch.compile"
        )
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
        choices=("second", "finite", "lease"),
        help="further architecture steps of ours",
    )
    parser.add_argument("--out", type=Path, help="JSON file for the settings, times and ratios")
    options = vars(parser.parse_args(arguments))
    settings = Settings(**{name: options[name] for name in asdict(Settings())})
    limit_threads(settings.threads)
    try:
        table = compare(settings, options["torch"], options["rounds"], options["also"])
    except KitError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        table.round(3).to_string(index=False),
        *(f"{name}: {value:.2f}" for name, value in ratios(table).items()),
        sep="\n",
    )
    if options["out"]:
        files.write_json(
            options["out"],
            {
                "settings": asdict(settings),
                "device": record.device_name(),
                "times": table.to_dict("records"),
                "ratios": ratios(table),
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
