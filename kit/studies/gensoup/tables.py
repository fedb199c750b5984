"""The tables of chapter 5 of the thesis: from saved predictions to numbers beside the printed ones.

Nothing here sees a model. The thesis gives single searches without intervals; here every number has
a 95 % interval over the test images, with several seeds both number and interval are of the mean
over them and the seeds' spread stands beside; a difference between arms is judged over search
seeds, because the images' interval says nothing of the search's own randomness. F1 is the mean of
the classes' F1, which lies as close below the accuracy as the printed ones. All rates are
fractions, as printed.
"""

import itertools

import numpy as np
import pandas as pd

from kit.evaluation import metrics, resampling, stats
from kit.models import architecture_catalog
from kit.models.architecture_catalog import TABLE_5_2
from kit.published import papers
from kit.report import results
from kit.search.evolution.genome import FACTORS, LEARNING_RATES, WEIGHT_DECAY
from kit.studies import shared
from kit.studies.gensoup import plan as gensoup_plan
from kit.studies.gensoup import runs as gensoup_runs
from kit.training.names import LOSSES, OPTIMIZERS_5
from kit.training.short_runs import STATISTICS

METRICS = {"accuracy": "accuracy", "f1": "macro_f1", "mcc": "mcc"}
DATA = {"kvasir-v2": "KVASIR-v2", "breakhis": "BreaKHis"}
ARMS = {
    "without": "no",
    "with": "yes",
    "released": "as released (no effect)",
    "copying": "no; weights copied, not averaged",
}
MODELS = {
    "best": "Gen-Soup: best of the search",
    "last": "best of the last generation",
    "uniform": "uniform soup of the last generation",
    "greedy": "greedy soup",
    "weighted": "fitness-weighted soup",
    "single": "one training of the best genes",
    "ema": "moving average of that training",
}


def data_title(key: str, name: str) -> str:
    """What tables and figures call a data set: published key, registered name."""
    return DATA[key] if name == key else f"{name} (for {DATA[key]})"


def _title(key: str, seeds: dict) -> str:
    return data_title(key, next(iter(seeds.values())).config["data"]["name"])


def settings_table(plan: gensoup_plan.Plan) -> pd.DataFrame:
    """Table 5.1: name, as printed, as run."""
    printed = papers.load("gensoup").hyperparameters
    rows = [
        ("Generations, experiment 1", printed["generations_exp1"], plan.generations[0]),
        ("Generations, experiment 2", printed["generations_exp2"], plan.generations[1]),
        ("Epochs per generation", printed["epochs_per_generation"], plan.epochs),
        ("Generations at the largest image size", printed["epochs_at_max_image_size"], plan.at_end),
        ("Image size, start (px)", printed["image_size_start"][0], plan.start),
        ("Image size, end (px)", printed["image_size_end"][0], plan.end),
        (
            "Learning rate, experiment 1",
            "cosine annealing",
            f"cosine, to {100 * plan.cosine_floor:g} %",
        ),
        ("Learning rate, experiment 2", "constant", "constant"),
        ("Population: first", printed["population_initial"], plan.first),
        ("Population: decrement a generation", printed["population_decrement"], plan.decrement),
        ("Population: smallest", printed["population_minimum"], plan.smallest),
        ("Fitness", "validation MCC", "validation MCC"),
        (
            "Crossover probabilities",
            printed["crossover_probability"],
            plan.settings("1", "with", 0).crossover,
        ),
        (
            "Mutation probabilities",
            printed["mutation_probability"],
            plan.settings("1", "with", 0).mutation,
        ),
        (
            "Order of the genes",
            "architecture, rate, decay, loss, optimizer, Str, Weak (slip)",
            ", ".join(plan.genome("with").names),
        ),
        ("Batch size", "not stated", plan.batch_size),
        ("Initial weights", "ImageNet", "one start an architecture, head shared"),
        (
            "BatchNorm statistics of averages",
            "not stated",
            "averaged",
        ),
        (
            "BatchNorm statistics of evaluations",
            "not stated",
            "of all individuals recalibrated by the training pipeline"
            if plan.recalibrate
            else "moving, of all individuals",
        ),
        (
            "BatchNorm momentum",
            "not stated",
            "the networks' own" if plan.bn_momentum is None else plan.bn_momentum,
        ),
        (
            "SGD and RMSprop",
            "PyTorch's defaults",
            {
                "text": "PyTorch's defaults",
                "code": "code of chapter 3: 1e-2 and 1e-3, momentum 0.9",
            }[plan.optimizer_settings],
        ),
        ("Weight decay acts", "not stated", plan.decay_mode),
        (
            "Jitter of colours",
            "colour jitter; in the code of chapter 3 brightness 0.5 only",
            f"brightness {plan.brightness:g}",
        ),
        ("Weights of an individual", "not stated", "of its last epoch"),
    ]
    return shared.settings_table(rows, ["setting", "thesis", "this run"])


def space_table(plan: gensoup_plan.Plan) -> pd.DataFrame:
    """Table 5.2: hyper-parameter, domain as printed, domain as run, and how the genes of this run's
    architectures start.
    """
    starts = gensoup_plan.starts(plan)
    used = "; ".join(
        f"{architecture_catalog.entry(name).label} ({start.text})" for name, start in starts.items()
    )
    rates, decay, factors = (
        f"[{low:g}, {high:g}], linear"
        for low, high in (LEARNING_RATES["text"], WEIGHT_DECAY, FACTORS)
    )
    optimizers = ", ".join("LBFGS" if name == "lbfgs" else name for name in OPTIMIZERS_5)
    rows = [
        (
            "architecture",
            ", ".join(architecture_catalog.entry(name).title for name in TABLE_5_2),
            used,
        ),
        ("loss", ", ".join(LOSSES).replace("_", " "), "the same"),
        ("optimizer", optimizers, "the same; LBFGS is told as failed, for it needs a closure"),
        ("learning-rate scale", rates, "the same"),
        ("weight decay", decay, "the same"),
        ("Str", factors, "the same"),
        ("Weak", factors, "the same"),
    ]
    return pd.DataFrame(rows, columns=["hyperparameter", "thesis", "this run"])


def interval(
    predictions: pd.DataFrame, metric: str, resamples: int = 1000
) -> stats.Interval | None:
    """One of `METRICS` with its 95 % interval; None without images. Absent classes are left out."""
    return results.rate_interval(predictions, METRICS[metric], resamples)


def mean_interval(
    tables: list[pd.DataFrame], metric: str, resamples: int = 1000
) -> stats.Interval | None:
    """Mean of one of `METRICS` over predictions of several seeds, with the 95 % interval of that
    mean over the test images; of a single one as :func:`interval`. None without images.
    """
    if len(tables) == 1 or not len(tables[0]):
        return interval(tables[0], metric, resamples)
    return resampling.bootstrap_mean(tables, METRICS[metric], resamples)


def seed_sd(tables: list[pd.DataFrame], metric: str) -> float:
    """Standard deviation of one of `METRICS` over seeds; NaN of a single one or without images."""
    if len(tables) < 2 or not len(tables[0]):
        return np.nan
    return float(np.std([interval(t, metric, 2).estimate for t in tables], ddof=1))


def result_table(runs: dict, names: dict, train_ids: dict, resamples: int = 1000) -> pd.DataFrame:
    """Test results of the searches' networks, means over seeds.

    Parameters
    ----------
    runs : dict
        (data set, experiment, arm) -> {seed: run}.
    names : dict
        Data set as published -> registered set.
    train_ids : dict
        Data set as published -> ids of the training images.

    Returns
    -------
    pandas.DataFrame
        Long: data, experiment, row (as in Tables 5.3 and 5.4), architecture (of the seed that is
        best on the validation images), validation_mcc (of that seed), seeds, metric, value, low,
        high, n, leak_free, leak_free_low, leak_free_high, leak_free_n, sd (over seeds).
    """
    rows = []
    for (key, experiment, arm), seeds in runs.items():
        top = max((run.metrics()["best"] for run in seeds.values()), key=lambda b: b["fitness"])
        tables = [gensoup_runs.tested(run) for run in seeds.values()]
        clean = [results.leak_free(table, names[key], train_ids[key]) for table in tables]
        labels = {
            "data": data_title(key, names[key]),
            "experiment": experiment,
            "row": f"{key}.{arm}",
            "architecture": top["architecture"],
            "validation_mcc": top["fitness"],
            "seeds": len(seeds),
        }
        rows += [
            {
                **labels,
                "metric": metric,
                **shared.rate_cells(
                    mean_interval(tables, metric, resamples),
                    mean_interval(clean, metric, resamples),
                ),
                "sd": seed_sd(tables, metric),
            }
            for metric in METRICS
        ]
    return pd.DataFrame(rows)


def wide(long: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """The layout of Tables 5.3 and 5.4, with what the thesis printed beside it."""
    texts, values = papers.load("gensoup").texts, papers.load("gensoup").values
    table, lines = {"1": "table-5-3", "2": "table-5-4"}.get(experiment), []
    for row, cells in long[long["experiment"] == experiment].groupby("row", sort=False):
        by, arm = cells.set_index("metric"), row.split(".")[1]
        accuracy, printed = by.loc["accuracy"], values.get(f"{table}/{row}/accuracy")
        lines.append(
            {
                "data": accuracy["data"],
                "astrocytes": ARMS[arm],
                "prevailing architecture": architecture_catalog.entry(
                    accuracy["architecture"]
                ).label,
                **{metric: by.loc[metric, "value"] for metric in METRICS},
                "seeds": int(accuracy["seeds"]),
                "SD of MCC over seeds": by.loc["mcc", "sd"],
                "accuracy 95 %": results.ends(accuracy),
                "MCC 95 %": results.ends(by.loc["mcc"]),
                "accuracy, leak-free": accuracy["leak_free"],
                "leak-free n": int(accuracy["leak_free_n"]),
                "thesis: accuracy": printed.value if printed else np.nan,
                "thesis: architecture": texts.get(f"{table}/{row}/architecture", "–"),
            }
        )
    columns = [
        "data",
        "astrocytes",
        "prevailing architecture",
        *METRICS,
        "seeds",
        "SD of MCC over seeds",
        "accuracy 95 %",
        "MCC 95 %",
        "accuracy, leak-free",
        "leak-free n",
        "thesis: accuracy",
        "thesis: architecture",
    ]
    return pd.DataFrame(lines, columns=columns)


def store(writers: dict, long: pd.DataFrame) -> None:
    """Put the numbers of both experiments beside those of Tables 5.3 and 5.4; `writers`: data set
    as published -> ``kit.report.artefacts.Artefacts``.
    """
    for experiment, artefact in (("1", "table-5-3"), ("2", "table-5-4")):
        if len(long):
            results.store(writers, artefact, long[long["experiment"] == experiment])


def store_claims(writers: dict, long: pd.DataFrame) -> None:
    """Put the best KVASIR-v2 network, chosen by its validation MCC, beside the text's, and its cost
    beside the ensemble's 12.63 G.
    """
    mine = (
        long[
            long["row"].isin(["kvasir-v2.without", "kvasir-v2.with"])
            & long["experiment"].isin(["1", "2"])
        ]
        if len(long)
        else long
    )
    if not len(mine):
        return
    out, top = writers["kvasir-v2"], mine[mine["validation_mcc"] == mine["validation_mcc"].max()]
    first = top[
        (top["row"] == top["row"].iloc[0]) & (top["experiment"] == top["experiment"].iloc[0])
    ].set_index("metric")
    for metric in METRICS:
        line = first.loc[metric]
        free = line["leak_free"] if np.isfinite(line["leak_free"]) else None
        out.value(
            f"claims/best-kvasir.{metric}",
            line["value"],
            (line["low"], line["high"]),
            leak_free=free,
            leak_free_interval=(line["leak_free_low"], line["leak_free_high"]),
            n=line["n"],
        )
    ensemble = papers.load("gensoup").values["claims/ensemble.flops"].value * 1e9
    out.value(
        "claims/fewer-flops",
        ensemble / architecture_catalog.entry(first["architecture"].iloc[0]).macs,
    )


def model_table(runs: dict) -> pd.DataFrame:
    """What averaging is worth: the search's network, the best network of its last generation and
    the soups of that generation, and one training of the best genes, each by moving and by
    recalibrated statistics, so that like is compared with like.

    Returns
    -------
    pandas.DataFrame
        data, experiment, arm, statistics, model, networks (averaged), validation MCC (at the final
        image size), test MCC, low, high (interval of the same mean over the test images), SD over
        seeds, test accuracy, seeds; means over seeds.
    """
    return pd.DataFrame(
        [
            {"data": _title(key, seeds), "experiment": experiment, "arm": arm, **line}
            for (key, experiment, arm), seeds in runs.items()
            for line in _model_lines(seeds)
        ]
    )


def _model_lines(seeds: dict) -> list[dict]:
    """Lines of :func:`model_table` of one arm: {seed: run}."""
    known = {
        seed: gensoup_runs.models(run).set_index(["statistics", "model"])
        for seed, run in seeds.items()
    }
    lines = []
    for kind, model in itertools.product(STATISTICS, MODELS):
        having = [seed for seed in seeds if (kind, model) in known[seed].index]
        if not having:
            continue
        tables = [gensoup_runs.tested(seeds[seed], model, kind) for seed in having]
        noted = [known[seed].loc[(kind, model)] for seed in having]
        found = mean_interval(tables, "mcc", 500)
        lines.append(
            {
                "statistics": kind,
                "model": MODELS[model],
                "networks": float(np.mean([_members(line) for line in noted])),
                "validation MCC": float(np.mean([line["validation_mcc"] for line in noted])),
                "test MCC": found.estimate,
                "low": found.low,
                "high": found.high,
                "SD over seeds": seed_sd(tables, "mcc"),
                "test accuracy": float(np.mean([metrics.correct(t).mean() for t in tables])),
                "seeds": len(having),
            }
        )
    return lines


def _members(line) -> int:
    return int(line["members"]) if np.isfinite(line.get("members", np.nan)) else 1


def path_table(runs: dict) -> pd.DataFrame:
    """Between the two best networks of the last generation: kinship, scores of both ends and of the
    middle, barrier; NaN kinship: only the initial weights are shared.
    """
    rows = []
    for (key, experiment, arm), seeds in runs.items():
        for seed, run in seeds.items():
            curve, noted = gensoup_runs.path_of(run), run.metrics()
            if len(curve):
                middle = curve.iloc[len(curve) // 2]
                rows.append(
                    {
                        "data": _title(key, seeds),
                        "experiment": experiment,
                        "arm": arm,
                        "seed": seed,
                        "generations to the common ancestor": noted["kinship"],
                        "first": curve["score"].iloc[0],
                        "middle": middle["score"],
                        "middle, statistics anew": middle["recalibrated"],
                        "second": curve["score"].iloc[-1],
                        "barrier": noted["barrier"],
                    }
                )
    columns = [
        "data",
        "experiment",
        "arm",
        "seed",
        "generations to the common ancestor",
        "first",
        "middle",
        "middle, statistics anew",
        "second",
        "barrier",
    ]
    return pd.DataFrame(rows, columns=columns)


def failures_table(runs: dict) -> pd.DataFrame:
    """Individuals that failed, by reason: data, experiment, arm, individuals, failed, of them
    refused optimizers, and the most frequent reason.
    """
    rows = []
    for (key, experiment, arm), seeds in runs.items():
        table = pd.concat([run.history() for run in seeds.values()])
        failed = table[table["reason"].notna()]
        rows.append(
            {
                "data": _title(key, seeds),
                "experiment": experiment,
                "arm": arm,
                "individuals": len(table),
                "failed": len(failed),
                "LBFGS": int((failed["optimizer"] == "lbfgs").sum()),
                "averaged": int((table["inheritance"] == "averaged").sum()),
                "most frequent reason": failed["reason"].mode().iloc[0] if len(failed) else "–",
            }
        )
    return pd.DataFrame(rows)
