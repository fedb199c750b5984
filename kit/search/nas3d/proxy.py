"""Proxy training: how PBC-NAS judges a candidate, on a quarter of the data and for 50 epochs at
most.

The released code averages accuracy over batches and its running means over epochs; here
accuracies and losses are those of the images, which for its validation subsets of one batch is the
same. Its early-stop rule is kept to the letter: the counter rises where the validation loss is
above the best, falls to zero where it is equal or below, and the fitness is the highest validation
accuracy of any epoch. A loss that is not a number never counts as worse there, so that such a
candidate trains to the end; here it has failed. Validation subsets hold 24 to 47 images and ties
are common: the lowest validation loss and the number of parameters come with the fitness, for
searches that want to break them. Searches of small budget judged so all end at the same few
volumes; `judge` and `validation` let the loss on all validation images decide.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kit import compat, files
from kit.data import registry, volumes
from kit.data.inputs import Inputs
from kit.errors import KitError
from kit.search.nas3d import networks
from kit.search.nas3d.space import Network3D, Space, parameters
from kit.training import predictions
from kit.training.train import Diverged

EPSILON = 1e-8  # PyTorch's, of Adam
WEIGHTS = "weights.npz"
# fewer training steps than these are not worth tracing a graph for, some 2 s a network; a step of
# it saves a quarter of a second
EAGER_STEPS = 8
CHOICES = {
    "biases": ("zeros", "torch"),
    "judge": ("accuracy", "loss"),
    "validation": ("subset", "all"),
}


class BadProxy(KitError):
    """A setting of the proxy training is out of range, or its data are not those of the search."""


@dataclass(frozen=True)
class Proxy:
    """How a candidate is trained; the defaults are the published settings.

    Attributes
    ----------
    fraction : int
        One in so many images of the training and of the validation part.
    subset_seed : int
        Of the draw of these images, Python's generator.
    epochs : int
    patience : int
        Epochs in a row with a validation loss above the best that end the training.
    batch_size : int
    learning_rate : float
        Adam's, constant.
    biases : {"zeros", "torch"}
        See :func:`kit.search.nas3d.networks.build`.
    judge : {"accuracy", "loss"}
        What is the fitness: as published, the highest validation accuracy of any epoch; or the
        likelihood that goes with the lowest validation loss, which has no ties.
    validation : {"subset", "all"}
        Which validation images: one in `fraction`, as published, or all of them.
    seed : int
        Of initial weights and of the order of images.

    Raises
    ------
    BadProxy
    """

    fraction: int = 4
    subset_seed: int = 42
    epochs: int = 50
    patience: int = 5
    batch_size: int = 128
    learning_rate: float = 1e-3
    biases: str = "zeros"
    judge: str = "accuracy"
    validation: str = "subset"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise BadProxy(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}."
                )
        for name in ("fraction", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise BadProxy(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 < self.learning_rate < 10:
            raise BadProxy(
                f"learning_rate is {self.learning_rate}; it must be above 0 and below 10."
            )


def subset(sizes: Sequence[int], fraction: int = 4, seed: int = 42) -> list[np.ndarray]:
    """Positions of the images drawn from parts of such sizes, in the order drawn: int (size //
    fraction,) each, at least one.

    One generator for all parts, the training part first, as the released code draws them.
    """
    drawn = random.Random(seed)
    return [np.array(drawn.sample(range(size), max(size // fraction, 1))) for size in sizes]


class Patience:
    """The early-stop rule: says when to stop.

    Parameters
    ----------
    most : int
        Losses above the best, in a row, that are too many.
    """

    def __init__(self, most: int) -> None:
        self.most, self.best, self.above = most, float("inf"), 0

    def stop(self, loss: float) -> bool:
        """Take the validation loss of an epoch; True if it was the last to wait for."""
        if loss > self.best:
            self.above += 1
        else:
            self.best, self.above = loss, 0
        return self.above >= self.most


@dataclass(frozen=True)
class Judged:
    """Outcome of a proxy training.

    Attributes
    ----------
    fitness : float
        Highest validation accuracy of any epoch, in [0, 1].
    lowest_loss : float
        Lowest validation loss of any epoch.
    history : pandas.DataFrame
        One row an epoch: epoch, loss, accuracy (running over the epoch), val_loss, val_accuracy,
        seconds.
    weights : list of numpy.ndarray
        After the last epoch.
    """

    fitness: float
    lowest_loss: float
    history: pd.DataFrame
    weights: list


def parts(inputs: Inputs, proxy: Proxy) -> dict:
    """Row numbers of the proxy's "train" and "val"."""
    rows = [np.flatnonzero(inputs.index["split"] == part) for part in ("train", "val")]
    train, val = subset([len(part) for part in rows], proxy.fraction, proxy.subset_seed)
    return {
        "train": rows[0][train],
        "val": rows[1] if proxy.validation == "all" else rows[1][val],
    }


def judge(network: Network3D, inputs: Inputs, rows: dict, proxy: Proxy) -> Judged:
    """Train a candidate and judge it.

    Parameters
    ----------
    network : Network3D
    inputs : kit.data.inputs.Inputs
        Volumes, from :func:`kit.data.volumes.load`.
    rows : dict
        From :func:`parts`.
    proxy : Proxy

    Raises
    ------
    kit.training.train.Diverged
        If a loss is no longer finite.
    kit.training.predictions.OutOfMemory
    """
    keras.backend.clear_session()
    compat.deterministic(proxy.seed)
    with predictions.memory("this candidate", proxy.batch_size):
        model = networks.build(
            network,
            classes=len(registry.get(inputs.name).classes),
            edge=inputs.x.shape[1],
            channels=inputs.x.shape[4],
            seed=proxy.seed,
            biases=proxy.biases,
        )
        return _train(
            model,
            {part: (inputs.batch(chosen), inputs.labels[chosen]) for part, chosen in rows.items()},
            proxy,
        )


def _train(model, data: dict, proxy: Proxy) -> Judged:
    (x, y), held, rule, history = data["train"], data["val"], Patience(proxy.patience), []
    step, look = _functions(
        model,
        proxy.learning_rate,
        traced=proxy.epochs * -(-len(x) // proxy.batch_size) >= EAGER_STEPS,
    )
    for epoch in range(1, proxy.epochs + 1):
        started, order = (
            time.perf_counter(),
            np.random.default_rng([proxy.seed, epoch]).permutation(len(x)),
        )
        batches = [
            order[start : start + proxy.batch_size] for start in range(0, len(x), proxy.batch_size)
        ]
        totals: Any = sum(np.array(step(x[batch], y[batch])) for batch in batches)
        loss, accuracy = totals / len(x)
        starts = range(0, len(held[0]), proxy.batch_size)
        val_totals: Any = sum(
            np.array(look(*(part[start : start + proxy.batch_size] for part in held)))
            for start in starts
        )
        val_loss, val_accuracy = val_totals / len(held[0])
        if not np.isfinite(loss) or not np.isfinite(val_loss):
            raise Diverged(
                f"The loss is {loss} and the validation loss {val_loss} in epoch {epoch}; lower "
                f"learning_rate ({proxy.learning_rate})."
            )
        history.append(
            {
                "epoch": epoch,
                "loss": loss,
                "accuracy": accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "seconds": round(time.perf_counter() - started, 3),
            }
        )
        if rule.stop(val_loss):
            break
    table = pd.DataFrame(history)
    return Judged(
        float(table["val_accuracy"].max()),
        float(table["val_loss"].min()),
        table,
        model.get_weights(),
    )


def _functions(model, learning_rate: float, traced: bool) -> tuple:
    """Training step and evaluation: sums over a batch of cross-entropy and of right answers."""
    optimizer = keras.optimizers.Adam(learning_rate, epsilon=EPSILON)
    optimizer.build(model.trainable_variables)
    signature = [
        tf.TensorSpec((None, *model.input_shape[1:]), tf.float32),
        tf.TensorSpec((None,), tf.int64),
    ]

    def sums(x, y, training):
        logits = model(x, training=training)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        return losses, tf.stack(
            [tf.reduce_sum(losses), tf.reduce_sum(tf.cast(tf.argmax(logits, 1) == y, tf.float32))]
        )

    def step(x, y):
        with tf.GradientTape() as tape:
            losses, found = sums(x, y, True)
            mean = tf.reduce_mean(losses)
        optimizer.apply_gradients(
            zip(
                tape.gradient(mean, model.trainable_variables),
                model.trainable_variables,
                strict=False,
            )
        )
        return found

    def look(x, y):
        return sums(x, y, False)[1]

    return tuple(
        tf.function(one, input_signature=signature, jit_compile=compat.use_xla()) if traced else one
        for one in (step, look)
    )


_LOADED: dict[Any, Any] = {}  # the volumes that this process loaded last


def evaluate(
    values: dict, folder: Path | str, *, dataset: str, fingerprint: str, space: dict, proxy: dict
) -> tuple:
    """Judge the candidate of a search (:class:`kit.search.evolution.plan.SpacePlan`), and leave its
    history and weights in its folder.

    Parameters
    ----------
    values : dict
        Under "search" the candidate's "genes" and its "seed", which takes the place of the proxy's.
    folder : path-like
        Of the candidate.
    dataset, fingerprint : str
        Registered set and its content at the start of the search.
    space : dict
        Of :class:`kit.search.nas3d.space.Space`; its edge is that of the volumes.
    proxy : dict
        Of :class:`Proxy`.

    Returns
    -------
    tuple
        Fitness, and what breaks ties: minus the lowest validation loss (where the loss is the
        fitness: the highest validation accuracy), minus the number of parameters.

    Raises
    ------
    BadProxy, kit.training.train.Diverged, kit.training.predictions.OutOfMemory
    """
    settings, chosen = replace(Proxy(**proxy), seed=values["search"]["seed"]), Space(**space)
    inputs, network = (
        _volumes(dataset, fingerprint, chosen.edge),
        chosen.decode(values["search"]["genes"]),
    )
    judged = judge(network, inputs, parts(inputs, settings), settings)
    size, known = (
        parameters(network, chosen.classes, dead=False, channels=chosen.channels),
        values["search"],
    )
    print(
        f"{dataset}, candidate {known.get('number', '-')} ({known.get('origin', 'alone')}): "
        f"{size:,} parameters, {len(judged.history)} epochs, fitness {judged.fitness:.4f}, "
        f"{judged.history['seconds'].sum():.1f} s",
        flush=True,
    )
    files.write_csv(Path(folder) / "history.csv", judged.history)
    with files.atomic_write(Path(folder) / WEIGHTS) as temporary:
        np.savez(temporary, **{str(number): array for number, array in enumerate(judged.weights)})
    if settings.judge == "loss":
        return likelihood(judged.lowest_loss), judged.fitness, -size
    return judged.fitness, -judged.lowest_loss, -size


def likelihood(loss: float) -> float:
    """Geometric mean of the probabilities of the true classes, in [0, 1], for a mean cross-entropy:
    a fitness that grows as the loss falls, and is above that of failures.
    """
    return float(np.exp(-loss))


def accuracy(fitness: float, ties: Sequence[float], judge: str) -> float:
    """Highest validation accuracy of a candidate, wherever :func:`evaluate` put it."""
    return fitness if judge == "accuracy" else ties[0]


def _volumes(dataset: str, fingerprint: str, edge: int) -> Inputs:
    key = (dataset, fingerprint, edge)
    if key not in _LOADED:
        if registry.facts(dataset)["fingerprint"] != fingerprint:
            raise BadProxy(
                f"{dataset} has changed since the search began; start a new one with --fresh."
            )
        _LOADED.clear()
        _LOADED[key] = volumes.load(dataset, edge)
    return _LOADED[key]


def weights(folder: Path | str) -> list[np.ndarray]:
    """Weights that a candidate's proxy training ended with, in Keras' order."""
    with np.load(Path(folder) / WEIGHTS) as arrays:
        return [arrays[str(number)] for number in range(len(arrays.files))]
