"""Random search for the cost of an architecture search: the baseline that a search must beat before
its cells mean anything.

None of the publications compares with it. Cells are drawn uniformly, each is trained briefly as a
derived network on the first half of the training images by the recipe of the evaluation phase, and
the one with the best accuracy on the second half is kept. The budget is that of a search, counted
in multiply-accumulates: images that pass forward and backward, times the network's
multiply-accumulates, times three. A search pays for several passes of the supernet a step, a
candidate for one of a small network, so that a search buys many candidates. Statistics of BatchNorm
are computed anew before a candidate is judged, since moving ones lag behind after a short training.
"""

import time
from dataclasses import asdict, dataclass, field, fields

import numpy as np
import pandas as pd

from kit import files, paths, record
from kit.data import inputs as data_inputs
from kit.data import registry
from kit.search.nas2d import derived, genotype, retrain, supernet
from kit.search.nas2d.search import CELLS
from kit.search.nas2d.search_config import BadSearch, SearchConfig
from kit.training.train import Diverged, OutOfMemory

# forward and backward passes of the supernet in a step of first and of second order
PASSES = {1: 2, 2: 5}
LEASE_PASSES = 10.3  # in a step of LeaSE, the audience's own not counted
TYPICAL = {
    5: (1, 3, 4, 5, 6),
    3: (3, 4, 6),
}  # surviving operations that P-DARTS' later stages are counted with


@dataclass(frozen=True)
class RandomSearch:
    """What is drawn and how it is judged.

    Attributes
    ----------
    paper, profile, name : str
        Run folder ``results/<profile>/<paper>/runs/<name>-<key>``.
    budget : float
        Multiply-accumulates that all candidates together may cost; see :func:`search_cost`. At
        least one candidate is trained.
    most : int
        Most candidates.
    channels, cells : int
        Of the derived networks; the default is the width and depth of the supernet.
    recipe : dict
        Settings of :class:`kit.search.nas2d.retrain.Recipe` that differ from its defaults;
        ``epochs`` is 5 unless given, the auxiliary head is left out.
    augmentation : dict or None
        AutoAugment's settings, as in a search.
    seed : int

    Raises
    ------
    BadSearch, kit.search.nas2d.retrain.BadRecipe
    """

    paper: str = "lease"
    profile: str = "quick"
    name: str = "random"
    budget: float = 0.0
    most: int = 100
    channels: int = 16
    cells: int = 8
    recipe: dict = field(default_factory=dict)
    augmentation: dict | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.most < 1 or self.budget < 0:
            raise BadSearch(
                f"most is {self.most} and budget {self.budget}; give at least 1 candidate and no "
                "negative budget."
            )
        settings = {
            "epochs": 5,
            "batch_size": 64,
            "auxiliary": 0.0,
            "drop_path": 0.0,
            **self.recipe,
        }
        object.__setattr__(self, "recipe", asdict(retrain.Recipe(**settings)))

    def __str__(self) -> str:
        width = max(len(f.name) for f in fields(self))
        return "\n".join(f"{f.name:<{width}}  {getattr(self, f.name)}" for f in fields(self))


def search_cost(config: SearchConfig, inputs: data_inputs.Inputs, rows_a: np.ndarray) -> float:
    """Multiply-accumulates of a whole search, forward and backward: what `RandomSearch.budget` is
    meant to be.

    Later stages of P-DARTS are counted with typical surviving operations; measurements and the
    audience's own passes are left out.
    """
    classes, size, channels = (
        len(registry.get(inputs.name).classes),
        inputs.x.shape[1],
        inputs.x.shape[3],
    )
    images = min(len(rows_a), config.steps * config.batch_size or len(rows_a))
    searching = PASSES[config.order] if config.lease is None else LEASE_PASSES + 1
    passes = config.warm_up + (config.epochs - config.warm_up) * searching
    total = 0
    for stage in range(config.stages):
        kept = (
            TYPICAL.get(config.keep[stage - 1], tuple(range(config.keep[stage - 1])))
            if stage
            else None
        )
        total += supernet.macs(
            config.space(stage, classes, channels, kept and ((kept,) * 14,) * 2), size
        )
    return 3.0 * images * passes * total


def candidate_cost(
    config: RandomSearch, cells: genotype.Genotype, inputs: data_inputs.Inputs, rows_a: np.ndarray
) -> float:
    """Multiply-accumulates of a candidate's training, forward and backward."""
    classes = len(registry.get(inputs.name).classes)
    once = derived.macs(
        cells,
        inputs.x.shape[1],
        channels=config.channels,
        cells=config.cells,
        classes=classes,
        input_channels=inputs.x.shape[3],
    )
    return 3.0 * len(rows_a) * config.recipe["epochs"] * once


def candidates(
    config: RandomSearch, inputs: data_inputs.Inputs, rows_a: np.ndarray
) -> list[genotype.Genotype]:
    """The cells that are tried: drawn one after the other until the budget or the number is used
    up.
    """
    drawn, spent = [], 0.0
    while len(drawn) < config.most:
        words = np.random.SeedSequence([config.seed, len(drawn), 0x4A2D]).generate_state(1)
        cells = genotype.random_genotype(int(words[0]))
        spent += candidate_cost(config, cells, inputs, rows_a)
        if drawn and spent > config.budget:
            break
        drawn.append(cells)
    return drawn


def search(
    config: RandomSearch, inputs: data_inputs.Inputs, rows_a: np.ndarray, rows_b: np.ndarray
) -> record.Run:
    """Train all candidates, or return the finished run; a killed one goes on with the candidate
    that it was at.

    Parameters
    ----------
    config : RandomSearch
    inputs : kit.data.inputs.Inputs
    rows_a, rows_b : array-like of int
        Rows that train and that judge; see :func:`kit.search.nas2d.search.halves`.

    Returns
    -------
    kit.record.Run
        With candidates.csv (one row a candidate) and genotype.json (the best: highest accuracy,
        then lowest loss). The candidates have run folders of their own,
        ``<name>-candidate<n>-<key>``.

    Raises
    ------
    kit.data.inputs.BadSplit, kit.files.FolderBusy
    kit.training.train.Diverged
        If no candidate could be trained.
    """
    rows_a, rows_b = np.asarray(rows_a), np.asarray(rows_b)
    data_inputs.check_parts(inputs, {"training half a": rows_a, "training half b": rows_b})
    key = {k: v for k, v in asdict(config).items() if k not in ("paper", "profile")}
    members = inputs.members({"a": np.sort(rows_a), "b": np.sort(rows_b)})
    run = record.Run(
        paths.results_dir() / config.profile / config.paper / "runs",
        config.name,
        {"task": "random search", **key, "data": inputs.facts, "parts": members},
    )
    if not run.finished:
        with files.FolderLock(run.folder, wait=20):
            if not run.finished:
                _search(run, config, inputs, rows_a, rows_b)
    return run


def _search(run, config, inputs, rows_a, rows_b) -> None:
    run.open(config.seed)
    started, rows = time.perf_counter(), []
    for number, cells in enumerate(candidates(config, inputs, rows_a)):
        judged = _judge(config, number, cells, inputs, rows_a=rows_a, rows_b=rows_b)
        rows.append({"candidate": number, **judged})
        files.write_csv(run.folder / "candidates.csv", pd.DataFrame(rows))
    table = (
        pd.DataFrame(rows)
        .dropna(subset=["accuracy"])
        .sort_values(["accuracy", "loss"], ascending=[False, True], kind="stable")
    )
    if table.empty:
        reason = (
            f"{config.name}: none of the {len(rows)} candidates could be trained; lower the "
            "recipe's learning_rate or batch_size."
        )
        run.close("failed", time.perf_counter() - started, reason)
        raise Diverged(reason)
    best = table.iloc[0]
    genotype.to_json(
        candidates(config, inputs, rows_a)[int(best["candidate"])],
        run.folder / CELLS,
        family="random",
        name=config.name,
        seed=config.seed,
        candidate=int(best["candidate"]),
        candidates=len(rows),
    )
    run.close("finished", float(pd.DataFrame(rows)["seconds"].sum()), candidates=len(rows))


def _judge(config, number, cells, inputs, rows_a, rows_b) -> dict:
    """Train one candidate; its row of candidates.csv, without accuracy if it cannot be trained."""
    shape = {"channels": config.channels, "cells": config.cells}
    classes = len(registry.get(inputs.name).classes)
    row = {
        "parameters": derived.parameters(
            cells, config.channels, config.cells, classes, input_channels=inputs.x.shape[3]
        ),
        "macs": candidate_cost(config, cells, inputs, rows_a),
        "normal": _compact(cells.normal),
        "reduce": _compact(cells.reduce),
    }
    augmenting = (
        {}
        if config.augmentation is None
        else {"augmentation": config.augmentation, "augmenter": "autoaugment"}
    )
    try:
        trained = retrain.fit_cells(
            cells,
            retrain.Recipe(**config.recipe),
            inputs,
            {"train": rows_a, "validation": rows_b},
            **shape,
            name=f"{config.name}-candidate{number}",
            profile=config.profile,
            paper=config.paper,
            seed=config.seed,
            watch="nothing",
            keep_weights=False,
            recalibrate_batchnorm=True,
            **augmenting,
        )
    except (Diverged, OutOfMemory) as error:
        print(f"left out: {error}", flush=True)
        return {**row, "accuracy": np.nan, "loss": np.nan, "seconds": 0.0, "run": ""}
    table = trained.predictions()
    scores = table.filter(like="score_").to_numpy()
    right = scores[np.arange(len(table)), table["label"]]
    accuracy, loss = (
        float(np.mean(scores.argmax(1) == table["label"])),
        float(-np.log(np.maximum(right, 1e-12)).mean()),
    )
    return {
        **row,
        "accuracy": accuracy,
        "loss": loss,
        "seconds": float(trained.history()["seconds"].sum()),
        "run": trained.folder.name,
    }


def _compact(pairs) -> str:
    return " ".join(
        f"{genotype.SHORT[genotype.PRIMITIVES.index(operation)]}:{source}"
        for operation, source in pairs
    )


def table(run: record.Run) -> pd.DataFrame:
    """candidates.csv of a run, finished or not."""
    return pd.read_csv(
        run.folder / "candidates.csv", dtype={"normal": str, "reduce": str, "run": str}
    )
