"""Training: one configuration in, one finished run folder out; seeded, resumable, never repeated.

The publications call ``model.fit`` once, unseeded, and keep the last weights. Here each epoch's
batches, augmentation and dropout masks depend on (seed, epoch) alone and the state after every
epoch is on disk, so that a killed run goes on and ends bit-identical to one that was left alone.
The last weights are reported as published; on request those of the best validation epoch stand
beside them, since one bad last epoch can hide what a model has learnt (the CAD framework's run
without augmentation falls from 97 % to 45 % and ends at 91 %).
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kit import compat, files, paths, record, rehearsal
from kit.data import batches
from kit.data import inputs as data_inputs
from kit.data.augment import affine
from kit.data.split import Split
from kit.training import predictions, rehearsed
from kit.training.config import LATER, BadConfig, Diverged, TrainConfig
from kit.training.epochs import EpochKeeper

# what one does with a finished run
from kit.training.predictions import OutOfMemory, best_predictions, predict  # noqa: F401

if TYPE_CHECKING:
    import keras


def fit(
    config: TrainConfig,
    build: Callable,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
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
    parts : mapping
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
    if rehearsal.active():
        config, parts = rehearsed.shortened(config, inputs, parts)
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


def _run(
    config: TrainConfig, inputs: data_inputs.Inputs, parts: data_inputs.PartRows
) -> record.Run:
    return record.Run(
        paths.results_dir() / config.profile / config.paper / "runs",
        config.name,
        run_key(config, inputs, parts),
    )


def is_finished(
    config: TrainConfig, inputs: data_inputs.Inputs, parts: data_inputs.PartRows
) -> bool:
    """Whether :func:`fit` would only return a finished run."""
    if rehearsal.active():
        config, parts = rehearsed.shortened(config, inputs, parts)
    return _reusable(_run(config, inputs, parts), config)


def in_memory(run: record.Run) -> "keras.Model | None":
    """The network of `run`, uncompiled, if it was the last to be trained by this process, else
    None; for measurements, where making a large network anew would take longer than they do.
    """
    import keras

    if _LAST.get("run") != run.folder:
        return None
    model = _LAST["model"]
    return keras.Model(model.inputs, model.outputs, name=model.name)


def run_key(config: TrainConfig, inputs: data_inputs.Inputs, parts: data_inputs.PartRows) -> dict:
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
    if config.recalibrate_batchnorm:  # runs from when plain images were used keep theirs
        settings["recalibrate_batchnorm"] = "by the training pipeline"
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
    fresh = build()
    timer = rehearsed.Watch(run, config, fresh, parts) if rehearsal.active() else None
    if timer:
        config, parts = timer.config, timer.parts
    model = _compiled(config, fresh)
    keeper = EpochKeeper(run, config)
    _fit_epochs(
        model,
        keeper,
        config=config,
        inputs=inputs,
        parts=parts,
        watch=watch,
        callbacks=[timer.callback()] if timer else [],
    )
    predictions.write(run, model, keeper=keeper, config=config, inputs=inputs, parts=parts)
    if timer:
        timer.write_down()
    return keeper


_LAST: dict[str, Any] = {}  # the model compiled last and what it was compiled for


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


def _fit_epochs(model, keeper, *, config, inputs, parts, watch, callbacks) -> None:
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
        callbacks=[keeper.callback(), *callbacks],
    )


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
    config: TrainConfig, build: Callable, inputs: data_inputs.Inputs, split: Split
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
