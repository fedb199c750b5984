"""The tables of PBC-NAS in 3D: from saved logs and predictions to numbers.

Nothing here sees a model. No value of the method by data set is public, so Table 4 stands beside
the benchmark's numbers, whose protocol it notes. AUC is MedMNIST's: of class 1 for two classes,
else the unweighted mean of one against the rest. Fractions, as printed. The means are over seeds of
the final training; the 95 % intervals are over test volumes, of the first seed, and say nothing of
what another search would find.
"""

import numpy as np
import pandas as pd

from kit.evaluation import metrics, stats
from kit.published import papers
from kit.record import Run
from kit.report import results
from kit.search.nas3d import resnet as nas3d_resnet
from kit.search.nas3d.released import RELEASED
from kit.studies import shared
from kit.studies.pbcnas.plan import KEYS, RESNETS, Plan
from kit.training import predictions as training_predictions

METHODS = {"ode": "opposition-based DE", "de": "DE without opposition", "random": "random search"}
RATES = {
    "auc": ("auc", "macro_auc"),
    "accuracy": ("accuracy", "accuracy"),
}  # of two classes, of more
BENCHMARK = (
    "resnet18-2.5d",
    "resnet18-3d",
    "resnet18-acs",
    "resnet50-2.5d",
    "resnet50-3d",
    "resnet50-acs",
    "auto-sklearn",
    "autokeras",
)  # rows that MedMNIST v2 prints
RUNS = 3  # the publication's headline is the best of three runs
NAMES = {
    "found 1": "found, first",
    "found 2": "found, second",
    "found 3": "found, third",
    "de": "best of DE without opposition",
    "random": "best of random search",
}


def data_title(key: str, name: str) -> str:
    """What tables and figures call a data set: published key, registered name."""
    return (
        f"{key.capitalize()}MNIST3D"
        if name in (f"{key}mnist3d", f"{key}mnist3d-64")
        else f"{name} (for {key.capitalize()}MNIST3D)"
    )


def title(row: str) -> str:
    """What tables call a network."""
    network, _, protocol = row.removesuffix(")").partition(" (")
    if network in RESNETS:
        return nas3d_resnet.title(*RESNETS[network]) + {
            "pbcnas": ", protocol of PBC-NAS",
            "benchmark": ", benchmark's protocol",
        }.get(protocol, "")
    return NAMES.get(row, f"released, {row}" if row in RELEASED else row)


# --- Table 4 --------------------------------------------------------------------------------------


def rate(predictions: pd.DataFrame, which: str) -> float:
    """AUC or accuracy as the benchmark defines them, a fraction."""
    if which == "accuracy":
        return float(metrics.correct(predictions).mean())
    found = (
        metrics.binary_metrics(predictions)
        if "score_2" not in predictions
        else metrics.multiclass_metrics(predictions)
    )
    return float(found[RATES[which]["score_2" in predictions]])


def interval(predictions: pd.DataFrame, which: str, resamples: int = 1000) -> stats.Interval | None:
    """AUC or accuracy with its 95 % interval over volumes; None where it is undefined."""
    if which == "auc" and predictions["label"].nunique() < 2:
        return None
    return results.rate_interval(predictions, RATES[which]["score_2" in predictions], resamples)


def result_table(runs: dict, plan: Plan, loaded: dict, resamples: int = 1000) -> pd.DataFrame:
    """Test results of all networks.

    Parameters
    ----------
    runs : dict
        (published data set, row) -> {seed: run}.
    plan : kit.studies.pbcnas.plan.Plan
    loaded : dict
        Published data set -> inputs and row numbers.

    Returns
    -------
    pandas.DataFrame
        Long: key, data, row, metric, seeds, mean and sd over seeds, by_validation (of the run among
        the first three seeds that validation prefers), validation (mean over seeds), value (of the
        first seed) with low, high, n, leak_free, leak_free_low, leak_free_high, leak_free_n, and
        epoch (chosen, of the first seed).
    """
    names, rows = dict(plan.datasets), []
    for (key, row), seeds in runs.items():
        tables = [training_predictions.best_predictions(run, "test") for run in seeds.values()]
        inputs, parts = loaded[key]
        ranks = [validation(run) for run in seeds.values()]
        chosen = max(range(len(ranks[:RUNS])), key=ranks.__getitem__)
        clean = results.leak_free(
            tables[0], names[key], inputs.index["image_id"].to_numpy()[parts["train"]]
        )
        for which in RATES:
            found = np.array([rate(table, which) for table in tables])
            line = {
                "key": key,
                "data": data_title(key, names[key]),
                "row": row,
                "metric": which,
                "seeds": len(found),
                "mean": found.mean(),
                "sd": found.std(ddof=1) if len(found) > 1 else np.nan,
                "by_validation": found[chosen],
                "validation": float(np.mean([rank[0] for rank in ranks])),
            }
            for prefix, table in (("", tables[0]), ("leak_free", clean)):
                line |= results.columns(interval(table, which, resamples), prefix)
            rows.append({**line, "epoch": next(iter(seeds.values())).metrics()["best_epoch"]})
    return pd.DataFrame(rows)


def validation(run: Run) -> tuple[float, float]:
    """What a run is chosen by: the validation result at its chosen epoch, by the measure that chose
    the epoch, then minus the validation loss.
    """
    history = run.history().set_index("epoch").loc[run.metrics()["best_epoch"]]
    return float(history[run.config["best_by"]]), -float(history["val_loss"])


def wide(long: pd.DataFrame) -> pd.DataFrame:
    """Table 4 to print: a line a network and data set, our own trainings first, then the
    benchmark's printed values, marked.
    """
    lines = []
    for (_, row), cells in long.groupby(["key", "row"], sort=False):
        by = cells.set_index("metric")
        lines.append(
            {
                "data": cells["data"].iloc[0],
                "network": title(row),
                "source": "this run",
                "seeds": str(int(by.loc["auc", "seeds"])),
                **{
                    name: cell
                    for which, label in (("auc", "AUC"), ("accuracy", "accuracy"))
                    for name, cell in (
                        (label, by.loc[which, "mean"]),
                        (f"{label}, sd", by.loc[which, "sd"]),
                        (f"{label}, best of {RUNS} by validation", by.loc[which, "by_validation"]),
                        (f"{label} 95 %, first seed", results.ends(by.loc[which])),
                    )
                },
                "accuracy, leak-free": by.loc["accuracy", "leak_free"],
            }
        )
    return pd.DataFrame(lines + _printed(list(dict.fromkeys(long["key"]))))


def best_printed(key: str, which: str) -> float:
    """Highest AUC or accuracy that the benchmark prints for a set, whichever its network."""
    values = papers.load("pbcnas").values
    return max(values[f"table-4/{name}.{key}/{which}"].value for name in BENCHMARK)


def above(found: stats.Interval | None, printed: float) -> str:
    """Whether a rate lies above a printed one: "yes" if all of its interval does."""
    if found is None:
        return "–"
    if found.low > printed:
        return "yes"
    return "within its interval" if found.high >= printed else "no, below"


def _printed(keys: list) -> list:
    values, lines = papers.load("pbcnas").values, []
    for name in BENCHMARK:
        for key in keys:
            auc, accuracy = (
                values[f"table-4/{name}.{key}/{which}"].value for which in ("auc", "accuracy")
            )
            lines.append(
                {
                    "data": f"{key.capitalize()}MNIST3D",
                    "network": title(name),
                    "source": "MedMNIST v2",
                    "seeds": "–",
                    "AUC": auc,
                    "accuracy": accuracy,
                }
            )
    return lines


def store(writers: dict, long: pd.DataFrame, plan: Plan) -> None:
    """Put our trainings of the benchmark's networks beside its printed values, and the average of
    the six sets beside the method's best of three runs: of the found networks the one with the best
    mean validation result, and of its first three runs the one that validation prefers. No test
    result chooses anything.
    """
    known = papers.load("pbcnas").values
    for (key, row), cells in long.groupby(["key", "row"], sort=False):
        for _, line in cells.iterrows():
            value_id = f"table-4/{row.split(' (')[0]}.{key}/{line['metric']}"
            if row.endswith("(benchmark)") and value_id in known:
                writers[key].value(value_id, line["mean"], n=line["n"])
    best = chosen_by_validation(long)
    if set(best.index) == set(KEYS):
        out = next(iter(writers.values()))
        for which in RATES:
            out.value(f"table-4/ours-3.average/{which}", best[which].mean())


def chosen_by_validation(long: pd.DataFrame) -> pd.DataFrame:
    """Test results of the found network of each set that validation prefers: a line a set, a column
    a metric, both of the same run.
    """
    found = long[long["row"].str.startswith("found")].sort_values(
        "validation", ascending=False, kind="stable"
    )
    return found.drop_duplicates(["key", "metric"]).pivot(
        index="key", columns="metric", values="by_validation"
    )


def released_table(found: dict, plan: Plan, loaded: dict, resamples: int = 1000) -> pd.DataFrame:
    """The authors' own weights: network, how far its logits are from known ones, AUC and accuracy
    on the test part with 95 % intervals beside the best that the benchmark prints for the set and
    whether that lies below them, or why they were not tested.

    Parameters
    ----------
    found : dict
        From :func:`kit.studies.pbcnas.runs.released_tests`.
    """
    rows = []
    for name, run in found.items():
        line = {"network": name, "data": RELEASED[name].data, "tested": "yes"}
        if isinstance(run, str):
            rows.append({**line, "tested": run})
            continue
        key, table = RELEASED[name].key, run.predictions("test")
        index = loaded[key][0].index
        clean = results.leak_free(
            table, dict(plan.datasets)[key], index["image_id"][index["split"] == "train"].to_numpy()
        )
        line["logit difference"] = run.metrics()["logit_difference"]
        for which, label in (("auc", "AUC"), ("accuracy", "accuracy")):
            line |= {
                label: rate(table, which),
                f"{label} 95 %": results.ends(
                    results.columns(found_interval := interval(table, which, resamples), "")
                ),
                f"{label}, best of the benchmark": (printed := best_printed(key, which)),
                f"{label} above it": above(found_interval, printed),
            }
        rows.append(
            {
                **line,
                "volumes": len(table),
                "accuracy, leak-free": rate(clean, "accuracy") if len(clean) else np.nan,
                "leak-free volumes": len(clean),
            }
        )
    return pd.DataFrame(
        rows,
        columns=[
            "network",
            "data",
            "tested",
            "logit difference",
            "AUC",
            "AUC 95 %",
            "AUC, best of the benchmark",
            "AUC above it",
            "accuracy",
            "accuracy 95 %",
            "accuracy, best of the benchmark",
            "accuracy above it",
            "volumes",
            "accuracy, leak-free",
            "leak-free volumes",
        ],
    )


# --- answers --------------------------------------------------------------------------------------


def differences(runs: dict, plan: Plan, other: str) -> pd.DataFrame:
    """The first found network minus another row, paired by seed of the final training: data,
    metric, difference, and :func:`kit.report.results.seed_spread`; in hundredths.
    """
    rows, names = [], dict(plan.datasets)
    for key in names:
        a, b = runs.get((key, "found 1"), {}), runs.get((key, other), {})
        seeds = [seed for seed in a if seed in b]
        first, second = (
            [training_predictions.best_predictions(found[seed], "test") for seed in seeds]
            for found in (a, b)
        )
        for which in RATES if seeds else ():
            x, y = (
                dict(zip(seeds, (rate(table, which) for table in tables), strict=True))
                for tables in (first, second)
            )
            labels = {"data": data_title(key, names[key]), "against": title(other)}
            rows.append({**labels, "metric": which, **shared.difference(x, y, scale=100)})
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame) -> str:
    """The differences in sentences."""
    if not len(table):
        return "Nothing to compare: one of the two networks was not trained."
    return "\n".join(
        f"{line['data']}, {line['metric']}: found network minus {line['against']} "
        f"{line['difference']:+.1f} hundredths over {line['seeds']} seeds "
        + (f"({line['low']:+.1f} to {line['high']:+.1f}): " if np.isfinite(line["low"]) else ": ")
        + line["answer"]
        + "."
        for _, line in table.iterrows()
    )
