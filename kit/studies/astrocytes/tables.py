"""The tables of the astrocyte chapter, and the answer to its question: do astrocytes do anything
beyond seed noise?

What differs from the thesis: means over repetitions have an interval, accuracy has a second value
on the test images without a twin in training, and networks with astrocytes are compared
with their twins of the same seed. F1 is the mean over classes, which is what Table 4.8 fits.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.evaluation import metrics, stats
from kit.published import papers
from kit.report import results as report_results
from kit.studies import shared
from kit.studies.astrocytes import plan as astrocytes_plan
from kit.studies.astrocytes import runs as astrocytes_runs
from kit.studies.astrocytes import search
from kit.training import short_network, short_runs
from kit.training.short_runs import STATISTICS

PAPER = astrocytes_plan.PAPER
SETTINGS = {
    "learning_rate": "learning rate (Adam)",
    "batch_size": "batch size",
    "image_size": "image size (px)",
    "weight_decay": "weight decay",
    "ng": "batches a decision (NG)",
    "activation_threshold": "activation threshold (AS)",
    "epochs_exp1": "epochs, experiment 1",
    "exp1_str": "Str, experiment 1",
    "exp1_weak": "Weak, experiment 1",
    "exp1_repetitions": "repetitions, experiment 1",
    "epochs_exp2": "epochs, experiment 2",
    "exp2_step": "step of Str and Weak, experiment 2",
    "epochs_exp3": "epochs, experiment 3",
    "exp3_repetitions": "repetitions, experiment 3",
    "augmentation_mixing": "mixing of images",
    "loss": "loss",
    "optimizer": "optimizer",
    "lr_scheduler_exp1": "scheduler, experiment 1",
    "lr_scheduler_exp2": "scheduler, experiment 2",
    "lr_scheduler_exp3": "scheduler, experiment 3",
}


def settings_table(plan: astrocytes_plan.Plan) -> pd.DataFrame:
    """Table 4.1: each setting as published and as used here, and those that it does not state."""
    used = astrocytes_plan.settings(plan)
    printed = papers.load(PAPER).hyperparameters
    return shared.settings_table(
        [
            (text, shared.plain(printed[name], " "), shared.plain(used[name], " "))
            for name, text in SETTINGS.items()
        ]
        + astrocytes_plan.unstated(plan),
        ["setting", "published", "here"],
    )


# --- accuracy, F1, MCC ---


def spread(values: Sequence[float]) -> tuple:
    """Mean of fractions and its 95 % t interval over repetitions, within 0 and 1; (mean, None) of a
    single one.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return float(values.mean()), None
    found = stats.mean_t(values)
    return found.estimate, (max(0.0, found.low), min(1.0, found.high))


def scores(predictions: pd.DataFrame, case: astrocytes_plan.Case, train_ids: list) -> dict:
    """accuracy, f1 (mean over classes), mcc and the accuracy on the leak-free images (NaN without
    any) of one run; fractions.
    """
    rates = short_network.rates(predictions)
    free = report_results.leak_free(predictions, case.data, train_ids)
    return {
        "accuracy": rates["accuracy"],
        "f1": rates["macro_f1"],
        "mcc": rates["mcc"],
        "leak_free": float(metrics.correct(free).mean()) if len(free) else np.nan,
        "leak_free_n": len(free),
        "n": len(predictions),
    }


def score_table(results: dict, loaded: dict) -> pd.DataFrame:
    """Test scores of all trainings of Experiment 3.

    Parameters
    ----------
    results : dict
        Case -> {arm: {seed: run}}, from :func:`kit.studies.astrocytes.runs.arm_runs`.
    loaded : dict
        From :func:`kit.studies.astrocytes.runs.inputs_and_parts`.

    Returns
    -------
    pandas.DataFrame
        One row a training and kind of statistics of BatchNormalization: case, row, title, arm,
        seed, run (its folder), statistics and :func:`scores`.
    """
    lines = [
        {
            "case": case,
            "row": case.row,
            "title": case.title,
            "arm": arm,
            "seed": seed,
            "run": run.folder.name,
            "statistics": kind,
            **scores(
                short_runs.predictions(run, "test", kind),
                case,
                astrocytes_runs.train_ids(loaded, case),
            ),
        }
        for case, arms in results.items()
        for arm, runs in arms.items()
        for seed, run in runs.items()
        for kind in STATISTICS
    ]
    return pd.DataFrame(lines)


def delta(without: float, with_them: float) -> float:
    """Relative change in percent, as the thesis prints it; NaN where there is nothing to
    relate to.
    """
    return 100 * (with_them / without - 1) if without > 0 else np.nan


def means_table(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Tables 4.7 and 4.8: means over the repetitions with ("cngn") and without ("cnn") astrocytes,
    by moving statistics, as printed, and by recalibrated ones.

    Returns
    -------
    pandas.DataFrame
        row, statistics, title, seeds, then for both arms accuracy with interval ends,
        leak-free accuracy, F1, MCC; delta_accuracy and delta_mcc (percent, relative).
    """
    lines = []
    chosen = table[table["arm"].isin(["off", arm])]
    for (row, kind), part in chosen.groupby(["row", "statistics"], sort=False):
        line = {
            "row": row,
            "statistics": kind,
            "case": part["case"].iloc[0],
            "title": part["title"].iloc[0],
            "n": int(part["n"].iloc[0]),
            "leak_free_n": int(part["leak_free_n"].iloc[0]),
        }
        for name, key in (("cnn", "off"), ("cngn", arm)):
            own = part[part["arm"] == key]
            if len(own):
                mean, ends = spread(own["accuracy"])
                line |= {
                    f"{name}_seeds": len(own),
                    f"{name}_accuracy": mean,
                    f"{name}_interval": ends,
                    **{f"{name}_{m}": own[m].mean() for m in ("f1", "mcc", "leak_free")},
                }
        if {"cnn_mcc", "cngn_mcc"} <= set(line):
            lines.append(
                {
                    **line,
                    **{
                        f"delta_{m}": delta(line[f"cnn_{m}"], line[f"cngn_{m}"])
                        for m in ("accuracy", "mcc")
                    },
                }
            )
    return pd.DataFrame(lines)


def shown_accuracy(means: pd.DataFrame) -> pd.DataFrame:
    """Table 4.7 to read, with the printed means beside ours."""
    printed = papers.load(PAPER).values
    return pd.DataFrame(
        [
            {
                "row": m.row,
                "statistics": m.statistics,
                "run on": m.title,
                "seeds": m.cngn_seeds,
                "CNN": m.cnn_accuracy,
                "CNN 95 %": _ends(m.cnn_interval),
                "CNGN": m.cngn_accuracy,
                "CNGN 95 %": _ends(m.cngn_interval),
                "change (%)": m.delta_accuracy,
                "CNN, leak-free": m.cnn_leak_free,
                "CNGN, leak-free": m.cngn_leak_free,
                "leak-free n": m.leak_free_n,
                **{
                    f"printed {k.upper()}": printed[f"table-4-7/{m.row}/{k}"].value
                    for k in ("cnn", "cngn")
                },
            }
            for m in means.itertuples()
        ]
        or [{"row": "none: all trainings with astrocytes diverged"}]
    )


def shown_rates(means: pd.DataFrame) -> pd.DataFrame:
    """Table 4.8 to read."""
    return pd.DataFrame(
        [
            {
                "row": m.row,
                "statistics": m.statistics,
                "run on": m.title,
                "CNN F1": m.cnn_f1,
                "CNN MCC": m.cnn_mcc,
                "CNGN F1": m.cngn_f1,
                "CNGN MCC": m.cngn_mcc,
                "change of MCC (%)": m.delta_mcc,
            }
            for m in means.itertuples()
        ]
        or [{"row": "none: all trainings with astrocytes diverged"}]
    )


def _ends(interval) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "–"


def store_means(writers: dict, means: pd.DataFrame) -> None:
    """Put the means by moving statistics beside those of Tables 4.7 and 4.8 and the gains that the
    text states; `writers` by row.
    """
    stated = {
        "kvasir-v2.mobilenetv3-large": "kvasir.mobilenetv3-large.gain",
        "breakhis.regnety-400mf": "breakhis.regnety.gain",
    }
    for m in _as_printed(means).itertuples():
        out = writers[m.row]
        for name in ("cnn", "cngn"):
            mean, ends, free = (
                getattr(m, f"{name}_{what}") for what in ("accuracy", "interval", "leak_free")
            )
            out.value(f"table-4-7/{m.row}/{name}", mean, ends, free, n=m.n)
            for metric in ("f1", "mcc"):
                out.value(
                    f"table-4-8/{m.row}/{name}_{metric}", getattr(m, f"{name}_{metric}"), n=m.n
                )
        for value_id, metric in (
            (f"table-4-7/{m.row}/delta", "accuracy"),
            (f"table-4-8/{m.row}/delta", "mcc"),
        ):
            out.value(value_id, getattr(m, f"delta_{metric}"))
        if m.row in stated:
            out.value(f"claims/{stated[m.row]}", m.delta_accuracy)


def _as_printed(table: pd.DataFrame) -> pd.DataFrame:
    """The lines by moving statistics."""
    return table[table["statistics"] == STATISTICS[0]] if len(table) else table


# --- Experiment 2 ---


def best_table(searches: dict, loaded: dict) -> pd.DataFrame:
    """Table 4.2: accuracy of the best networks of Experiment 2 by moving and by recalibrated
    statistics; columns row, statistics, title, cnn_valid, cnn_test, cngn_valid, cngn_test, delta
    (%), leak-free test values, n of both parts.

    Parameters
    ----------
    searches : dict
        Case -> {"control": run, "astrocytes": run}.
    loaded : dict
        From :func:`kit.studies.astrocytes.runs.inputs_and_parts`.
    """
    lines = []
    for (case, runs), kind in itertools.product(searches.items(), STATISTICS):
        line = {"row": case.row, "statistics": kind, "title": case.title}
        for name, key in (("cnn", "control"), ("cngn", "astrocytes")):
            for part, short in (("val", "valid"), ("test", "test")):
                found = scores(
                    short_runs.predictions(runs[key], part, kind),
                    case,
                    astrocytes_runs.train_ids(loaded, case),
                )
                line |= {f"{name}_{short}": found["accuracy"], f"n_{short}": found["n"]} | (
                    {f"{name}_leak_free": found["leak_free"]} if part == "test" else {}
                )
        lines.append({**line, "delta": delta(line["cnn_test"], line["cngn_test"])})
    return pd.DataFrame(lines)


def store_best(writers: dict, table: pd.DataFrame) -> None:
    """Put our best networks by moving statistics beside those of Table 4.2; `writers` by row."""
    for line in _as_printed(table).to_dict("records"):
        for name, short in itertools.product(("cnn", "cngn"), ("valid", "test")):
            value, n = line[f"{name}_{short}"], line[f"n_{short}"]
            found = stats.wilson(round(value * n), n)
            writers[line["row"]].value(
                f"table-4-2/{line['row']}/{name}_{short}",
                value,
                (found.low, found.high),
                line[f"{name}_leak_free"] if short == "test" else None,
                n=n,
            )
        writers[line["row"]].value(f"table-4-2/{line['row']}/delta", line["delta"])


def factor_table(dataset: str, searches: dict) -> pd.DataFrame:
    """Tables 4.3 to 4.6: Str and Weak of each epoch, ours and printed; what was not run stays
    empty.

    Parameters
    ----------
    dataset : str
        Row of the thesis' tables.
    searches : dict
        As in :func:`best_table`.
    """
    printed = papers.load(PAPER).values
    own = {
        case.network: search.chosen(runs["astrocytes"])
        for case, runs in searches.items()
        if case.dataset == dataset
    }
    lines = []
    for epoch in range(1, 11):
        line = {"epoch": epoch}
        for network in astrocytes_plan.NETWORKS:
            pairs = own.get(network, [])
            at = f"{astrocytes_plan.TABLES[dataset]}/{network}.epoch{epoch}"
            line[f"{network}, ours"] = (
                f"{pairs[epoch - 1][0]:g}, {pairs[epoch - 1][1]:g}" if epoch <= len(pairs) else "–"
            )
            line[f"{network}, printed"] = ", ".join(
                f"{printed[f'{at}/{c}'].value:g}" for c in ("str", "weak")
            )
        lines.append(line)
    return pd.DataFrame(lines)


def store_factors(writers: dict, searches: dict) -> None:
    """Put the factors that our searches chose beside the printed ones; `writers` by row."""
    for case, runs in searches.items():
        for epoch, pair in enumerate(search.chosen(runs["astrocytes"]), 1):
            for column, value in zip(("str", "weak"), pair, strict=True):
                writers[case.row].value(
                    f"{astrocytes_plan.TABLES[case.dataset]}/{case.network}.epoch{epoch}/{column}",
                    value,
                )


def curve_table(results: dict, arm: str, statistics: str = "moving") -> pd.DataFrame:
    """Test accuracy after each epoch of Experiment 3 by one kind of statistics, for Figure 4.3:
    dataset, network, arm ("CNN" or "CNGN"), seed, epoch, accuracy (fraction).
    """
    column = "test_accuracy" + "_recalibrated" * (statistics != STATISTICS[0])
    names = {"off": "CNN", arm: "CNGN"}
    lines = [
        run.history()[["epoch", column]]
        .rename(columns={column: "accuracy"})
        .assign(dataset=case.dataset, network=case.network, arm=names[key], seed=seed)
        for case, arms in results.items()
        for key in names
        if key in arms
        for seed, run in arms[key].items()
    ]
    return pd.concat(lines, ignore_index=True) if lines else pd.DataFrame()
