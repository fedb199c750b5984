"""What the benchmarks against PyTorch share: a process for PyTorch's side, and steps that are timed
in turn.
"""

import contextlib
import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from kit.errors import KitError


class NoTorch(KitError):
    """PyTorch did not start or ended early."""


class Torch:
    """PyTorch's side: a process that makes one step whenever asked; a context manager.

    Parameters
    ----------
    python : str
        Interpreter that has PyTorch.
    settings : dataclass
        A dataclass of what the program reads.
    script : path-like
        The program.

    Raises
    ------
    NoTorch
    """

    def __init__(self, python: str, settings: object, script: Path | str) -> None:
        try:
            self.process = subprocess.Popen(
                [python, str(script), json.dumps(asdict(settings))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise NoTorch(
                f"{python} could not be started ({error.strerror}); give --torch an interpreter "
                "that has PyTorch."
            ) from error
        self.facts = self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise NoTorch(
                f"PyTorch's side ended with status {self.process.returncode}; give --torch an "
                "interpreter that has PyTorch (dependency group `benchmark`)."
            )
        return json.loads(line)

    def step(self) -> dict:
        """Seconds of a step: "weights" and "arch"."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()


def alternate(steps: dict, rounds: int) -> pd.DataFrame:
    """Time sides in turn; the first step of each, which traces or compiles, is told apart.

    Parameters
    ----------
    steps : dict
        Side -> callable () -> {part: seconds}.
    rounds : int
        Steps of each side after the first.

    Returns
    -------
    pandas.DataFrame
        Columns side, part, first (seconds of the first step), then median, low and high over the
        rounds, in seconds.
    """
    times = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            times[name].append(step())
    rows = [
        {
            "side": name,
            "part": part,
            "first": found[0][part],
            "median": np.median(later),
            "low": min(later),
            "high": max(later),
        }
        for name, found in times.items()
        for part in found[0]
        for later in ([one[part] for one in found[1:]],)
    ]
    return pd.DataFrame(rows)


def limit_threads(threads: int) -> None:
    """Give TensorFlow so many threads, unless it has started."""
    with contextlib.suppress(RuntimeError):  # TensorFlow has started already; it keeps its threads
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
