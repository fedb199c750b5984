"""Training: one configuration in, one finished run folder out; seeded, resumable, never repeated.

The publications call ``model.fit`` once, unseeded, and keep the last weights. Here each epoch's
batches, augmentation and dropout masks depend on (seed, epoch) alone and the state after every
epoch is on disk, so that a killed run goes on and ends bit-identical to one that was left alone.
The last weights are reported as published; on request those of the best validation epoch stand
beside them, since one bad last epoch can hide what a model has learnt (the CAD framework's run
without augmentation falls from 97 % to 45 % and ends at 91 %).
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import pandas as pd

from kit import compat, files, paths, record
from kit.data import batches
from kit.data import inputs as data_inputs
from kit.data.augment import affine
from kit.errors import KitError
from kit.training import predictions

# what one does with a finished run
from kit.training.predictions import OutOfMemory, best_predictions, predict  # noqa: F401


class BadConfig(KitError):
    """A training setting is out of range."""


class Diverged(KitError):
    """The loss became NaN or infinite."""


# settings that are part of a run's key only where they differ from these, so that adding one leaves
# earlier runs valid
LATER = {
    "augmentation": None,
    "keep_best": False,
    "best_by": "val_loss",
    "recalibrate_batchnorm": False,
    "graph": True,
}


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
        Save the trained model as ``model.keras``, and with `keep_best` the other as
        ``model_best.keras``. Not part of the run's key.
    augmentation : dict or None
        Settings of :class:`kit.data.augment.affine.Augmentation`, or of
        :class:`kit.data.augment.autoaugment.AutoAugment` (absent ones take its defaults), for the
        training images only.
    augmenter : {"fused", "keras_generator", "autoaugment"}
        Which transform and implementation; see :func:`kit.data.batches.epochs`.
    keep_best : bool
        Also predict with the weights of the best epoch (the earliest of several).
    best_by : str
        Column of the history that names the best epoch: the lowest if it is a loss, else the
        highest.
    recalibrate_batchnorm : bool
        Before predicting, replace the moving statistics of BatchNorm by those of the training
        images, not augmented. Where Keras' backbones forget slowly (momentum 0.999 in MobileNet),
        the moving statistics lag behind the weights after a short training.
    graph : bool
        Trace a graph of the training step, as Keras does; False runs layer by layer, which is
        slower from the tenth step or so on, but tracing a network of hundreds of layers takes 10 s
        to a minute.
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
    augmentation: dict | None = None
    augmenter: str = "fused"
    keep_best: bool = False
    best_by: str = "val_loss"
    recalibrate_batchnorm: bool = False
    graph: bool = True

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 < self.learning_rate < 10:
            raise BadConfig(
                f"learning_rate is {self.learning_rate}; it must be above 0 and below 10."
            )
        if self.augmenter not in batches.AUGMENTERS:
            raise BadConfig(
                f"augmenter is {self.augmenter!r}; choose one of {', '.join(batches.AUGMENTERS)}."
            )
        if (
            self.augmentation is not None
        ):  # spelt out, so that the key does not depend on which defaults were written down
            object.__setattr__(
                self,
                "augmentation",
                asdict(batches.AUGMENTERS[self.augmenter].of(self.augmentation)),
            )

    def __str__(self):
        width = max(len(f.name) for f in fields(self))
        return "\n".join(f"{f.name:<{width}}  {getattr(self, f.name)}" for f in fields(self))


def fit(
    config: TrainConfig,
    build: Callable,
    inputs: data_inputs.Inputs,
    parts: dict,
    watch: str = "validation",
) -> record.Run:
    """Train a model, or return the finished run of the same configuration.

    Parameters
    ----------
    config : TrainConfig
    build : callable
        () -> Keras model, called after seeding. One that is compiled already keeps its optimizer,
        losses and training step; `config` then only records them.
    inputs : data.Inputs
    parts : dict
        Row numbers by part name. "train" is trained on; `watch`, if present, is evaluated after
        each epoch but selects nothing; every other part is predicted once, with the weights of the
        last epoch and, with `keep_best`, those of the best epoch.
    watch : str

    Returns
    -------
    record.Run
        Finished: history.csv, predictions.csv, metrics.json and, if asked for, model.keras are in
        its folder. With `keep_best` also predictions_best.csv and model_best.keras; metrics.json
        has the parts, "trainable_parameters" and, with `keep_best`, "best_epoch" (from 1) and under
        "best" the parts once more.

    Raises
    ------
    data.BadSplit, augment.BadAugmentation, BadConfig, Diverged, OutOfMemory
    record.FolderBusy
        If another process trains the same run.
    """
    run = _run(config, inputs, parts)
    if _reusable(run, config):
        return run
    data_inputs.check_parts(inputs, parts)
    if config.augmentation is not None:
        affine.check_images(inputs.x)
    if config.keep_best and watch not in parts:
        raise BadConfig(
            f"keep_best needs a part {watch!r} to choose the epoch by; add it to the split or "
            "leave keep_best out."
        )
    with files.FolderLock(run.folder, wait=20):
        if not _reusable(run, config):
            _train(run, config, build=build, inputs=inputs, parts=parts, watch=watch)
            _LAST["run"] = run.folder
    return run


def _run(config: TrainConfig, inputs: data_inputs.Inputs, parts: dict) -> record.Run:
    return record.Run(
        paths.results_dir() / config.profile / config.paper / "runs",
        config.name,
        run_key(config, inputs, parts),
    )


def is_finished(config: TrainConfig, inputs: data_inputs.Inputs, parts: dict) -> bool:
    """Whether :func:`fit` would only return a finished run."""
    return _reusable(_run(config, inputs, parts), config)


def in_memory(run: record.Run):
    """The network of `run`, uncompiled, if it was the last to be trained by this process, else
    None; for measurements, where making a large network anew would take longer than they do.
    """
    import keras

    if _LAST.get("run") != run.folder:
        return None
    model = _LAST["model"]
    return keras.Model(model.inputs, model.outputs, name=model.name)


def run_key(config: TrainConfig, inputs: data_inputs.Inputs, parts: dict) -> dict:
    """What config.json records and the run is keyed by: settings, data facts and the exact images
    of every part.
    """
    settings = {
        k: v
        for k, v in asdict(config).items()
        if k not in ("paper", "profile", "keep_weights", "augmenter", *LATER)
    }
    settings.update(
        {k: getattr(config, k) for k, default in LATER.items() if getattr(config, k) != default}
    )
    if config.augmentation is not None:
        settings["augmenter"] = config.augmenter
    return {**settings, "data": inputs.facts, "parts": inputs.members(parts)}


def _reusable(run: record.Run, config: TrainConfig) -> bool:
    wanted = predictions.WEIGHTS.values() if config.keep_best else [predictions.WEIGHTS["last"]]
    ready = run.finished and (
        not config.keep_weights or all((run.folder / name).exists() for name in wanted)
    )
    if (
        ready
        and files.read_json(run.folder / "environment.json", default={}).get("code")
        != record.code_digest()[:12]
    ):
        print(
            f"{run.folder.name}: finished earlier, by another state of the code; --fresh would "
            "repeat it"
        )
    return ready


def _train(run, config, build, inputs, parts, watch) -> None:
    run.open(config.seed)
    started = time.perf_counter()
    try:
        with predictions.memory(config.name, config.batch_size):
            keeper = _train_and_predict(
                run, config, build=build, inputs=inputs, parts=parts, watch=watch
            )
    except (Diverged, OutOfMemory) as error:
        run.close("failed", time.perf_counter() - started, str(error))
        raise
    run.close("finished", float(run.history()["seconds"].sum()), resumed_at=keeper.first_epoch)
    keeper.discard()


def _train_and_predict(run, config, build, inputs, parts, watch):
    import keras

    keras.backend.clear_session()
    compat.deterministic(config.seed)
    model = _compiled(config, build())
    keeper = EpochKeeper(run, config)
    _fit_epochs(model, keeper, config=config, inputs=inputs, parts=parts, watch=watch)
    predictions.write(run, model, keeper=keeper, config=config, inputs=inputs, parts=parts)
    return keeper


_LAST = {}  # the model compiled last and what it was compiled for


def _compiled(config: TrainConfig, fresh):
    """`fresh`, ready to train; where the run before had the same architecture, its model with the
    weights of `fresh`, since tracing its functions anew costs more than a short training.
    """
    import keras

    compiled_with = fresh.get_compile_config() if fresh.compiled else None
    made_for = files.digest(
        [
            config.optimizer,
            config.learning_rate,
            config.loss,
            config.graph,
            fresh.get_config(),
            compiled_with,
        ]
    )
    _LAST["run"] = None
    if _LAST.get("made_for") != made_for:
        if not fresh.compiled:
            fresh.compile(
                keras.optimizers.get(
                    {
                        "class_name": config.optimizer,
                        "config": {"learning_rate": config.learning_rate},
                    }
                ),
                config.loss,
                metrics=["accuracy"],
                jit_compile=config.graph and compat.use_xla(),
                run_eagerly=not config.graph,
            )
        fresh.optimizer.build(fresh.trainable_variables)
        _build_metrics(fresh)
        _LAST.update(
            made_for=made_for,
            model=fresh,
            optimizer=[np.array(v) for v in fresh.optimizer.variables],
        )
    model = _LAST["model"]
    if model is not fresh:
        model.set_weights(fresh.get_weights())
        for variable, value in zip(model.optimizer.variables, _LAST["optimizer"], strict=True):
            variable.assign(value)
    return model


def _build_metrics(model) -> None:
    """Make the metrics' variables now: Keras makes them while it traces the first step, which
    TensorFlow therefore traces twice.
    """
    blank = np.zeros((1, *model.output_shape[1:]), np.float32)
    model.compute_metrics(
        None, blank[:, :1] if blank.shape == (1, 2) else blank, blank
    )  # of two classes the targets are one column
    model.reset_metrics()


def _fit_epochs(model, keeper, config, inputs, parts, watch) -> None:
    keeper.restore(model)
    if keeper.first_epoch >= config.epochs:
        return
    stream = batches.epochs(
        inputs,
        parts["train"],
        batch_size=config.batch_size,
        seed=config.seed,
        first_epoch=keeper.first_epoch,
        augment=config.augmentation,
        augmenter=config.augmenter,
    )
    watched = (
        batches.in_order(inputs, parts[watch], 2 * config.batch_size) if watch in parts else None
    )
    model.fit(
        stream,
        initial_epoch=keeper.first_epoch,
        epochs=config.epochs,
        verbose=0 if compat.in_batch() else 1,
        steps_per_epoch=-(-len(parts["train"]) // config.batch_size),
        validation_data=watched,
        shuffle=False,
        callbacks=[keeper.callback()],
    )


class EpochKeeper:
    """Keeps the state after every epoch on disk and puts it back after an interruption.

    ``keras.callbacks.BackupAndRestore`` does not keep the random state of dropout layers nor the
    position in the data, so a resumed run differs from an uninterrupted one; here both follow from
    (seed, epoch). Weights, optimizer state and history go into one file, replaced atomically. The
    best epoch's weights have a file of their own, named by the epoch and written before the state
    that makes it the best, so that whatever moment a run is killed at, the file that the history
    points to is there.

    Parameters
    ----------
    run : record.Run
    config : TrainConfig
    """

    def __init__(self, run, config):
        self.file, self.run, self.config = run.folder / "state.npz", run, config
        self.first_epoch, self.rows = 0, []

    def restore(self, model) -> None:
        """Put the last finished epoch's weights, optimizer state and history back, if there
        is one.
        """
        if not self.file.exists():
            return
        try:
            with np.load(self.file) as state:
                self.rows = json.loads(str(state["history"]))
                for number, variable in enumerate(self._variables(model)):
                    variable.assign(state[f"v{number}"])
        except (OSError, ValueError, KeyError) as error:
            raise files.DamagedRecord(
                f"{self.file} cannot be read ({error}); delete it and run again."
            ) from error
        self.first_epoch = len(self.rows)
        print(
            f"{self.config.name}: goes on after epoch {self.first_epoch} of {self.config.epochs}",
            flush=True,
        )

    @staticmethod
    def _variables(model) -> list:
        return [*model.weights, *model.optimizer.variables]

    def keep(self, model, logs: dict, seconds: float) -> None:
        """Append an epoch to the history and write the state."""
        self.rows.append(
            {
                "epoch": len(self.rows) + 1,
                **{k: float(v) for k, v in logs.items()},
                "seconds": round(seconds, 3),
            }
        )
        if self.config.keep_best and self.config.best_by not in logs:
            raise BadConfig(
                f"best_by is {self.config.best_by!r}, but the history has {', '.join(logs)}."
            )
        if not np.isfinite(logs["loss"]):
            raise Diverged(
                f"{self.config.name}: the loss is {logs['loss']} in epoch {len(self.rows)}; lower "
                f"learning_rate ({self.config.learning_rate})."
            )
        if self.config.keep_best and self.best_epoch() == len(self.rows) < self.config.epochs:
            with files.atomic_write(self._best_file()) as temporary:
                np.savez(temporary, **{f"v{n}": np.asarray(v) for n, v in enumerate(model.weights)})
        if len(self.rows) < self.config.epochs:
            with files.atomic_write(self.file) as temporary:
                np.savez(
                    temporary,
                    history=json.dumps(self.rows),
                    **{f"v{n}": np.asarray(v) for n, v in enumerate(self._variables(model))},
                )
            if self.config.keep_best:
                self._remove_best(but=self._best_file())
        files.write_csv(self.run.folder / "history.csv", pd.DataFrame(self.rows))

    def best_epoch(self) -> int:
        """Number (from 1) of the best epoch so far by `best_by`, the earliest of several; NaN never
        wins.
        """
        sign = 1 if self.config.best_by.endswith("loss") else -1
        found = sign * np.array([row.get(self.config.best_by, np.nan) for row in self.rows])
        return int(np.argmin(np.where(np.isnan(found), np.inf, found))) + 1

    def restore_best(self, model) -> None:
        """Put the best epoch's weights into the model."""
        try:
            with np.load(self._best_file()) as state:
                for number, variable in enumerate(model.weights):
                    variable.assign(state[f"v{number}"])
        except (OSError, ValueError, KeyError) as error:
            raise files.DamagedRecord(
                f"{self._best_file()} cannot be read ({error}); delete the folder "
                f"{self.run.folder} and run again."
            ) from error

    def discard(self) -> None:
        """Remove what only an interrupted run needs."""
        self.file.unlink(missing_ok=True)
        self._remove_best()

    def _best_file(self):
        return self.run.folder / f"best-{self.best_epoch()}.npz"

    def _remove_best(self, but=None) -> None:
        for file in self.run.folder.glob("best-*.npz"):
            if file != but:
                file.unlink()

    def line(self) -> str:
        """The last epoch in one line, for logs."""
        last = self.rows[-1]
        numbers = "  ".join(
            f"{k} {v:.4f}" for k, v in last.items() if k not in ("epoch", "seconds")
        )
        return (
            f"{self.config.name}  epoch {last['epoch']}/{self.config.epochs}  {numbers}  "
            f"{last['seconds']:.1f} s"
        )

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


def attempted(jobs: dict) -> dict:
    """Results of `jobs` (functions without arguments) that did not diverge or run out of memory;
    the others are reported.
    """
    finished = {}
    for key, job in jobs.items():
        try:
            finished[key] = job()
        except (Diverged, OutOfMemory) as error:
            print(f"left out: {error}", flush=True)
    return finished


def cross_validate(
    config: TrainConfig, build: Callable, inputs: data_inputs.Inputs, split
) -> tuple[list, record.Run]:
    """The published protocol: one run a fold, then a final run on all development images, evaluated
    once on the test images.

    Parameters
    ----------
    config : TrainConfig
        Its name is extended by "-fold1" ... and "-final". Only the final run keeps its weights.
    build, inputs : see :func:`fit`
    split : kit.data.split.Split
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
        runs.append(
            fit(
                replace(config, name=f"{config.name}-fold{number}", keep_weights=False),
                build,
                inputs,
                parts,
            )
        )
    parts = {"train": inputs.rows(split.development), "test": inputs.rows(split.parts["test"])}
    return runs, fit(replace(config, name=f"{config.name}-final"), build, inputs, parts)
