"""Short trainings with a folder of their own: the same run folders as `kit.training.train.fit`
leaves, made by `kit.training.short`.

A run is keyed by all its settings, the data and the exact images of every part. One that was
interrupted begins again, since it is short.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from kit import files, paths, record
from kit.data.inputs import Inputs, check_parts
from kit.training.short import Network, rates, trainer


@dataclass(frozen=True)
class Config:
    """One short training with a folder of its own under ``results/<profile>/<paper>/runs``;
    settings as of :meth:`kit.training.short.Trainer.train`.

    Attributes
    ----------
    watch : tuple of str
        Parts that are evaluated after each epoch: columns <part>_accuracy, <part>_f1 and <part>_mcc
        of history.csv.
    features : str
        Part whose pooled features of each epoch are kept (features.npz, arrays "1", "2", ...);
        empty for none.
    keep_weights : bool
        weights.npz, arrays in the order of ``get_weights()``.
    """

    paper: str
    profile: str
    name: str
    network: Network
    values: dict
    epochs: int
    size: int
    resized: int | None = None
    batch_size: int = 32
    seed: int = 0
    cosine: bool = False
    decay_mode: str = "l2_all"
    factors: tuple | None = None
    watch: tuple = ("val",)
    features: str = ""
    keep_weights: bool = False


def run_of(config: Config, inputs: Inputs, parts: dict) -> record.Run:
    """The run folder of a training, whether it exists or not."""
    settings = {
        name: value for name, value in asdict(config).items() if name not in ("paper", "profile")
    }
    return record.Run(
        paths.results_dir() / config.profile / config.paper / "runs",
        config.name,
        {**settings, "data": inputs.facts, "parts": inputs.members(parts)},
    )


def fit(config: Config, inputs: Inputs, parts: dict) -> record.Run:
    """Train, or return the finished run of the same settings and images.

    Parameters
    ----------
    config : Config
    inputs : kit.data.inputs.Inputs
    parts : dict
        Row numbers by part; "train" is trained on, the others are predicted at the end.

    Returns
    -------
    kit.record.Run
        With history.csv, predictions.csv, metrics.json (rates by part, and the astrocytes' tally)
        and what else was asked for.

    Raises
    ------
    See :meth:`kit.training.short.Trainer.train`; the run folder then says why, and other runs are
    left as they are.
    """
    run = run_of(config, inputs, parts)
    if not run.finished:
        check_parts(inputs, parts)
    return run.once(config.seed, lambda: float(_fit(run, config, inputs, parts)["seconds"].sum()))


def _fit(run, config: Config, inputs, parts) -> pd.DataFrame:
    doer, pooled, latest = trainer(config.network), {}, {}
    place = {part: np.sort(parts[part]) for part in parts if part != "train"}

    def watch(epoch):
        if config.features:
            pooled[str(epoch)] = doer.features(inputs, place[config.features], config.size)
        found = {}
        for part in config.watch:
            latest[part] = doer.predict(inputs, place[part], config.size, part)
            measured = rates(latest[part])
            found |= {
                f"{part}_accuracy": measured["accuracy"],
                f"{part}_f1": measured["f1_of_macros"],
                f"{part}_mcc": measured["mcc"],
            }
        return found

    trained = doer.train(
        config.values,
        inputs,
        parts["train"],
        epochs=config.epochs,
        size=config.size,
        resized=config.resized,
        batch_size=config.batch_size,
        seed=config.seed,
        of_epochs=config.epochs if config.cosine else None,
        decay_mode=config.decay_mode,
        factors=config.factors,
        watch=watch,
    )
    history = pd.DataFrame(trained.history)
    files.write_csv(run.folder / "history.csv", history)
    tables = [
        latest[part] if part in latest else doer.predict(inputs, rows, config.size, part)
        for part, rows in place.items()
    ]
    files.write_csv(run.folder / "predictions.csv", pd.concat(tables, ignore_index=True))
    for name, arrays in (
        ("features", pooled),
        (
            "weights",
            {str(i): w for i, w in enumerate(trained.weights)} if config.keep_weights else {},
        ),
    ):
        if arrays:
            with files.atomic_write(run.folder / f"{name}.npz") as temporary:
                np.savez(temporary, **arrays)
    astrocytes = {"tally": trained.tally, "zeroed": trained.zeroed} if trained.tally else {}
    files.write_json(
        run.folder / "metrics.json",
        {**{part: rates(table) for part, table in zip(place, tables, strict=True)}, **astrocytes},
    )
    return history
