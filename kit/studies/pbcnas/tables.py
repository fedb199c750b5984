"""The tables of PBC-NAS in 3D: from saved logs and predictions to numbers.

Nothing here sees a model. No value of the method by data set is public, so Table 4 stands beside
the benchmark's numbers, whose protocol it notes. AUC is MedMNIST's: of class 1 for two classes,
else the unweighted mean of one against the rest. Fractions, as printed. The means are over seeds of
the final training; the 95 % intervals are over test volumes, of the first seed, and say nothing of
what another search would find.
"""

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from kit.data import registry
from kit.evaluation import metrics, stats, timing
from kit.published import papers
from kit.report import results
from kit.search.evolution.opposition_settings import MODES
from kit.search.nas3d import proxy as nas3d_proxy
from kit.search.nas3d import resnet as nas3d_resnet
from kit.search.nas3d import space
from kit.search.nas3d.released import RELEASED
from kit.studies.pbcnas.plan import KEYS, RESNETS
from kit.studies.pbcnas.runs import network_of, ranked
from kit.training import predictions as training_predictions

METHODS = {"ode": "opposition-based DE", "de": "DE without opposition", "random": "random search"}
RATES = {
    "auc": ("auc", "macro_auc"),
    "accuracy": ("accuracy", "accuracy"),
}  # of two classes, of more
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


# --- Tables 1 to 3 --------------------------------------------------------------------------------


def data_table(plan, loaded: dict) -> pd.DataFrame:
    """Table 1: data set, size, classes, volumes by part and in the proxy, share of the largest test
    class, fingerprint.
    """
    rows = []
    for key, name in plan.datasets:
        inputs, parts = loaded[key]
        counts, proxy = inputs.index["split"].value_counts(), nas3d_proxy.parts(inputs, plan.proxy)
        rows.append(
            {
                "data": data_title(key, name),
                "voxels": " × ".join(map(str, inputs.x.shape[1:4])),
                "classes": len(registry.get(name).classes),
                **{part: int(counts[part]) for part in ("train", "val", "test")},
                "proxy train": len(proxy["train"]),
                "proxy val": len(proxy["val"]),
                "largest test class": float(
                    np.bincount(inputs.labels[parts["test"]]).max() / len(parts["test"])
                ),
                "fingerprint": registry.facts(name)["fingerprint"][:12],
            }
        )
    return pd.DataFrame(rows)


def store_data(writers: dict, table: pd.DataFrame, plan) -> None:
    """Put our counts beside those of Table 1, where the published set was used."""
    for (key, name), (_, line) in zip(plan.datasets, table.iterrows(), strict=True):
        if not name.startswith(f"{key}mnist3d"):
            continue
        for ours, published in (
            ("train", "train"),
            ("val", "val"),
            ("test", "test"),
            ("proxy train", "proxy_train"),
            ("proxy val", "proxy_val"),
            ("classes", "classes"),
        ):
            counted = plan.proxy.fraction == 4 or not published.startswith(
                "proxy"
            )  # nothing else of the settings changes a count
            writers[key].value(f"table-1/{key}/{published}", line[ours], data=name, exact=counted)


def space_table() -> pd.DataFrame:
    """Table 2: operation, kernel, parameters at the three widths, multiply-adds at 28 voxels and 8
    channels.
    """
    return pd.DataFrame(
        [
            {
                "index": n,
                "operation": o.name,
                "kernel": "×".join([str(o.kernel)] * 3),
                **{f"parameters, {c} channels": o.parameters(c) for c in space.FILTERS},
                "MMACs, 8 channels": o.macs(8, 28**3) / 1e6,
            }
            for n, o in enumerate(space.OPERATIONS)
        ]
    )


def genome_table(plan) -> pd.DataFrame:
    """The layout of the genome: genes, meaning, published choices, choices of this run."""
    rows = [
        ("0 to 20", "edge between two of seven vertices", "off, on", "off, on"),
        (
            "21 to 25",
            "operation of vertices 1 to 5",
            "15",
            f"{len(plan.operations)}: " + ", ".join(space.NAMES[n] for n in plan.operations),
        ),
        ("26", "cells in a stack", _listed(space.CELLS), _listed(plan.cells)),
        ("27", "stacks", _listed(space.STACKS), _listed(plan.stacks)),
        ("28", "channels of the first stack", _listed(space.FILTERS), _listed(plan.filters)),
    ]
    return pd.DataFrame(rows, columns=["genes", "meaning", "published", "this run"])


def settings_table(plan) -> pd.DataFrame:
    """Table 3: setting, released code, this run."""
    printed, used = papers.load("pbcnas").hyperparameters, plan.settings("ode", plan.seeds[0])
    rows = [
        ("Population", printed["population"], used.population),
        ("Models to train", printed["budget_models"], used.budget),
        (
            "Mutation",
            f"{printed['mutation']}, factor {printed['mutation_factor']}",
            f"DE/rand/1, factor {used.factor}",
        ),
        (
            "Crossover",
            f"binomial, rate {printed['crossover_rate']}",
            f"binomial, rate {used.crossover}",
        ),
        ("Opposites at the start", "yes", "yes" if used.opposite_init else "no"),
        ("Jumping rate", printed["jumping_rate"], used.jumping),
        ("Genes out of bounds", printed["bounds"], "drawn anew"),
        ("Selection", printed["selection"], "one to one, ties to the trial"),
        ("Seeds of the search", printed["search_seed"], _listed(plan.seeds)),
        ("Objective", printed["objective"], printed["objective"]),
        ("Most multiply-adds", "none", f"{plan.most_gmacs:g} G" if plan.most_gmacs else "none"),
        ("Proxy: share of the data", "1/4", f"1/{plan.proxy.fraction}"),
        (
            "Proxy: epochs, patience",
            f"{printed['proxy_epochs']}, {printed['proxy_patience']}",
            f"{plan.proxy.epochs}, {plan.proxy.patience}",
        ),
        (
            "Proxy: batch, rate",
            f"{printed['proxy_batch_size']}, {printed['proxy_learning_rate']}",
            f"{plan.proxy.batch_size}, {plan.proxy.learning_rate:g}",
        ),
        (
            "Final: epochs, batch, rate",
            f"{printed['final_epochs']}, {printed['final_batch_size']}, "
            f"{printed['final_learning_rate']}",
            f"{plan.final.epochs}, {plan.final.batch_size}, {plan.final.learning_rate:g}",
        ),
        ("Final: seeds", _listed(printed["final_seeds"]), _listed(plan.final_seeds)),
        (
            "Final: initial weights",
            "kernels new, the rest from the search (not stated)",
            "kernels new, the rest from the search" if plan.warm_start else "new",
        ),
    ]
    return pd.DataFrame(
        [
            {"setting": name, "released code": str(theirs), "this run": str(ours)}
            for name, theirs, ours in rows
        ]
    )


def modes_table(plan) -> pd.DataFrame:
    """Where the released search slips and the repaired one differs: choice, paper, clean,
    this run.
    """
    used = plan.settings("ode", plan.seeds[0])
    return pd.DataFrame(
        [
            {
                "choice": name.replace("_", " "),
                "paper": _said(MODES["paper"][name]),
                "clean": _said(MODES["clean"][name]),
                "this run": _said(getattr(used, name)),
            }
            for name in MODES["paper"]
        ]
    )


def _listed(numbers) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _said(value) -> str:
    return (
        {True: "yes", False: "no"}.get(
            value, _listed(value) if isinstance(value, tuple) else str(value)
        )
        if not isinstance(value, str)
        else value
    )


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


def result_table(runs: dict, plan, loaded: dict, resamples: int = 1000) -> pd.DataFrame:
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
        Long: key, data, row, metric, seeds, mean, sd and best over seeds, value (of the first seed)
        with low, high, n, leak_free, leak_free_low, leak_free_high, leak_free_n, and epoch (chosen,
        of the first seed).
    """
    names, rows = dict(plan.datasets), []
    for (key, row), seeds in runs.items():
        tables = [training_predictions.best_predictions(run, "test") for run in seeds.values()]
        inputs, parts = loaded[key]
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
                "best": found.max(),
            }
            for prefix, table in (("", tables[0]), ("leak_free", clean)):
                line |= results.columns(interval(table, which, resamples), prefix)
            rows.append({**line, "epoch": next(iter(seeds.values())).metrics()["best_epoch"]})
    return pd.DataFrame(rows)


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
                        (f"{label}, best seed", by.loc[which, "best"]),
                        (f"{label} 95 %, first seed", results.ends(by.loc[which])),
                    )
                },
                "accuracy, leak-free": by.loc["accuracy", "leak_free"],
            }
        )
    return pd.DataFrame(lines + _printed(list(dict.fromkeys(long["key"]))))


def _printed(keys: list) -> list:
    values, lines = papers.load("pbcnas").values, []
    for name in (
        "resnet18-2.5d",
        "resnet18-3d",
        "resnet18-acs",
        "resnet50-2.5d",
        "resnet50-3d",
        "resnet50-acs",
        "auto-sklearn",
        "autokeras",
    ):
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


def store(writers: dict, long: pd.DataFrame, plan) -> None:
    """Put our trainings of the benchmark's networks beside its printed values, and the average of
    the six sets beside the method's.
    """
    known = papers.load("pbcnas").values
    for (key, row), cells in long.groupby(["key", "row"], sort=False):
        for _, line in cells.iterrows():
            value_id = f"table-4/{row.split(' (')[0]}.{key}/{line['metric']}"
            if row.endswith("(benchmark)") and value_id in known:
                writers[key].value(value_id, line["mean"], n=line["n"])
    best = (
        long[long["row"].str.startswith("found")].groupby(["key", "metric"])["best"].max().unstack()
    )
    if set(best.index) == set(KEYS):
        out = next(iter(writers.values()))
        for which in RATES:
            out.value(f"table-4/ours-3.average/{which}", best[which].mean())


def released_table(found: dict, plan, loaded: dict, resamples: int = 1000) -> pd.DataFrame:
    """The authors' own weights: network, how far its logits are from known ones, AUC and accuracy
    on the test part with 95 % intervals, or why they were not tested.

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
                    results.columns(interval(table, which, resamples), "")
                ),
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
            "accuracy",
            "accuracy 95 %",
            "volumes",
            "accuracy, leak-free",
            "leak-free volumes",
        ],
    )


# --- Tables 5 to 9 --------------------------------------------------------------------------------


def complexity_table(chosen: dict, plan) -> pd.DataFrame:
    """Table 5: parameters with and without dead weights, multiply-adds and reductions against the
    benchmark's 3D ResNets, at the published volume size.

    Parameters
    ----------
    chosen : dict
        (published data set, row) -> (network, ...), from
        :func:`kit.studies.pbcnas.runs.contestants`.
    """
    rows, names = [], dict(plan.datasets)
    entries = [
        (data_title(key, names[key]), row, network, len(registry.get(names[key]).classes))
        for (key, row), (network, _) in chosen.items()
        if row not in RELEASED
    ]
    entries += [
        ("as published", name, released.network, released.classes)
        for name, released in RELEASED.items()
    ]
    for where, row, network, classes in entries:
        parameters, macs = space.parameters(network, classes), space.macs(network, classes)
        line = {
            "data": where,
            "network": title(row),
            "parameters": space.parameters(network, classes, dead=False),
            "parameters, with dead weights": parameters,
            "GMACs": macs / 1e9,
            "2 × GMACs": 2 * macs / 1e9,
        }
        for name in ("resnet18", "resnet50"):
            full = nas3d_resnet.costs(name, "3d", classes)
            line |= {
                f"times fewer parameters than {nas3d_resnet.title(name, '3d')}": full[0]
                / parameters,
                f"times fewer MACs than {nas3d_resnet.title(name, '3d')}": full[1] / macs,
            }
        rows.append(line)
    for name, (network, variant) in RESNETS.items():
        parameters, macs = nas3d_resnet.costs(network, variant)
        rows.append(
            {
                "data": "two classes",
                "network": title(name),
                "parameters": parameters,
                "parameters, with dead weights": parameters,
                "GMACs": macs / 1e9,
                "2 × GMACs": 2 * macs / 1e9,
            }
        )
    return pd.DataFrame(rows)


def speed_table(times: dict, peaks: dict, plan) -> pd.DataFrame:
    """What was measured of the networks, beside Table 5: network, device, voxels, median, lowest
    and highest milliseconds for a volume, megabytes that a training step adds.

    Parameters
    ----------
    times, peaks : dict
        From :func:`kit.studies.pbcnas.costs.latency` and :func:`kit.studies.pbcnas.costs.memory`.
    """
    table = timing.timing_table(times).rename(
        columns={
            "model": "network",
            "median": "volume (ms)",
            "min": "fastest (ms)",
            "max": "slowest (ms)",
        }
    )
    table = table.assign(
        **{
            "voxels": " × ".join([str(plan.edge)] * 3),
            f"training step of {plan.final.batch_size} (MB)": [
                np.nan if peaks[name] is None else peaks[name] / 1e6 for name in table["network"]
            ],
        }
    )
    return table[
        [
            "network",
            "device",
            "voxels",
            "volume (ms)",
            "fastest (ms)",
            "slowest (ms)",
            table.columns[-1],
        ]
    ]


def store_reductions(out) -> None:
    """Put the largest reductions of the released networks that the text may mean beside its claims:
    ResNet-18 3D over adrenal-90, ResNet-50 3D over synapse-223.
    """
    adrenal, synapse = RELEASED["adrenal-90"], RELEASED["synapse-223"]
    out.value(
        "claims/flops-reduction",
        nas3d_resnet.costs("resnet18", "3d")[1] / space.macs(adrenal.network, 2),
        exact=True,
    )
    out.value(
        "claims/parameter-reduction",
        nas3d_resnet.costs("resnet50", "3d")[0] / space.parameters(synapse.network, 2),
        exact=True,
    )


def trade_off_rows(searched: dict, long: pd.DataFrame, chosen: dict, plan) -> pd.DataFrame:
    """Rows of Figure 3: data, title, kind, accuracy (percent; of candidates the proxy's validation
    accuracy) with low and high, parameters, macs, all at this run's volume size.
    """
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        classes, result = len(registry.get(names[key]).classes), next(iter(methods["ode"].values()))
        where = data_title(key, names[key])
        rows += [
            {
                "data": where,
                "title": f"candidate {c.number}",
                "kind": "candidate",
                "accuracy": 100 * c.fitness,
                **_size(network_of(result, c), classes, plan.edge),
            }
            for c in ranked(result)
        ]
        for row, cells in long[long["key"] == key].groupby("row", sort=False):
            line, resnet = (
                cells.set_index("metric").loc["accuracy"],
                RESNETS.get(row.removesuffix(" (pbcnas)")),
            )
            if row.endswith("(benchmark)"):
                continue
            size = (
                dict(
                    zip(
                        ("parameters", "macs"),
                        nas3d_resnet.costs(*resnet, classes, plan.edge, 1, plan.resnet_width),
                        strict=True,
                    )
                )
                if resnet
                else _size(chosen[key, row][0], classes, plan.edge)
            )
            kind = "ResNet" if resnet else "released" if row in RELEASED else "found"
            rows.append(
                {
                    "data": where,
                    "title": title(row),
                    "kind": kind,
                    "accuracy": 100 * line["value"],
                    "low": 100 * line["low"],
                    "high": 100 * line["high"],
                    **size,
                }
            )
    return pd.DataFrame(rows)


def _size(network, classes: int, edge: int) -> dict:
    return {
        "parameters": space.parameters(network, classes, dead=False),
        "macs": space.macs(network, classes, edge),
    }


def transfer_table(runs: dict, trained: dict, plan) -> pd.DataFrame:
    """Table 6: source, target, kind, AUC, accuracy; on the diagonal also the network's own
    training.
    """
    names, seed, rows = dict(plan.datasets), plan.final_seeds[0], []
    for key in names:
        if seed in trained.get((key, "found 1"), {}):
            runs = {(key, key, "own training"): trained[key, "found 1"][seed], **runs}
    for (source, target, kind), run in runs.items():
        table = training_predictions.best_predictions(run, "test")
        rows.append(
            {
                "source": data_title(source, names[source]),
                "target": data_title(target, names[target]),
                "kind": kind,
                **{which: rate(table, which) for which in RATES},
            }
        )
    return pd.DataFrame(rows, columns=["source", "target", "kind", *RATES])


def cost_table(searched: dict, plan) -> pd.DataFrame:
    """Table 7: what each search trained and what it cost."""
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        for method, seeds in methods.items():
            for seed, result in seeds.items():
                log, books = result.algorithm.log, result.algorithm.books
                rows.append(
                    {
                        "data": data_title(key, names[key]),
                        "search": METHODS[method],
                        "seed": seed,
                        "candidates": len(log),
                        "trained": books.trained,
                        "infeasible": books.infeasible - books.rejected,
                        "too costly": books.rejected,
                        "duplicates": books.duplicates,
                        "failed": books.failed,
                        "left at the end": sum(c.dropped for c in log),
                        "best fitness": result.algorithm.best.fitness,
                        "hours": result.history["seconds"].sum() / 3600,
                    }
                )
    return pd.DataFrame(rows)


def control_table(searched: dict, long: pd.DataFrame, plan) -> pd.DataFrame:
    """Table 8: best fitness over search seeds and final test results of each method's best
    candidate, at the same budget.
    """
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        for method, seeds in methods.items():
            fitness = np.array([result.algorithm.best.fitness for result in seeds.values()])
            mine = (
                long[
                    (long["key"] == key)
                    & (long["row"] == ("found 1" if method == "ode" else method))
                ].set_index("metric")
                if len(long)
                else long
            )
            test = {
                name: mine.loc[which, column] if len(mine) else np.nan
                for which, label in (("auc", "AUC"), ("accuracy", "accuracy"))
                for name, column in ((label, "mean"), (f"{label}, sd", "sd"))
            }
            rows.append(
                {
                    "data": data_title(key, names[key]),
                    "search": METHODS[method],
                    "search seeds": len(fitness),
                    "best fitness": fitness.mean(),
                    "best fitness, sd": fitness.std(ddof=1) if len(fitness) > 1 else np.nan,
                    **test,
                }
            )
    return pd.DataFrame(rows)


def fidelity_rows(found: dict, plan) -> pd.DataFrame:
    """One line a retrained candidate: data, candidate, fitness, parameters, AUC, accuracy.

    Parameters
    ----------
    found : dict
        From :func:`kit.studies.pbcnas.runs.foretold`.
    """
    names = dict(plan.datasets)
    rows = [
        {
            "data": data_title(key, names[key]),
            "candidate": candidate.number,
            "fitness": candidate.fitness,
            **_size(network, 2, plan.edge),
            **{
                which: rate(training_predictions.best_predictions(run, "test"), which)
                for which in RATES
            },
        }
        for key, entries in found.items()
        for candidate, network, run in entries
    ]
    return pd.DataFrame(
        rows, columns=["data", "candidate", "fitness", "parameters", "macs", *RATES]
    )


def fidelity_table(rows: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Table 9: rank correlations of the proxy's fitness with test AUC and accuracy, with bootstrap
    intervals over candidates.

    Returns
    -------
    pandas.DataFrame
        data, metric, candidates, Spearman, low, high, Kendall; NaN where all values are equal or
        fewer than 3 candidates were retrained.
    """
    lines, rng = [], np.random.default_rng(seed)
    for where, group in rows.groupby("data", sort=False):
        draws = rng.integers(0, len(group), (resamples, len(group)))
        for which, label in (("auc", "AUC"), ("accuracy", "accuracy")):
            x, y = group["fitness"].to_numpy(), group[which].to_numpy()
            found = [s for d in draws if np.isfinite(s := _spearman(x[d], y[d]))]
            low, high = (
                np.percentile(found, [2.5, 97.5]) if len(group) > 2 and found else (np.nan, np.nan)
            )
            kendall = kendalltau(x, y).statistic if len(group) > 2 else np.nan
            lines.append(
                {
                    "data": where,
                    "with test": label,
                    "candidates": len(group),
                    "Spearman": _spearman(x, y),
                    "low": low,
                    "high": high,
                    "Kendall": kendall,
                }
            )
    return pd.DataFrame(
        lines, columns=["data", "with test", "candidates", "Spearman", "low", "high", "Kendall"]
    )


def validation_table(searched: dict, loaded: dict, plan) -> pd.DataFrame:
    """What the proxy's few validation volumes can tell: data, volumes, weight of one, best fitness
    with Wilson's interval, and how many candidates share it or lie within the interval.
    """
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        n, result = (
            len(nas3d_proxy.parts(loaded[key][0], plan.proxy)["val"]),
            next(iter(methods["ode"].values())),
        )
        fitness = np.array([candidate.fitness for candidate in ranked(result)])
        found = stats.wilson(round(fitness[0] * n), n)
        rows.append(
            {
                "data": data_title(key, names[key]),
                "validation volumes": n,
                "one volume (pp)": 100 / n,
                "best fitness": fitness[0],
                "low": found.low,
                "high": found.high,
                "candidates": len(fitness),
                "as good": int((fitness == fitness[0]).sum()),
                "within the interval": int((fitness >= found.low).sum()),
            }
        )
    return pd.DataFrame(rows)


def _spearman(x, y) -> float:
    return (
        spearmanr(x, y).statistic if len(x) > 2 and len(set(x)) > 1 and len(set(y)) > 1 else np.nan
    )


# --- answers --------------------------------------------------------------------------------------


def differences(runs: dict, plan, other: str) -> pd.DataFrame:
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
                100 * np.array([rate(table, which) for table in tables])
                for tables in (first, second)
            )
            rows.append(
                {
                    "data": data_title(key, names[key]),
                    "against": title(other),
                    "metric": which,
                    "seeds": len(seeds),
                    "difference": (x - y).mean(),
                    **results.seed_spread(x, y),
                }
            )
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
