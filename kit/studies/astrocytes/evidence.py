"""Whether astrocytes do anything beyond seed noise: differences of twins, what the grid explains,
what the astrocytes did, and what the printed tables say.

The thesis reports single differences and means of three without spread, and reads the best of 25
cells as an effect, and evaluates by moving statistics, which are those of other kernels where the
last step of an epoch scaled them. Here everything stands twice, by moving and by recalibrated
statistics; networks with astrocytes are paired with networks without them by seed, the
interval is over seeds, and the sentences in which the notebook answers are made from the numbers.
"""

import itertools
import math

import numpy as np
import pandas as pd
from scipy import stats as sps

from kit.evaluation import stats
from kit.models.astrocyte_readings import SOURCES, decisions_at_epoch_ends
from kit.published import papers
from kit.studies import shared
from kit.studies.astrocytes import plan as astrocytes_plan
from kit.training.short_network import batches_of
from kit.training.short_runs import STATISTICS

ANSWERS = (
    "better, beyond seed noise",
    "worse, beyond seed noise",
    "within seed noise",
    "too few seeds: no answer",
)
# seeds for an answer: two can agree to the image by luck, and their interval then has no width
LEAST = 3


def difference_table(scores: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Each arm of Experiment 3 less the networks without astrocytes, paired by seed; rows that
    share all their trainings are listed once.

    Parameters
    ----------
    scores : pandas.DataFrame
        From :func:`kit.studies.astrocytes.tables.score_table`.
    metric : {"accuracy", "f1", "mcc"}

    Returns
    -------
    pandas.DataFrame
        row, statistics, arm, seeds, difference (pp), its 95 % t interval (low, high; NaN
        with fewer than three or with equal differences), sd of a seed without astrocytes (pp),
        answer.
    """
    lines, seen = [], set()
    for (row, kind), part in scores.groupby(["row", "statistics"], sort=False):
        off = part[part["arm"] == "off"].set_index("seed")[metric]
        for arm in (a for a in part["arm"].unique() if a != "off"):
            pairs = pd.concat(
                [off, part[part["arm"] == arm].set_index("seed")[metric]],
                axis=1,
                keys=["off", "arm"],
            ).dropna()
            runs = (kind, *sorted(set(part["run"][part["arm"].isin(["off", arm])])))
            if len(pairs) and runs not in seen:
                seen.add(runs)
                lines.append(
                    {
                        "row": row,
                        "statistics": kind,
                        "arm": arm,
                        "seeds": len(pairs),
                        **_difference(100 * (pairs["arm"] - pairs["off"]), 100 * off),
                    }
                )
    return pd.DataFrame(
        lines,
        columns=[
            "row",
            "statistics",
            "arm",
            "seeds",
            "difference (pp)",
            "low",
            "high",
            "sd of a seed (pp)",
            "answer",
        ],
    )


def _difference(values: pd.Series, off: pd.Series) -> dict:
    equal = values.nunique() == 1
    found = shared.judged(values, shared.Words(*ANSWERS), math.inf if equal else LEAST)
    noise = float(off.std(ddof=1)) if len(off) > 1 else np.nan
    return {"difference (pp)": found.pop("difference"), **found, "sd of a seed (pp)": noise}


def verdict(table: pd.DataFrame, arm: str, statistics: str = "recalibrated") -> str:
    """What a :func:`difference_table` says of an arm, in words and numbers, by one kind of
    statistics.
    """
    chosen = table[(table["arm"] == arm) & (table["statistics"] == statistics)]
    decided = chosen[chosen["answer"] != ANSWERS[3]]
    if decided.empty:
        return (
            "Whether astrocytes do anything cannot be said: nothing was trained with and "
            "without them with three seeds that differ."
        )
    counts = decided["answer"].value_counts()
    better, worse, within = (int(counts.get(answer, 0)) for answer in ANSWERS[:3])
    most = decided.loc[decided["difference (pp)"].abs().idxmax()]
    ending = (
        "so at this budget there is no evidence that they do anything"
        if better + worse == 0
        else "so they do something, and it is harm"
        if better == 0
        else "so they help in some cases"
        if worse == 0
        else "so they change the result, in either direction"
    )
    return (
        f"With astrocytes, by {statistics} statistics, the test accuracy is better beyond seed "
        f"noise in {better}, worse beyond seed noise in {worse} and within seed noise in {within} "
        f"of {len(decided)} comparison{'s' * (len(decided) != 1)} "
        f"(chance alone puts {0.025 * len(decided):.1f} on either side), {ending}. The largest "
        f"difference is {most['difference (pp)']:+.1f} percentage points ({most['row']}, "
        f"{int(most['seeds'])} seeds, 95 % interval {most['low']:+.1f} to {most['high']:+.1f}); "
        f"the mean over all is {decided['difference (pp)'].mean():+.1f}."
    )


def stale_sentence(plan: astrocytes_plan.Plan, loaded: dict) -> str:
    """For each data set: whether NG divides the epoch, so that evaluations by moving statistics
    are of kernels that were scaled after the statistics were taken.

    Parameters
    ----------
    plan : kit.studies.astrocytes.plan.Plan
    loaded : dict
        From :func:`kit.studies.astrocytes.runs.inputs_and_parts`.
    """
    said = []
    for name, (_, rows) in loaded.items():
        steps = len(batches_of(len(rows["train"]), plan.batch_size))
        hit = decisions_at_epoch_ends(steps, plan.decisions, plan.exp3_epochs)
        divides = "divides" if steps % plan.decisions == 0 else "does not divide"
        said.append(
            f"{astrocytes_plan.data_title(name)}: NG = {plan.decisions} {divides} the {steps} "
            f"steps of an epoch; a decision falls on the last step of {len(hit)} of "
            f"{plan.exp3_epochs} epochs"
            + (", after which the moving statistics are those of other kernels." if hit else ".")
        )
    return "\n".join(said)


def readings_table(plan: astrocytes_plan.Plan) -> pd.DataFrame:
    """The readings of Algorithm 3 among the arms, each with the line that it rests on."""
    return pd.DataFrame(
        [
            {"arm": arm, "what": astrocytes_plan.ARMS[arm], "line": SOURCES[key]}
            for arm in plan.arms
            if (key := "literal" if arm == "published" else arm) in SOURCES
        ],
        columns=["arm", "what", "line"],
    )


def released_sentence(results: dict) -> str:
    """Whether "released" astrocytes left the weights as they were, from the stored weights of both
    networks.
    """
    pairs = {
        run.folder: (arms["off"][seed], run)
        for arms in results.values()
        for seed, run in arms.get("released", {}).items()
        if seed in arms.get("off", {})
    }
    same = [_same_weights(*pair) for pair in pairs.values()]
    if not same:
        return "The released mode was not run."
    return (
        f"Astrocytes as in the published code were trained in {len(same)} "
        f"case{'s' * (len(same) != 1)}; in {sum(same)} the weights are the same, bit for bit, "
        "as without astrocytes."
    )


def _same_weights(first, second) -> bool:
    with np.load(first.folder / "weights.npz") as a, np.load(second.folder / "weights.npz") as b:
        return a.files == b.files and all(np.array_equal(a[key], b[key]) for key in a.files)


def diverged_sentence(plan: astrocytes_plan.Plan, results: dict) -> str:
    """How many trainings of Experiment 3 ended with an infinite loss, by arm."""
    wanted = {
        arm: sum(arm in arms for arms in results.values())
        * (1 if arm in plan.single else plan.exp3_repetitions)
        for arm in ("off", *plan.arms)
    }
    lost = {
        arm: count - sum(len(arms.get(arm, {})) for arms in results.values())
        for arm, count in wanted.items()
    }
    said = [
        f"{count} of {wanted[arm]} {'without astrocytes' if arm == 'off' else f'in the arm {arm}'}"
        for arm, count in lost.items()
        if count
    ]
    return (
        f"Diverged, and so in no table: {', '.join(said)}."
        if said
        else "No training of Experiment 3 diverged."
    )


def trigger_table(results: dict) -> pd.DataFrame:
    """What the astrocytes did in Experiment 3: shares of all decisions by filter, and filters whose
    kernel is zero at the end; means over seeds.

    Parameters
    ----------
    results : dict
        Case -> {arm: {seed: run}}.
    """
    lines = []
    for case, arms in results.items():
        for arm, runs in arms.items():
            told = [run.metrics() for run in runs.values()]
            tallies = np.array([m["tally"] for m in told if sum(m.get("tally", []))], float)
            if len(tallies):
                shares = (100 * tallies / tallies.sum(1, keepdims=True)).mean(0)
                lines.append(
                    {
                        "row": case.row,
                        "arm": arm,
                        "above, Str (%)": shares[0],
                        "below, Weak (%)": shares[1],
                        "neither (%)": shares[2],
                        "zeroed filters": float(np.mean([m["zeroed"] for m in told])),
                    }
                )
    return pd.DataFrame(
        lines,
        columns=[
            "row",
            "arm",
            "above, Str (%)",
            "below, Weak (%)",
            "neither (%)",
            "zeroed filters",
        ],
    )


# --- Experiment 1 ---


def grid_table(grids: dict) -> pd.DataFrame:
    """All trainings of Experiment 1, one row an epoch: row, dataset, title, strong, weak,
    repetition, epoch, statistics, accuracy (validation, fraction; NaN where it diverged).

    Parameters
    ----------
    grids : dict
        Case -> {(Str, Weak): [run or None]}, from :func:`kit.studies.astrocytes.runs.grid_runs`.
    """
    lines = []
    for case, cells in grids.items():
        epochs = max(len(run.history()) for runs in cells.values() for run in runs if run)
        for (strong, weak), runs in cells.items():
            for (repetition, run), kind in itertools.product(enumerate(runs), STATISTICS):
                column = "val_accuracy" + "_recalibrated" * (kind != STATISTICS[0])
                found = run.history()[column].tolist() if run else [np.nan] * epochs
                lines += [
                    {
                        "row": case.row,
                        "dataset": case.dataset,
                        "title": case.title,
                        "strong": strong,
                        "weak": weak,
                        "repetition": repetition,
                        "epoch": e,
                        "statistics": kind,
                        "accuracy": value,
                    }
                    for e, value in enumerate(found, 1)
                ]
    return pd.DataFrame(lines)


def grid_effect(grid: pd.DataFrame) -> pd.DataFrame:
    """After the last epoch of Experiment 1: what share of the variance the cells explain, and the
    control's place.

    Returns
    -------
    pandas.DataFrame
        row, statistics, cells, repetitions, accuracy of the control and of the best cell (%),
        rank of the control (1: best), share of variance between cells (%), that share if cells did
        nothing (%), F test p (NaN with one repetition).
    """
    lines = []
    last = grid[grid["epoch"] == grid.groupby("row")["epoch"].transform("max")]
    for (row, kind), part in last.groupby(["row", "statistics"], sort=False):
        cells = [
            values["accuracy"].dropna().to_numpy() for _, values in part.groupby(["strong", "weak"])
        ]
        means = 100 * part.groupby(["strong", "weak"])["accuracy"].mean()
        control = means.get((1.0, 1.0), np.nan)
        lines.append(
            {
                "row": row,
                "statistics": kind,
                "cells": len(cells),
                "repetitions": part["repetition"].nunique(),
                "control (%)": control,
                "best cell (%)": means.max(),
                "rank of the control": int((means > control).sum()) + 1,
                **_variance([c for c in cells if len(c)]),
            }
        )
    return pd.DataFrame(lines)


def _variance(cells) -> dict:
    everything, count = np.concatenate(cells), len(cells)
    total = ((everything - everything.mean()) ** 2).sum()
    if len(everything) <= count or total == 0:
        return {"between cells (%)": np.nan, "by chance (%)": np.nan, "p": np.nan}
    between = sum(len(c) * (c.mean() - everything.mean()) ** 2 for c in cells)
    within = total - between
    ratio = (between / (count - 1)) / (within / (len(everything) - count)) if within > 0 else np.inf
    return {
        "between cells (%)": 100 * between / total,
        "by chance (%)": 100 * (count - 1) / (len(everything) - 1),
        "p": float(sps.f.sf(ratio, count - 1, len(everything) - count)),
    }


def control_sentence(grid: pd.DataFrame, statistics: str) -> str:
    """How often the control is the best cell of a map of Experiment 1 by one kind of statistics,
    beside what chance gives.
    """
    maps = (
        grid[grid["statistics"] == statistics]
        .groupby(["row", "epoch", "strong", "weak"])["accuracy"]
        .mean()
        .unstack(["strong", "weak"])
    )
    wins = int((maps[(1.0, 1.0)] >= maps.max(axis=1)).sum())
    return (
        f"By {statistics} statistics, the control (1, 1) is the best cell, or level with "
        f"it, in {wins} of {len(maps)} maps of {maps.shape[1]} cells; if the factors did nothing, "
        f"about {len(maps) / maps.shape[1]:.1f} would be expected, so that a control that is never "
        "the best shows little."
    )


# --- the printed tables ---


def printed_differences() -> pd.DataFrame:
    """The printed accuracies of Tables 4.2 and 4.7 with and without astrocytes, in percent, and
    their difference in percentage points.
    """
    printed, lines = papers.load(astrocytes_plan.PAPER).values, []
    for table, columns in (
        ("table-4-2", ("cnn_test", "cngn_test")),
        ("table-4-7", ("cnn", "cngn")),
    ):
        for dataset in astrocytes_plan.DATA:
            for network in astrocytes_plan.NETWORKS:
                without, with_them = (
                    100 * printed[f"{table}/{dataset}.{network}/{column}"].value
                    for column in columns
                )
                lines.append(
                    {
                        "table": table,
                        "row": f"{dataset}.{network}",
                        "CNN": without,
                        "CNGN": with_them,
                        "difference (pp)": with_them - without,
                    }
                )
    return pd.DataFrame(lines)


def printed_sentence() -> str:
    """What the twelve printed differences of Table 4.7 say together."""
    values = printed_differences().query("table == 'table-4-7'")["difference (pp)"]
    found, test = stats.mean_t(values), stats.paired_t(values, np.zeros(len(values)))
    return (
        f"Of the {len(values)} printed differences of Table 4.7, {int((values > 0).sum())} favour "
        f"astrocytes and {int((values < 0).sum())} do not; their mean is {found.estimate:+.2f} "
        f"percentage points (95 % interval {found.low:+.2f} to {found.high:+.2f}, p = "
        f"{test.p:.2f}), their median {values.median():+.2f}."
    )
