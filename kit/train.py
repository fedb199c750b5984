"""Training: one configuration in, one finished run folder out; seeded, resumable, never repeated.

The publications call ``model.fit`` once, unseeded, and keep the last weights. Here each epoch's batches and dropout masks depend on
(seed, epoch) alone and the state after every epoch is on disk, so that a killed run goes on and ends bit-identical to one that was left alone.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Callable

import numpy as np
import pandas as pd

from kit import compat, data, metrics, paths, record
from kit.errors import KitError


class BadConfig(KitError):
    """A training setting is out of range."""


class Diverged(KitError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train; printed as a table, validated when made.

    Attributes
    ----------
    paper, profile : str
        Where the run folder goes: ``results/<profile>/<paper>/runs``.
    name : str
        Start of the run folder's name.
    model : dict
        The builder's name and options, as they shall stand in config.json.
    epochs, batch_size : int
        At least 1.
    learning_rate : float
        Above 0; Adam's other settings are Keras' defaults (epsilon 1e-7).
    optimizer, loss : str
        Keras names.
    seed : int
        Initial weights, batch order and dropout.
    keep_weights : bool
        Save the trained model as ``model.keras``. Not part of the run's key.
    """

    paper: str
    profile: str
    name: str
    model: dict = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-4
    optimizer: str = "adam"
    loss: str = "binary_crossentropy"
    seed: int = 0
    keep_weights: bool = True

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 < self.learning_rate < 10:
            raise BadConfig(f"learning_rate is {self.learning_rate}; it must be above 0 and below 10.")

    def __str__(self):
        width = max(len(f.name) for f in fields(self))
        return "\n".join(f"{f.name:<{width}}  {getattr(self, f.name)}" for f in fields(self))


def fit(config: TrainConfig, build: Callable, inputs: data.Inputs, parts: dict, watch: str = "validation") -> record.Run:
    """Train a model, or return the finished run of the same configuration.

    Parameters
    ----------
    config : TrainConfig
    build : callable
        () -> uncompiled Keras model; called after seeding.
    inputs : data.Inputs
    parts : dict
        Row numbers by part name. "train" is trained on; `watch`, if present, is evaluated after each epoch but selects nothing; every other
        part is predicted once, with the weights of the last epoch.
    watch : str

    Returns
    -------
    record.Run
        Finished: history.csv, predictions.csv, metrics.json and, if asked for, model.keras are in its folder.

    Raises
    ------
    data.BadSplit, Diverged
    record.FolderBusy
        If another process trains the same run.
    """
    run = record.Run(paths.results_dir() / config.profile / config.paper / "runs", config.name, run_key(config, inputs, parts))
    if _reusable(run, config):
        return run
    data.check_parts(inputs, parts)
    with record.FolderLock(run.folder, wait=20):
        if not _reusable(run, config):
            _train(run, config, build, inputs, parts, watch)
    return run


def run_key(config: TrainConfig, inputs: data.Inputs, parts: dict) -> dict:
    """What config.json records and the run is keyed by: settings, data facts and the exact images of every part."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("paper", "profile", "keep_weights")}
    ids = inputs.index["image_id"].to_numpy()
    members = {part: {"images": len(rows), "sha256": record.digest(ids[rows].tolist())} for part, rows in parts.items()}
    return {**settings, "data": inputs.facts, "parts": members}


def _reusable(run: record.Run, config: TrainConfig) -> bool:
    ready = run.finished and (not config.keep_weights or (run.folder / "model.keras").exists())
    if ready and record.read_json(run.folder / "environment.json", default={}).get("code") != record.code_digest()[:12]:
        print(f"{run.folder.name}: finished earlier, by another state of the code; --fresh would repeat it")
    return ready


def _train(run, config, build, inputs, parts, watch) -> None:
    import keras

    run.open(config.seed)
    started = time.perf_counter()
    try:
        keras.backend.clear_session()
        compat.deterministic(config.seed)
        model = _compiled(config, build())
        keeper = EpochKeeper(run, config)
        _fit_epochs(model, keeper, config, inputs, parts, watch)
        _write_outcome(run, model, config, inputs, parts)
    except Diverged as error:
        run.close("failed", time.perf_counter() - started, str(error))
        raise
    run.close("finished", float(run.history()["seconds"].sum()), resumed_at=keeper.first_epoch)
    (run.folder / "state.npz").unlink(missing_ok=True)


_LAST = {}  # the model compiled last and what it was compiled for


def _compiled(config: TrainConfig, fresh):
    """`fresh`, ready to train; where the run before had the same architecture, its model with the weights of `fresh`, since tracing its functions
    anew costs more than a short training."""
    import keras

    made_for = record.digest([config.optimizer, config.learning_rate, config.loss, fresh.get_config()])
    if _LAST.get("made_for") != made_for:
        fresh.compile(keras.optimizers.get({"class_name": config.optimizer, "config": {"learning_rate": config.learning_rate}}),
                      config.loss, metrics=["accuracy"], jit_compile=compat.use_xla())
        fresh.optimizer.build(fresh.trainable_variables)
        _LAST.update(made_for=made_for, model=fresh, optimizer=[np.array(v) for v in fresh.optimizer.variables])
    model = _LAST["model"]
    if model is not fresh:
        model.set_weights(fresh.get_weights())
        for variable, value in zip(model.optimizer.variables, _LAST["optimizer"], strict=True):
            variable.assign(value)
    return model


def _fit_epochs(model, keeper, config, inputs, parts, watch) -> None:
    keeper.restore(model)
    if keeper.first_epoch >= config.epochs:
        return
    stream = data.epochs(inputs, parts["train"], config.batch_size, config.seed, keeper.first_epoch)
    watched = data.in_order(inputs, parts[watch], 2 * config.batch_size) if watch in parts else None
    model.fit(stream, initial_epoch=keeper.first_epoch, epochs=config.epochs, verbose=0 if compat.in_batch() else 1,
              steps_per_epoch=-(-len(parts["train"]) // config.batch_size), validation_data=watched, shuffle=False, callbacks=[keeper.callback()])


def _write_outcome(run, model, config, inputs, parts) -> None:
    tables = []
    for part, rows in parts.items():
        if part != "train":
            scores = model.predict(data.in_order(inputs, rows, 2 * config.batch_size), verbose=0)
            tables.append(record.prediction_table(inputs.index.iloc[rows], scores, part))
    table = pd.concat(tables, ignore_index=True)
    record.write_csv(run.folder / "predictions.csv", table)
    binary = "score_2" not in table
    measure = metrics.binary_metrics if binary else metrics.multiclass_metrics
    record.write_json(run.folder / "metrics.json", {part: measure(rows) for part, rows in table.groupby("part", sort=False)})
    if config.keep_weights:
        with record.atomic_write(run.folder / "model.keras") as temporary:
            model.save(temporary)


class EpochKeeper:
    """Keeps the state after every epoch on disk and puts it back after an interruption.

    ``keras.callbacks.BackupAndRestore`` does not keep the random state of dropout layers nor the position in the data, so a resumed run
    differs from an uninterrupted one; here both follow from (seed, epoch). Weights, optimizer state and history go into one file, replaced
    atomically.

    Parameters
    ----------
    run : record.Run
    config : TrainConfig
    """

    def __init__(self, run, config):
        self.file, self.run, self.config = run.folder / "state.npz", run, config
        self.first_epoch, self.rows = 0, []

    def restore(self, model) -> None:
        """Put the last finished epoch's weights, optimizer state and history back, if there is one."""
        if not self.file.exists():
            return
        try:
            with np.load(self.file) as state:
                self.rows = json.loads(str(state["history"]))
                for number, variable in enumerate(self._variables(model)):
                    variable.assign(state[f"v{number}"])
        except (OSError, ValueError, KeyError) as error:
            raise record.DamagedRecord(f"{self.file} cannot be read ({error}); delete it and run again.") from error
        self.first_epoch = len(self.rows)
        print(f"{self.config.name}: goes on after epoch {self.first_epoch} of {self.config.epochs}", flush=True)

    @staticmethod
    def _variables(model) -> list:
        return [*model.weights, *model.optimizer.variables]

    def keep(self, model, logs: dict, seconds: float) -> None:
        """Append an epoch to the history and write the state."""
        self.rows.append({"epoch": len(self.rows) + 1, **{k: float(v) for k, v in logs.items()}, "seconds": round(seconds, 3)})
        if not np.isfinite(logs["loss"]):
            raise Diverged(f"{self.config.name}: the loss is {logs['loss']} in epoch {len(self.rows)}; lower learning_rate ({self.config.learning_rate}).")
        if len(self.rows) < self.config.epochs:
            with record.atomic_write(self.file) as temporary:
                np.savez(temporary, history=json.dumps(self.rows), **{f"v{n}": np.asarray(v) for n, v in enumerate(self._variables(model))})
        record.write_csv(self.run.folder / "history.csv", pd.DataFrame(self.rows))

    def line(self) -> str:
        """The last epoch in one line, for logs."""
        last = self.rows[-1]
        numbers = "  ".join(f"{k} {v:.4f}" for k, v in last.items() if k not in ("epoch", "seconds"))
        return f"{self.config.name}  epoch {last['epoch']}/{self.config.epochs}  {numbers}  {last['seconds']:.1f} s"

    def callback(self):
        """This keeper as a Keras callback."""
        import keras

        keeper = self

        class Keep(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                compat.reseed(self.model, keeper.config.seed, epoch)
                self.started = time.perf_counter()

            def on_epoch_end(self, epoch, logs=None):
                keeper.keep(self.model, logs, time.perf_counter() - self.started)
                if compat.in_batch():
                    print(keeper.line(), flush=True)
                    sys.stdout.flush()

        return Keep()


def cross_validate(config: TrainConfig, build: Callable, inputs: data.Inputs, split) -> tuple[list, record.Run]:
    """The published protocol: one run a fold, then a final run on all development images, evaluated once on the test images.

    Parameters
    ----------
    config : TrainConfig
        Its name is extended by "-fold1" ... and "-final". Only the final run keeps its weights.
    build, inputs : see :func:`fit`
    split : kit.split.Split
        With parts fold1 ... foldk and test.

    Returns
    -------
    folds : list of record.Run
        With predictions of the "validation" part.
    final : record.Run
        With predictions of the "test" part.
    """
    runs = []
    for number, (train_ids, validation_ids) in enumerate(split.folds(), start=1):
        parts = {"train": inputs.rows(train_ids), "validation": inputs.rows(validation_ids)}
        runs.append(fit(replace(config, name=f"{config.name}-fold{number}", keep_weights=False), build, inputs, parts))
    parts = {"train": inputs.rows(split.development), "test": inputs.rows(split.parts["test"])}
    return runs, fit(replace(config, name=f"{config.name}-final"), build, inputs, parts)
