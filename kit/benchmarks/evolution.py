"""How much faster two workers evaluate a generation than one: ``python -m
kit.benchmarks.evolution``.

Each individual trains a small convolutional network for a fixed number of steps with TensorFlow, in
a worker whose libraries use as many threads as told. The first generation warms the workers up
(importing TensorFlow, tracing the step) and is left out; a generation's time goes from the last
result of the one before to its own last result. The publication evaluates one individual after the
other. Run it on an idle machine: where other work competes, a second worker takes its time from
that.
"""

import argparse
import functools
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kit.search.evolution import plan as plans
from kit.search.evolution import workers
from kit.search.evolution.genetic import GASettings
from kit.search.evolution.genome import Gene, Genome
from kit.search.evolution.plan import Plan

CREWS = ((1, 1), (2, 1), (1, 2))  # workers, threads of each


@functools.cache
def _trainer():
    """A traced training step of a small network; once a process."""
    import tensorflow as tf

    tf.random.set_seed(0)
    shapes = [(3, 3, 3, 32), (3, 3, 32, 48), (3, 3, 48, 64)]
    kernels = [
        tf.Variable(tf.random.stateless_normal(shape, (0, n)) * 0.1)
        for n, shape in enumerate(shapes)
    ]
    images, labels = (
        tf.random.stateless_normal((32, 48, 48, 3), (1, 0)),
        tf.random.stateless_uniform((32,), (1, 1), maxval=64, dtype=tf.int32),
    )

    @tf.function
    def step(rate):
        with tf.GradientTape() as tape:
            maps = images
            for kernel in kernels:
                maps = tf.nn.relu(tf.nn.conv2d(maps, kernel, 1, "SAME"))
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.reduce_mean(maps, (1, 2)))
            )
        for kernel, gradient in zip(kernels, tape.gradient(loss, kernels), strict=True):
            kernel.assign_sub(rate * gradient)
        return loss

    return step


def train(values: dict, folder: Path | str, steps: int = 20) -> float:
    """Evaluate an individual: minus the loss after some steps."""
    import tensorflow as tf

    step = _trainer()
    for _ in range(steps):
        loss = step(tf.constant(values["learning_rate"], tf.float32))
    return -float(loss)


def measure(
    individuals: int = 8,
    generations: int = 3,
    steps: int = 20,
    crews: Sequence[tuple[int, int]] = CREWS,
) -> pd.DataFrame:
    """Seconds of every generation but the first.

    Returns
    -------
    pandas.DataFrame
        Columns workers, threads, generation, seconds.
    """
    genome, rows = Genome((Gene("learning_rate", low=1e-4, high=1e-2),)), []
    for crew, threads in crews:
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(
                genome=genome,
                settings=GASettings(generations, individuals, (0.9,), (0.2,), worst=-100.0),
                evaluate="benchmark.training",
                arguments={"steps": steps},
            )
            workers.run(plan, folder, crew, threads)
            last = [
                max(_ended(folder, g * individuals + n) for n in range(individuals))
                for g in range(generations)
            ]
        rows += [
            {"workers": crew, "threads": threads, "generation": g + 1, "seconds": b - a}
            for g, (a, b) in enumerate(itertools.pairwise(last))
        ]
    return pd.DataFrame(rows)


def _ended(folder, number: int) -> float:
    return (plans.trial_folder(Path(folder), number) / "trial.json").stat().st_mtime


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of a generation for each crew, and how many times as fast it is as one worker
    with one thread.
    """
    median = table.groupby(["workers", "threads"], sort=False)["seconds"].median().reset_index()
    alone = median.loc[(median["workers"] == 1) & (median["threads"] == 1), "seconds"].iloc[0]
    return median.assign(times_as_fast=alone / median["seconds"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m kit.benchmarks.evolution", description="Two workers against one."
    )
    parser.add_argument("--individuals", type=int, default=8)
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    told = parser.parse_args()
    print(
        summary(measure(told.individuals, told.generations, told.steps))
        .round(3)
        .to_string(index=False)
    )


if __name__ == "__main__":
    main()
