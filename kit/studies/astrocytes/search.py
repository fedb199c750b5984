"""Experiment 2 of the astrocyte chapter: the factors Str and Weak of each epoch by a greedy search,
and its control without astrocytes.

In each epoch nine networks continue from the same parameters with the nine points of a 3 x 3 grid
around the last factors; the best on the validation images gives the parameters and the factors of
the next epoch. The control trains nine networks an epoch that differ by their seed alone, because
the best of nine is better than one by luck. The thesis' text says "one at a time", its tables show
all nine points. As in the released code the optimizer starts anew each epoch and the cosine goes
on. Stated here because the thesis does not: the nine have seeds of their own, the same nine for
both searches; ties go to the point nearest the last one, then to the smaller Str; one that diverges
is left out. Every candidate is judged with moving and with recalibrated statistics of
BatchNormalization; which of them decides is a setting, because moving statistics are those of other
kernels where the last step of the epoch scaled them.
"""

import itertools
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit import files, paths, record
from kit.data.inputs import Inputs
from kit.errors import KitError
from kit.studies.astrocytes import runs
from kit.studies.astrocytes.plan import PAPER, Case, Plan
from kit.training import short, short_network
from kit.training.short_runs import STATISTICS
from kit.training.train import Diverged

START = (1.0, 1.0)


class SearchFailed(KitError):
    """All candidates of an epoch diverged."""


def candidates(centre: tuple, step: float) -> list[tuple]:
    """The nine points around a centre, nearest first, then by Str and Weak: the order in which ties
    are decided.
    """
    moves = sorted(
        itertools.product((-1, 0, 1), repeat=2),
        key=lambda move: (abs(move[0]) + abs(move[1]), move),
    )
    return [
        tuple(round(c + step * m, 10) for c, m in zip(centre, move, strict=True)) for move in moves
    ]


def search(plan: Plan, case: Case, loaded: dict, astrocytes: bool = True) -> record.Run:
    """The greedy search of a row, or its control; a finished one is returned, an interrupted one
    goes on with its next epoch.

    Parameters
    ----------
    plan : kit.studies.astrocytes.plan.Plan
    case : kit.studies.astrocytes.plan.Case
    loaded : dict
        From :func:`kit.studies.astrocytes.runs.inputs_and_parts`.
    astrocytes : bool
        False for the control.

    Returns
    -------
    kit.record.Run
        history.csv has a row a candidate (epoch, candidate, strong, weak, loss, val_accuracy,
        val_accuracy_recalibrated, chosen); predictions.csv (column `statistics`) is of the best
        parameters over all epochs by validation accuracy, metrics.json has their rates and the
        epoch.

    Raises
    ------
    SearchFailed
    """
    inputs, rows = loaded[case.data]
    net = runs.network(plan, case, "algorithm" if astrocytes else "off")
    asked = _Asked(plan, case, net, astrocytes, inputs=inputs, rows=rows)
    run = _run(asked)
    return run.once(plan.seed, lambda: _search(run, asked))


@dataclass(frozen=True)
class _Asked:
    """One search: what it depends on."""

    plan: Plan
    case: Case
    network: short.Network
    astrocytes: bool
    inputs: Inputs
    rows: dict


def _run(asked: _Asked) -> record.Run:
    plan, case, inputs, rows = asked.plan, asked.case, asked.inputs, asked.rows
    settings = {
        "network": asdict(asked.network),
        "values": runs.values(plan),
        "epochs": plan.exp2_epochs,
        "step": plan.exp2_step if asked.astrocytes else None,
        "size": plan.image_size,
        "batch_size": plan.batch_size,
        "decay_mode": plan.decay_mode,
        "cosine_floor": plan.cosine_floor,
        "judged_by": plan.judged_by,
        "seed": plan.seed,
        "data": inputs.facts,
        "parts": inputs.members(rows),
    }
    kind = "astrocytes" if asked.astrocytes else "control"
    name = f"exp2-{kind}-{case.data}-{case.architecture}".replace(".", "-")
    return record.Run(paths.results_dir() / plan.profile / PAPER / "runs", name, settings)


def _search(run: record.Run, asked: _Asked) -> None:
    plan = asked.plan
    doer, file = short.trainer(asked.network), run.folder / "state.npz"
    state = _read(file) or {
        "epoch": 0,
        "centre": START,
        "lines": [],
        "best": -1.0,
        "best_epoch": 0,
        "current": doer.initial,
        "weights": doer.initial,
    }
    while state["epoch"] < plan.exp2_epochs:
        state = _epoch(state, doer, asked)
        _write(file, state)
    files.write_csv(run.folder / "history.csv", pd.DataFrame(state["lines"]))
    tables = {
        (kind, part): table
        for part in ("val", "test")
        for kind, table in _judged(doer, asked, part, state["weights"], plan.seed, "best").items()
    }
    files.write_csv(
        run.folder / "predictions.csv",
        pd.concat(
            [table.assign(statistics=kind) for (kind, _), table in tables.items()],
            ignore_index=True,
        ),
    )
    files.write_json(
        run.folder / "metrics.json",
        {
            **{
                part + f"-{kind}" * (kind != STATISTICS[0]): short_network.rates(table)
                for (kind, part), table in tables.items()
            },
            "best_epoch": state["best_epoch"],
        },
    )
    file.unlink(missing_ok=True)


def _epoch(state: dict, doer: short.Trainer, asked: _Asked) -> dict:
    """Train the nine candidates of the next epoch and go on with the best."""
    epoch, lines, found = state["epoch"], [], {}
    points = candidates(state["centre"], asked.plan.exp2_step) if asked.astrocytes else [START] * 9
    for number, point in enumerate(points):
        found_by, loss, weights = _candidate(state, doer, asked, point, number)
        accuracy = found_by[asked.plan.judged_by]
        lines.append(
            {
                "epoch": epoch + 1,
                "candidate": number,
                "strong": point[0],
                "weak": point[1],
                "loss": loss,
                "val_accuracy": found_by[STATISTICS[0]],
                "val_accuracy_recalibrated": found_by[STATISTICS[1]],
                "chosen": 0,
            }
        )
        if weights is not None and (not found or accuracy > found["accuracy"]):
            found = {"accuracy": accuracy, "number": number, "weights": weights}
    if not found:
        raise SearchFailed(
            f"All nine trainings of epoch {epoch + 1} diverged; lower learning_rate or exp2_step."
        )
    lines[found["number"]]["chosen"] = 1
    best = (
        {"best": found["accuracy"], "best_epoch": epoch + 1, "weights": found["weights"]}
        if found["accuracy"] > state["best"]
        else {}
    )
    return {
        **state,
        "epoch": epoch + 1,
        "centre": points[found["number"]],
        "lines": state["lines"] + lines,
        "current": found["weights"],
        **best,
    }


def _candidate(state: dict, doer: short.Trainer, asked: _Asked, point: tuple, number: int) -> tuple:
    """Validation accuracy by kind of statistics, loss and weights of a candidate; NaN and None if
    it diverged.
    """
    plan, inputs, rows = asked.plan, asked.inputs, asked.rows
    try:
        trained = doer.train(
            runs.values(plan),
            inputs,
            rows["train"],
            epochs=1,
            size=plan.image_size,
            batch_size=plan.batch_size,
            seed=plan.seed + number,
            first_epoch=state["epoch"],
            of_epochs=plan.exp2_epochs,
            decay_mode=plan.decay_mode,
            cosine_floor=plan.cosine_floor,
            weights=state["current"],
            factors=[point] if asked.astrocytes else None,
        )
        tables = _judged(
            doer, asked, "val", trained.weights, plan.seed + number, state["epoch"] + 1
        )
    except Diverged:
        return dict.fromkeys(STATISTICS, math.nan), math.nan, None
    accuracies = {kind: short_network.rates(table)["accuracy"] for kind, table in tables.items()}
    return accuracies, trained.history[0]["loss"], trained.weights


def _judged(doer, asked: _Asked, part: str, weights: list, seed: int, epoch) -> dict:
    """Kind of statistics -> predictions of a part; those that are recalibrated see the images as
    training would in the given epoch (from 0; "best": after all).
    """
    plan, inputs, rows = asked.plan, asked.inputs, asked.rows
    place, size = np.sort(rows[part]), plan.image_size
    fresh = doer.recalibrate(
        inputs,
        rows["train"],
        size,
        batch_size=plan.batch_size,
        seed=seed,
        epoch=plan.exp2_epochs if epoch == "best" else epoch,
        weights=weights,
    )
    return {
        kind: doer.predict(inputs, place, size, part, weights=used)
        for kind, used in zip(STATISTICS, (weights, fresh), strict=True)
    }


def _write(file: Path, state: dict) -> None:
    plain = {key: value for key, value in state.items() if key not in ("current", "weights")}
    arrays = {
        f"{name}-{i}": array
        for name in ("current", "weights")
        for i, array in enumerate(state[name])
    }
    with files.atomic_write(file) as temporary:
        np.savez(temporary, state=json.dumps(plain), **arrays)


def _read(file: Path) -> dict | None:
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as stored:
        state = json.loads(str(stored["state"]))
        count = (len(stored.files) - 1) // 2
        return {
            **state,
            "centre": tuple(state["centre"]),
            **{
                name: [stored[f"{name}-{i}"] for i in range(count)]
                for name in ("current", "weights")
            },
        }


def chosen(run: record.Run) -> list[tuple]:
    """(Str, Weak) of each epoch that a search found: our rows of Tables 4.3 to 4.6."""
    history = run.history()
    return [
        tuple(pair)
        for pair in history[history["chosen"] == 1]
        .sort_values("epoch")[["strong", "weak"]]
        .to_numpy()
        .tolist()
    ]


def luck(searches: dict, column: str = "val_accuracy") -> pd.DataFrame:
    """What the best of nine is worth: mean over the epochs of the chosen candidate's validation
    accuracy less the mean of all candidates.

    Parameters
    ----------
    searches : dict
        Name -> run of :func:`search`.
    column : str
        Of the history: the accuracy by which the search chose.

    Returns
    -------
    pandas.DataFrame
        run, epochs, best of nine, mean of nine, gain, spread (standard deviation among the nine);
        percent and percentage points. Diverged candidates are left out.
    """
    lines = []
    for name, run in searches.items():
        table = run.history().assign(percent=lambda t: 100 * t[column])
        mean, spread = (
            getattr(table.groupby("epoch")["percent"], what)() for what in ("mean", "std")
        )
        best = table[table["chosen"] == 1].set_index("epoch")["percent"]
        lines.append(
            {
                "run": name,
                "epochs": len(best),
                "best of nine": best.mean(),
                "mean of nine": mean.mean(),
                "gain (pp)": (best - mean).mean(),
                "sd of nine (pp)": spread.mean(),
            }
        )
    return pd.DataFrame(lines)
