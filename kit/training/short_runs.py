"""Short trainings with a folder of their own: the same run folders as `kit.training.train.fit`
leaves, made by `kit.training.short`.

A run is keyed by all its settings, the data and the exact images of every part. One that was
interrupted begins again, since it is short.

Where statistics are `recalibrated`, every evaluation is made twice: with the moving statistics of
BatchNormalization as training left them, and with statistics that the training pipeline measures
anew (:meth:`kit.training.short.Trainer.recalibrate`). Training itself is not touched by it.
"""

import contextlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from kit import files, paths, record
from kit.data.inputs import Inputs, PartRows, check_parts
from kit.training.short import Network, trainer
from kit.training.short_network import BadShortTraining, Values, rates

STATISTICS = ("moving", "recalibrated")


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
    keep : {"last", "best"}
        Weights that are predicted with: of the last epoch, or of the one with the highest MCC on
        the part "val", the earliest of several.
    recalibrated : bool
        Evaluate with recalibrated statistics too: further columns <part>_accuracy_recalibrated and
        so on, arrays "1-recalibrated" and so on, a column `statistics` of predictions.csv (one of
        `STATISTICS`), and entries <part>-recalibrated of metrics.json.
    """

    paper: str
    profile: str
    name: str
    network: Network
    values: Values
    epochs: int
    size: int
    resized: int | None = None
    batch_size: int = 32
    seed: int = 0
    cosine: bool = False
    cosine_floor: float = 0.1
    decay_mode: str = "l2_all"
    factors: tuple | None = None
    watch: tuple = ("val",)
    features: str = ""
    keep_weights: bool = False
    keep: str = "last"
    recalibrated: bool = False

    def __post_init__(self) -> None:
        if self.keep not in ("last", "best") or (self.keep == "best" and "val" not in self.watch):
            raise BadShortTraining(
                f"keep is {self.keep!r}; choose last, or best with the part val among those "
                "watched."
            )


def run_of(config: Config, inputs: Inputs, parts: PartRows) -> record.Run:
    """The run folder of a training, whether it exists or not."""
    settings = {
        name: value for name, value in asdict(config).items() if name not in ("paper", "profile")
    }
    return record.Run(
        paths.results_dir() / config.profile / config.paper / "runs",
        config.name,
        {**settings, "data": inputs.facts, "parts": inputs.members(parts)},
    )


def fit(config: Config, inputs: Inputs, parts: PartRows) -> record.Run:
    """Train, or return the finished run of the same settings and images.

    Parameters
    ----------
    config : Config
    inputs : kit.data.inputs.Inputs
    parts : mapping
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


def statistics_of(config: Config) -> tuple:
    """Of `STATISTICS`, those that a training is evaluated with."""
    return STATISTICS if config.recalibrated else STATISTICS[:1]


def predictions(run: record.Run, part: str, statistics: str = "moving") -> pd.DataFrame:
    """Predictions of a part with one kind of BatchNormalization statistics; columns as
    ``run.predictions()``. Empty where that kind was not asked for.
    """
    table = run.predictions(part)
    if "statistics" not in table:
        return table if statistics == STATISTICS[0] else table.iloc[:0]
    chosen = table[table["statistics"] == statistics]
    return chosen.drop(columns="statistics").reset_index(drop=True)


class _Judge:
    """Evaluates a network in the course of its training, for each kind of statistics.

    Attributes
    ----------
    tables : dict
        (kind of statistics, part) -> predictions of the last call.
    pooled : dict
        Name of the array -> features.
    """

    def __init__(self, config: Config, inputs: Inputs, parts: PartRows) -> None:
        self.config, self.inputs, self.parts = config, inputs, parts
        self.doer = trainer(config.network)
        self.place = {part: np.sort(rows) for part, rows in parts.items() if part != "train"}
        self.tables: dict[tuple[str, str], pd.DataFrame] = {}
        self.pooled: dict[str, Any] = {}
        self.best: tuple[float, list, int] | None = None

    def with_statistics(self, kind: str, epoch: int):
        """Context in which the network has one kind of statistics."""
        if kind == STATISTICS[0]:
            return contextlib.nullcontext()
        given = self.config
        return self.doer.recalibrated(
            self.inputs,
            self.parts["train"],
            given.size,
            batch_size=given.batch_size,
            seed=given.seed,
            epoch=epoch,
            resized=given.resized,
        )

    def after_epoch(self, epoch: int) -> dict:
        """What history.csv says of an epoch; remembers the best one if that is to be kept."""
        found = self.judge(epoch, self.config.watch, self.config.features)
        if self.config.keep == "best" and (self.best is None or found["val_mcc"] > self.best[0]):
            self.best = (found["val_mcc"], self.doer.model.get_weights(), epoch)
        return found

    def judge(self, epoch: int, watched: tuple, features: str = "") -> dict:
        """Predict parts after an epoch (from 1); returns what history.csv says of them."""
        found: dict[str, float] = {}
        for kind in statistics_of(self.config):
            end = "" if kind == STATISTICS[0] else f"_{kind}"
            with self.with_statistics(kind, epoch):
                if features:
                    self.pooled[f"{epoch}{end.replace('_', '-')}"] = self.doer.features(
                        self.inputs, self.place[features], self.config.size
                    )
                for part in watched:
                    table = self.doer.predict(self.inputs, self.place[part], self.config.size, part)
                    self.tables[kind, part], measured = table, rates(table)
                    found |= {
                        f"{part}_accuracy{end}": measured["accuracy"],
                        f"{part}_f1{end}": measured["f1_of_macros"],
                        f"{part}_mcc{end}": measured["mcc"],
                    }
        return found


def _fit(run, config: Config, inputs, parts) -> pd.DataFrame:
    judge = _Judge(config, inputs, parts)
    trained = judge.doer.train(
        config.values,
        inputs,
        parts["train"],
        epochs=config.epochs,
        size=config.size,
        resized=config.resized,
        batch_size=config.batch_size,
        seed=config.seed,
        of_epochs=config.epochs if config.cosine else None,
        cosine_floor=config.cosine_floor,
        decay_mode=config.decay_mode,
        factors=config.factors,
        watch=judge.after_epoch,
    )
    weights, epoch = (trained.weights, config.epochs) if judge.best is None else judge.best[1:]
    judge.doer.load(weights)
    known = () if config.keep == "best" else config.watch
    judge.judge(epoch, tuple(part for part in judge.place if part not in known))
    history = pd.DataFrame(trained.history)
    files.write_csv(run.folder / "history.csv", history)
    files.write_csv(run.folder / "predictions.csv", _all_tables(config, judge))
    for name, arrays in (
        ("features", judge.pooled),
        (
            "weights",
            {str(i): w for i, w in enumerate(weights)} if config.keep_weights else {},
        ),
    ):
        if arrays:
            with files.atomic_write(run.folder / f"{name}.npz") as temporary:
                np.savez(temporary, **arrays)
    astrocytes = {"tally": trained.tally, "zeroed": trained.zeroed} if trained.tally else {}
    measured = {
        part + (f"-{kind}" if kind != STATISTICS[0] else ""): rates(judge.tables[kind, part])
        for kind in statistics_of(config)
        for part in judge.place
    }
    files.write_json(run.folder / "metrics.json", {**measured, **astrocytes})
    return history


def _all_tables(config: Config, judge: _Judge) -> pd.DataFrame:
    tables = [
        judge.tables[kind, part].assign(**{"statistics": kind} if config.recalibrated else {})
        for kind in statistics_of(config)
        for part in judge.place
    ]
    return pd.concat(tables, ignore_index=True)
