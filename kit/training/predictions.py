"""What a trained model leaves in its run folder: predictions, metrics and weights, of the last
epoch and of the best one.

The publications report the last weights only. The BatchNorm statistics can be computed anew before
predicting, and a finished model can be asked again, on other inputs; neither has a counterpart in
the publications' code.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kit import compat, files, record, rehearsal
from kit.data import batches as batches_module
from kit.data import inputs as data_inputs
from kit.errors import KitError
from kit.evaluation import metrics
from kit.models import saved
from kit.training.config import TrainConfig
from kit.training.epochs import EpochKeeper

if TYPE_CHECKING:
    import keras

# the model asked last; a network is often asked again, on other inputs
_LOADED: dict[str, Any] = {}
WEIGHTS = {"last": "model.keras", "best": "model_best.keras"}
# A network of hundreds of layers is traced for longer than a few batches take layer by layer; but
# then all its maps are in memory at a time (NASNetLarge,
# 64 images of 128 px: 8 GB).
EAGER_BATCHES = 4


class OutOfMemory(KitError):
    """The model and a batch do not fit into the memory of the device."""


class NoWeights(KitError):
    """A finished run did not keep the weights that are asked for."""


@contextlib.contextmanager
def memory(name: str, batch_size: int) -> Iterator[None]:
    """Turn the ways in which TensorFlow and NumPy run out of memory into one sentence."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.OpError, MemoryError) as error:
        exhausted = isinstance(
            error, (tf.errors.ResourceExhaustedError, MemoryError)
        ) or "RESOURCE_EXHAUSTED" in str(error)  # XLA's way
        if not exhausted:
            raise
        raise OutOfMemory(
            f"{name}: the model and a batch of {batch_size} do not fit into memory; lower "
            "batch_size or the image size."
        ) from error


def write(
    run: record.Run,
    model: "keras.Model",
    keeper: EpochKeeper,
    config: TrainConfig,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
) -> None:
    """Write predictions, metrics and models of a trained model.

    Parameters
    ----------
    run : record.Run
    model : keras.Model
        With the weights of the last epoch; with `keep_best` it has those of the best epoch
        afterwards.
    keeper : kit.training.train.EpochKeeper
    config : kit.training.train.TrainConfig
    inputs, parts : see :func:`kit.training.train.fit`
    """
    outcome = best = _write_weights(
        run, model, config=config, inputs=inputs, parts=parts, weights="last"
    )
    if config.keep_best:
        if keeper.best_epoch() == config.epochs:
            _same_as_last(run, config)
        else:
            keeper.restore_best(model)
            best = _write_weights(
                run, model, config=config, inputs=inputs, parts=parts, weights="best"
            )
        outcome = {**outcome, "best_epoch": keeper.best_epoch(), "best": best}
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    files.write_json(run.folder / "metrics.json", {**outcome, "trainable_parameters": trainable})


def _same_as_last(run, config) -> None:
    """The best epoch is the last: its files are the same."""
    for source, target in [("predictions.csv", "predictions_best.csv")] + [
        (WEIGHTS["last"], WEIGHTS["best"])
    ] * config.keep_weights:
        with files.atomic_write(run.folder / target) as temporary:
            temporary.unlink()
            os.link(run.folder / source, temporary)


def _write_weights(run, model, config, inputs, parts, weights: str) -> dict:
    """Predictions and, if asked for, the model of one set of weights; returns the metrics
    by part.
    """
    import keras

    if config.recalibrate_batchnorm:
        recalibrate(model, _further_epoch(config, inputs, parts["train"]), config.seed)
    asked = [
        (part, row) for part, rows in parts.items() if part != "train" for row in rows
    ]  # in one go: calls of large networks are dear
    table = _predict(
        model,
        inputs,
        np.array([row for _, row in asked]),
        np.array([part for part, _ in asked]),
        2 * config.batch_size,
    )
    files.write_csv(
        run.folder / ("predictions.csv" if weights == "last" else "predictions_best.csv"), table
    )
    if config.keep_weights:
        with files.atomic_write(run.folder / WEIGHTS[weights]) as temporary:
            keras.Model(model.inputs, model.outputs, name=model.name).save(
                temporary
            )  # not compiled: the optimizer would treble the file
    measure = metrics.binary_metrics if "score_2" not in table else metrics.multiclass_metrics
    return {part: measure(rows) for part, rows in table.groupby("part", sort=False)}


def _further_epoch(config, inputs, rows):
    """The batches that the training would see in one epoch more: its augmentation, batch size and
    order.
    """
    return batches_module.epochs(
        inputs,
        rows,
        batch_size=config.batch_size,
        seed=config.seed,
        first_epoch=config.epochs,
        augment=config.augmentation,
        augmenter=config.augmenter,
    ).take(-(-len(rows) // config.batch_size))


def _predict(model, inputs, rows, part, batch_size: int) -> pd.DataFrame:
    layerwise = model.run_eagerly
    model.run_eagerly = layerwise and len(rows) <= EAGER_BATCHES * batch_size
    try:
        scores = model.predict(batches_module.in_order(inputs, rows, batch_size), verbose=0)
    finally:
        if model.run_eagerly != layerwise:
            model.run_eagerly, model.predict_function = layerwise, None
    return record.prediction_table(inputs.index.iloc[rows], scores, part)


def recalibrate(model: "keras.Model", batches: Iterable[tuple], seed: int = 0) -> None:
    """Replace the moving statistics of all trainable BatchNorm layers by the mean over `batches`,
    in place; weights stay as they are.

    Each batch's mean and variance count by its number of images. Dropout is active, as in training,
    with masks drawn from `seed`.

    Parameters
    ----------
    model : keras.Model
    batches : iterable of (inputs, targets)
        As the training pipeline makes them: on images without its augmentation the statistics are
        not those that the weights were trained with.
    seed : int
    """
    import keras
    import tensorflow as tf

    layers = [
        x
        for x in model._flatten_layers()
        if isinstance(x, keras.layers.BatchNormalization) and x.trainable
    ]
    if not layers:
        return
    compat.reseed(model, seed, 0)
    moving, kept = (
        [v for x in layers for v in (x.moving_mean, x.moving_variance)],
        [x.momentum for x in layers],
    )
    for layer in layers:
        layer.momentum = 0.0  # after one batch the moving statistics are that batch's
    try:
        forward = tf.function(lambda x: model(x, training=True), reduce_retracing=True)
        assign_means(moving, ((forward(x), len(x))[1] for x, _ in batches))
    finally:
        for layer, momentum in zip(layers, kept, strict=False):
            layer.momentum = momentum


def assign_means(variables: Sequence["keras.Variable"], visits: Iterable[int]) -> None:
    """Set variables to the mean of the values that they take, summed in float64.

    Parameters
    ----------
    variables : list of keras.Variable
        Moving statistics that a forward pass overwrites with its batch's.
    visits : iterable of int
        Makes one forward pass an item and gives its number of images, by which it counts.
    """
    total: list[Any] = [0.0] * len(variables)
    seen = 0
    for images in visits:
        total = [
            t + images * np.asarray(v, np.float64) for t, v in zip(total, variables, strict=True)
        ]
        seen += images
    for variable, value in zip(variables, total, strict=True):
        variable.assign((value / seen).astype(np.float32))


def best_predictions(run: record.Run, part: str | None = None) -> pd.DataFrame:
    """predictions_best.csv of a run trained with `keep_best`; columns as ``run.predictions()``, of
    one part or of all.
    """
    table = _read_predictions(run.folder / "predictions_best.csv")
    return table if part is None else table[table["part"] == part].reset_index(drop=True)


def _read_predictions(file) -> pd.DataFrame:
    if not file.exists():
        raise NoWeights(f"{file} is absent; train this run with keep_best=True.")
    return pd.read_csv(file, dtype={"image_id": str, "part": str})


def predict(
    run: record.Run, inputs: data_inputs.Inputs, rows: ArrayLike, part: str, weights: str = "last"
) -> pd.DataFrame:
    """Predictions of a finished run's model on other inputs, for instance the same images without
    preprocessing; cached in the run folder.

    Parameters
    ----------
    run : record.Run
        Finished, with its weights kept.
    inputs : data.Inputs
        Anything of the shape the model was trained on.
    rows : array-like of int
    part : str
        Name for the column "part" and for the file ``predicted-<part>-<weights>-<digest>.csv``; the
        digest covers data facts and images.
    weights : {"last", "best"}

    Returns
    -------
    pandas.DataFrame
        As ``run.predictions()``.

    Raises
    ------
    NoWeights, OutOfMemory
    """
    if weights not in WEIGHTS:
        raise NoWeights(f"There are no weights {weights!r}; choose one of {', '.join(WEIGHTS)}.")
    rows = np.asarray(rows)
    if rehearsal.active():
        classes = len(np.unique(inputs.labels))
        rows = rehearsal.few(inputs.labels, rows, rehearsal.PREDICTED * classes)
    key = files.digest(
        {"data": inputs.facts, "images": inputs.index["image_id"].to_numpy()[rows].tolist()}
    )
    file, stored = (
        run.folder / f"predicted-{part}-{weights}-{key[:10]}.csv",
        run.folder / WEIGHTS[weights],
    )
    if not file.exists():
        if not run.finished or not stored.exists():
            raise NoWeights(
                f"{run.folder.name} has no {stored.name}; train it with "
                f"keep_weights=True{' and keep_best=True' * (weights == 'best')}."
            )
        with memory(run.folder.name, 2 * run.config["batch_size"]):
            if _LOADED.get("file") != (stored, stored.stat().st_mtime_ns):
                _LOADED.update(file=(stored, stored.stat().st_mtime_ns), model=saved.load(stored))
            model = _LOADED["model"]
            model.run_eagerly = len(rows) <= 2 * EAGER_BATCHES * run.config["batch_size"]
            files.write_csv(file, _predict(model, inputs, rows, part, 2 * run.config["batch_size"]))
    return _read_predictions(file)
